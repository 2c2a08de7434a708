/* The subscription index: a trie over levels whose edges live in one hash map. */
#include "core/bus/trie.h"

#include "base/err.h"
#include "core/bus/topic.h"

#include <assert.h>
#include <stdlib.h>

enum { EDGE_MAX = 8 + CULE_TOPIC_OWN_MAX };

struct cule_trie_node {
    uint64_t number;
    struct cule_trie_node *parent;
    struct cule_trie_node *plus; /* the child for '+' */
    struct cule_trie_node *hash; /* the child for '#', which has no children */
    struct cule_list items;
    unsigned children;
    char kind;        /* '+', '#', or 0 for a plain level */
    uint16_t key_len; /* the edge that leads here, as in trie.edges */
    uint8_t key[];
};

void cule_trie_init(struct cule_trie *t, uint64_t seed)
{
    *t = (struct cule_trie){0};
    cule_strmap_init(&t->edges, seed);
}

void cule_trie_release(struct cule_trie *t)
{
    assert(t->edges.count == 0);
    if (t->root) {
        assert(t->root->children == 0 && cule_list_empty(&t->root->items));
        free(t->root);
    }
    cule_strmap_release(&t->edges);
    t->root = NULL;
}

static size_t edge_key(uint8_t key[EDGE_MAX], uint64_t number, const char *level, size_t n)
{
    cule_put64(key, number);
    memcpy(key + 8, level, n);
    return n + 8;
}

static struct cule_trie_node *node_new(struct cule_trie *t, struct cule_trie_node *parent, const char *level, size_t n)
{
    struct cule_trie_node *c = calloc(1, sizeof *c + 8 + n);
    if (!c) {
        return NULL;
    }
    cule_list_init(&c->items);
    c->number = ++t->last_number;
    c->parent = parent;
    if (!parent) {
        return c;
    }
    bool wild = n == 1 && (level[0] == '+' || level[0] == '#');
    c->kind = wild ? level[0] : 0;
    if (!wild) {
        c->key_len = (uint16_t)edge_key(c->key, parent->number, level, n);
        if (cule_strmap_put(&t->edges, c->key, c->key_len, c)) {
            free(c);
            return NULL;
        }
    } else if (c->kind == '+') {
        parent->plus = c;
    } else {
        parent->hash = c;
    }
    parent->children++;
    return c;
}

static struct cule_trie_node *child(const struct cule_trie *t, const struct cule_trie_node *at, const char *level,
                                    size_t n)
{
    if (n == 1 && level[0] == '+') {
        return at->plus;
    }
    if (n == 1 && level[0] == '#') {
        return at->hash;
    }
    uint8_t key[EDGE_MAX];
    return cule_strmap_get(&t->edges, key, edge_key(key, at->number, level, n));
}

/* Frees nodes that nothing needs any more, from `at` upwards. */
static void prune(struct cule_trie *t, struct cule_trie_node *at)
{
    while (at->parent && at->children == 0 && cule_list_empty(&at->items)) {
        struct cule_trie_node *up = at->parent;
        if (at->kind == '+') {
            up->plus = NULL;
        } else if (at->kind == '#') {
            up->hash = NULL;
        } else {
            cule_strmap_take(&t->edges, at->key, at->key_len);
        }
        up->children--;
        free(at);
        at = up;
    }
}

int cule_trie_add(struct cule_trie *t, const char *pattern, size_t n, struct cule_trie_item *item)
{
    if (!t->root && !(t->root = node_new(t, NULL, "", 0))) {
        return CULE_ENOMEM;
    }
    struct cule_trie_node *at = t->root;
    for (size_t i = 0; i < n;) {
        const char *slash = memchr(pattern + i, '/', n - i);
        size_t len = slash ? (size_t)(slash - pattern) - i : n - i;
        struct cule_trie_node *next = child(t, at, pattern + i, len);
        if (!next && !(next = node_new(t, at, pattern + i, len))) {
            prune(t, at);
            return CULE_ENOMEM;
        }
        at = next;
        i += len + 1;
    }
    cule_list_push(&at->items, &item->node);
    item->at = at;
    return 0;
}

void cule_trie_remove(struct cule_trie *t, struct cule_trie_item *item)
{
    if (item->at) {
        cule_list_remove(&item->node);
        prune(t, item->at);
        item->at = NULL;
    }
}

static void emit(const struct cule_trie_node *at, cule_trie_fn *fn, void *arg)
{
    if (at) {
        CULE_LIST_EACH (n, &at->items) {
            fn(arg, CULE_LIST_ENTRY(n, struct cule_trie_item, node));
        }
    }
}

/* Depth is bounded by a topic's levels, 150 at most. */
static void descend(const struct cule_trie *t, const struct cule_trie_node *at, const char *rest, size_t n, bool own,
                    cule_trie_fn *fn, void *arg)
{
    if (!own) {
        emit(at->hash, fn, arg);
    }
    if (n == 0) {
        emit(at, fn, arg);
        return;
    }
    const char *slash = memchr(rest, '/', n);
    size_t len = slash ? (size_t)(slash - rest) : n;
    size_t step = slash ? len + 1 : n;
    uint8_t key[EDGE_MAX];
    const struct cule_trie_node *exact = cule_strmap_get(&t->edges, key, edge_key(key, at->number, rest, len));
    if (exact) {
        descend(t, exact, rest + step, n - step, false, fn, arg);
    }
    if (at->plus && !own) {
        descend(t, at->plus, rest + step, n - step, false, fn, arg);
    }
}

void cule_trie_match(const struct cule_trie *t, const char *topic, size_t n, cule_trie_fn *fn, void *arg)
{
    if (t->root) {
        descend(t, t->root, topic, n, topic[0] == '$', fn, arg);
    }
}

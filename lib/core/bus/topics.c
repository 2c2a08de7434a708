/* The table of topics, and for each the targets that take it. */
#include "core/bus/internal.h"

#include <stdlib.h>

enum { EVICT_LOOK = 64 }; /* topics looked at to make room for one */

struct cule_bus_topic *cule_bus_topic_find(struct cule_bus *b, const char *name, size_t n)
{
    return cule_strmap_get(&b->topics_by_name, name, n);
}

static bool idle(const struct cule_bus_topic *t)
{
    return t->live == 0 && t->users == 0 && t->pending == 0 && !t->retained && t->history.count == 0 && !t->first_disk;
}

/* Forgets an idle topic. Its numbers are never given out again. */
static bool make_room(struct cule_bus *b)
{
    for (int i = 0; i < EVICT_LOOK; i++) {
        struct cule_list *n = cule_list_pop(&b->topics);
        if (!n) {
            return false;
        }
        cule_list_push(&b->topics, n);
        struct cule_bus_topic *t = CULE_LIST_ENTRY(n, struct cule_bus_topic, node);
        if (idle(t)) {
            cule_bus_topic_free(b, t);
            return true;
        }
    }
    return false;
}

int cule_bus_topic_get(struct cule_bus *b, const char *name, size_t n, struct cule_bus_topic **out,
                       struct cule_err *err)
{
    struct cule_bus_topic *t = cule_bus_topic_find(b, name, n);
    if (t) {
        *out = t;
        return 0;
    }
    int rc = cule_topic_check(name, n, err);
    if (rc) {
        return rc;
    }
    if (b->cfg.limits.topics && b->stats.topics >= b->cfg.limits.topics && !make_room(b)) {
        return cule_err_set(err, CULE_ELIMIT, "%u topics hold something already", b->cfg.limits.topics);
    }
    t = calloc(1, sizeof *t + n + 1);
    if (!t) {
        return CULE_ENOMEM;
    }
    memcpy(t->name, name, n);
    t->len = (uint16_t)n;
    t->number = ++b->last_topic;
    t->seq = t->committed = b->seq_floor;
    cule_list_init(&t->kept);
    rc = cule_strmap_put(&b->topics_by_name, t->name, n, t);
    if (rc) {
        free(t);
        return rc;
    }
    cule_list_push(&b->topics, &t->node);
    b->stats.topics++;
    cule_bus_policy_apply(b, t);
    *out = t;
    return 0;
}

static void targets_free(struct cule_bus *b, struct cule_bus_targets *v)
{
    b->match_bytes -= v->cap * sizeof *v->v;
    free(v->v);
    *v = (struct cule_bus_targets){0};
}

void cule_bus_topic_free(struct cule_bus *b, struct cule_bus_topic *t)
{
    cule_bus_history_clear(b, t);
    cule_bus_set_retained(b, t, NULL);
    targets_free(b, &t->plain);
    targets_free(b, &t->responders);
    cule_strmap_take(&b->topics_by_name, t->name, t->len);
    cule_list_remove(&t->node);
    cule_list_remove(&t->kept);
    b->seq_floor = CULE_MAX(b->seq_floor, t->seq);
    b->stats.topics--;
    free(t);
}

void cule_bus_topic_kept(struct cule_bus *b, struct cule_bus_topic *t)
{
    bool kept = t->retained || t->history.count || t->first_disk;
    if (kept && cule_list_empty(&t->kept)) {
        cule_list_push(&b->kept, &t->kept);
    } else if (!kept) {
        cule_list_remove(&t->kept);
    }
}

struct building {
    struct cule_bus *b;
    struct cule_bus_targets *v;
    bool failed;
};

static void add_target(void *arg, struct cule_trie_item *item)
{
    struct building *g = arg;
    struct cule_bus_targets *v = g->v;
    if (v->n == v->cap) {
        uint32_t cap = v->cap ? v->cap * 2 : 4;
        struct cule_bus_target **bigger = realloc(v->v, cap * sizeof *bigger);
        if (!bigger) {
            g->failed = true;
            return;
        }
        g->b->match_bytes += (cap - v->cap) * sizeof *bigger;
        v->v = bigger;
        v->cap = cap;
    }
    v->v[v->n++] = CULE_CONTAINER(item, struct cule_bus_target, item);
}

/* Forgets every list: they are too many. */
static void forget_all(struct cule_bus *b)
{
    CULE_LIST_EACH (n, &b->topics) {
        struct cule_bus_topic *t = CULE_LIST_ENTRY(n, struct cule_bus_topic, node);
        targets_free(b, &t->plain);
        targets_free(b, &t->responders);
    }
}

static const struct cule_bus_targets *build(struct cule_bus *b, struct cule_bus_topic *t, struct cule_bus_targets *v,
                                            const struct cule_trie *trie)
{
    if (b->match_bytes > BUS_MATCH_BYTES) {
        forget_all(b);
    }
    struct building g = {b, v, false};
    v->n = 0;
    cule_trie_match(trie, t->name, t->len, add_target, &g);
    v->generation = g.failed ? 0 : b->generation; /* what is missing is looked for again with the next publish */
    b->stats.match_builds++;
    return v;
}

const struct cule_bus_targets *cule_bus_topic_plain(struct cule_bus *b, struct cule_bus_topic *t)
{
    return t->plain.generation == b->generation ? &t->plain : build(b, t, &t->plain, &b->trie);
}

const struct cule_bus_targets *cule_bus_topic_responders(struct cule_bus *b, struct cule_bus_topic *t)
{
    return t->responders.generation == b->generation ? &t->responders : build(b, t, &t->responders, &b->responders);
}

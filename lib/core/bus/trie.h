/*
 * The subscription index: patterns in, and for a topic all items whose pattern takes it. Items are the caller's and
 * embed struct cule_trie_item. A look-up visits one node per level and per wildcard on the way.
 */
#ifndef CULE_CORE_BUS_TRIE_H
#define CULE_CORE_BUS_TRIE_H

#include "base/list.h"
#include "base/strmap.h"

struct cule_trie_node;

struct cule_trie_item {
    struct cule_list node;
    struct cule_trie_node *at; /* NULL when in no trie */
};

struct cule_trie {
    struct cule_strmap edges; /* number of the parent, then the level's bytes -> node */
    struct cule_trie_node *root;
    uint64_t last_number;
};

void cule_trie_init(struct cule_trie *t, uint64_t seed);
/* All items must have been removed. */
void cule_trie_release(struct cule_trie *t);

/* Adds an item under a valid pattern. 0 or CULE_ENOMEM. */
int cule_trie_add(struct cule_trie *t, const char *pattern, size_t n, struct cule_trie_item *item);
/* Takes it out; harmless when it is in none. */
void cule_trie_remove(struct cule_trie *t, struct cule_trie_item *item);

/* Calls fn for each item whose pattern takes the valid topic, once each, in an order that depends on the history of
 * adds and removes alone. */
typedef void cule_trie_fn(void *arg, struct cule_trie_item *item);
void cule_trie_match(const struct cule_trie *t, const char *topic, size_t n, cule_trie_fn *fn, void *arg);

#endif

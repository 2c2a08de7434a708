/*
 * A binary heap of deadlines. Nodes are the caller's; each knows its place, so that it can be moved or taken out.
 */
#ifndef CULE_BASE_HEAP_H
#define CULE_BASE_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct cule_heap_node {
    uint64_t key; /* smallest first */
    size_t at;    /* 1-based place in the heap; 0 when in none. Zero it before first use. */
};

struct cule_heap {
    struct cule_heap_node **nodes;
    size_t count;
    size_t size;
};

void cule_heap_init(struct cule_heap *h);
void cule_heap_release(struct cule_heap *h); /* the nodes are not touched */

/* Adds a node, or moves one that is in. 0 or CULE_ENOMEM. */
int cule_heap_put(struct cule_heap *h, struct cule_heap_node *n, uint64_t key);
/* Takes a node out; harmless when it is in none. */
void cule_heap_remove(struct cule_heap *h, struct cule_heap_node *n);
/* The node with the smallest key, which stays in; NULL when empty. */
struct cule_heap_node *cule_heap_top(const struct cule_heap *h);

#endif

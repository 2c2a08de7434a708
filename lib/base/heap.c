/* A binary heap of deadlines whose nodes know their places. */
#include "base/heap.h"

#include "base/err.h"

#include <stdlib.h>

void cule_heap_init(struct cule_heap *h)
{
    *h = (struct cule_heap){0};
}

void cule_heap_release(struct cule_heap *h)
{
    free(h->nodes);
    *h = (struct cule_heap){0};
}

static void set(struct cule_heap *h, size_t at, struct cule_heap_node *n)
{
    h->nodes[at - 1] = n;
    n->at = at;
}

/* Lets the node at `at` rise or sink to where it belongs. */
static void settle(struct cule_heap *h, size_t at)
{
    struct cule_heap_node *n = h->nodes[at - 1];
    while (at > 1 && h->nodes[at / 2 - 1]->key > n->key) {
        set(h, at, h->nodes[at / 2 - 1]);
        at /= 2;
    }
    for (;;) {
        size_t kid = at * 2;
        if (kid > h->count) {
            break;
        }
        if (kid < h->count && h->nodes[kid]->key < h->nodes[kid - 1]->key) {
            kid++;
        }
        if (h->nodes[kid - 1]->key >= n->key) {
            break;
        }
        set(h, at, h->nodes[kid - 1]);
        at = kid;
    }
    set(h, at, n);
}

int cule_heap_put(struct cule_heap *h, struct cule_heap_node *n, uint64_t key)
{
    if (n->at == 0) {
        if (h->count == h->size) {
            size_t size = h->size ? h->size * 2 : 8;
            struct cule_heap_node **nodes = realloc(h->nodes, size * sizeof *nodes);
            if (!nodes) {
                return CULE_ENOMEM;
            }
            h->nodes = nodes;
            h->size = size;
        }
        h->count++;
        set(h, h->count, n);
    }
    n->key = key;
    settle(h, n->at);
    return 0;
}

void cule_heap_remove(struct cule_heap *h, struct cule_heap_node *n)
{
    if (n->at == 0) {
        return;
    }
    size_t at = n->at;
    struct cule_heap_node *last = h->nodes[h->count - 1];
    h->count--;
    n->at = 0;
    if (last != n) {
        set(h, at, last);
        settle(h, at);
    }
}

struct cule_heap_node *cule_heap_top(const struct cule_heap *h)
{
    return h->count ? h->nodes[0] : NULL;
}

/* What waits for a subscription: rings of entries, one for each priority. */
#include "core/bus/queue.h"

#include <assert.h>
#include <stdlib.h>

enum { RING_MIN = 8 };

static int grow(struct cule_bus_ring *r)
{
    uint32_t cap = r->cap ? r->cap * 2 : RING_MIN;
    struct cule_bus_entry *v = malloc(cap * sizeof *v);
    if (!v) {
        return CULE_ENOMEM;
    }
    for (uint32_t i = 0; i < r->count; i++) {
        v[i] = r->v[(r->head + i) & (r->cap - 1)];
    }
    free(r->v);
    r->v = v;
    r->head = 0;
    r->cap = cap;
    return 0;
}

int cule_bus_queue_push(struct cule_bus_queue *q, unsigned priority, const struct cule_bus_entry *e)
{
    struct cule_bus_ring *r = &q->ring[priority];
    if (r->count == r->cap && grow(r)) {
        return CULE_ENOMEM;
    }
    r->v[(r->head + r->count++) & (r->cap - 1)] = *e;
    q->count++;
    return 0;
}

int cule_bus_queue_push_front(struct cule_bus_queue *q, unsigned priority, const struct cule_bus_entry *e)
{
    struct cule_bus_ring *r = &q->ring[priority];
    if (r->count == r->cap && grow(r)) {
        return CULE_ENOMEM;
    }
    r->head = (r->head - 1) & (r->cap - 1);
    r->v[r->head] = *e;
    r->count++;
    q->count++;
    return 0;
}

struct cule_bus_entry *cule_bus_queue_front(struct cule_bus_queue *q, unsigned priority)
{
    assert(q->ring[priority].count);
    return &q->ring[priority].v[q->ring[priority].head];
}

static void taken(struct cule_bus_queue *q, struct cule_bus_ring *r)
{
    r->count--;
    q->count--;
    if (r->count == 0) {
        free(r->v);
        *r = (struct cule_bus_ring){0};
    }
}

struct cule_bus_entry cule_bus_queue_pop(struct cule_bus_queue *q, unsigned priority)
{
    struct cule_bus_ring *r = &q->ring[priority];
    struct cule_bus_entry e = *cule_bus_queue_front(q, priority);
    r->head = (r->head + 1) & (r->cap - 1);
    taken(q, r);
    return e;
}

struct cule_bus_entry cule_bus_queue_pop_newest(struct cule_bus_queue *q, unsigned priority)
{
    struct cule_bus_ring *r = &q->ring[priority];
    assert(r->count);
    struct cule_bus_entry e = r->v[(r->head + r->count - 1) & (r->cap - 1)];
    taken(q, r);
    return e;
}

uint64_t cule_bus_queue_oldest(const struct cule_bus_queue *q)
{
    uint64_t oldest = UINT64_MAX;
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        const struct cule_bus_ring *r = &q->ring[p];
        if (r->count && r->v[r->head].since_ns < oldest) {
            oldest = r->v[r->head].since_ns;
        }
    }
    return oldest;
}

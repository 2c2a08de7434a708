/*
 * What waits for a subscription: a ring of entries for each priority. Holds no memory while empty. The messages'
 * references belong to whoever puts and takes.
 */
#ifndef CULE_CORE_BUS_QUEUE_H
#define CULE_CORE_BUS_QUEUE_H

#include "wire/frame.h"

struct cule_bus_msg;

struct cule_bus_entry {
    struct cule_bus_msg *msg;
    uint64_t since_ns;   /* when it began to wait */
    uint32_t deliveries; /* so far */
    uint16_t flags;      /* CULE_RETAIN for a retained message that is replayed */
};

struct cule_bus_ring {
    struct cule_bus_entry *v;
    uint32_t head, count, cap; /* cap: a power of two, or 0 */
};

struct cule_bus_queue {
    struct cule_bus_ring ring[CULE_PRIORITIES];
    uint64_t bytes; /* counted by the caller */
    uint32_t count;
};

/* 0 or CULE_ENOMEM. */
int cule_bus_queue_push(struct cule_bus_queue *q, unsigned priority, const struct cule_bus_entry *e);
int cule_bus_queue_push_front(struct cule_bus_queue *q, unsigned priority, const struct cule_bus_entry *e);
/* The oldest and the newest of a priority; the ring must not be empty. */
struct cule_bus_entry *cule_bus_queue_front(struct cule_bus_queue *q, unsigned priority);
struct cule_bus_entry cule_bus_queue_pop(struct cule_bus_queue *q, unsigned priority);
struct cule_bus_entry cule_bus_queue_pop_newest(struct cule_bus_queue *q, unsigned priority);
/* The earliest since_ns of all; UINT64_MAX when empty. Fronts alone are looked at. */
uint64_t cule_bus_queue_oldest(const struct cule_bus_queue *q);

#endif

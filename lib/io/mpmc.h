/*
 * A bounded lock-free queue of pointers for many producers and many consumers in one process, and a place to sleep
 * until something happens. After D. Vyukov, "Bounded MPMC queue" (1024cores): each cell carries a sequence number
 * that says whose turn it is, so a push and a pop touch one shared counter and one cell each.
 * The queue does not own what the pointers point at. A pointer may be NULL.
 */
#ifndef CULE_IO_MPMC_H
#define CULE_IO_MPMC_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CULE_MPMC_CAPACITY_MAX = 1 << 24, CULE_CACHE_PAIR = 128 };

/* A place to sleep: look, prepare, look again, sleep. Nothing but a counter is touched while nobody sleeps. */
struct cule_eventcount {
    uint32_t epoch __attribute__((aligned(CULE_CACHE_PAIR))); /* the futex */
    uint32_t sleepers;
};

/* Says "I am going to sleep" and returns the ticket for sleep; look again in between, then sleep or cancel. */
uint32_t cule_eventcount_prepare(struct cule_eventcount *e);
void cule_eventcount_cancel(struct cule_eventcount *e);
/* False once the deadline (CULE_NEVER: none) has passed; true: look again. */
bool cule_eventcount_sleep(struct cule_eventcount *e, uint32_t ticket, uint64_t deadline_ns);
/* Wakes up to n sleepers; called after what they wait for was stored. True if there was anybody to wake. */
bool cule_eventcount_wake(struct cule_eventcount *e, int n);

struct cule_mpmc_cell {
    uint64_t sequence;
    void *item;
};

struct cule_mpmc {
    struct cule_mpmc_cell *cells;
    uint64_t mask;
    bool closed;
    uint64_t tail __attribute__((aligned(CULE_CACHE_PAIR))); /* the next push */
    uint64_t head __attribute__((aligned(CULE_CACHE_PAIR))); /* the next pop */
    struct cule_eventcount event;
};

/* capacity: a power of two from 2 to CULE_MPMC_CAPACITY_MAX. 0, CULE_EUSAGE or CULE_ENOMEM. */
int cule_mpmc_init(struct cule_mpmc *q, size_t capacity, struct cule_err *err);
/* Nobody may be using the queue any more. */
void cule_mpmc_release(struct cule_mpmc *q);

/* 0, CULE_EAGAIN (full, or the pop that frees the cell is not finished yet) or CULE_ECLOSED. Never blocks; wakes one
 * sleeper. */
int cule_mpmc_push(struct cule_mpmc *q, void *item);
/* 1 with *item, or 0. Never blocks. 0 may also mean that the push of the oldest item is not finished yet; that push
 * wakes a sleeper when it is. */
int cule_mpmc_pop(struct cule_mpmc *q, void **item);
/* 1 with *item, CULE_ETIMEOUT, or CULE_ECLOSED once it is closed and empty. Negative timeout_ms: no deadline. */
int cule_mpmc_pop_wait(struct cule_mpmc *q, void **item, int timeout_ms);
/* Later pushes fail, sleepers get what is left and then CULE_ECLOSED. A push under way at the same time may still
 * succeed. */
void cule_mpmc_close(struct cule_mpmc *q);
/* Items in the queue, as far as that can be said while others use it. */
size_t cule_mpmc_len(const struct cule_mpmc *q);

#endif

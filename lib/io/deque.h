/*
 * A work-stealing deque of pointers, bounded: its owner pushes and takes at the bottom, any thread steals at the top.
 * After D. Chase and Y. Lev, "Dynamic circular work-stealing deque" (SPAA 2005), with the memory orders of N. M. Le,
 * A. Pop, A. Cohen, F. Zappa Nardelli, "Correct and efficient work-stealing for weak memory models" (PPoPP 2013). Their
 * two fences are written here as sequentially consistent accesses to top and bottom: the same instructions on
 * x86-64 (a swap instead of a store and a fence), and visible to the thread sanitizer, which fences are not.
 */
#ifndef CULE_IO_DEQUE_H
#define CULE_IO_DEQUE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct cule_deque {
    void **items;
    int64_t mask;
    int64_t top __attribute__((aligned(128)));    /* the next to steal */
    int64_t bottom __attribute__((aligned(128))); /* the next to push */
};

/* capacity: a power of two from 2 to 2^24. 0, CULE_EUSAGE or CULE_ENOMEM. */
int cule_deque_init(struct cule_deque *d, size_t capacity, struct cule_err *err);
void cule_deque_release(struct cule_deque *d);

/* The owner's: 0 or CULE_EAGAIN (full). */
int cule_deque_push(struct cule_deque *d, void *item);
/* The owner's, the youngest item: 1, or 0. */
int cule_deque_take(struct cule_deque *d, void **item);
/* Anybody's, the oldest item: 1, 0 empty, CULE_EAGAIN (another was quicker: there may be more). */
int cule_deque_steal(struct cule_deque *d, void **item);

#endif

/* The work-stealing deque. */
#include "io/deque.h"

#include <stdbool.h>
#include <stdlib.h>

int cule_deque_init(struct cule_deque *d, size_t capacity, struct cule_err *err)
{
    if (capacity < 2 || capacity > 1 << 24 || (capacity & (capacity - 1))) {
        return cule_err_set(err, CULE_EUSAGE, "a deque of %zu cannot be: a power of two from 2 to %d", capacity,
                            1 << 24);
    }
    *d = (struct cule_deque){.mask = (int64_t)capacity - 1};
    d->items = calloc(capacity, sizeof *d->items);
    return d->items ? 0 : cule_err_set(err, CULE_ENOMEM, "out of memory for a deque of %zu", capacity);
}

void cule_deque_release(struct cule_deque *d)
{
    free(d->items);
    d->items = NULL;
}

int cule_deque_push(struct cule_deque *d, void *item)
{
    int64_t bottom = __atomic_load_n(&d->bottom, __ATOMIC_RELAXED);
    int64_t top = __atomic_load_n(&d->top, __ATOMIC_ACQUIRE);
    if (bottom - top > d->mask) {
        return CULE_EAGAIN;
    }
    __atomic_store_n(&d->items[bottom & d->mask], item, __ATOMIC_RELAXED);
    __atomic_store_n(&d->bottom, bottom + 1, __ATOMIC_RELEASE); /* a thief that sees it sees the item */
    return 0;
}

int cule_deque_take(struct cule_deque *d, void **item)
{
    int64_t bottom = __atomic_load_n(&d->bottom, __ATOMIC_RELAXED) - 1;
    /* The claim must be seen by thieves before top is read, or both could take the last item. */
    __atomic_store_n(&d->bottom, bottom, __ATOMIC_SEQ_CST);
    int64_t top = __atomic_load_n(&d->top, __ATOMIC_SEQ_CST);
    if (top > bottom) {
        __atomic_store_n(&d->bottom, bottom + 1, __ATOMIC_RELEASE);
        return 0;
    }
    *item = __atomic_load_n(&d->items[bottom & d->mask], __ATOMIC_RELAXED);
    if (top == bottom) { /* the last one: a thief may be after it */
        int got = __atomic_compare_exchange_n(&d->top, &top, top + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        __atomic_store_n(&d->bottom, bottom + 1, __ATOMIC_RELEASE);
        return got;
    }
    return 1;
}

int cule_deque_steal(struct cule_deque *d, void **item)
{
    int64_t top = __atomic_load_n(&d->top, __ATOMIC_SEQ_CST);
    int64_t bottom = __atomic_load_n(&d->bottom, __ATOMIC_SEQ_CST);
    if (top >= bottom) {
        return 0;
    }
    /* Read before it is won: afterwards the owner may push over it. */
    void *seen = __atomic_load_n(&d->items[top & d->mask], __ATOMIC_RELAXED);
    if (!__atomic_compare_exchange_n(&d->top, &top, top + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        return CULE_EAGAIN;
    }
    *item = seen;
    return 1;
}

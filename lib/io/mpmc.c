/* The bounded queue for many producers and consumers, and the sleeping that goes with it. */
#include "io/mpmc.h"

#include "io/futex.h"

#include <stdlib.h>

/*
 * No wake-up is lost: a sleeper counts itself (a read-modify-write, hence a full barrier on the way to its last look),
 * a waker stores what there is to see, fences, and reads the count. Either the sleeper's last look sees it, or the
 * waker sees the count and moves the epoch, and the futex does not sleep on an epoch that has moved.
 */
uint32_t cule_eventcount_prepare(struct cule_eventcount *e)
{
    __atomic_fetch_add(&e->sleepers, 1, __ATOMIC_SEQ_CST);
    uint32_t ticket = __atomic_load_n(&e->epoch, __ATOMIC_SEQ_CST);
    cule_full_fence();
    return ticket;
}

void cule_eventcount_cancel(struct cule_eventcount *e)
{
    __atomic_fetch_sub(&e->sleepers, 1, __ATOMIC_SEQ_CST);
}

bool cule_eventcount_sleep(struct cule_eventcount *e, uint32_t ticket, uint64_t deadline_ns)
{
    bool in_time = cule_futex_wait(&e->epoch, ticket, deadline_ns, false);
    __atomic_fetch_sub(&e->sleepers, 1, __ATOMIC_SEQ_CST);
    return in_time;
}

bool cule_eventcount_wake(struct cule_eventcount *e, int n)
{
    cule_full_fence();
    if (__atomic_load_n(&e->sleepers, __ATOMIC_SEQ_CST) == 0) {
        return false;
    }
    __atomic_fetch_add(&e->epoch, 1, __ATOMIC_SEQ_CST);
    cule_futex_wake(&e->epoch, n, false);
    return true;
}

int cule_mpmc_init(struct cule_mpmc *q, size_t capacity, struct cule_err *err)
{
    if (capacity < 2 || capacity > CULE_MPMC_CAPACITY_MAX || (capacity & (capacity - 1))) {
        return cule_err_set(err, CULE_EUSAGE, "a queue of %zu cannot be: a power of two from 2 to %d", capacity,
                            CULE_MPMC_CAPACITY_MAX);
    }
    *q = (struct cule_mpmc){.mask = capacity - 1};
    q->cells = calloc(capacity, sizeof *q->cells);
    if (!q->cells) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory for a queue of %zu", capacity);
    }
    for (size_t i = 0; i < capacity; i++) {
        q->cells[i].sequence = i;
    }
    return 0;
}

void cule_mpmc_release(struct cule_mpmc *q)
{
    free(q->cells);
    q->cells = NULL;
}

/* A cell is free for the push at `tail` when its sequence is tail, holds its item when it is tail + 1, and is free
 * for the next lap when it is tail + capacity. */
int cule_mpmc_push(struct cule_mpmc *q, void *item)
{
    uint64_t tail = __atomic_load_n(&q->tail, __ATOMIC_RELAXED);
    struct cule_mpmc_cell *cell;
    if (__atomic_load_n(&q->closed, __ATOMIC_RELAXED)) {
        return CULE_ECLOSED;
    }
    for (;;) {
        cell = &q->cells[tail & q->mask];
        int64_t turn = (int64_t)(__atomic_load_n(&cell->sequence, __ATOMIC_ACQUIRE) - tail);
        if (turn == 0) {
            if (__atomic_compare_exchange_n(&q->tail, &tail, tail + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
                break;
            }
        } else if (turn < 0) {
            return CULE_EAGAIN;
        } else {
            tail = __atomic_load_n(&q->tail, __ATOMIC_RELAXED);
        }
    }
    cell->item = item;
    __atomic_store_n(&cell->sequence, tail + 1, __ATOMIC_RELEASE);
    cule_eventcount_wake(&q->event, 1);
    return 0;
}

int cule_mpmc_pop(struct cule_mpmc *q, void **item)
{
    uint64_t head = __atomic_load_n(&q->head, __ATOMIC_RELAXED);
    struct cule_mpmc_cell *cell;
    for (;;) {
        cell = &q->cells[head & q->mask];
        int64_t turn = (int64_t)(__atomic_load_n(&cell->sequence, __ATOMIC_ACQUIRE) - (head + 1));
        if (turn == 0) {
            if (__atomic_compare_exchange_n(&q->head, &head, head + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
                break;
            }
        } else if (turn < 0) {
            return 0;
        } else {
            head = __atomic_load_n(&q->head, __ATOMIC_RELAXED);
        }
    }
    *item = cell->item;
    __atomic_store_n(&cell->sequence, head + q->mask + 1, __ATOMIC_RELEASE);
    return 1;
}

size_t cule_mpmc_len(const struct cule_mpmc *q)
{
    uint64_t head = __atomic_load_n(&q->head, __ATOMIC_ACQUIRE);
    uint64_t tail = __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE);
    return tail > head ? (size_t)(tail - head) : 0;
}

int cule_mpmc_pop_wait(struct cule_mpmc *q, void **item, int timeout_ms)
{
    uint64_t deadline_ns = 0;
    bool slept = false;
    while (!cule_mpmc_pop(q, item)) {
        deadline_ns = deadline_ns ? deadline_ns : cule_deadline_ns(timeout_ms);
        uint32_t ticket = cule_eventcount_prepare(&q->event);
        bool closed = __atomic_load_n(&q->closed, __ATOMIC_SEQ_CST);
        if (cule_mpmc_pop(q, item)) {
            cule_eventcount_cancel(&q->event);
            slept = true;
            break;
        }
        if (closed && cule_mpmc_len(q) == 0) {
            cule_eventcount_cancel(&q->event);
            return CULE_ECLOSED;
        }
        slept = true;
        if (!cule_eventcount_sleep(&q->event, ticket, deadline_ns)) {
            return cule_mpmc_pop(q, item) ? 1 : CULE_ETIMEOUT;
        }
    }
    /* A push may have woken us while an older one was not finished; then its item was not to be seen, and the wake of
     * the older one, which brought us here, has to do for both. So whoever was woken passes the wake on. */
    if (slept && cule_mpmc_len(q)) {
        cule_eventcount_wake(&q->event, 1);
    }
    return 1;
}

void cule_mpmc_close(struct cule_mpmc *q)
{
    __atomic_store_n(&q->closed, true, __ATOMIC_SEQ_CST);
    cule_eventcount_wake(&q->event, INT_MAX);
}

/* Buffer pools: per-thread free lists in size classes, global counters. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

struct block {
    struct block *next;
};

static _Thread_local struct {
    struct block *free[CULE_POOL_CLASSES];
    size_t kept_bytes;
    bool registered; /* the thread's end gives them back */
} mine;

static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool have_key;

static void on_thread_exit(void *unused)
{
    (void)unused;
    mine.registered = false; /* a later destructor may put blocks back: they are kept, and given back again */
    cule_pool_trim();
}

static void make_key(void)
{
    have_key = pthread_key_create(&at_exit, on_thread_exit) == 0;
}

static void register_thread(void)
{
    pthread_once(&once, make_key);
    mine.registered = have_key && pthread_setspecific(at_exit, &mine) == 0;
}

static _Atomic uint64_t held;
static _Atomic uint64_t high;
static _Atomic uint64_t gets;
static _Atomic uint64_t misses;

static int class_of(size_t n)
{
    int shift = n <= 1 ? 0 : 64 - __builtin_clzll((unsigned long long)(n - 1));
    return shift < CULE_POOL_SHIFT_MIN ? 0 : shift - CULE_POOL_SHIFT_MIN;
}

void *cule_pool_get(size_t n, size_t *cap)
{
    int c = class_of(n);
    bool pooled = c < CULE_POOL_CLASSES;
    size_t size = pooled ? (size_t)1 << (c + CULE_POOL_SHIFT_MIN) : n;
    struct block *b = pooled ? mine.free[c] : NULL;
    if (b) {
        mine.free[c] = b->next;
        mine.kept_bytes -= size;
    } else {
        b = malloc(size);
        if (!b) {
            return NULL;
        }
        atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&gets, 1, memory_order_relaxed);
    uint64_t now = atomic_fetch_add_explicit(&held, size, memory_order_relaxed) + size;
    uint64_t top = atomic_load_explicit(&high, memory_order_relaxed);
    while (now > top &&
           !atomic_compare_exchange_weak_explicit(&high, &top, now, memory_order_relaxed, memory_order_relaxed)) {
    }
    *cap = size;
    return b;
}

void cule_pool_put(void *block, size_t cap)
{
    int c = class_of(cap);
    struct block *b = block;
    atomic_fetch_sub_explicit(&held, cap, memory_order_relaxed);
    if (c >= CULE_POOL_CLASSES || mine.kept_bytes + cap > CULE_POOL_KEEP_BYTES) {
        free(b);
        return;
    }
    if (!mine.registered) {
        register_thread();
    }
    b->next = mine.free[c];
    mine.free[c] = b;
    mine.kept_bytes += cap;
}

void cule_pool_stats(struct cule_pool_stats *out)
{
    out->held_bytes = atomic_load(&held);
    out->high_water_bytes = atomic_load(&high);
    out->gets = atomic_load(&gets);
    out->misses = atomic_load(&misses);
}

void cule_pool_trim(void)
{
    for (int c = 0; c < CULE_POOL_CLASSES; c++) {
        while (mine.free[c]) {
            struct block *b = mine.free[c];
            mine.free[c] = b->next;
            free(b);
        }
    }
    mine.kept_bytes = 0;
}

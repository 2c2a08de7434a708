/* Buffer pools: per-thread free lists in size classes, with counters that cost a thread nothing but its own memory. */
#include "base/pool.h"

#include "base/list.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { FLUSH_BYTES = 64 * 1024 }; /* what a thread may hold beyond what the common counter knows */

struct block {
    struct block *next;
};

/* Written by its thread alone, without locked instructions; read by cule_pool_stats of any. */
struct pool {
    struct block *free[CULE_POOL_CLASSES];
    size_t kept_bytes;
    bool registered; /* in `pools`; the thread's end gives the blocks back */
    struct cule_list node;
    _Atomic int64_t held; /* since the last flush; negative where others' blocks were given back */
    _Atomic uint64_t gets;
    _Atomic uint64_t misses;
};
static _Thread_local struct pool mine;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cule_list pools = {&pools, &pools};
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool have_key;

/* What was flushed, and what threads did that have ended. */
static _Atomic int64_t held;
static _Atomic int64_t high;
static _Atomic uint64_t gets;
static _Atomic uint64_t misses;

static void note_high(int64_t now)
{
    int64_t top = atomic_load_explicit(&high, memory_order_relaxed);
    while (now > top && !atomic_compare_exchange_weak(&high, &top, now)) {
    }
}

static void flush_held(int64_t delta)
{
    note_high(atomic_fetch_add(&held, delta) + delta);
    atomic_store_explicit(&mine.held, 0, memory_order_relaxed);
}

/* --- threads --- */

static void on_thread_exit(void *unused)
{
    (void)unused;
    cule_pool_trim();
    pthread_mutex_lock(&lock);
    cule_list_remove(&mine.node);
    mine.registered = false; /* a later destructor may still give blocks back, which registers anew */
    flush_held(atomic_load(&mine.held));
    atomic_fetch_add(&gets, atomic_load(&mine.gets));
    atomic_fetch_add(&misses, atomic_load(&mine.misses));
    atomic_store(&mine.gets, 0);
    atomic_store(&mine.misses, 0);
    pthread_mutex_unlock(&lock);
}

static void make_key(void)
{
    have_key = pthread_key_create(&at_exit, on_thread_exit) == 0;
}

/* False where the thread's end would not be told: then nothing may be kept or counted here. */
static bool register_thread(void)
{
    pthread_once(&once, make_key);
    if (!have_key || pthread_setspecific(at_exit, &mine) != 0) {
        return false;
    }
    cule_list_init(&mine.node);
    pthread_mutex_lock(&lock);
    cule_list_push(&pools, &mine.node);
    pthread_mutex_unlock(&lock);
    mine.registered = true;
    return true;
}

static void count(int64_t bytes, bool get, bool miss)
{
    if (!mine.registered && !register_thread()) {
        note_high(atomic_fetch_add(&held, bytes) + bytes);
        atomic_fetch_add(&gets, get);
        atomic_fetch_add(&misses, miss);
        return;
    }
    int64_t now = atomic_load_explicit(&mine.held, memory_order_relaxed) + bytes;
    atomic_store_explicit(&mine.held, now, memory_order_relaxed);
    if (get) {
        atomic_store_explicit(&mine.gets, atomic_load_explicit(&mine.gets, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    }
    if (miss) {
        atomic_store_explicit(&mine.misses, atomic_load_explicit(&mine.misses, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    }
    if (now > FLUSH_BYTES || now < -FLUSH_BYTES) {
        flush_held(now);
    }
}

/* --- blocks --- */

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
    bool miss = b == NULL;
    if (b) {
        mine.free[c] = b->next;
        mine.kept_bytes -= size;
    } else {
        b = malloc(size);
        if (!b) {
            return NULL;
        }
    }
    count((int64_t)size, true, miss);
    *cap = size;
    return b;
}

void cule_pool_put(void *block, size_t cap)
{
    int c = class_of(cap);
    struct block *b = block;
    count(-(int64_t)cap, false, false);
    if (c >= CULE_POOL_CLASSES || mine.kept_bytes + cap > CULE_POOL_KEEP_BYTES || !mine.registered) {
        free(b);
        return;
    }
    b->next = mine.free[c];
    mine.free[c] = b;
    mine.kept_bytes += cap;
}

void cule_pool_stats(struct cule_pool_stats *out)
{
    pthread_mutex_lock(&lock);
    int64_t sum = atomic_load(&held);
    out->gets = atomic_load(&gets);
    out->misses = atomic_load(&misses);
    CULE_LIST_EACH (n, &pools) {
        struct pool *p = CULE_LIST_ENTRY(n, struct pool, node);
        sum += atomic_load(&p->held);
        out->gets += atomic_load(&p->gets);
        out->misses += atomic_load(&p->misses);
    }
    note_high(sum);
    pthread_mutex_unlock(&lock);
    out->held_bytes = sum > 0 ? (uint64_t)sum : 0;
    out->high_water_bytes = (uint64_t)atomic_load(&high);
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

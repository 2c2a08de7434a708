/* The MPMC queue, the work-stealing deque and the workers. */
#include "io/mpmc.h"
#include "io/deque.h"
#include "io/futex.h"
#include "io/workers.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { THREADS = 3, EACH = 20000, TIMEOUT_MS = 20000 };

static void *number(uintptr_t n)
{
    return (void *)n;
}

static void test_queue_in_order(void **state)
{
    (void)state;
    struct cule_mpmc q;
    void *item;
    assert_int_equal(cule_mpmc_init(&q, 3, NULL), CULE_EUSAGE);
    assert_int_equal(cule_mpmc_init(&q, 1, NULL), CULE_EUSAGE);
    assert_int_equal(cule_mpmc_init(&q, 4, NULL), 0);
    assert_int_equal(cule_mpmc_pop(&q, &item), 0);
    for (uintptr_t lap = 0; lap < 5; lap++) {
        for (uintptr_t i = 0; i < 4; i++) {
            assert_int_equal(cule_mpmc_push(&q, number(lap * 4 + i)), 0);
        }
        assert_int_equal(cule_mpmc_push(&q, NULL), CULE_EAGAIN);
        assert_int_equal(cule_mpmc_len(&q), 4);
        for (uintptr_t i = 0; i < 4; i++) {
            assert_int_equal(cule_mpmc_pop(&q, &item), 1);
            assert_ptr_equal(item, number(lap * 4 + i));
        }
        assert_int_equal(cule_mpmc_pop(&q, &item), 0);
    }
    cule_mpmc_release(&q);
}

static void test_pop_deadline_and_close(void **state)
{
    (void)state;
    struct cule_mpmc q;
    void *item;
    assert_int_equal(cule_mpmc_init(&q, 4, NULL), 0);
    uint64_t start = cule_mono_ns();
    assert_int_equal(cule_mpmc_pop_wait(&q, &item, 20), CULE_ETIMEOUT);
    assert_true(cule_mono_ns() - start >= 20 * 1000000u);
    assert_int_equal(cule_mpmc_pop_wait(&q, &item, 0), CULE_ETIMEOUT);
    assert_int_equal(cule_mpmc_push(&q, number(7)), 0);
    cule_mpmc_close(&q);
    assert_int_equal(cule_mpmc_push(&q, number(8)), CULE_ECLOSED);
    assert_int_equal(cule_mpmc_pop_wait(&q, &item, -1), 1);
    assert_ptr_equal(item, number(7));
    assert_int_equal(cule_mpmc_pop_wait(&q, &item, -1), CULE_ECLOSED);
    cule_mpmc_release(&q);
}

struct contest {
    struct cule_mpmc q;
    uint32_t seen[THREADS * EACH];
    unsigned turn;
    unsigned taken;
};

static void *produce(void *arg)
{
    struct contest *c = arg;
    uintptr_t first = __atomic_fetch_add(&c->turn, 1, __ATOMIC_RELAXED) * (uintptr_t)EACH;
    for (uintptr_t i = first; i < first + EACH; i++) {
        while (cule_mpmc_push(&c->q, number(i)) == CULE_EAGAIN) {
            sched_yield();
        }
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct contest *c = arg;
    void *item;
    uintptr_t last[THREADS];
    memset(last, 0, sizeof last);
    for (;;) {
        int rc = cule_mpmc_pop_wait(&c->q, &item, TIMEOUT_MS);
        if (rc != 1) {
            return number((uintptr_t)(rc != CULE_ECLOSED));
        }
        uintptr_t i = (uintptr_t)item, from = i / EACH;
        if (i + 1 <= last[from]) {
            return number(2); /* one producer's items come to one consumer in order */
        }
        last[from] = i + 1;
        __atomic_fetch_add(&c->seen[i], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&c->taken, 1, __ATOMIC_RELAXED);
    }
}

/* Each item comes out exactly once, and no sleeper is forgotten. A small queue is always full or empty. */
static void contest(size_t capacity)
{
    struct contest *c = calloc(1, sizeof *c);
    pthread_t producers[THREADS], consumers[THREADS];
    assert_non_null(c);
    assert_int_equal(cule_mpmc_init(&c->q, capacity, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, c), 0);
        assert_int_equal(pthread_create(&producers[i], NULL, produce, c), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(producers[i], NULL);
    }
    cule_mpmc_close(&c->q);
    for (int i = 0; i < THREADS; i++) {
        void *bad;
        pthread_join(consumers[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(c->taken, THREADS * EACH);
    for (int i = 0; i < THREADS * EACH; i++) {
        assert_int_equal(c->seen[i], 1);
    }
    cule_mpmc_release(&c->q);
    free(c);
}

static void test_queue_many_threads(void **state)
{
    (void)state;
    contest(2);
    contest(8);
    contest(1024);
}

/* One item at a time to a crowd of sleepers: each push must wake somebody who then takes it. */
static void test_no_lost_wake(void **state)
{
    (void)state;
    struct contest *c = calloc(1, sizeof *c);
    pthread_t consumers[THREADS];
    assert_non_null(c);
    assert_int_equal(cule_mpmc_init(&c->q, 4, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, c), 0);
    }
    uint64_t deadline = cule_deadline_ns(TIMEOUT_MS);
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(cule_mpmc_push(&c->q, number(i)), 0);
        while (__atomic_load_n(&c->taken, __ATOMIC_RELAXED) != i + 1) {
            assert_true(cule_mono_ns() < deadline);
            sched_yield();
        }
    }
    cule_mpmc_close(&c->q);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(consumers[i], NULL);
    }
    cule_mpmc_release(&c->q);
    free(c);
}

static void test_deque_ends(void **state)
{
    (void)state;
    struct cule_deque d;
    void *item;
    assert_int_equal(cule_deque_init(&d, 5, NULL), CULE_EUSAGE);
    assert_int_equal(cule_deque_init(&d, 4, NULL), 0);
    assert_int_equal(cule_deque_take(&d, &item), 0);
    assert_int_equal(cule_deque_steal(&d, &item), 0);
    for (uintptr_t i = 1; i <= 4; i++) {
        assert_int_equal(cule_deque_push(&d, number(i)), 0);
    }
    assert_int_equal(cule_deque_push(&d, number(5)), CULE_EAGAIN);
    assert_int_equal(cule_deque_steal(&d, &item), 1);
    assert_ptr_equal(item, number(1));
    assert_int_equal(cule_deque_take(&d, &item), 1);
    assert_ptr_equal(item, number(4));
    assert_int_equal(cule_deque_push(&d, number(6)), 0);
    assert_int_equal(cule_deque_take(&d, &item), 1);
    assert_ptr_equal(item, number(6));
    assert_int_equal(cule_deque_steal(&d, &item), 1);
    assert_ptr_equal(item, number(2));
    assert_int_equal(cule_deque_take(&d, &item), 1);
    assert_ptr_equal(item, number(3));
    assert_int_equal(cule_deque_take(&d, &item), 0);
    assert_int_equal(cule_deque_steal(&d, &item), 0);
    cule_deque_release(&d);
}

struct robbery {
    struct cule_deque d;
    uint32_t seen[EACH];
    bool over;
    uint64_t stolen;
};

static void *rob(void *arg)
{
    struct robbery *r = arg;
    void *item;
    while (!__atomic_load_n(&r->over, __ATOMIC_ACQUIRE)) {
        int rc = cule_deque_steal(&r->d, &item);
        if (rc == 1) {
            __atomic_fetch_add(&r->seen[(uintptr_t)item], 1, __ATOMIC_RELAXED);
            __atomic_fetch_add(&r->stolen, 1, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

/* The owner keeps the deque nearly empty, so that it and the thieves meet at the last item all the time. */
static void test_deque_thieves(void **state)
{
    (void)state;
    struct robbery *r = calloc(1, sizeof *r);
    pthread_t thieves[2];
    uint64_t taken = 0;
    assert_non_null(r);
    assert_int_equal(cule_deque_init(&r->d, 16, NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thieves[i], NULL, rob, r), 0);
    }
    uint64_t deadline = cule_deadline_ns(TIMEOUT_MS);
    for (uintptr_t i = 0; i < EACH;) {
        void *item;
        if (i % 64 == 0) { /* let thieves in, even on one core */
            sched_yield();
        }
        i += cule_deque_push(&r->d, number(i)) == 0;
        if (i % 3 && cule_deque_take(&r->d, &item) == 1) {
            __atomic_fetch_add(&r->seen[(uintptr_t)item], 1, __ATOMIC_RELAXED);
            taken++;
        }
    }
    while (taken + __atomic_load_n(&r->stolen, __ATOMIC_RELAXED) < EACH) {
        void *item;
        assert_true(cule_mono_ns() < deadline);
        if (cule_deque_take(&r->d, &item) == 1) {
            __atomic_fetch_add(&r->seen[(uintptr_t)item], 1, __ATOMIC_RELAXED);
            taken++;
        }
    }
    __atomic_store_n(&r->over, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) {
        pthread_join(thieves[i], NULL);
    }
    for (int i = 0; i < EACH; i++) {
        assert_int_equal(r->seen[i], 1);
    }
    cule_deque_release(&r->d);
    free(r);
}

struct tree {
    struct cule_workers *w;
    uint64_t done;
    uint64_t refused;
};

struct branch {
    struct tree *tree;
    int depth;
};

static void grow(void *arg)
{
    struct branch *b = arg;
    for (int i = 0; i < 2 && b->depth > 0; i++) {
        struct branch *child = malloc(sizeof *child);
        *child = (struct branch){.tree = b->tree, .depth = b->depth - 1};
        if (cule_workers_submit(b->tree->w, grow, child)) {
            __atomic_fetch_add(&b->tree->refused, 1, __ATOMIC_RELAXED);
            grow(child);
        }
    }
    __atomic_fetch_add(&b->tree->done, 1, __ATOMIC_RELAXED);
    free(b);
}

/* Tasks that submit tasks: every one runs once before stop returns, also those submitted while it waits. */
static void test_workers_tree(void **state)
{
    (void)state;
    for (unsigned tasks = 2; tasks <= 8192; tasks *= 64) {
        struct tree tree = {0};
        struct cule_workers_stats stats;
        assert_int_equal(cule_workers_start(&tree.w, 4, tasks, NULL), 0);
        struct branch *root = malloc(sizeof *root);
        *root = (struct branch){.tree = &tree, .depth = 12};
        assert_int_equal(cule_workers_submit(tree.w, grow, root), 0);
        cule_workers_stop(tree.w, &stats);
        assert_int_equal(tree.done, (1 << 13) - 1);
        assert_int_equal(stats.executed + tree.refused, tree.done);
        assert_int_equal(stats.executed, stats.own + stats.stolen + stats.injected);
        assert_int_equal(stats.injected, 1);
    }
}

struct gate {
    struct cule_workers *w;
    uint32_t waiting, open;
};

static void wait_for_crowd(void *arg)
{
    struct gate *g = arg;
    uint64_t deadline = cule_deadline_ns(TIMEOUT_MS);
    __atomic_fetch_add(&g->waiting, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&g->waiting, __ATOMIC_SEQ_CST) < THREADS && cule_mono_ns() < deadline) {
        sched_yield();
    }
    __atomic_fetch_add(&g->open, 1, __ATOMIC_SEQ_CST);
}

static void submit_crowd(void *arg)
{
    struct gate *g = arg;
    for (int i = 0; i < THREADS - 1; i++) {
        cule_workers_submit(g->w, wait_for_crowd, g);
    }
    wait_for_crowd(arg);
}

/* What one worker submits and then blocks on can only be run by thieves. */
static void test_workers_steal(void **state)
{
    (void)state;
    struct gate g = {0};
    struct cule_workers_stats stats;
    assert_int_equal(cule_workers_start(&g.w, THREADS, 0, NULL), 0);
    assert_int_equal(cule_workers_submit(g.w, submit_crowd, &g), 0);
    cule_workers_stop(g.w, &stats);
    assert_int_equal(g.waiting, THREADS);
    assert_int_equal(stats.stolen, THREADS - 1);
    assert_int_equal(stats.executed, THREADS);
}

static void hold(void *arg)
{
    struct gate *g = arg;
    uint64_t deadline = cule_deadline_ns(TIMEOUT_MS);
    __atomic_store_n(&g->waiting, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&g->open, __ATOMIC_SEQ_CST) && cule_mono_ns() < deadline) {
        sched_yield();
    }
}

static void add_one(void *arg)
{
    __atomic_fetch_add((uint64_t *)arg, 1, __ATOMIC_RELAXED);
}

static void test_workers_bound(void **state)
{
    (void)state;
    struct gate g = {0};
    uint64_t ran = 0;
    uint64_t deadline = cule_deadline_ns(TIMEOUT_MS);
    assert_int_equal(cule_workers_start(&g.w, 1, 4, NULL), 0);
    assert_int_equal(cule_workers_submit(g.w, hold, &g), 0);
    while (!__atomic_load_n(&g.waiting, __ATOMIC_SEQ_CST)) {
        assert_true(cule_mono_ns() < deadline);
        sched_yield();
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(cule_workers_submit(g.w, add_one, &ran), 0);
    }
    assert_int_equal(cule_workers_submit(g.w, add_one, &ran), CULE_EAGAIN);
    __atomic_store_n(&g.open, 1, __ATOMIC_SEQ_CST);
    cule_workers_stop(g.w, NULL);
    assert_int_equal(ran, 4);
    cule_workers_stop(NULL, NULL);
    assert_int_equal(cule_workers_start(&g.w, CULE_WORKERS_MAX + 1, 0, NULL), CULE_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_in_order),     cmocka_unit_test(test_pop_deadline_and_close),
        cmocka_unit_test(test_queue_many_threads), cmocka_unit_test(test_no_lost_wake),
        cmocka_unit_test(test_deque_ends),         cmocka_unit_test(test_deque_thieves),
        cmocka_unit_test(test_workers_tree),       cmocka_unit_test(test_workers_steal),
        cmocka_unit_test(test_workers_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Worker threads that take tasks from their own deque, a common queue, or each other. */
#include "io/workers.h"

#include "io/deque.h"
#include "io/futex.h"
#include "io/mpmc.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct task {
    void (*fn)(void *arg);
    void *arg;
};

struct worker {
    struct cule_deque deque;
    struct cule_workers *pool;
    pthread_t thread;
    uint32_t random;
    struct cule_workers_stats stats; /* written by the worker alone */
} __attribute__((aligned(CULE_CACHE_PAIR)));

struct cule_workers {
    struct cule_mpmc free;   /* of struct task */
    struct cule_mpmc common; /* submitted from outside */
    struct cule_eventcount event;
    struct task *tasks;
    unsigned n;
    unsigned started; /* threads that run: n, unless starting them failed */
    unsigned idle;
    bool stopping, over;
    struct worker workers[];
};

static _Thread_local struct worker *self;

static void count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); /* one writer */
}

/* Every other worker once, from a random one on: 1, 0 all empty, CULE_EAGAIN somebody was quicker. */
static int steal(struct worker *me, void **task)
{
    struct cule_workers *w = me->pool;
    int worst = 0;
    me->random ^= me->random << 13;
    me->random ^= me->random >> 17;
    me->random ^= me->random << 5;
    for (unsigned i = 0, at = me->random % w->n; i < w->n; i++, at = (at + 1) % w->n) {
        int rc = &w->workers[at] == me ? 0 : cule_deque_steal(&w->workers[at].deque, task);
        if (rc == 1) {
            return 1;
        }
        worst = rc ? rc : worst;
    }
    return worst;
}

static int find(struct worker *me, void **task)
{
    uint64_t *from = &me->stats.own;
    int rc = cule_deque_take(&me->deque, task);
    if (!rc) {
        from = &me->stats.injected;
        rc = cule_mpmc_pop(&me->pool->common, task);
    }
    if (!rc) {
        from = &me->stats.stolen;
        rc = steal(me, task);
    }
    if (rc == 1) {
        count(from);
    }
    return rc;
}

/* The queue has a cell for every task, but a thread that was preempted in the middle of a pop may still hold the one
 * that is next: then that thread has to get on. */
static void push_surely(struct cule_mpmc *q, struct task *t)
{
    while (cule_mpmc_push(q, t) != 0) {
        sched_yield();
    }
}

static void run(struct worker *me, struct task *t)
{
    struct task copy = *t;
    push_surely(&me->pool->free, t);
    copy.fn(copy.arg);
    count(&me->stats.executed);
}

/*
 * Called with nothing found since `ticket`: sleeps, or says that all is over (true). A worker that counts as idle holds
 * no task and none is in its deque; so when all are idle and nobody outside submits any more, no task is left
 * anywhere. A worker that took one from a sleeper's deque stopped being idle before it did.
 */
static bool idle(struct worker *me, uint32_t ticket)
{
    struct cule_workers *w = me->pool;
    bool stopping = __atomic_load_n(&w->stopping, __ATOMIC_SEQ_CST); /* after the ticket: stop's wake is not missed */
    unsigned sleeping = __atomic_add_fetch(&w->idle, 1, __ATOMIC_SEQ_CST);
    if (stopping && sleeping == w->started) {
        __atomic_store_n(&w->over, true, __ATOMIC_SEQ_CST);
        cule_eventcount_wake(&w->event, INT_MAX);
    }
    if (!__atomic_load_n(&w->over, __ATOMIC_SEQ_CST)) {
        count(&me->stats.sleeps);
        cule_eventcount_sleep(&w->event, ticket, CULE_NEVER);
    } else {
        cule_eventcount_cancel(&w->event);
    }
    if (__atomic_load_n(&w->over, __ATOMIC_SEQ_CST)) {
        return true;
    }
    __atomic_fetch_sub(&w->idle, 1, __ATOMIC_SEQ_CST);
    return false;
}

static void *work(void *arg)
{
    struct worker *me = self = arg;
    struct cule_workers *w = me->pool;
    bool slept = false;
    for (;;) {
        void *task;
        int rc = find(me, &task);
        if (rc == 0) {
            uint32_t ticket = cule_eventcount_prepare(&w->event);
            rc = find(me, &task);
            if (rc == 0) {
                if (idle(me, ticket)) {
                    return NULL;
                }
                slept = true;
                continue;
            }
            cule_eventcount_cancel(&w->event);
        }
        if (rc < 0) { /* another was quicker: there may be more */
            cule_cpu_relax();
            continue;
        }
        if (slept && cule_mpmc_len(&w->common)) {
            cule_eventcount_wake(&w->event, 1); /* its wake may have been ours: see cule_mpmc_pop_wait */
        }
        slept = false;
        run(me, task);
    }
}

int cule_workers_submit(struct cule_workers *w, void (*fn)(void *arg), void *arg)
{
    struct worker *me = self && self->pool == w ? self : NULL;
    void *slot;
    if (!me && __atomic_load_n(&w->stopping, __ATOMIC_RELAXED)) {
        return CULE_ECLOSED;
    }
    if (!cule_mpmc_pop(&w->free, &slot)) {
        return CULE_EAGAIN;
    }
    *(struct task *)slot = (struct task){.fn = fn, .arg = arg};
    if (me) {
        cule_deque_push(&me->deque, slot); /* as deep as there are tasks */
    } else {
        push_surely(&w->common, slot);
    }
    cule_eventcount_wake(&w->event, 1);
    return 0;
}

static void release(struct cule_workers *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        cule_deque_release(&w->workers[i].deque);
    }
    cule_mpmc_release(&w->free);
    cule_mpmc_release(&w->common);
    free(w->tasks);
    free(w);
}

static int prepare(struct cule_workers *w, size_t tasks, struct cule_err *err)
{
    w->tasks = calloc(tasks, sizeof *w->tasks);
    if (!w->tasks) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory for %zu tasks", tasks);
    }
    int rc = cule_mpmc_init(&w->free, tasks, err);
    rc = rc ? rc : cule_mpmc_init(&w->common, tasks, err);
    for (unsigned i = 0; !rc && i < w->n; i++) {
        w->workers[i].pool = w;
        w->workers[i].random = i * 2654435761u + 1;
        rc = cule_deque_init(&w->workers[i].deque, tasks, err);
    }
    for (size_t i = 0; !rc && i < tasks; i++) {
        push_surely(&w->free, &w->tasks[i]);
    }
    return rc;
}

/* Ends the threads; they find the queues empty before they go. */
static void join(struct cule_workers *w)
{
    __atomic_store_n(&w->stopping, true, __ATOMIC_SEQ_CST);
    cule_eventcount_wake(&w->event, INT_MAX);
    for (unsigned i = 0; i < w->started; i++) {
        pthread_join(w->workers[i].thread, NULL);
    }
}

static unsigned processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > CULE_WORKERS_MAX ? CULE_WORKERS_MAX : (unsigned)n;
}

int cule_workers_start(struct cule_workers **out, unsigned n, unsigned max_tasks, struct cule_err *err)
{
    size_t tasks = 2;
    sigset_t all, before;
    n = n ? n : processors();
    max_tasks = max_tasks ? max_tasks : CULE_WORKERS_TASKS;
    if (n > CULE_WORKERS_MAX || max_tasks > CULE_MPMC_CAPACITY_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "%u workers for %u tasks are too many: at most %d and %d", n, max_tasks,
                            CULE_WORKERS_MAX, CULE_MPMC_CAPACITY_MAX);
    }
    while (tasks < max_tasks) {
        tasks *= 2;
    }
    size_t size = sizeof(struct cule_workers) + n * sizeof(struct worker);
    struct cule_workers *w = aligned_alloc(CULE_CACHE_PAIR, size);
    if (!w) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory for %u workers", n);
    }
    memset(w, 0, size);
    w->n = n;
    int rc = prepare(w, tasks, err);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; !rc && i < n; i++) {
        int sys = pthread_create(&w->workers[i].thread, NULL, work, &w->workers[i]);
        if (sys) {
            rc = cule_err_sys(err, CULE_ELIMIT, sys, "cannot start worker %u of %u", i + 1, n);
        } else {
            w->started++; /* read by workers only once stopping is set */
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        join(w);
        release(w);
        return rc;
    }
    *out = w;
    return 0;
}

void cule_workers_stats(const struct cule_workers *w, struct cule_workers_stats *out)
{
    *out = (struct cule_workers_stats){0};
    for (unsigned i = 0; i < w->n; i++) {
        const struct cule_workers_stats *s = &w->workers[i].stats;
        out->executed += __atomic_load_n(&s->executed, __ATOMIC_RELAXED);
        out->own += __atomic_load_n(&s->own, __ATOMIC_RELAXED);
        out->stolen += __atomic_load_n(&s->stolen, __ATOMIC_RELAXED);
        out->injected += __atomic_load_n(&s->injected, __ATOMIC_RELAXED);
        out->sleeps += __atomic_load_n(&s->sleeps, __ATOMIC_RELAXED);
    }
}

void cule_workers_stop(struct cule_workers *w, struct cule_workers_stats *stats)
{
    if (!w) {
        return;
    }
    join(w);
    if (stats) {
        cule_workers_stats(w, stats);
    }
    release(w);
}

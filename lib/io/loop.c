/* The event loop: a thin face over libuv that adds deferred work and always-ready files. */
#include "io/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

struct cule_loop {
    uv_loop_t uv;
    uv_prepare_t prepare; /* runs deferred work before the loop polls */
    uv_idle_t idle;       /* keeps the loop turning while files are ready or work is deferred */
    uv_async_t async;
    uv_timer_t limit; /* bounds cule_loop_turn */
    struct cule_list deferred;
    struct cule_list files; /* watches on what cannot be polled */
};

struct cule_watch {
    uv_poll_t poll; /* first: the close callback frees by it */
    struct cule_loop *loop;
    struct cule_list node; /* in loop->files when `is_file` */
    cule_watch_fn *fn;
    void *ctx;
    int events;
    int fd;
    bool is_file;
    bool gone; /* freed from inside the walk over files */
};

struct cule_timer {
    uv_timer_t timer;
    cule_timer_fn *fn;
    void *ctx;
};

struct cule_sigwatch {
    uv_signal_t signal;
    cule_sigwatch_fn *fn;
    void *ctx;
};

static int uv_err(struct cule_err *err, int rc, const char *what)
{
    return cule_err_sys(err, cule_err_from_errno(-rc), -rc, "cannot %s", what);
}

static void idle_needed(struct cule_loop *l);

static void on_idle(uv_idle_t *h)
{
    struct cule_loop *l = h->data;
    CULE_LIST_EACH (n, &l->files) {
        struct cule_watch *w = CULE_LIST_ENTRY(n, struct cule_watch, node);
        int events = w->events & (POLLIN | POLLOUT);
        if (events && !w->gone) {
            w->fn(w->ctx, events);
        }
    }
    CULE_LIST_EACH (n, &l->files) {
        struct cule_watch *w = CULE_LIST_ENTRY(n, struct cule_watch, node);
        if (w->gone) {
            cule_list_remove(&w->node);
            free(w);
        }
    }
    idle_needed(l);
}

/* Work that a deferred function puts off again runs in the same pass, a bounded number of times, then next turn. */
static void on_prepare(uv_prepare_t *h)
{
    struct cule_loop *l = h->data;
    for (int round = 0; round < 64 && !cule_list_empty(&l->deferred); round++) {
        struct cule_list batch;
        cule_list_init(&batch);
        batch.next = l->deferred.next;
        batch.prev = l->deferred.prev;
        batch.next->prev = batch.prev->next = &batch;
        cule_list_init(&l->deferred);
        struct cule_list *n;
        while ((n = cule_list_pop(&batch))) {
            struct cule_defer *d = CULE_LIST_ENTRY(n, struct cule_defer, node);
            d->fn(d->ctx);
        }
    }
    idle_needed(l);
}

static void idle_needed(struct cule_loop *l)
{
    bool need = !cule_list_empty(&l->deferred);
    CULE_LIST_EACH (n, &l->files) {
        struct cule_watch *w = CULE_LIST_ENTRY(n, struct cule_watch, node);
        need = need || ((w->events & (POLLIN | POLLOUT)) && !w->gone);
    }
    if (need && !uv_is_active((uv_handle_t *)&l->idle)) {
        uv_idle_start(&l->idle, on_idle);
    } else if (!need) {
        uv_idle_stop(&l->idle);
    }
}

static void on_async(uv_async_t *h)
{
    (void)h; /* its purpose is the turn itself */
}

static void on_limit(uv_timer_t *h)
{
    (void)h;
}

int cule_loop_new(struct cule_loop **out, struct cule_err *err)
{
    struct cule_loop *l = calloc(1, sizeof *l);
    if (!l) {
        return cule_err_set(err, CULE_ENOMEM, "cannot make an event loop: out of memory");
    }
    int rc = uv_loop_init(&l->uv);
    if (rc < 0) {
        free(l);
        return uv_err(err, rc, "make an event loop");
    }
    cule_list_init(&l->deferred);
    cule_list_init(&l->files);
    rc = uv_async_init(&l->uv, &l->async, on_async);
    if (rc < 0) {
        uv_loop_close(&l->uv);
        free(l);
        return uv_err(err, rc, "make an event loop");
    }
    uv_prepare_init(&l->uv, &l->prepare);
    uv_idle_init(&l->uv, &l->idle);
    uv_timer_init(&l->uv, &l->limit);
    l->prepare.data = l->idle.data = l;
    uv_prepare_start(&l->prepare, on_prepare);
    uv_unref((uv_handle_t *)&l->prepare);
    uv_unref((uv_handle_t *)&l->async);
    uv_unref((uv_handle_t *)&l->limit);
    *out = l;
    return 0;
}

static void free_handle(uv_handle_t *h)
{
    free(h);
}

static void close_left(uv_handle_t *h, void *arg)
{
    struct cule_loop *l = arg;
    if (uv_is_closing(h)) {
        return;
    }
    bool own = h == (uv_handle_t *)&l->prepare || h == (uv_handle_t *)&l->idle || h == (uv_handle_t *)&l->async ||
               h == (uv_handle_t *)&l->limit;
    uv_close(h, own ? NULL : free_handle);
}

void cule_loop_free(struct cule_loop *l)
{
    if (!l) {
        return;
    }
    uv_walk(&l->uv, close_left, l);
    struct cule_list *n;
    while ((n = cule_list_pop(&l->files))) {
        free(CULE_LIST_ENTRY(n, struct cule_watch, node));
    }
    while ((n = cule_list_pop(&l->deferred))) {
    }
    uv_run(&l->uv, UV_RUN_DEFAULT);
    uv_loop_close(&l->uv);
    free(l);
}

int cule_loop_run(struct cule_loop *l)
{
    /* Deferred work alone does not keep libuv running, so it is looked at before and after. */
    on_prepare(&l->prepare);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    return 0;
}

int cule_loop_turn(struct cule_loop *l, uint64_t timeout_ms)
{
    on_prepare(&l->prepare);
    if (timeout_ms == 0) {
        uv_run(&l->uv, UV_RUN_NOWAIT);
        return 0;
    }
    uv_ref((uv_handle_t *)&l->limit);
    uv_update_time(&l->uv);
    uv_timer_start(&l->limit, on_limit, timeout_ms, 0);
    uv_run(&l->uv, UV_RUN_ONCE);
    uv_timer_stop(&l->limit);
    uv_unref((uv_handle_t *)&l->limit);
    on_prepare(&l->prepare);
    return 0;
}

void cule_loop_stop(struct cule_loop *l)
{
    uv_stop(&l->uv);
}

void cule_loop_wake(struct cule_loop *l)
{
    uv_async_send(&l->async);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t cule_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cule_wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

uint64_t cule_loop_now_ns(struct cule_loop *l)
{
    return uv_now(&l->uv) * 1000000u;
}

/* --- descriptors --- */

static int to_uv(int events)
{
    return ((events & POLLIN) ? UV_READABLE : 0) | ((events & POLLOUT) ? UV_WRITABLE : 0) |
           ((events & POLLPRI) ? UV_PRIORITIZED : 0) | ((events & POLLRDHUP) ? UV_DISCONNECT : 0);
}

static void on_poll(uv_poll_t *h, int status, int ev)
{
    struct cule_watch *w = CULE_CONTAINER(h, struct cule_watch, poll);
    int events = ((ev & UV_READABLE) ? POLLIN : 0) | ((ev & UV_WRITABLE) ? POLLOUT : 0) |
                 ((ev & UV_PRIORITIZED) ? POLLPRI : 0) | ((ev & UV_DISCONNECT) ? POLLRDHUP : 0);
    if (status < 0) {
        /* libuv has stopped it; there may still be something to read. */
        events |= POLLERR | (w->events & (POLLIN | POLLOUT));
        uv_poll_start(&w->poll, to_uv(w->events), on_poll);
    }
    w->fn(w->ctx, events);
}

int cule_watch_new(struct cule_loop *l, struct cule_watch **out, int fd, int events, cule_watch_fn *fn, void *ctx,
                   struct cule_err *err)
{
    struct cule_watch *w = calloc(1, sizeof *w);
    if (!w) {
        return cule_err_set(err, CULE_ENOMEM, "cannot watch a descriptor: out of memory");
    }
    w->loop = l;
    w->fn = fn;
    w->ctx = ctx;
    w->fd = fd;
    cule_list_init(&w->node);
    int rc = uv_poll_init(&l->uv, &w->poll, fd);
    if (rc == UV_EPERM) {
        w->is_file = true;
        cule_list_push(&l->files, &w->node);
    } else if (rc < 0) {
        free(w);
        return uv_err(err, rc, "watch a descriptor");
    }
    rc = cule_watch_set(w, events);
    if (rc) {
        cule_watch_free(w);
        return cule_err_set(err, rc, "cannot watch a descriptor");
    }
    *out = w;
    return 0;
}

int cule_watch_set(struct cule_watch *w, int events)
{
    if (w->events == events) {
        return 0;
    }
    w->events = events;
    if (w->is_file) {
        idle_needed(w->loop);
        return 0;
    }
    int rc = events ? uv_poll_start(&w->poll, to_uv(events), on_poll) : uv_poll_stop(&w->poll);
    return rc < 0 ? cule_err_from_errno(-rc) : 0;
}

static void on_closed(uv_handle_t *h)
{
    free(h);
}

void cule_watch_free(struct cule_watch *w)
{
    if (!w) {
        return;
    }
    if (w->is_file) {
        w->gone = true; /* freed by on_idle, which may be walking the list */
        uv_idle_start(&w->loop->idle, on_idle);
        return;
    }
    uv_close((uv_handle_t *)&w->poll, on_closed);
}

/* --- timers --- */

static void on_timer(uv_timer_t *h)
{
    struct cule_timer *t = CULE_CONTAINER(h, struct cule_timer, timer);
    t->fn(t->ctx);
}

int cule_timer_new(struct cule_loop *l, struct cule_timer **out, cule_timer_fn *fn, void *ctx, struct cule_err *err)
{
    struct cule_timer *t = calloc(1, sizeof *t);
    if (!t) {
        return cule_err_set(err, CULE_ENOMEM, "cannot make a timer: out of memory");
    }
    uv_timer_init(&l->uv, &t->timer);
    t->fn = fn;
    t->ctx = ctx;
    *out = t;
    return 0;
}

void cule_timer_start(struct cule_timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
    uv_update_time(t->timer.loop); /* a long callback must not make the timer early */
    uv_timer_start(&t->timer, on_timer, after_ms, repeat_ms);
}

void cule_timer_stop(struct cule_timer *t)
{
    uv_timer_stop(&t->timer);
}

void cule_timer_unref(struct cule_timer *t)
{
    uv_unref((uv_handle_t *)&t->timer);
}

void cule_timer_free(struct cule_timer *t)
{
    if (t) {
        uv_close((uv_handle_t *)&t->timer, on_closed);
    }
}

/* --- signals --- */

static void on_signal(uv_signal_t *h, int signum)
{
    struct cule_sigwatch *s = CULE_CONTAINER(h, struct cule_sigwatch, signal);
    s->fn(s->ctx, signum);
}

int cule_sigwatch_new(struct cule_loop *l, struct cule_sigwatch **out, int signum, cule_sigwatch_fn *fn, void *ctx,
                      struct cule_err *err)
{
    struct cule_sigwatch *s = calloc(1, sizeof *s);
    if (!s) {
        return cule_err_set(err, CULE_ENOMEM, "cannot watch for a signal: out of memory");
    }
    int rc = uv_signal_init(&l->uv, &s->signal);
    if (rc < 0) {
        free(s);
        return uv_err(err, rc, "watch for a signal");
    }
    s->fn = fn;
    s->ctx = ctx;
    rc = uv_signal_start(&s->signal, on_signal, signum);
    uv_unref((uv_handle_t *)&s->signal);
    if (rc < 0) {
        uv_close((uv_handle_t *)&s->signal, on_closed);
        return uv_err(err, rc, "watch for a signal");
    }
    *out = s;
    return 0;
}

void cule_sigwatch_free(struct cule_sigwatch *s)
{
    if (s) {
        uv_close((uv_handle_t *)&s->signal, on_closed);
    }
}

/* --- deferred work --- */

void cule_defer_init(struct cule_defer *d, void (*fn)(void *ctx), void *ctx)
{
    cule_list_init(&d->node);
    d->fn = fn;
    d->ctx = ctx;
}

void cule_loop_defer(struct cule_loop *l, struct cule_defer *d)
{
    if (d->node.next == &d->node) {
        cule_list_push(&l->deferred, &d->node);
        if (!uv_is_active((uv_handle_t *)&l->idle)) {
            uv_idle_start(&l->idle, on_idle); /* so that the coming poll does not sleep */
        }
    }
}

void cule_defer_cancel(struct cule_defer *d)
{
    cule_list_remove(&d->node);
}

/* A pool of persistent workers, kept up. */
#include "serve_pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POOL_HANGUP_MS = 200 };

static void start_worker(struct worker *w)
{
    struct serve *s = w->s;
    struct pool *p = s->pool;
    struct cule_err err = {0};
    int err_fd = -1;
    w->hung = false;
    w->born_ns = cule_now_ns();
    int rc = serve_log_open(&w->log, s, &err_fd, &err);
    if (!rc) {
        rc = p->ops->start(w, err_fd, &err);
        close(err_fd);
    }
    if (rc) {
        serve_say(s, 0, "cannot start a worker: %s", err.text);
        serve_log_close(&w->log);
        cule_timer_start(w->again, w->backoff_ms, 0);
        w->backoff_ms = CULE_MIN(w->backoff_ms * 2, (uint64_t)SERVE_BACKOFF_MAX_MS);
        return;
    }
    w->log.pid = cule_proc_pid(w->proc);
    w->up = true;
    p->restarts += w->started++ > 0;
    serve_say(s, 3, "worker %s[%d] started", s->name, (int)w->log.pid);
    serve_pump(s);
}

/* The process is gone and everything about it dealt with: again, after a pause. */
static void buried(struct worker *w)
{
    struct pool *p = w->s->pool;
    cule_proc_free(w->proc);
    w->proc = NULL;
    serve_log_close(&w->log);
    if (p->stopping) {
        serve_pump(w->s);
        return;
    }
    if (cule_now_ns() - w->born_ns >= (uint64_t)SERVE_STEADY_MS * 1000000) {
        w->backoff_ms = SERVE_BACKOFF_MIN_MS;
    }
    cule_timer_start(w->again, w->backoff_ms, 0);
    w->backoff_ms = CULE_MIN(w->backoff_ms * 2, (uint64_t)SERVE_BACKOFF_MAX_MS);
}

static void on_again(void *ctx)
{
    struct worker *w = ctx;
    struct pool *p = w->s->pool;
    if (w->proc && w->hung) {
        serve_say(w->s, 1, "worker %s[%d] closed its output and does not end; it is ended", w->s->name,
                  (int)w->log.pid);
        pool_lost(w, "the worker closed its output");
    } else if (!w->proc && !p->stopping) {
        start_worker(w);
    }
}

void pool_hangup(struct worker *w)
{
    if (w->up && !w->hung) {
        w->hung = true;
        cule_timer_start(w->again, POOL_HANGUP_MS, 0);
    }
}

void pool_lost(struct worker *w, const char *why)
{
    struct pool *p = w->s->pool;
    if (!w->up) {
        return;
    }
    w->up = false;
    p->ops->down(w, why);
    if (w->proc) {
        cule_proc_kill(w->proc, w->s->o->kill_grace_ms);
    }
}

void pool_on_exit(void *ctx, struct cule_proc *proc, const struct cule_exit *how)
{
    struct worker *w = ctx;
    struct serve *s = w->s;
    struct pool *p = s->pool;
    char why[160];
    (void)proc;
    if (how->signum) {
        snprintf(why, sizeof why, "worker %s[%d] was ended by signal %d (%s)", s->name, (int)w->log.pid, how->signum,
                 strsignal(how->signum));
    } else {
        snprintf(why, sizeof why, "worker %s[%d] ended with status %d", s->name, (int)w->log.pid, how->code);
    }
    serve_say(s, p->stopping ? 3 : 1, "%s%s", why, p->stopping ? "" : "; it is started again");
    if (w->up) {
        w->up = false;
        p->ops->down(w, why);
    }
    /* Its children, if it left any, would hold on to the next one's work. */
    cule_proc_kill(w->proc, 0);
    buried(w);
}

int pool_start(struct serve *s, const struct pool_ops *ops, struct cule_err *err)
{
    struct pool *p = calloc(1, sizeof *p);
    s->pool = p;
    if (!p) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    p->ops = ops;
    p->n = (unsigned)s->o->workers;
    p->each = s->concurrency / p->n;
    p->workers = calloc(p->n, sizeof *p->workers);
    if (!p->workers) {
        p->n = 0;
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < p->n; i++) {
        struct worker *w = &p->workers[i];
        w->s = s;
        w->log.fd = -1;
        w->backoff_ms = SERVE_BACKOFF_MIN_MS;
        int rc = cule_timer_new(s->loop, &w->again, on_again, w, err);
        if (rc) {
            return rc;
        }
        start_worker(w);
    }
    return 0;
}

void pool_stop(struct serve *s)
{
    struct pool *p = s->pool;
    if (!p || p->stopping) {
        return;
    }
    p->stopping = true;
    for (unsigned i = 0; i < p->n; i++) {
        if (p->workers[i].up) {
            p->ops->finish(&p->workers[i]);
        }
    }
}

static bool any_left(const struct pool *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        if (p->workers[i].proc) {
            return true;
        }
    }
    return false;
}

/* A worker whose input has ended may finish what it does; after the grace its tree is killed. */
void pool_release(struct serve *s)
{
    struct pool *p = s->pool;
    if (!p) {
        return;
    }
    uint64_t until = cule_now_ns() + s->o->kill_grace_ms * UINT64_C(1000000);
    pool_stop(s);
    while (any_left(p) && cule_now_ns() < until) {
        cule_loop_turn(s->loop, 20);
    }
    for (unsigned i = 0; i < p->n; i++) {
        struct worker *w = &p->workers[i];
        if (w->up) {
            w->up = false;
            p->ops->down(w, "the server has stopped");
        }
        if (w->proc) {
            cule_proc_kill_wait(w->proc, 0, cule_now_ns() + UINT64_C(2000000000));
            cule_proc_free(w->proc);
        }
        serve_log_close(&w->log);
        cule_timer_free(w->again);
    }
    cule_loop_turn(s->loop, 0); /* what was put off */
    free(p->workers);
    free(p);
    s->pool = NULL;
}

struct worker *pool_pick(struct serve *s)
{
    struct pool *p = s->pool;
    struct worker *best = NULL;
    for (unsigned i = 0; i < p->n; i++) {
        struct worker *w = &p->workers[i];
        if (w->up && !w->hung && w->open < p->each && (!best || w->open < best->open)) {
            best = w;
        }
    }
    return best;
}

bool pool_has_room(struct serve *s)
{
    return pool_pick(s) != NULL;
}

unsigned pool_workers(const struct serve *s, unsigned *of, uint64_t *restarts)
{
    const struct pool *p = s->pool;
    unsigned up = 0;
    for (unsigned i = 0; i < p->n; i++) {
        up += p->workers[i].up && !p->workers[i].hung;
    }
    *of = p->n;
    *restarts = p->restarts;
    return up;
}

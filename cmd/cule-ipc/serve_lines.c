/* serve --lines: persistent workers that speak JSON lines: a request a line in, an answer a line out, by id. */
#include "serve_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINES_CHUNK = 64 * 1024, LINES_READS = 16 };

/* --- to the worker --- */

static void on_writable(void *ctx, int events);

void lines_feed(struct lines_speech *x)
{
    while (x->in >= 0 && cule_buf_len(&x->to)) {
        ssize_t n = write(x->in, cule_buf_data(&x->to), cule_buf_len(&x->to));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n < 0) { /* it has closed its stdin, or ended: its stdout or its end will tell */
            cule_buf_clear(&x->to);
            break;
        }
        cule_buf_take(&x->to, (size_t)n);
    }
    bool waits = cule_buf_len(&x->to) > 0;
    if (x->in >= 0 && !waits && x->finishing) {
        cule_watch_free(x->in_watch);
        x->in_watch = NULL;
        close(x->in);
        x->in = -1;
    } else if (x->in >= 0 && waits && !x->in_watch) {
        cule_watch_new(x->w->s->loop, &x->in_watch, x->in, POLLOUT, on_writable, x, NULL);
    } else if (x->in_watch) {
        cule_watch_set(x->in_watch, waits ? POLLOUT : 0);
    }
}

static void on_writable(void *ctx, int events)
{
    (void)events;
    lines_feed(ctx);
}

/* --- requests --- */

void lines_done(struct lines_task *t, int code)
{
    struct serve_req *q = t->q;
    struct worker *w = t->x->w;
    cule_map_take(&t->x->tasks, t->number);
    cule_timer_free(t->patience);
    cule_buf_release(&t->waits);
    w->open--;
    q->work = NULL;
    free(t);
    serve_end(q, code);
}

/* {"id":…,"kind":"request",…} as decode writes it, under a number of ours. */
static int write_request(struct lines_speech *x, struct lines_task *t, struct cule_err *err)
{
    struct cule_msg m = t->q->k->m;
    m.h.id = t->number;
    m.h.nfds = 0;
    return cule_mirror_write_msg(&x->mirror, &m, &x->to, err);
}

static int write_stream(struct lines_speech *x, const struct lines_task *t, const uint8_t *p, size_t n, bool last)
{
    struct cule_msg m = cule_msg_make(CULE_DATA, t->q->k->m.h.service, t->q->k->m.h.op);
    m.h.id = t->number;
    m.h.flags = last ? 0 : CULE_OPEN;
    m.body = p;
    m.len = n;
    return cule_mirror_write_msg(&x->mirror, &m, &x->to, NULL);
}

static void lines_begin(struct serve *s, struct serve_req *q)
{
    struct worker *w = pool_pick(s);
    struct lines_speech *x = w->speech;
    struct cule_err err = {0};
    struct lines_task *t = calloc(1, sizeof *t);
    int rc = t ? 0 : cule_err_set(&err, CULE_ENOMEM, "out of memory");
    if (t) {
        t->q = q;
        t->x = x;
        t->number = ++s->next_seq;
        cule_buf_init(&t->waits, 0);
        rc = cule_map_put(&x->tasks, t->number, t);
        rc = rc ? cule_err_set(&err, rc, "out of memory") : 0;
    }
    if (!rc && q->k->m.nfds) {
        rc = cule_err_set(&err, CULE_EUNSUPPORTED, "descriptors cannot pass as JSON lines: use --each or --frames");
    }
    rc = rc ? rc : write_request(x, t, &err);
    if (rc) {
        serve_error(q, rc, 0, "%s", err.text);
        if (t) {
            cule_map_take(&x->tasks, t->number);
        }
        free(t);
        serve_end(q, rc);
        return;
    }
    w->open++;
    q->work = t;
    if (cule_buf_len(&q->early) || (q->k->m.h.flags & CULE_OPEN && !q->body_open)) {
        size_t n = cule_buf_len(&q->early);
        write_stream(x, t, n ? cule_buf_data(&q->early) : NULL, n, !q->body_open);
        serve_consumed(q, n);
        cule_buf_clear(&q->early);
    }
    if (!q->k->m.h.id) {
        lines_done(t, 0); /* an event: no answer, and if one comes nobody wants it */
    }
    lines_feed(x);
}

static void lines_data(struct serve_req *q, const uint8_t *p, size_t n, bool last)
{
    struct lines_task *t = q->work;
    write_stream(t->x, t, p, n, last);
    serve_consumed(q, n);
    lines_feed(t->x);
}

/* A worker that is not done with a cancelled request when the grace is over is ended, unless it has other work. */
static void out_of_patience(void *ctx)
{
    struct lines_task *t = ctx;
    struct worker *w = t->x->w;
    size_t at = 0;
    struct lines_task *other;
    while ((other = cule_map_next(&t->x->tasks, &at, NULL))) {
        if (other->q->client) {
            cule_timer_start(t->patience, w->s->o->kill_grace_ms + 1, 0);
            return;
        }
    }
    serve_say(w->s, 1, "worker %s[%d] does not let go of a cancelled request; it is ended", w->s->name,
              (int)w->log.pid);
    pool_lost(w, "the worker was ended");
}

static void lines_cancel(struct serve_req *q)
{
    struct lines_task *t = q->work;
    struct lines_speech *x = t->x;
    struct serve *s = q->s;
    bool resume = x->paused == t;
    cule_buf_clear(&t->waits);
    if (t->answered) {
        lines_done(t, CULE_ECANCELLED);
        if (resume) {
            lines_resume(x);
        }
        return;
    }
    if (s->o->forward_cancel) {
        struct cule_msg m = cule_msg_make(CULE_CANCEL, q->k->m.h.service, q->k->m.h.op);
        m.h.id = t->number;
        cule_mirror_write_msg(&t->x->mirror, &m, &t->x->to, NULL);
        lines_feed(t->x);
    }
    if (!t->patience && cule_timer_new(s->loop, &t->patience, out_of_patience, t, NULL) == 0) {
        cule_timer_start(t->patience, s->o->kill_grace_ms, 0);
    }
    if (resume) {
        lines_resume(x);
    }
}

static void lines_writable(struct serve_req *q)
{
    struct lines_task *t = q->work;
    lines_flush(t);
}

/* --- from the worker --- */

static void take_lines(struct lines_speech *x)
{
    size_t len;
    while (x->w && !x->paused && (len = cule_buf_len(&x->from)) > 0) {
        const char *p = (const char *)cule_buf_data(&x->from);
        const char *nl = memchr(p + x->searched, '\n', len - x->searched);
        if (!nl) {
            x->searched = len;
            break;
        }
        size_t n = (size_t)(nl - p);
        x->searched = 0;
        lines_answer(x, p, n);
        cule_buf_take(&x->from, n + 1);
    }
    if (x->w && x->w->up && cule_buf_len(&x->from) > LINES_LINE_MAX) {
        serve_say(x->w->s, 1, "worker %s[%d] wrote a line longer than %d bytes", x->w->s->name, (int)x->w->log.pid,
                  LINES_LINE_MAX);
        pool_lost(x->w, "the worker wrote a line that is too long");
    }
}

/* False at the end. */
static bool read_some(struct lines_speech *x)
{
    for (int i = 0; i < LINES_READS && !x->paused; i++) {
        uint8_t *at;
        if (cule_buf_reserve(&x->from, LINES_CHUNK, &at)) {
            return true;
        }
        ssize_t n = read(x->out, at, LINES_CHUNK);
        if (n > 0) {
            cule_buf_commit(&x->from, (size_t)n);
            take_lines(x);
            if (!x->w) {
                return true;
            }
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return false;
        } else if (errno == EAGAIN) {
            break;
        }
    }
    if (cule_buf_len(&x->from) == 0) {
        cule_buf_clear(&x->from);
    }
    return true;
}

static void free_speech(void *ctx)
{
    struct lines_speech *x = ctx;
    cule_watch_free(x->in_watch);
    cule_watch_free(x->out_watch);
    cule_defer_cancel(&x->gone);
    if (x->in >= 0) {
        close(x->in);
    }
    close(x->out);
    cule_buf_release(&x->to);
    cule_buf_release(&x->from);
    cule_map_release(&x->tasks);
    cule_mirror_release(&x->mirror);
    free(x);
}

static void on_readable(void *ctx, int events)
{
    struct lines_speech *x = ctx;
    (void)events;
    if (x->w && !read_some(x) && x->w) {
        struct pool *p = x->w->s->pool;
        cule_watch_set(x->out_watch, 0);
        if (!p->stopping) {
            pool_hangup(x->w);
        }
    }
}

void lines_resume(struct lines_speech *x)
{
    x->paused = NULL;
    take_lines(x);
    if (x->w && !x->paused) {
        cule_watch_set(x->out_watch, POLLIN);
    }
}

/* --- the pool's calls --- */

static int make_pipes(struct lines_speech *x, int *in, int *out, struct cule_err *err)
{
    int a[2];
    int b[2];
    int rc = cule_pipe(a, err);
    if (rc) {
        return rc;
    }
    rc = cule_pipe(b, err);
    if (rc) {
        close(a[0]);
        close(a[1]);
        return rc;
    }
    *in = a[0];
    x->in = a[1];
    x->out = b[0];
    *out = b[1];
    fcntl(x->in, F_SETFL, O_NONBLOCK);
    fcntl(x->out, F_SETFL, O_NONBLOCK);
    return 0;
}

static int lines_start_worker(struct worker *w, int err_fd, struct cule_err *err)
{
    struct serve *s = w->s;
    int in = -1;
    int out = -1;
    struct lines_speech *x = calloc(1, sizeof *x);
    int rc = x ? make_pipes(x, &in, &out, err) : cule_err_set(err, CULE_ENOMEM, "out of memory");
    if (rc) {
        free(x);
        return rc;
    }
    x->w = w;
    cule_buf_init(&x->to, 0);
    cule_buf_init(&x->from, 0);
    cule_map_init(&x->tasks);
    cule_mirror_init(&x->mirror);
    cule_defer_init(&x->gone, free_speech, x);
    const struct cule_spawn sp = {
        .shell = s->command, .envp = s->env, .in = in, .out = out, .err = err_fd, .group = true};
    rc = cule_watch_new(s->loop, &x->out_watch, x->out, POLLIN, on_readable, x, err);
    rc = rc ? rc : cule_spawn(s->loop, &sp, &w->proc, pool_on_exit, w, err);
    close(in);
    close(out);
    if (rc) {
        free_speech(x);
        return rc;
    }
    w->speech = x;
    return 0;
}

/* What it wrote before its end is read first; what is open then gets an ERROR. */
static void lines_down(struct worker *w, const char *why)
{
    struct lines_speech *x = w->speech;
    size_t at = 0;
    struct lines_task *t;
    w->speech = NULL;
    x->last_words = true;
    x->paused = NULL;
    read_some(x);
    while ((t = cule_map_next(&x->tasks, &at, NULL))) {
        serve_error(t->q, CULE_EHANDLER, 0, "%s", why);
        lines_done(t, CULE_EHANDLER);
        at = 0;
    }
    x->w = NULL;
    cule_watch_set(x->out_watch, 0);
    cule_loop_defer(w->s->loop, &x->gone); /* we may be inside its callback */
}

static void lines_finish(struct worker *w)
{
    struct lines_speech *x = w->speech;
    x->finishing = true;
    lines_feed(x);
}

static const struct pool_ops pool_ops = {.start = lines_start_worker, .down = lines_down, .finish = lines_finish};

static int lines_start(struct serve *s, struct cule_err *err)
{
    return pool_start(s, &pool_ops, err);
}

const struct serve_backend serve_lines = {
    .name = "lines",
    .concurrency = 1,
    .start = lines_start,
    .has_room = pool_has_room,
    .begin = lines_begin,
    .data = lines_data,
    .cancel = lines_cancel,
    .writable = lines_writable,
    .workers = pool_workers,
    .stop = pool_stop,
    .release = pool_release,
};

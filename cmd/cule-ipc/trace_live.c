/* Spans from running programs: CULE trace-on at each, and what they stream. */
#include "trace.h"

#include "io/ready.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct live;

struct source {
    struct live *live;
    const char *endpoint;
    struct cule_link *link;
    struct cule_buf line; /* of a span cut by the end of a piece */
    bool listening, ended;
};

struct live {
    struct trace_run *t;
    struct cule_loop *loop;
    struct cule_timer *timer;
    struct source *sources;
    size_t n, open, listening;
    struct cule_err err;
    int rc;
    bool ready;
};

static void fail(struct live *v, int rc, const struct cule_err *err)
{
    if (!v->rc) {
        v->rc = rc;
        v->err = *err;
    }
    cule_loop_stop(v->loop);
}

static void take_lines(struct source *s)
{
    struct live *v = s->live;
    struct trace_run *t = v->t;
    size_t len;
    while (!v->rc && (len = cule_buf_len(&s->line)) > 0) {
        const char *p = (const char *)cule_buf_data(&s->line);
        const char *nl = memchr(p, '\n', len);
        struct cule_span span;
        struct cule_err err = {0};
        if (!nl) {
            break;
        }
        int rc = cule_span_parse(&span, p, (size_t)(nl - p), &err);
        if (rc) {
            cule_cli_warn(t->cli, "'%s' sent what is no span: %s", s->endpoint, err.text);
            t->status = 3;
        } else if ((rc = trace_span(t, &span, &err))) {
            fail(v, rc, &err);
        }
        cule_buf_take(&s->line, (size_t)(nl - p) + 1);
        if (t->o->count && t->spans >= t->o->count) {
            cule_loop_stop(v->loop);
            return;
        }
    }
}

static void tell_ready(struct live *v)
{
    struct cule_err err = {0};
    if (!v->ready && v->listening == v->open) {
        v->ready = true;
        if (cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
            cule_cli_warn(v->t->cli, "%s", err.text);
        }
    }
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct source *s = arg;
    struct live *v = s->live;
    struct cule_err err = {0};
    int code = cule_msg_error(m, &err);
    (void)l;
    if (code) {
        if (!s->ended) {
            s->ended = true;
            cule_err_context(&err, code, "'%s'", s->endpoint);
            cule_cli_warn(v->t->cli, "%s", err.text);
            v->t->status = cule_err_exit(code);
            cule_link_close(s->link);
        }
        return;
    }
    if (m->h.kind == CULE_REPLY) {
        s->listening = true;
        v->listening++;
        tell_ready(v);
    }
    if (cule_buf_add(&s->line, m->body, m->len)) {
        cule_err_set(&err, CULE_ENOMEM, "out of memory");
        fail(v, CULE_ENOMEM, &err);
        return;
    }
    take_lines(s);
    if (!(m->h.flags & CULE_OPEN)) {
        s->ended = true; /* somebody turned tracing off */
        cule_link_close(s->link);
    }
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)ctx;
    if (m->h.kind == CULE_REQUEST) {
        cule_link_error(l, m->h.id, CULE_ENO_SERVICE, 0, "a tracer answers no requests");
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    struct source *s = ctx;
    struct live *v = s->live;
    (void)l;
    (void)why; /* the open request has told it */
    s->link = NULL;
    v->open--;
    v->listening -= s->listening;
    if (v->open == 0) {
        cule_loop_stop(v->loop);
    }
}

static const struct cule_link_ops ops = {.message = on_message, .closed = on_closed};

static void on_time(void *ctx)
{
    struct live *v = ctx;
    cule_loop_stop(v->loop);
}

static void on_signal(void *ctx, int signum)
{
    struct live *v = ctx;
    (void)signum;
    cule_loop_stop(v->loop);
}

static int open_source(struct live *v, const char *endpoint, struct cule_err *err)
{
    struct source *s = &v->sources[v->n++];
    *s = (struct source){.live = v, .endpoint = endpoint};
    cule_buf_init(&s->line, 0);
    const struct cule_link_opts lo = {.name = "cule-ipc trace", .ops = &ops, .ctx = s};
    struct cule_msg m = cule_msg_make(CULE_REQUEST, (uint32_t)CULE_S_CULE, CULE_OP_CULE_TRACE_ON);
    int rc = cule_link_open(v->loop, endpoint, &lo, &s->link, err);
    if (rc) {
        return rc;
    }
    v->open++;
    rc = cule_link_call(s->link, &m, 0, on_answer, s, NULL);
    return rc ? cule_err_set(err, rc, "cannot ask '%s': %s", endpoint, cule_err_text(rc)) : 0;
}

int trace_live(struct trace_run *t, struct cule_err *err)
{
    const struct cule_words *w = &t->o->from;
    struct live v = {.t = t};
    struct cule_sigwatch *term = NULL, *intr = NULL;
    v.sources = calloc(w->n, sizeof *v.sources);
    int rc = v.sources ? cule_loop_new(&v.loop, err) : cule_err_set(err, CULE_ENOMEM, "out of memory");
    rc = rc ? rc : cule_timer_new(v.loop, &v.timer, on_time, &v, err);
    rc = rc ? rc : cule_sigwatch_new(v.loop, &term, SIGTERM, on_signal, &v, err);
    rc = rc ? rc : cule_sigwatch_new(v.loop, &intr, SIGINT, on_signal, &v, err);
    for (size_t i = 0; i < w->n && !rc; i++) {
        bool live = ipc_is_endpoint(w->v[i]) && strcmp(w->v[i], "-") != 0 && strncmp(w->v[i], "file:", 5) != 0;
        rc = live ? open_source(&v, w->v[i], err) : 0;
    }
    if (!rc) {
        if (t->o->for_ms) {
            cule_timer_start(v.timer, t->o->for_ms, 0);
        }
        cule_loop_run(v.loop);
        rc = v.rc;
        *err = rc ? v.err : *err;
    }
    for (size_t i = 0; i < v.n; i++) {
        cule_link_free(v.sources[i].link);
        cule_buf_release(&v.sources[i].line);
    }
    cule_timer_free(v.timer);
    cule_sigwatch_free(term);
    cule_sigwatch_free(intr);
    if (v.loop) {
        cule_loop_free(v.loop);
    }
    free(v.sources);
    return rc;
}

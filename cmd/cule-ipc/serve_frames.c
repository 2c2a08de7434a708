/* serve --frames: persistent workers that speak frames on their stdin and stdout, many requests at once. */
#include "serve_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct speech {
    struct cule_list node; /* in `orphans`, or alone */
    struct serve *s;
    struct worker *w; /* NULL: the process has ended, its last words are still being read */
    struct forward_port port;
};

/* Links whose process has ended. They end by themselves when all it said has been read. */
static struct cule_list orphans = {&orphans, &orphans};

/* One request on its way. */
struct passing {
    struct serve_req *q;
    struct worker *w;
    struct forward *f;
};

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    struct speech *x = ctx;
    ipc_msg_consumed(l, m);
    if (m->h.kind == CULE_REQUEST) {
        cule_link_error(l, m->h.id, CULE_ENO_SERVICE, 0, "the server answers no requests of its workers");
    } else if (m->h.kind == CULE_EVENT) {
        serve_say(x->s, 3, "an event from a worker has no receiver");
    }
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    struct speech *x = ctx;
    (void)l;
    forward_writable(&x->port, id);
    serve_pump(x->s);
}

/* All ports that may hold capabilities of this one. */
static void port_gone(struct serve *s, struct forward_port *p)
{
    forward_port_gone(p, NULL, 0);
    CULE_LIST_EACH (n, &s->clients) {
        struct serve_client *c = CULE_LIST_ENTRY(n, struct serve_client, node);
        cule_captable_revoke_target(&c->port.caps, p->number);
    }
}

static void speech_free(struct speech *x)
{
    cule_list_remove(&x->node);
    forward_port_release(&x->port);
    free(x);
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    struct speech *x = ctx;
    struct worker *w = x->w;
    (void)l;
    if (!w) {
        port_gone(x->s, &x->port);
        speech_free(x);
        return;
    }
    struct pool *p = w->s->pool;
    port_gone(w->s, &x->port);
    if (why->code) {
        serve_say(w->s, 1, "the link to worker %s[%d] ended: %s", w->s->name, (int)w->log.pid, why->text);
    }
    if (!p->stopping) {
        pool_hangup(w);
    }
}

static const struct cule_link_ops link_ops = {.message = on_message, .writable = on_writable, .closed = on_closed};

static int frames_start_worker(struct worker *w, int err_fd, struct cule_err *err)
{
    struct serve *s = w->s;
    struct speech *x = calloc(1, sizeof *x);
    struct cule_link *l;
    int sv[2];
    int rc = x ? cule_socketpair(sv, err) : cule_err_set(err, CULE_ENOMEM, "out of memory");
    if (rc) {
        free(x);
        return rc;
    }
    x->w = w;
    x->s = s;
    cule_list_init(&x->node);
    const struct cule_link_opts lo = {
        .name = s->own_name, .ops = &link_ops, .ctx = x, .manual_credit = true, .connect_timeout_ms = UINT32_MAX};
    rc = cule_link_open_fd(s->loop, sv[0], sv[0], &lo, &l, err);
    if (rc) {
        close(sv[0]);
        close(sv[1]);
        free(x);
        return rc;
    }
    const struct cule_spawn sp = {
        .shell = s->command, .envp = s->env, .in = sv[1], .out = sv[1], .err = err_fd, .group = true};
    rc = cule_spawn(s->loop, &sp, &w->proc, pool_on_exit, w, err);
    close(sv[1]);
    if (rc) {
        cule_link_free(l);
        free(x);
        return rc;
    }
    forward_port_init(&x->port, l, true, s->next_number++);
    x->port.gone_code = CULE_EHANDLER;
    snprintf(x->port.gone_text, sizeof x->port.gone_text, "worker %s[%d] ended", s->name, (int)cule_proc_pid(w->proc));
    w->speech = x;
    return 0;
}

static void frames_down(struct worker *w, const char *why)
{
    struct speech *x = w->speech;
    w->speech = NULL;
    snprintf(x->port.gone_text, sizeof x->port.gone_text, "%s", why);
    if (x->port.link) {
        x->w = NULL;
        cule_list_push(&orphans, &x->node);
    } else {
        speech_free(x);
    }
}

static void frames_finish(struct worker *w)
{
    struct speech *x = w->speech;
    cule_link_close(x->port.link);
}

static const struct pool_ops pool_ops = {.start = frames_start_worker, .down = frames_down, .finish = frames_finish};

static int frames_start(struct serve *s, struct cule_err *err)
{
    return pool_start(s, &pool_ops, err);
}

static void on_done(void *ctx, int code)
{
    struct passing *p = ctx;
    struct serve_req *q = p->q;
    p->w->open--;
    free(p);
    q->work = NULL;
    serve_end(q, code);
}

/* An event has nobody to answer to: it is the next worker's, and that is all. */
static void pass_event(struct serve_req *q, struct worker *w)
{
    struct speech *x = w->speech;
    struct forward_port nobody;
    forward_port_init(&nobody, NULL, false, 0);
    struct cule_msg m = q->k->m;
    m.h.cap = 0;
    int rc = forward_event(&nobody, &x->port, &m);
    forward_port_release(&nobody);
    serve_end(q, rc);
}

static void frames_begin(struct serve *s, struct serve_req *q)
{
    struct worker *w = pool_pick(s);
    struct speech *x = w->speech;
    if (!q->k->m.h.id) {
        pass_event(q, w);
        return;
    }
    struct passing *p = calloc(1, sizeof *p);
    if (!p) {
        serve_error(q, CULE_ENOMEM, 0, "out of memory");
        serve_end(q, CULE_ENOMEM);
        return;
    }
    p->q = q;
    p->w = w;
    q->work = p;
    w->open++;
    struct serve_client *c = q->client;
    struct cule_msg m = q->k->m;
    uint64_t id = m.h.id;
    bool early = cule_buf_len(&q->early) || (m.h.flags & CULE_OPEN && !q->body_open);
    int rc = forward_request(&c->port, &x->port, &m, NULL, on_done, p, &p->f);
    if (rc) { /* it has been answered */
        w->open--;
        free(p);
        q->work = NULL;
        serve_end(q, rc);
        return;
    }
    if (early) { /* the part of its stream that came while it waited */
        struct cule_msg d = cule_msg_make(CULE_DATA, m.h.service, m.h.op);
        d.h.id = id;
        d.h.flags = q->body_open ? CULE_OPEN : 0;
        d.body = cule_buf_len(&q->early) ? cule_buf_data(&q->early) : NULL;
        d.len = cule_buf_len(&q->early);
        forward_stream(&c->port, &d);
        cule_buf_clear(&q->early);
    }
}

static void frames_cancel(struct serve_req *q)
{
    struct passing *p = q->work;
    forward_cancel(p->f); /* on_done follows */
}

static void frames_writable(struct serve_req *q)
{
    forward_writable(&q->client->port, q->k->m.h.id);
}

static void frames_release(struct serve *s)
{
    pool_release(s);
    CULE_LIST_EACH (n, &orphans) {
        struct speech *x = CULE_LIST_ENTRY(n, struct speech, node);
        cule_link_free(x->port.link);
        speech_free(x);
    }
}

const struct serve_backend serve_frames = {
    .name = "frames",
    .concurrency = 256,
    .forwards = true,
    .start = frames_start,
    .has_room = pool_has_room,
    .begin = frames_begin,
    .cancel = frames_cancel,
    .writable = frames_writable,
    .workers = pool_workers,
    .stop = pool_stop,
    .release = frames_release,
};

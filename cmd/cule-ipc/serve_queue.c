/* Requests from their arrival to their end: admission, the queue, deadlines, cancels, answers. */
#include "serve.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- ends --- */

static void count_end(struct serve *s, const struct serve_req *q, int code)
{
    switch (code) {
    case 0: s->n.replies += q->k->m.h.kind == CULE_REQUEST; break;
    case CULE_ECANCELLED: s->n.cancelled++; break;
    case CULE_ETIMEOUT: s->n.timeouts++; break;
    default: s->n.errors++; break;
    }
    if (q->state == SERVE_ACTIVE) {
        cule_hist_add(&s->latency, cule_now_ns() - q->start_ns);
    }
}

/* Nobody waits for it any more: it is out of the asker's tables. */
static void make_void(struct serve_req *q)
{
    if (q->client && q->k->m.h.id) {
        cule_map_take(&q->client->reqs, q->k->m.h.id);
    }
    q->client = NULL;
}

void serve_end(struct serve_req *q, int code)
{
    struct serve *s = q->s;
    code = q->given_up ? q->given_up : code;
    count_end(s, q, code);
    serve_span_end(q, code);
    make_void(q);
    cule_list_remove(&q->node);
    if (q->state == SERVE_ACTIVE) {
        s->nactive--;
    } else {
        s->nqueued--;
        s->queued_bytes -= q->k->m.len;
    }
    cule_timer_free(q->timer);
    cule_buf_release(&q->early);
    ipc_msg_free(q->k);
    free(q);
    cule_loop_defer(s->loop, &s->pump);
}

/* Gives a request up: cancelled by the asker, overdue, or the asker is gone. */
static void give_up(struct serve_req *q, int code)
{
    struct serve *s = q->s;
    q->given_up = code;
    if (q->state == SERVE_QUEUED) {
        serve_end(q, code);
        return;
    }
    if (!s->back->forwards) {
        make_void(q);
    }
    s->back->cancel(q); /* ends it, now or when the work has stopped */
}

static void on_overdue(void *ctx)
{
    struct serve_req *q = ctx;
    if (q->client) {
        serve_error(q, CULE_ETIMEOUT, q->s->cli->timeout_ms,
                    "no answer within the %" PRIu64 " ms that the server allows", q->s->cli->timeout_ms);
    }
    give_up(q, CULE_ETIMEOUT);
}

/* --- answers --- */

void serve_reply(struct serve_req *q, uint64_t arg0, uint64_t arg1, const void *p, size_t n)
{
    if (!q->client || !q->k->m.h.id) {
        return;
    }
    q->s->n.bytes_out += n;
    int rc = cule_link_reply(q->client->link, q->k->m.h.id, arg0, arg1, p, n);
    if (rc == CULE_ETOO_BIG) {
        cule_link_error(q->client->link, q->k->m.h.id, rc, n, "the answer of %zu bytes is more than the asker takes",
                        n);
    }
}

int serve_stream(struct serve_req *q, uint64_t arg0, uint64_t arg1, const void *p, size_t n, bool last)
{
    if (!q->client || !q->k->m.h.id) {
        return 0;
    }
    struct cule_link *l = q->client->link;
    if (!q->replied) {
        q->replied = true;
        cule_link_reply_open(l, q->k->m.h.id, arg0, arg1, NULL, 0);
    }
    int rc = cule_link_data(l, q->k->m.h.id, p, n, last);
    if (rc != CULE_EAGAIN) {
        q->s->n.bytes_out += n;
    }
    return rc == CULE_EAGAIN ? rc : 0;
}

void serve_error(struct serve_req *q, int code, uint64_t detail, const char *fmt, ...)
{
    char text[SERVE_TEXT_MAX + 1];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (q->client && q->k->m.h.id) {
        cule_link_error(q->client->link, q->k->m.h.id, code, detail, "%s", text);
    }
    serve_say(q->s, 3, "request %" PRIu64 ": %s: %s", q->k->m.h.id, cule_err_name(code), text);
}

void serve_consumed(struct serve_req *q, size_t n)
{
    if (q->client && q->k->m.h.id) {
        cule_link_stream_consumed(q->client->link, q->k->m.h.id, n);
    }
}

/* --- begins --- */

static void begin(struct serve *s, struct serve_req *q)
{
    cule_list_remove(&q->node);
    s->nqueued--;
    s->queued_bytes -= q->k->m.len;
    if (q->k->m.h.id) {
        uint32_t left = cule_link_left_ms(q->client->link, q->k->m.h.id);
        q->k->m.h.deadline_ms = left == UINT32_MAX ? 0 : CULE_MAX(left, 1u);
    }
    q->state = SERVE_ACTIVE;
    s->nactive++;
    cule_list_push(&s->active, &q->node);
    s->back->begin(s, q);
}

/* The highest priority first, in order of arrival within it. */
static void on_pump(void *ctx)
{
    struct serve *s = ctx;
    unsigned p = 0;
    while (p < CULE_PRIORITIES && s->nactive < s->concurrency && s->back->has_room(s)) {
        if (cule_list_empty(&s->queue[p])) {
            p++;
            continue;
        }
        begin(s, CULE_LIST_ENTRY(s->queue[p].next, struct serve_req, node));
        p = 0;
    }
    serve_pump_done(s);
}

void serve_pump_init(struct serve *s)
{
    serve_spans_init(s);
    cule_defer_init(&s->pump, on_pump, s);
}

void serve_pump(struct serve *s)
{
    cule_loop_defer(s->loop, &s->pump);
}

bool serve_idle(const struct serve *s)
{
    return s->nactive == 0 && s->nqueued == 0;
}

/* --- arrivals --- */

static bool serves(const struct serve *s, uint32_t service)
{
    for (size_t i = 0; i < s->o->services.n; i++) {
        uint32_t one;
        if (cule_service_parse(s->o->services.v[i], &one) == 0 && one == service) {
            return true;
        }
    }
    return s->o->services.n == 0;
}

static void refuse(struct serve_client *c, const struct cule_msg *m, int code, const char *fmt, ...) CULE_PRINTF(4, 5);
static void refuse(struct serve_client *c, const struct cule_msg *m, int code, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (m->h.kind == CULE_REQUEST) {
        cule_link_error(c->link, m->h.id, code, 0, "%s", text);
    } else {
        serve_say(c->s, 1, "an event was dropped: %s", text);
    }
    *(code == CULE_EBUSY ? &c->s->n.busy : &c->s->n.refused) += 1;
}

/* 0 if there is room for it, else it has been refused. */
static int admit(struct serve_client *c, const struct cule_msg *m)
{
    struct serve *s = c->s;
    char service[CULE_SERVICE_TEXT];
    if (!serves(s, m->h.service)) {
        refuse(c, m, CULE_ENO_SERVICE, "'%s' does not serve '%s'", s->own_name,
               cule_service_text(m->h.service, service));
        return CULE_ENO_SERVICE;
    }
    if (s->draining) {
        refuse(c, m, CULE_EBUSY, "'%s' is stopping", s->own_name);
        return CULE_EBUSY;
    }
    bool waits = s->nactive >= s->concurrency || !s->back->has_room(s) || s->nqueued;
    if (waits && s->nqueued >= s->o->queue) {
        refuse(c, m, CULE_EBUSY, "%" PRIu64 " requests wait already, the limit (--queue)", s->nqueued);
        return CULE_EBUSY;
    }
    if (waits && s->queued_bytes + m->len > s->o->queue_bytes) {
        refuse(c, m, CULE_EBUSY, "%" PRIu64 " bytes wait already, the limit is %" PRIu64 " (--queue-bytes)",
               s->queued_bytes, s->o->queue_bytes);
        return CULE_EBUSY;
    }
    return 0;
}

static struct serve_req *make_req(struct serve_client *c, struct cule_msg *m)
{
    struct serve *s = c->s;
    struct serve_req *q = calloc(1, sizeof *q);
    if (!q) {
        return NULL;
    }
    q->s = s;
    q->client = c;
    q->start_ns = cule_now_ns();
    q->body_open = m->h.kind == CULE_REQUEST && (m->h.flags & CULE_OPEN);
    cule_list_init(&q->node);
    cule_buf_init(&q->early, 0);
    q->k = ipc_msg_keep(m);
    bool ok = q->k && (!m->h.id || cule_map_put(&c->reqs, m->h.id, q) == 0);
    if (ok && m->h.kind == CULE_REQUEST && m->h.deadline_ms == 0 && s->cli->timeout_ms) {
        ok = cule_timer_new(s->loop, &q->timer, on_overdue, q, NULL) == 0;
        if (ok) {
            cule_timer_start(q->timer, s->cli->timeout_ms, 0);
        }
    }
    if (!ok) {
        if (m->h.id) {
            cule_map_take(&c->reqs, m->h.id);
        }
        ipc_msg_free(q->k);
        free(q);
        return NULL;
    }
    return q;
}

void serve_take(struct serve_client *c, struct cule_msg *m)
{
    struct serve *s = c->s;
    if (m->h.kind == CULE_EVENT) {
        m->h.id = 0;
    }
    ipc_msg_consumed(c->link, m);
    *(m->h.kind == CULE_EVENT ? &s->n.events : &s->n.requests) += 1;
    s->n.bytes_in += m->len;
    if (admit(c, m)) {
        return;
    }
    struct serve_req *q = make_req(c, m);
    if (!q) {
        refuse(c, m, CULE_ENOMEM, "out of memory");
        return;
    }
    serve_span_start(q);
    s->nqueued++;
    s->queued_bytes += q->k->m.len;
    cule_list_push(&s->queue[q->k->m.h.priority], &q->node);
    if (s->nqueued == 1 && s->nactive < s->concurrency && s->back->has_room(s)) {
        begin(s, q);
    }
}

void serve_take_data(struct serve_client *c, struct cule_msg *m)
{
    struct serve_req *q = cule_map_get(&c->reqs, m->h.id);
    bool last = !(m->h.flags & CULE_OPEN);
    if (q && q->state == SERVE_ACTIVE && c->s->back->forwards) {
        forward_message(&c->port, m); /* gives back credit itself */
        return;
    }
    ipc_msg_consumed(c->link, m);
    if (!q || !q->body_open) {
        return;
    }
    c->s->n.bytes_in += m->len;
    q->body_open = !last;
    if (q->state == SERVE_QUEUED) {
        /* At most the stream's window: none of it is given back yet. */
        if (cule_buf_add(&q->early, m->body, m->len)) {
            serve_error(q, CULE_ENOMEM, 0, "out of memory");
            serve_end(q, CULE_ENOMEM);
        }
        return;
    }
    c->s->back->data(q, m->body, m->len, last);
}

void serve_take_cancel(struct serve_client *c, struct cule_msg *m)
{
    struct serve_req *q = cule_map_get(&c->reqs, m->h.id);
    serve_trace_forget(c, m->h.id);
    if (q) {
        give_up(q, m->h.arg0 == (uint64_t)-CULE_ETIMEOUT ? CULE_ETIMEOUT : CULE_ECANCELLED);
    }
}

void serve_client_gone(struct serve_client *c)
{
    size_t at = 0;
    struct serve_req *q;
    while ((q = cule_map_next(&c->reqs, &at, NULL))) {
        uint64_t id = q->k->m.h.id;
        give_up(q, CULE_ECANCELLED);
        cule_map_take(&c->reqs, id); /* a forwarded one may be there still */
        at = 0;
    }
    CULE_LIST_EACH (n, &c->s->active) { /* events have no id */
        struct serve_req *e = CULE_LIST_ENTRY(n, struct serve_req, node);
        if (e->client == c) {
            e->client = NULL;
        }
    }
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        CULE_LIST_EACH (n, &c->s->queue[p]) {
            struct serve_req *e = CULE_LIST_ENTRY(n, struct serve_req, node);
            e->client = e->client == c ? NULL : e->client; /* an event is dealt with all the same */
        }
    }
}

void serve_cancel_all(struct serve *s)
{
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        while (!cule_list_empty(&s->queue[p])) {
            struct serve_req *q = CULE_LIST_ENTRY(s->queue[p].next, struct serve_req, node);
            serve_error(q, CULE_EBUSY, 0, "'%s' is stopping", s->own_name);
            serve_end(q, CULE_EBUSY);
        }
    }
    CULE_LIST_EACH (n, &s->active) {
        struct serve_req *q = CULE_LIST_ENTRY(n, struct serve_req, node);
        serve_error(q, CULE_EBUSY, 0, "'%s' is stopping", s->own_name);
        give_up(q, CULE_ECANCELLED);
    }
}

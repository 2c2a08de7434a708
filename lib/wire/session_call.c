/* Requests: exchanges of both sides with their answers and streams. */
#include "wire/session.h"

#include "wire/ops.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NS_PER_MS = 1000000 };

/* --- exchanges --- */

static struct cule_exchange *open_exchange(struct cule_session *s, uint64_t id, const struct cule_frame *h, bool ours)
{
    struct cule_exchange *x = s->spare ? s->spare : malloc(sizeof *x);
    s->spare = NULL;
    if (!x || cule_map_put(&s->exchanges, id, x)) {
        free(x);
        return NULL;
    }
    memset(x, 0, sizeof *x);
    x->id = id;
    x->ours = ours;
    cule_list_push(&s->opened, &x->node);
    x->priority = h->priority;
    x->send_open = ours && (h->flags & CULE_OPEN);
    x->recv_open = !ours && (h->flags & CULE_OPEN);
    *(ours ? &s->calls : &s->requests) += 1;
    return x;
}

/* Takes an exchange out of the tables; the caller frees it. */
static void unlink_exchange(struct cule_session *s, struct cule_exchange *x)
{
    cule_map_take(&s->exchanges, x->id);
    cule_list_remove(&x->node);
    cule_heap_remove(&s->deadlines, &x->deadline);
    *(x->ours ? &s->calls : &s->requests) -= 1;
}

void cule_session_free_exchange(struct cule_session *s, struct cule_exchange *x)
{
    free(s->spare);
    s->spare = x;
}

static void end_exchange(struct cule_session *s, struct cule_exchange *x)
{
    unlink_exchange(s, x);
    cule_session_free_exchange(s, x);
}

static struct cule_exchange *find(const struct cule_session *s, uint64_t id, bool ours)
{
    struct cule_exchange *x = id ? cule_map_get(&s->exchanges, id) : NULL;
    return x && x->ours == ours ? x : NULL;
}

static int set_deadline(struct cule_session *s, struct cule_exchange *x, uint64_t after_ms)
{
    if (after_ms > UINT64_MAX / NS_PER_MS - s->now_ns) {
        return 0; /* further than the clock goes */
    }
    x->deadline_ns = s->now_ns + after_ms * NS_PER_MS;
    return cule_heap_put(&s->deadlines, &x->deadline, x->deadline_ns);
}

void cule_session_end_call(struct cule_session *s, struct cule_exchange *x, int code, const char *text)
{
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_ERROR_FRAME);
    m.h.id = x->id;
    m.h.op = CULE_OP_ANY_ERROR;
    m.h.priority = x->priority;
    m.h.arg0 = (uint64_t)-code;
    m.body = (const uint8_t *)text;
    m.len = strlen(text);
    m.h.length = (uint32_t)m.len;
    unlink_exchange(s, x);
    if (x->fn) {
        x->fn(s->link, x->arg, &m);
    }
    cule_session_free_exchange(s, x);
}

void cule_session_end_request(struct cule_session *s, struct cule_exchange *x, int code, const char *text)
{
    struct cule_msg m = {.body = (const uint8_t *)""};
    cule_frame_init(&m.h, CULE_CANCEL);
    m.h.id = x->id;
    m.h.priority = x->priority;
    m.h.arg0 = (uint64_t)-code;
    end_exchange(s, x);
    if (text) {
        cule_session_report(s, m.h.id, m.h.priority, 0, code, text);
    }
    s->ops->message(s->link, &m);
}

void cule_session_report(struct cule_session *s, uint64_t id, unsigned priority, uint32_t service, int code,
                         const char *text)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_ERROR_FRAME);
    f.id = id;
    f.priority = (uint8_t)priority;
    f.service = service;
    f.op = CULE_OP_ANY_ERROR;
    f.arg0 = (uint64_t)-code;
    f.length = (uint32_t)strlen(text);
    cule_session_queue(s, &f, text);
}

/* --- asking --- */

int cule_session_call(struct cule_session *s, struct cule_msg *m, uint64_t timeout_ms, cule_answer_fn *fn, void *arg,
                      uint64_t *id)
{
    if (s->dead || s->half) {
        return CULE_ECLOSED;
    }
    if (!s->cfg.duplex) {
        return CULE_EUNSUPPORTED;
    }
    if (s->calls >= s->cfg.calls_max) {
        return CULE_ELIMIT;
    }
    m->h.kind = CULE_REQUEST;
    m->h.id = s->next_id;
    if (timeout_ms) {
        m->h.deadline_ms = timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout_ms;
    }
    struct cule_exchange *x = open_exchange(s, m->h.id, &m->h, true);
    if (!x) {
        return CULE_ENOMEM;
    }
    x->fn = fn;
    x->arg = arg;
    int rc = timeout_ms ? set_deadline(s, x, timeout_ms) : 0;
    rc = rc ? rc : cule_session_send(s, m, false);
    if (rc) {
        end_exchange(s, x);
        return rc;
    }
    s->next_id += 2;
    if (id) {
        *id = m->h.id;
    }
    return 0;
}

void cule_session_redirect(struct cule_session *s, uint64_t id, cule_answer_fn *fn, void *arg)
{
    struct cule_exchange *x = find(s, id, true);
    if (x) {
        x->fn = fn;
        x->arg = arg;
    }
}

void cule_session_send_cancel(struct cule_session *s, const struct cule_exchange *x, int code)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_CANCEL);
    f.id = x->id;
    f.priority = x->priority; /* must not overtake its request */
    f.arg0 = (uint64_t)-code;
    cule_session_queue(s, &f, NULL);
}

int cule_session_cancel(struct cule_session *s, uint64_t id)
{
    struct cule_exchange *x = find(s, id, true);
    if (!x) {
        return 0;
    }
    cule_session_send_cancel(s, x, CULE_ECANCELLED);
    cule_session_end_call(s, x, CULE_ECANCELLED, "cancelled");
    return 0;
}

int cule_session_data_msg(struct cule_session *s, const struct cule_msg *m)
{
    uint64_t id = m->h.id;
    struct cule_exchange *x = id ? cule_map_get(&s->exchanges, id) : NULL;
    if (s->dead) {
        return CULE_ECLOSED;
    }
    if (!x || !x->send_open) {
        return 0; /* ended meanwhile: the bytes have no reader */
    }
    if (m->len && x->send.limited && x->send.used_bytes >= x->send.granted_bytes) {
        x->want_writable = true;
        s->stats.again++;
        return CULE_EAGAIN;
    }
    struct cule_msg d = *m;
    d.h.priority = x->priority;
    int rc = cule_session_send(s, &d, false);
    if (rc) {
        return rc;
    }
    x->send.used_bytes += m->len;
    if (!(m->h.flags & CULE_OPEN)) {
        x->send_open = false;
        if (!x->ours) {
            end_exchange(s, x); /* the answer's stream was the last of it */
        }
    }
    return 0;
}

int cule_session_data(struct cule_session *s, uint64_t id, const void *body, size_t n, bool last)
{
    struct cule_msg m = {.body = body, .len = n};
    cule_frame_init(&m.h, CULE_DATA);
    m.h.id = id;
    m.h.flags = last ? 0 : CULE_OPEN;
    return cule_session_data_msg(s, &m);
}

int cule_session_answer(struct cule_session *s, struct cule_msg *m)
{
    struct cule_exchange *x = find(s, m->h.id, false);
    if (!x || s->dead) {
        return s->dead ? CULE_ECLOSED : 0;
    }
    m->h.priority = x->priority;
    int rc = cule_session_send(s, m, true);
    if (rc) {
        return rc;
    }
    if (m->h.kind == CULE_REPLY && (m->h.flags & CULE_OPEN)) {
        x->send_open = true;
    } else {
        end_exchange(s, x);
    }
    return 0;
}

uint32_t cule_session_left_ms(const struct cule_session *s, uint64_t id)
{
    const struct cule_exchange *x = find(s, id, false);
    if (!x) {
        return 0;
    }
    if (!x->deadline_ns) {
        return UINT32_MAX;
    }
    uint64_t left = x->deadline_ns > s->now_ns ? (x->deadline_ns - s->now_ns) / NS_PER_MS : 0;
    return left > UINT32_MAX - 1 ? UINT32_MAX - 1 : (uint32_t)left;
}

/* --- what comes in --- */

/* A stream's credit: the first DATA, or the message that opened it, is answered with a window; what was dealt with is
 * given back. What came before the first grant was sent without limit but counts against it. */
static void stream_begins(struct cule_session *s, struct cule_exchange *x)
{
    if (!x->granted && s->cfg.stream_bytes != UINT64_MAX) {
        x->granted = cule_session_grant(s, x->priority, x->id, 0, s->cfg.stream_bytes) == 0;
    }
}

static void stream_in(struct cule_session *s, struct cule_exchange *x, size_t n)
{
    stream_begins(s, x);
    x->recv.used_bytes += n;
    if (!s->cfg.manual_credit) {
        cule_session_stream_consumed(s, x->id, n);
    }
}

void cule_session_stream_consumed(struct cule_session *s, uint64_t id, uint64_t bytes)
{
    struct cule_exchange *x = cule_map_get(&s->exchanges, id);
    if (!x) {
        return;
    }
    bytes = CULE_MIN(bytes, x->recv.used_bytes - x->recv.back_bytes);
    x->recv.back_bytes += bytes;
    x->recv.due_bytes += bytes;
    if (x->granted && x->recv.due_bytes >= s->cfg.stream_bytes / 2 &&
        cule_session_grant(s, x->priority, id, 0, x->recv.due_bytes) == 0) {
        x->recv.due_bytes = 0;
    }
}

static void tell(struct cule_session *s, struct cule_msg *m)
{
    s->delivered = true;
    s->ops->message(s->link, m);
}

static void answer(struct cule_session *s, cule_answer_fn *fn, void *arg, struct cule_msg *m)
{
    if (fn) {
        s->delivered = true;
        fn(s->link, arg, m);
    }
}

static int on_request(struct cule_session *s, struct cule_msg *m, struct cule_err *err)
{
    uint64_t id = m->h.id;
    if (id == 0 || ((id & 1) != 0) != s->cfg.server) {
        return cule_err_set(err, CULE_EMALFORMED, "request id %llu is not the asker's to choose",
                            (unsigned long long)id);
    }
    if (cule_map_get(&s->exchanges, id)) {
        return cule_err_set(err, CULE_EMALFORMED, "request id %llu is open already", (unsigned long long)id);
    }
    struct cule_exchange *x = NULL;
    if (s->requests < s->cfg.calls_max) {
        x = open_exchange(s, id, &m->h, false);
    }
    if (!x || (m->h.deadline_ms && set_deadline(s, x, m->h.deadline_ms))) {
        bool full = !x && s->requests >= s->cfg.calls_max;
        if (x) {
            end_exchange(s, x);
        }
        char text[80];
        snprintf(text, sizeof text, "too many open requests on this link (limit %u)", s->cfg.calls_max);
        cule_session_report(s, id, m->h.priority, m->h.service, full ? CULE_ELIMIT : CULE_ENOMEM,
                            full ? text : "out of memory");
        return 0;
    }
    if (x->recv_open) {
        stream_begins(s, x);
    }
    tell(s, m);
    return 0;
}

static void on_answer(struct cule_session *s, struct cule_msg *m)
{
    struct cule_exchange *x = find(s, m->h.id, true);
    if (!x) {
        return; /* late */
    }
    bool open = (m->h.flags & CULE_OPEN) && m->h.kind != CULE_ERROR_FRAME;
    if (m->h.kind == CULE_DATA && !x->recv_open) {
        return; /* no REPLY with OPEN came before it */
    }
    if (!open) {
        m->h.flags &= (uint16_t)~CULE_OPEN;
        unlink_exchange(s, x);
        answer(s, x->fn, x->arg, m);
        cule_session_free_exchange(s, x);
        return;
    }
    if (m->h.kind == CULE_REPLY) {
        x->recv_open = true;
        stream_begins(s, x);
    } else {
        stream_in(s, x, m->len);
    }
    answer(s, x->fn, x->arg, m); /* may cancel and so free x */
}

static void on_stream_of_theirs(struct cule_session *s, struct cule_exchange *x, struct cule_msg *m)
{
    if (!x->recv_open) {
        return;
    }
    if (m->h.flags & CULE_OPEN) {
        stream_in(s, x, m->len);
    } else {
        x->recv_open = false;
    }
    tell(s, m);
}

/* ERROR cancelled goes out before the handler hears of it, so that it need not answer. */
static void on_cancel(struct cule_session *s, const struct cule_msg *m)
{
    struct cule_exchange *x = find(s, m->h.id, false);
    if (!x) {
        return;
    }
    cule_assembler_abort(&s->assembler, m->h.source, m->h.id);
    cule_session_end_request(s, x, CULE_ECANCELLED, "cancelled");
}

void cule_session_bad_message(struct cule_session *s, const struct cule_frame *h, int code, const char *text)
{
    struct cule_exchange *x = h->id ? cule_map_get(&s->exchanges, h->id) : NULL;
    bool answers = h->kind == CULE_REPLY || h->kind == CULE_ERROR_FRAME || h->kind == CULE_DATA;
    if (h->kind == CULE_REQUEST && h->id) {
        cule_session_report(s, h->id, h->priority, h->service, code, text);
    } else if (x && x->ours && answers) {
        cule_session_send_cancel(s, x, code);
        cule_session_end_call(s, x, code, text);
    } else if (x && !x->ours && h->kind == CULE_DATA) {
        cule_session_end_request(s, x, code, text);
    }
}

int cule_session_on_message(struct cule_session *s, struct cule_msg *m, struct cule_err *err)
{
    switch (m->h.kind) {
    case CULE_REQUEST: return on_request(s, m, err);
    case CULE_REPLY: on_answer(s, m); return 0;
    case CULE_ERROR_FRAME:
        if (m->h.id == 0) {
            int code = -(int)(m->h.arg0 & 0xffff);
            return cule_err_set(err, code ? code : CULE_EIO, "the peer ended the link: %.*s",
                                (int)CULE_MIN(m->len, 180u), (const char *)m->body);
        }
        on_answer(s, m);
        return 0;
    case CULE_DATA: {
        struct cule_exchange *x = m->h.id ? cule_map_get(&s->exchanges, m->h.id) : NULL;
        if (x && x->ours) {
            on_answer(s, m);
        } else if (x) {
            on_stream_of_theirs(s, x, m);
        }
        return 0;
    }
    case CULE_CANCEL: on_cancel(s, m); return 0;
    default: tell(s, m); return 0;
    }
}

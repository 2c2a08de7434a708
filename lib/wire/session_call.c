/* Requests: exchanges of both sides with their answers, streams, deadlines and ends; pings. */
#include "wire/session.h"

#include "wire/ops.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NS_PER_MS = 1000000 };

struct ping {
    struct cule_list node; /* first: freed by it */
    uint64_t id;
    uint64_t sent_ns;
    cule_pong_fn *fn;
    void *arg;
};

/* --- exchanges --- */

static struct cule_exchange *open_exchange(struct cule_session *s, uint64_t id, const struct cule_frame *h, bool ours)
{
    struct cule_exchange *x = calloc(1, sizeof *x);
    if (!x || cule_map_put(&s->exchanges, id, x)) {
        free(x);
        return NULL;
    }
    x->id = id;
    x->ours = ours;
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
    cule_heap_remove(&s->deadlines, &x->deadline);
    *(x->ours ? &s->calls : &s->requests) -= 1;
}

static void end_exchange(struct cule_session *s, struct cule_exchange *x)
{
    unlink_exchange(s, x);
    free(x);
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

/* An ERROR as the peer would have sent it, for our own callback. */
static void answer_locally(struct cule_session *s, struct cule_exchange *x, int code, const char *text)
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
    free(x);
}

/* Tells the handler that request x is void. The exchange is gone when it hears of it, unless it may still answer. */
static void cancel_handler(struct cule_session *s, uint64_t id, unsigned priority, int code)
{
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_CANCEL);
    m.h.id = id;
    m.h.priority = (uint8_t)priority;
    m.h.arg0 = (uint64_t)-code;
    if (!s->dead) {
        s->ops->message(s->link, &m);
    }
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
    if (s->dead) {
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

static void send_cancel(struct cule_session *s, const struct cule_exchange *x, int code)
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
    send_cancel(s, x, CULE_ECANCELLED);
    answer_locally(s, x, CULE_ECANCELLED, "cancelled");
    return 0;
}

int cule_session_data(struct cule_session *s, uint64_t id, const void *body, size_t n, bool last)
{
    struct cule_exchange *x = id ? cule_map_get(&s->exchanges, id) : NULL;
    if (!x || !x->send_open) {
        return 0; /* ended meanwhile: the bytes have no reader */
    }
    if (n && x->send.limited && x->send.used_bytes >= x->send.granted_bytes) {
        x->want_writable = true;
        s->stats.again++;
        return CULE_EAGAIN;
    }
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_DATA);
    m.h.id = id;
    m.h.priority = x->priority;
    m.h.flags = last ? 0 : CULE_OPEN;
    m.body = body;
    m.len = n;
    int rc = cule_session_send(s, &m, false);
    if (rc) {
        return rc;
    }
    x->send.used_bytes += n;
    if (last) {
        x->send_open = false;
        if (!x->ours) {
            end_exchange(s, x); /* the answer's stream was the last of it */
        }
    }
    return 0;
}

int cule_session_answer(struct cule_session *s, struct cule_msg *m)
{
    struct cule_exchange *x = find(s, m->h.id, false);
    if (!x) {
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

/* Credit is given back as frames arrive; by hand where the application said so. */
void cule_session_on_frame_in(struct cule_session *s, const struct cule_frame *f)
{
    bool pays = f->kind == CULE_REQUEST || f->kind == CULE_EVENT || f->kind == CULE_DATA;
    if (f->kind == CULE_REPLY) {
        struct cule_exchange *x = find(s, f->id, true);
        pays = x && x->reply_frames;
        if (x) {
            x->reply_frames = (f->flags & CULE_MORE) != 0;
        }
    }
    if (!pays) {
        return;
    }
    struct cule_credit *c = &s->recv[f->priority];
    c->used_frames++;
    c->used_bytes += f->length;
    if (!s->cfg.manual_credit || f->kind == CULE_REPLY) {
        cule_session_consumed(s, f->priority, 1, f->length);
    }
}

/* The first DATA of a stream is answered with its window; later ones give back what they took. */
static void stream_in(struct cule_session *s, struct cule_exchange *x, size_t n)
{
    if (s->cfg.stream_bytes == UINT64_MAX) {
        return;
    }
    if (!x->granted) {
        x->granted = cule_session_grant(s, x->priority, x->id, 0, s->cfg.stream_bytes) == 0;
        x->recv.due_bytes = 0;
        /* What came before the first grant was sent without limit but counts against it. */
    }
    if (!s->cfg.manual_credit) {
        cule_session_stream_consumed(s, x->id, n);
    }
}

void cule_session_stream_consumed(struct cule_session *s, uint64_t id, uint64_t bytes)
{
    struct cule_exchange *x = cule_map_get(&s->exchanges, id);
    if (!x || !x->granted) {
        return;
    }
    x->recv.due_bytes += bytes;
    if (x->recv.due_bytes >= s->cfg.stream_bytes / 2 &&
        cule_session_grant(s, x->priority, id, 0, x->recv.due_bytes) == 0) {
        x->recv.due_bytes = 0;
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
        if (x) {
            end_exchange(s, x);
        }
        char text[80];
        snprintf(text, sizeof text, "too many open requests on this link (limit %u)", s->cfg.calls_max);
        cule_session_report(s, id, m->h.priority, m->h.service, CULE_ELIMIT, text);
        return 0;
    }
    if (x->recv_open && s->cfg.stream_bytes != UINT64_MAX) {
        x->granted = cule_session_grant(s, x->priority, id, 0, s->cfg.stream_bytes) == 0;
    }
    s->ops->message(s->link, m);
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
        if (x->fn) {
            x->fn(s->link, x->arg, m);
        }
        free(x);
        return;
    }
    if (m->h.kind == CULE_REPLY) {
        x->recv_open = true;
        if (s->cfg.stream_bytes != UINT64_MAX) {
            x->granted = cule_session_grant(s, x->priority, x->id, 0, s->cfg.stream_bytes) == 0;
        }
    } else {
        stream_in(s, x, m->len);
    }
    if (x->fn) {
        x->fn(s->link, x->arg, m); /* may cancel and so free x */
    }
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
    s->ops->message(s->link, m);
}

/* ERROR cancelled goes out before the handler hears of it, so that it need not answer. */
static void on_cancel(struct cule_session *s, struct cule_msg *m)
{
    struct cule_exchange *x = find(s, m->h.id, false);
    if (!x) {
        return;
    }
    unsigned priority = x->priority;
    cule_assembler_abort(&s->assembler, m->h.source, m->h.id);
    cule_session_report(s, x->id, priority, 0, CULE_ECANCELLED, "cancelled");
    end_exchange(s, x);
    s->ops->message(s->link, m);
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
    default: s->ops->message(s->link, m); return 0;
    }
}

/* --- time and ends --- */

void cule_session_tick(struct cule_session *s, uint64_t now_ns)
{
    s->now_ns = now_ns;
    struct cule_heap_node *n;
    while (!s->dead && (n = cule_heap_top(&s->deadlines)) && n->key <= now_ns) {
        struct cule_exchange *x = CULE_CONTAINER(n, struct cule_exchange, deadline);
        if (x->ours) {
            send_cancel(s, x, CULE_ETIMEOUT);
            answer_locally(s, x, CULE_ETIMEOUT, "no answer in time");
        } else {
            uint64_t id = x->id;
            unsigned priority = x->priority;
            cule_session_report(s, id, priority, 0, CULE_ETIMEOUT, "no answer in time");
            end_exchange(s, x);
            cancel_handler(s, id, priority, CULE_ETIMEOUT);
        }
    }
}

uint64_t cule_session_deadline(const struct cule_session *s)
{
    const struct cule_heap_node *n = cule_heap_top(&s->deadlines);
    return n ? n->key : UINT64_MAX;
}

/* Each open exchange ends; new ones that callbacks open meanwhile are left. */
static void end_all(struct cule_session *s, int code, const char *text)
{
    size_t n = s->exchanges.count;
    uint64_t *ids = n ? malloc(n * sizeof *ids) : NULL;
    size_t at = 0;
    size_t got = 0;
    struct cule_exchange *x;
    while (ids && got < n && (x = cule_map_next(&s->exchanges, &at, NULL))) {
        ids[got++] = x->id;
    }
    /* Without memory for the list: one at a time from the start, which ends because none is opened on a dead link. */
    for (size_t i = 0; ids ? i < got : s->exchanges.count > 0; i++) {
        at = 0;
        x = ids ? cule_map_get(&s->exchanges, ids[i]) : cule_map_next(&s->exchanges, &at, NULL);
        if (x && x->ours) {
            answer_locally(s, x, code, text);
        } else if (x) {
            uint64_t id = x->id;
            unsigned priority = x->priority;
            bool dead = s->dead;
            end_exchange(s, x);
            s->dead = false; /* the handler must hear of it even though nothing can be sent */
            cancel_handler(s, id, priority, code);
            s->dead = dead || s->dead;
        }
    }
    free(ids);
}

void cule_session_end(struct cule_session *s, int code, const char *text)
{
    s->dead = true;
    end_all(s, code, text);
    struct cule_list *n;
    while ((n = cule_list_pop(&s->pings))) {
        struct ping *p = CULE_LIST_ENTRY(n, struct ping, node);
        p->fn(s->link, p->arg, 0);
        free(p);
    }
}

/* The peer was replaced: what was open is void on both sides, credit starts anew, and the newcomer is greeted. */
void cule_session_restarted(struct cule_session *s)
{
    cule_session_drop_queues(s);
    memset(s->send, 0, sizeof s->send);
    memset(s->recv, 0, sizeof s->recv);
    cule_session_start(s);
    end_all(s, CULE_EPEER_RESTARTED, "the peer was restarted");
}

/* --- ping --- */

int cule_session_ping(struct cule_session *s, cule_pong_fn *fn, void *arg)
{
    struct ping *p = s->dead || !s->cfg.duplex ? NULL : calloc(1, sizeof *p);
    if (!p) {
        return s->dead ? CULE_ECLOSED : s->cfg.duplex ? CULE_ENOMEM : CULE_EUNSUPPORTED;
    }
    struct cule_frame f;
    cule_frame_init(&f, CULE_PING);
    f.priority = CULE_CRITICAL;
    f.id = s->next_id;
    int rc = cule_session_queue(s, &f, NULL);
    if (rc) {
        free(p);
        return rc;
    }
    s->next_id += 2;
    *p = (struct ping){.id = f.id, .sent_ns = s->now_ns, .fn = fn, .arg = arg};
    cule_list_push(&s->pings, &p->node);
    return 0;
}

void cule_session_on_pong(struct cule_session *s, const struct cule_frame *f)
{
    CULE_LIST_EACH (n, &s->pings) {
        struct ping *p = CULE_LIST_ENTRY(n, struct ping, node);
        if (p->id == f->id) {
            cule_list_remove(&p->node);
            p->fn(s->link, p->arg, s->now_ns > p->sent_ns ? s->now_ns - p->sent_ns : 1);
            free(p);
            return;
        }
    }
}

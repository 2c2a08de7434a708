/* What a program says to a link: sends, calls, answers, and what it may ask about it. */
#include "io/link_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, ERROR_TEXT_MAX = 1024 };

struct cule_msg cule_msg_make(enum cule_kind kind, uint32_t service, uint32_t op)
{
    struct cule_msg m = {0};
    cule_frame_init(&m.h, kind);
    m.h.service = service;
    m.h.op = op;
    return m;
}

int cule_msg_take_fd(struct cule_msg *m, unsigned i)
{
    if (i >= m->nfds || !m->fds) {
        return -1;
    }
    int fd = m->fds[i];
    m->fds[i] = -1;
    return fd;
}

int cule_msg_error(const struct cule_msg *m, struct cule_err *err)
{
    if (m->h.kind != CULE_ERROR_FRAME) {
        return 0;
    }
    int code = m->h.arg0 == 0 || m->h.arg0 > 0xffff ? CULE_EIO : -(int)m->h.arg0;
    if (strcmp(cule_err_name(code), "unknown") == 0) {
        code = CULE_EIO;
    }
    if (m->len) {
        return cule_err_set(err, code, "%.*s", (int)CULE_MIN(m->len, (size_t)CULE_ERR_TEXT_MAX), (const char *)m->body);
    }
    return cule_err_set(err, code, "%s", cule_err_text(code));
}

/* --- sending --- */

/* Whether anything that is sent would still go. */
static bool over(const struct cule_link *l)
{
    return l->state >= LINK_CLOSING || l->close_wanted || l->muted;
}

static int dup_fds(const struct cule_msg *m, int *out)
{
    for (unsigned i = 0; i < m->nfds; i++) {
        out[i] = fcntl(m->fds[i], F_DUPFD_CLOEXEC, 3);
        if (out[i] < 0) {
            int rc = errno == EBADF ? CULE_EUSAGE : cule_err_from_errno(errno);
            while (i > 0) {
                close(out[--i]);
            }
            return rc;
        }
    }
    return 0;
}

/* Hands a message with descriptors over: the session gets duplicates and keeps them on success. */
static int with_fds(struct cule_link *l, const struct cule_msg *m,
                    int (*send)(struct cule_link *, struct cule_msg *, void *), void *arg)
{
    struct cule_msg copy = *m;
    int fds[CULE_FDS_MAX];
    if (over(l)) {
        return CULE_ECLOSED;
    }
    if (m->nfds == 0) {
        return send(l, &copy, arg);
    }
    if (m->nfds > CULE_FDS_MAX) {
        return CULE_ETOO_BIG;
    }
    int rc = dup_fds(m, fds);
    if (rc) {
        return rc;
    }
    copy.fds = fds;
    copy.h.nfds = (uint8_t)m->nfds;
    rc = send(l, &copy, arg);
    for (unsigned i = 0; rc && i < m->nfds; i++) {
        close(fds[i]);
    }
    return rc;
}

static int do_send(struct cule_link *l, struct cule_msg *m, void *arg)
{
    bool *force = arg;
    if (!l->s.cfg.duplex) {
        return cule_session_send(&l->s, m, *force);
    }
    switch (m->h.kind) {
    case CULE_EVENT:
    case CULE_MARK: return cule_session_send(&l->s, m, *force);
    case CULE_REPLY:
    case CULE_ERROR_FRAME: return m->h.id ? cule_session_answer(&l->s, m) : CULE_EUSAGE;
    case CULE_DATA: return cule_session_data_msg(&l->s, m);
    case CULE_CANCEL: return cule_session_cancel(&l->s, m->h.id);
    default: return CULE_EUSAGE; /* a request needs somebody to take its answer; the rest is the link's own */
    }
}

int cule_link_send(struct cule_link *l, const struct cule_msg *m)
{
    bool force = false;
    return with_fds(l, m, do_send, &force);
}

int cule_link_send_free(struct cule_link *l, const struct cule_msg *m)
{
    bool force = true;
    return with_fds(l, m, do_send, &force);
}

int cule_link_send_raw(struct cule_link *l, unsigned priority, const void *bytes, size_t n, unsigned frames)
{
    return over(l) ? CULE_ECLOSED : cule_session_send_raw(&l->s, priority, bytes, n, frames);
}

bool cule_link_can_send(const struct cule_link *l, unsigned priority, size_t n)
{
    return !over(l) && (!l->s.cfg.duplex || n <= l->s.peer_message_max) && cule_session_can_send(&l->s, priority);
}

struct call {
    uint64_t timeout_ms;
    cule_answer_fn *fn;
    void *arg;
    uint64_t *id;
};

static int do_call(struct cule_link *l, struct cule_msg *m, void *arg)
{
    struct call *c = arg;
    return cule_session_call(&l->s, m, c->timeout_ms, c->fn, c->arg, c->id);
}

int cule_link_call_now(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, cule_answer_fn *fn, void *arg,
                       uint64_t *id)
{
    uint64_t own;
    struct call c = {timeout_ms, fn, arg, id ? id : &own};
    if (m->nfds == 0) {
        return over(l) ? CULE_ECLOSED : cule_session_call(&l->s, m, timeout_ms, fn, arg, c.id);
    }
    int rc = with_fds(l, m, do_call, &c);
    if (!rc) {
        m->h.id = *c.id;
    }
    return rc;
}

int cule_link_call(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, cule_answer_fn *fn, void *arg,
                   uint64_t *id)
{
    if (timeout_ms) {
        l->s.now_ns = cule_now_ns(); /* the deadline counts from now, not from the turn's start */
    }
    return cule_link_call_now(l, m, timeout_ms, fn, arg, id);
}

int cule_link_cancel(struct cule_link *l, uint64_t id)
{
    return cule_session_cancel(&l->s, id);
}

int cule_link_data(struct cule_link *l, uint64_t id, const void *body, size_t n, bool last)
{
    return over(l) ? CULE_ECLOSED : cule_session_data(&l->s, id, body, n, last);
}

static int reply(struct cule_link *l, uint64_t id, uint64_t arg0, uint64_t arg1, const void *body, size_t n,
                 uint16_t flags)
{
    struct cule_msg m = cule_msg_make(CULE_REPLY, 0, CULE_OP_ANY_OK);
    m.h.id = id;
    m.h.arg0 = arg0;
    m.h.arg1 = arg1;
    m.h.flags = flags;
    m.body = body;
    m.len = n;
    return cule_session_answer(&l->s, &m);
}

int cule_link_reply(struct cule_link *l, uint64_t id, uint64_t arg0, uint64_t arg1, const void *body, size_t n)
{
    return reply(l, id, arg0, arg1, body, n, 0);
}

int cule_link_reply_open(struct cule_link *l, uint64_t id, uint64_t arg0, uint64_t arg1, const void *body, size_t n)
{
    return reply(l, id, arg0, arg1, body, n, CULE_OPEN);
}

int cule_link_error(struct cule_link *l, uint64_t id, int code, uint64_t detail, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct cule_msg m = cule_msg_make(CULE_ERROR_FRAME, 0, CULE_OP_ANY_ERROR);
    m.h.id = id;
    m.h.arg0 = (uint64_t)(code < 0 ? -code : code);
    m.h.arg1 = detail;
    m.body = (const uint8_t *)text;
    m.len = n < 0 ? 0 : CULE_MIN((size_t)n, sizeof text - 1);
    return cule_session_answer(&l->s, &m);
}

uint32_t cule_link_left_ms(struct cule_link *l, uint64_t id)
{
    l->s.now_ns = cule_now_ns();
    return cule_session_left_ms(&l->s, id);
}

int cule_link_event(struct cule_link *l, uint32_t service, uint32_t op, uint64_t arg0, uint64_t arg1, const void *body,
                    size_t n)
{
    struct cule_msg m = cule_msg_make(CULE_EVENT, service, op);
    m.h.arg0 = arg0;
    m.h.arg1 = arg1;
    m.body = body;
    m.len = n;
    return cule_link_send(l, &m);
}

int cule_link_ping(struct cule_link *l, cule_pong_fn *fn, void *arg)
{
    l->s.now_ns = cule_now_ns();
    return cule_session_ping(&l->s, fn, arg);
}

/* --- flow --- */

void cule_link_consumed(struct cule_link *l, unsigned priority, uint32_t frames, uint64_t bytes)
{
    cule_session_consumed(&l->s, priority, frames, bytes);
}

void cule_link_stream_consumed(struct cule_link *l, uint64_t id, uint64_t bytes)
{
    cule_session_stream_consumed(&l->s, id, bytes);
}

void cule_link_pause(struct cule_link *l, bool on)
{
    l->paused = on;
    if (l->loop) {
        cule_loop_defer(l->loop, &l->defer);
    }
}

void cule_link_flush(struct cule_link *l)
{
    cule_link_write_some(l);
    if (l->loop) {
        cule_loop_defer(l->loop, &l->defer);
    }
}

size_t cule_link_queued(const struct cule_link *l)
{
    return l->s.queued;
}

/* --- ending --- */

void cule_link_close(struct cule_link *l)
{
    if (l->state >= LINK_CLOSING || l->close_wanted) {
        return;
    }
    l->limit_ns = cule_now_ns() + (uint64_t)CULE_LINK_LINGER_MS * NS_PER_MS;
    if (!l->loop) {
        cule_link_close_wait(l);
        return;
    }
    if (l->state != LINK_CONNECTING) {
        l->state = LINK_CLOSING;
    } else if (l->s.queued > l->greeting) {
        l->close_wanted = true; /* what was said before goes out once the connection is there */
    } else {
        cule_link_die(l, 0, NULL);
    }
    cule_loop_defer(l->loop, &l->defer);
}

void cule_link_abort(struct cule_link *l, const struct cule_err *why)
{
    if (l->state == LINK_DEAD) {
        return;
    }
    if (why && why->code && l->s.cfg.duplex) {
        cule_session_report(&l->s, 0, CULE_CRITICAL, 0, why->code, why->text);
        cule_link_write_some(l);
    }
    cule_link_die(l, why ? why->code : 0, why ? why->text : NULL);
}

/* --- what is known --- */

void *cule_link_ctx(const struct cule_link *l)
{
    return l->ctx;
}

void cule_link_set_ctx(struct cule_link *l, const struct cule_link_ops *ops, void *ctx)
{
    l->ops = ops;
    l->ctx = ctx;
}

struct cule_loop *cule_link_loop(const struct cule_link *l)
{
    return l->loop;
}

const struct cule_peer *cule_link_peer(const struct cule_link *l)
{
    return l->carrier ? &l->carrier->peer : l->ring_peer;
}

const char *cule_link_peer_name(const struct cule_link *l)
{
    return l->s.peer_name ? l->s.peer_name : "";
}

const char *cule_link_transport(const struct cule_link *l)
{
    return l->carrier ? l->carrier->ops->name : "ring";
}

uint64_t cule_link_peer_message_max(const struct cule_link *l)
{
    return l->s.peer_message_max;
}

bool cule_link_is_ready(const struct cule_link *l)
{
    return l->state == LINK_OPEN && ((l->s.hello_in && !l->s.ready_due) || !l->s.cfg.hello_first);
}

pid_t cule_link_exec_pid(const struct cule_link *l)
{
    return l->proc ? cule_proc_pid(l->proc) : 0;
}

void cule_link_stats(const struct cule_link *l, struct cule_link_stats *out)
{
    const struct cule_session_stats *s = &l->s.stats;
    *out = (struct cule_link_stats){
        .frames_in = s->frames_in,
        .frames_out = s->frames_out,
        .bytes_in = s->bytes_in,
        .bytes_out = s->bytes_out,
        .again = s->again,
        .skipped_bytes = l->skipped_bytes,
        .body_errors = s->body_errors,
        .queue_high_water_bytes = s->queue_high_water_bytes,
        .critical_waits = s->critical_waits,
    };
    if (l->ring) {
        struct cule_ring_stats r;
        cule_ring_stats(l->ring, &r);
        out->ring_frames = r.frames_out;
        out->ring_slow = r.wakes;
    }
}

/* The same link without a loop: each call reads, writes and waits for itself, to a deadline. */
#include "io/link_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, READ_BYTES = 64 * 1024 };

/* Milliseconds to the deadline for poll, rounded up; -1 for none. */
static int left_ms(uint64_t deadline_ns, uint64_t now_ns)
{
    if (deadline_ns == UINT64_MAX) {
        return -1;
    }
    uint64_t ms = deadline_ns > now_ns ? (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms > 0x7fffffff ? 0x7fffffff : (int)ms;
}

static uint64_t deadline_of(uint64_t timeout_ms)
{
    return timeout_ms ? cule_now_ns() + timeout_ms * NS_PER_MS : UINT64_MAX;
}

static int why(const struct cule_link *l, struct cule_err *err)
{
    int code = l->why.code ? l->why.code : CULE_ECLOSED;
    return cule_err_set(err, code, "%s", l->why.code ? l->why.text : "closed by the peer");
}

static int wait_ring(struct cule_link *l, int ms)
{
    unsigned want = CULE_RING_READABLE | (l->want_write ? CULE_RING_WRITABLE : 0);
    int rc = cule_ring_wait(l->ring, want, ms);
    return rc == CULE_ETIMEOUT ? 0 : 1; /* an end is found by the read that follows */
}

static int wait_carrier(struct cule_link *l, int ms)
{
    struct cule_carrier *c = l->carrier;
    bool opening = l->state == LINK_CONNECTING;
    bool write = l->s.queued > 0;
    int events = POLLIN | (write ? POLLOUT : 0);
    if (c->ops->poll_events) {
        events = c->ops->poll_events(c, true, write || (opening && c->connecting));
    }
    if (c->ops->pending && c->ops->pending(c)) {
        return 1;
    }
    struct pollfd p[2] = {{.fd = c->rfd, .events = (short)events}, {.fd = -1}};
    if (c->wfd != c->rfd) {
        p[0].events = (short)(events & POLLIN);
        p[1] = (struct pollfd){.fd = write ? c->wfd : -1, .events = POLLOUT};
    }
    return poll(p, 2, ms);
}

/* One round: what is queued out, what is there in; waits to the deadline if there is nothing. 0, or negative: the link
 * has ended. */
static int pump(struct cule_link *l, uint64_t deadline_ns)
{
    uint64_t now = cule_now_ns();
    uint64_t until = CULE_MIN(deadline_ns, cule_session_deadline(&l->s));
    if (l->state == LINK_CONNECTING) {
        if (cule_link_handshake(l) == 0) {
            wait_carrier(l, left_ms(until, now));
        }
        return l->state == LINK_DEAD ? -1 : 0;
    }
    if (l->s.queued) {
        cule_link_write_some(l);
    }
    if (l->state != LINK_DEAD && !l->rbuf && l->carrier) {
        l->rbuf = malloc(READ_BYTES);
        l->rbuf_cap = READ_BYTES;
    }
    int ready = 1;
    if (l->state != LINK_DEAD && (l->ring || !l->carrier->ops->read_wait || l->s.queued)) {
        int ms = left_ms(until, now);
        ready = l->ring ? wait_ring(l, ms) : wait_carrier(l, ms);
    } else if (l->state != LINK_DEAD) {
        l->wait_ms = left_ms(until, now);
    }
    if (l->state != LINK_DEAD && ready > 0) {
        cule_link_read_some(l);
    }
    l->wait_ms = 0;
    if (l->state != LINK_DEAD) {
        cule_session_tick(&l->s, cule_now_ns());
        if (l->s.bye_in && !l->fed) {
            cule_link_die(l, 0, NULL);
        }
    }
    if (l->state == LINK_DEAD && !l->s.dead) {
        cule_session_end(&l->s, l->why.code ? l->why.code : CULE_ECLOSED,
                         l->why.code ? l->why.text : "closed by the peer");
    }
    return l->state == LINK_DEAD ? -1 : 0;
}

int cule_link_wait_ready(struct cule_link *l, struct cule_err *err)
{
    while (!cule_link_is_ready(l) && l->state != LINK_DEAD) {
        if (cule_now_ns() >= l->limit_ns) {
            return cule_err_set(err, CULE_ETIMEOUT, "the peer sent no hello in time");
        }
        if (pump(l, l->limit_ns) < 0) {
            break;
        }
    }
    return l->state == LINK_DEAD ? why(l, err) : 0;
}

/* --- messages that are kept for later --- */

static void free_kept(struct kept *k)
{
    for (unsigned i = 0; k && i < k->m.nfds; i++) {
        if (k->m.fds[i] >= 0) {
            close(k->m.fds[i]);
        }
    }
    if (k) {
        free(k->m.fds);
        free(k);
    }
}

void cule_link_drop_kept(struct cule_link *l)
{
    struct cule_list *n;
    while ((n = cule_list_pop(&l->kept))) {
        free_kept(CULE_LIST_ENTRY(n, struct kept, node));
    }
    free_kept(l->current);
    l->current = NULL;
}

/* A copy that owns its bytes and descriptors. */
static struct kept *keep(struct cule_msg *m)
{
    struct kept *k = malloc(sizeof *k + m->len + CULE_TRACE_SIZE);
    int *fds = m->nfds ? malloc(m->nfds * sizeof *fds) : NULL;
    if (!k || (m->nfds && !fds)) {
        free(k);
        free(fds);
        return NULL;
    }
    k->m = *m;
    memcpy(k->bytes + CULE_TRACE_SIZE, m->body, m->len);
    k->m.body = k->bytes + CULE_TRACE_SIZE;
    if (m->trace) {
        memcpy(k->bytes, m->trace, CULE_TRACE_SIZE);
        k->m.trace = k->bytes;
    }
    for (unsigned i = 0; i < m->nfds; i++) {
        fds[i] = cule_msg_take_fd(m, i);
    }
    k->m.fds = fds;
    cule_list_init(&k->node);
    return k;
}

static struct cule_msg *give(struct cule_link *l, struct kept *k)
{
    free_kept(l->current);
    l->current = k;
    return &k->m;
}

/* To whoever waits for one in cule_link_next, as it lies in the buffer; else it is put aside. */
void cule_link_keep(struct cule_link *l, struct cule_msg *m)
{
    if (l->next_into && m->nfds == 0) {
        *l->next_into = *m;
        l->next_into = NULL;
        l->next_done = true;
        return;
    }
    struct kept *k = l->nkept < LINK_KEPT_MAX ? keep(m) : NULL;
    if (!k) {
        cule_link_die(l, CULE_ELIMIT, "too many messages came while an answer was waited for");
        return;
    }
    if (l->next_into) {
        *l->next_into = *give(l, k);
        l->next_into = NULL;
        l->next_done = true;
        return;
    }
    cule_list_push(&l->kept, &k->node);
    l->nkept++;
}

static void stream_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    (void)arg;
    cule_link_keep(l, m);
}

int cule_link_next(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, struct cule_err *err)
{
    uint64_t deadline = deadline_of(timeout_ms);
    struct cule_list *n = cule_list_pop(&l->kept);
    if (n) {
        l->nkept--;
        *m = *give(l, CULE_LIST_ENTRY(n, struct kept, node));
        return 1;
    }
    free_kept(l->current);
    l->current = NULL;
    l->next_into = m;
    l->next_done = false;
    if (l->fed && cule_link_step_all(l) == 0 && !l->next_done) {
        l->fed = false;
    }
    while (!l->next_done && l->state != LINK_DEAD) {
        if (pump(l, deadline) < 0 || l->next_done) {
            break;
        }
        if (cule_now_ns() >= deadline) {
            l->next_into = NULL;
            return cule_err_set(err, CULE_ETIMEOUT, "no message in time");
        }
    }
    l->next_into = NULL;
    if (!l->next_done) {
        return why(l, err);
    }
    l->next_done = false;
    return 1;
}

struct ask {
    struct cule_link *l;
    struct kept *answer;
    bool done;
};

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct ask *a = arg;
    if (a->done) {
        return;
    }
    a->answer = keep(m);
    a->done = true;
    (void)l;
}

int cule_link_ask(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, struct cule_msg *answer,
                  struct cule_err *err)
{
    struct ask a = {.l = l};
    uint64_t deadline = deadline_of(timeout_ms);
    free_kept(l->current);
    l->current = NULL;
    int rc;
    while ((rc = cule_link_call(l, m, timeout_ms, on_answer, &a, NULL)) == CULE_EAGAIN) {
        if (pump(l, deadline) < 0 || cule_now_ns() >= deadline) {
            break;
        }
    }
    if (!rc && l->fed && cule_link_step_all(l) == 0) {
        l->fed = false;
    }
    while (!rc && !a.done && l->state != LINK_DEAD) {
        pump(l, deadline);
    }
    if (rc || !a.done) {
        return rc && l->state != LINK_DEAD ? cule_err_set(err, rc, "%s", cule_err_text(rc)) : why(l, err);
    }
    if (!a.answer) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    *answer = *give(l, a.answer);
    if (answer->h.flags & CULE_OPEN) {
        cule_session_redirect(&l->s, answer->h.id, stream_answer, NULL);
    }
    return cule_msg_error(answer, err);
}

int cule_link_drain(struct cule_link *l, uint64_t timeout_ms, struct cule_err *err)
{
    uint64_t deadline = deadline_of(timeout_ms);
    while (l->state != LINK_DEAD) {
        cule_link_write_some(l);
        if (l->s.queued == 0) {
            return 0;
        }
        uint64_t now = cule_now_ns();
        if (now >= deadline) {
            return cule_err_set(err, CULE_ETIMEOUT, "the peer does not take what is sent");
        }
        if (l->ring) {
            cule_ring_wait(l->ring, CULE_RING_WRITABLE, left_ms(deadline, now));
        } else {
            struct pollfd p = {.fd = l->carrier->wfd, .events = POLLOUT};
            poll(&p, 1, left_ms(deadline, now));
        }
    }
    return why(l, err);
}

/* The same link without a loop: each call reads, writes and waits for itself, to a deadline. */
#include "io/link_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, READ_BYTES = 64 * 1024, BEHIND_MS = 1000 };

/* Microseconds, and one try in so many waits. */
enum { SPIN_MIN_US = 16, SPIN_MAX_US = 32, SPIN_AGAIN = 256 };

/* Milliseconds to the deadline for poll, rounded up; -1 for none. */
static int left_ms(uint64_t deadline_ns, uint64_t now_ns)
{
    if (deadline_ns == UINT64_MAX) {
        return -1;
    }
    uint64_t ms = deadline_ns > now_ns ? (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms > 0x7fffffff ? 0x7fffffff : (int)ms;
}

/* Reads the clock where anything depends on it. From then on pump keeps s.now_ns fresh. */
static uint64_t deadline_of(struct cule_link *l, uint64_t timeout_ms)
{
    if (timeout_ms || cule_link_due(l) != UINT64_MAX) {
        l->s.now_ns = cule_now_ns();
    }
    return timeout_ms && timeout_ms < (UINT64_MAX - l->s.now_ns) / NS_PER_MS ? l->s.now_ns + timeout_ms * NS_PER_MS
                                                                             : UINT64_MAX;
}

static int why(const struct cule_link *l, struct cule_err *err)
{
    int code = l->why.code ? l->why.code : CULE_ECLOSED;
    return cule_err_set(err, code, "%s", l->why.code ? l->why.text : "closed by the peer");
}

static int wait_ring(struct cule_link *l, bool read, int ms)
{
    unsigned want = (read ? CULE_RING_READABLE : 0) | (l->want_write ? CULE_RING_WRITABLE : 0);
    int rc = cule_ring_wait(l->ring, want, ms);
    return rc == CULE_ETIMEOUT ? 0 : 1; /* an end is found by the read that follows */
}

/* Waits for what there is to do; the result is that of poll, and *in tells whether reading may find something. */
static int wait_carrier(struct cule_link *l, bool read, int ms, bool *in)
{
    struct cule_carrier *c = l->carrier;
    bool opening = l->state == LINK_CONNECTING;
    bool write = l->s.queued > 0 || (opening && c->connecting);
    int events = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
    *in = true;
    if (c->ops->poll_events) {
        events = c->ops->poll_events(c, read, write);
    }
    if (c->ops->pending && c->ops->pending(c)) {
        return 1;
    }
    struct pollfd p[2] = {{.fd = c->rfd, .events = (short)events}, {.fd = -1}};
    if (c->wfd != c->rfd) {
        p[0].events = (short)(events & POLLIN);
        p[0].fd = read ? c->rfd : -1;
        p[1] = (struct pollfd){.fd = write ? c->wfd : -1, .events = POLLOUT};
    }
    int n = poll(p, 2, ms);
    *in = p[0].revents & ~POLLOUT || c->ops->pending; /* TLS may read where it waited to write */
    return n;
}

/* The link's end, once: what is open learns of it. */
static int ended(struct cule_link *l)
{
    if (!l->s.dead) {
        cule_session_end(&l->s, l->why.code ? l->why.code : CULE_ECLOSED,
                         l->why.code ? l->why.text : "closed by the peer");
    }
    return -1;
}

static bool can_read(const struct cule_link *l)
{
    return l->ring || (l->carrier->rfd >= 0 && !l->eof && l->state < LINK_CLOSING);
}

/*
 * A peer on another core often answers sooner than a sleep and its wake-up take. Spinning that found something may last
 * longer the next time, spinning in vain not; where it does not pay it is tried again only now and then, so that on one
 * core it costs next to nothing. True: something was read, or the link has ended.
 */
static bool spin(struct cule_link *l)
{
    if (l->spin_us == 0 && ++l->unspun % SPIN_AGAIN != 0) {
        return false;
    }
    uint32_t us = l->spin_us ? l->spin_us : SPIN_MIN_US;
    uint64_t until = cule_now_ns() + us * 1000u;
    do {
        if (cule_link_read_some(l) != 0) {
            l->spin_us = CULE_MIN(us * 2, (uint32_t)SPIN_MAX_US);
            l->s.now_ns = cule_now_ns();
            return true;
        }
    } while (cule_now_ns() < until);
    l->spin_us = us > SPIN_MIN_US ? us / 2 : 0;
    return false;
}

/* Waits to the deadline and reads. Without a queue a socket's read waits by itself. */
static void wait_and_read(struct cule_link *l, uint64_t deadline)
{
    int ms = left_ms(CULE_MIN(deadline, cule_link_due(l)), l->s.now_ns);
    bool read = can_read(l);
    bool in = true;
    if (!l->ring && !l->rbuf) {
        l->rbuf = malloc(READ_BYTES);
        l->rbuf_cap = READ_BYTES;
    }
    if (!l->ring && !l->rbuf) {
        cule_link_die(l, CULE_ENOMEM, "out of memory");
        return;
    }
    if (l->ring) {
        int woken = wait_ring(l, read, ms);
        l->s.now_ns = cule_now_ns();
        if (!woken) {
            return;
        }
    } else if (l->s.queued || !l->carrier->ops->read_wait || !read) {
        int ready = wait_carrier(l, read, ms, &in);
        l->s.now_ns = cule_now_ns();
        if (ready <= 0 || !read || !in) {
            return;
        }
    } else {
        if (ms != 0 && spin(l)) {
            return;
        }
        l->wait_ms = ms;
    }
    cule_link_read_some(l);
    l->wait_ms = 0;
}

/* One round: what is queued out, what is there in; waits to the deadline if there is nothing. 0, or negative: the link
 * has ended. Bytes that an earlier call left are dealt with first, for the buffer is theirs. */
static int pump(struct cule_link *l, uint64_t deadline_ns)
{
    if (l->state == LINK_DEAD) {
        return ended(l);
    }
    if (l->fed) {
        int rc = cule_link_step_all(l);
        l->fed = rc > 0;
        if (!l->fed && l->eof && l->state != LINK_DEAD) {
            cule_link_read_some(l); /* sees to the end that was put off */
        }
        return l->state == LINK_DEAD ? ended(l) : 0;
    }
    if (l->state == LINK_CONNECTING) {
        bool in;
        if (cule_link_handshake(l) == 0) {
            wait_carrier(l, true, left_ms(CULE_MIN(deadline_ns, cule_link_due(l)), l->s.now_ns), &in);
        }
        l->s.now_ns = cule_now_ns();
    } else {
        if (l->s.queued) {
            cule_link_write_some(l);
        }
        if (l->state != LINK_DEAD) {
            wait_and_read(l, deadline_ns);
        }
    }
    if (l->s.hello_in && l->state == LINK_OPEN) {
        l->limit_ns = 0;
    }
    cule_link_tick(l, l->s.now_ns);
    if (l->state != LINK_DEAD && l->s.bye_in && !l->fed) {
        cule_link_die(l, 0, NULL);
    }
    return l->state == LINK_DEAD ? ended(l) : 0;
}

int cule_link_wait_ready(struct cule_link *l, struct cule_err *err)
{
    int rc = 0;
    l->opening = true;
    while (!cule_link_is_ready(l) && l->state != LINK_DEAD && l->state != LINK_HALF) {
        rc = pump(l, l->limit_ns);
    }
    l->opening = false;
    if (rc == 0 && l->state == LINK_OPEN) {
        return 0;
    }
    return why(l, err);
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
    if (l->ring_lent) {
        l->ring_lent = false;
        cule_ring_release(l->ring);
    }
}

/* A copy that owns its bytes and descriptors. */
static struct kept *keep(struct cule_msg *m)
{
    size_t size = sizeof(struct kept) + m->len + CULE_TRACE_SIZE;
    struct kept *k = aligned_alloc(_Alignof(struct kept), (size + _Alignof(struct kept) - 1) & -_Alignof(struct kept));
    int *fds = m->nfds ? malloc(m->nfds * sizeof *fds) : NULL;
    if (!k || (m->nfds && !fds)) {
        free(k);
        free(fds);
        return NULL;
    }
    k->m = *m;
    if (m->len) {
        memcpy(k->bytes + CULE_TRACE_SIZE, m->body, m->len);
    }
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

/* What the last call returned is over. */
static void begin_call(struct cule_link *l)
{
    free_kept(l->current);
    l->current = NULL;
    l->stop = false;
    if (l->ring_lent) {
        l->ring_lent = false;
        cule_ring_release(l->ring);
    }
}

/* To whoever waits for one in cule_link_next, as it lies in the buffer; else it is put aside. Messages of the link's
 * own making at its end lie in nobody's buffer. */
void cule_link_keep(struct cule_link *l, struct cule_msg *m)
{
    bool local = m->h.kind == CULE_CANCEL;
    if (l->next_into && m->nfds == 0 && !local) {
        *l->next_into = *m;
        l->next_into = NULL;
        l->stop = true;
        return;
    }
    struct kept *k = l->nkept < LINK_KEPT_MAX || local ? keep(m) : NULL;
    if (!k) {
        cule_link_die(l, l->nkept < LINK_KEPT_MAX ? CULE_ENOMEM : CULE_ELIMIT,
                      "no room for what came while an answer was waited for");
        return;
    }
    if (l->next_into) {
        *l->next_into = *give(l, k);
        l->next_into = NULL;
        l->stop = true;
        return;
    }
    cule_list_push(&l->kept, &k->node);
    l->nkept++;
    l->stop = l->draining && l->nkept >= LINK_KEPT_MAX / 2;
}

static void stream_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    (void)arg;
    cule_link_keep(l, m);
}

static bool take_kept(struct cule_link *l, struct cule_msg *m)
{
    struct cule_list *n = cule_list_pop(&l->kept);
    if (n) {
        l->nkept--;
        *m = *give(l, CULE_LIST_ENTRY(n, struct kept, node));
    }
    return n != NULL;
}

int cule_link_next(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, struct cule_err *err)
{
    uint64_t deadline = deadline_of(l, timeout_ms);
    begin_call(l);
    if (take_kept(l, m)) {
        return 1;
    }
    l->next_into = m;
    while (!l->stop && l->state != LINK_DEAD) {
        if (l->state == LINK_HALF && !l->fed) {
            break; /* nothing more will come; answers still go out */
        }
        if (pump(l, deadline) < 0 || l->stop) {
            break;
        }
        if (l->s.now_ns >= deadline) {
            l->next_into = NULL;
            return cule_err_set(err, CULE_ETIMEOUT, "no message in time");
        }
    }
    l->next_into = NULL;
    if (l->stop || take_kept(l, m)) {
        return 1;
    }
    return why(l, err);
}

struct ask {
    struct cule_msg *into;
    bool done;
    bool no_memory;
};

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct ask *a = arg;
    a->done = true;
    l->stop = true;
    if (m->nfds == 0 && m->h.kind == CULE_REPLY) {
        *a->into = *m; /* as it lies in the buffer */
        return;
    }
    struct kept *k = keep(m);
    a->no_memory = k == NULL;
    if (k) {
        *a->into = *give(l, k);
    }
}

int cule_link_ask(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, struct cule_msg *answer,
                  struct cule_err *err)
{
    struct ask a = {.into = answer};
    uint64_t deadline = deadline_of(l, timeout_ms);
    uint64_t id;
    int rc;
    begin_call(l);
    while ((rc = cule_link_call_now(l, m, timeout_ms, on_answer, &a, &id)) == CULE_EAGAIN) {
        if (pump(l, deadline) < 0) {
            return why(l, err);
        }
        if (l->s.now_ns >= deadline) {
            return cule_err_set(err, CULE_ETIMEOUT, "the peer gave no credit in time");
        }
    }
    if (rc) {
        return l->state == LINK_DEAD ? why(l, err) : cule_err_set(err, rc, "%s", cule_err_text(rc));
    }
    while (!a.done && pump(l, deadline) == 0) {
    }
    if (!a.done) {
        return why(l, err);
    }
    if (a.no_memory) {
        cule_session_cancel(&l->s, id);
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    if (answer->h.flags & CULE_OPEN) {
        cule_session_redirect(&l->s, id, stream_answer, NULL);
    }
    return cule_msg_error(answer, err);
}

/* Reads what comes while the queue is being written, or two that send to each other would wait for ever. Where too much
 * has been put aside already the peer has to wait. */
static void wait_in_drain(struct cule_link *l, uint64_t deadline)
{
    bool in;
    bool room = l->nkept < LINK_KEPT_MAX / 2 && l->s.cfg.duplex;
    if (l->state == LINK_CONNECTING || (l->fed && room)) {
        pump(l, deadline);
    } else if (room && !l->fed) {
        wait_and_read(l, deadline);
        cule_link_tick(l, l->s.now_ns);
    } else if (l->ring) {
        wait_ring(l, false, left_ms(deadline, l->s.now_ns));
    } else {
        wait_carrier(l, false, left_ms(deadline, l->s.now_ns), &in);
    }
}

int cule_link_drain(struct cule_link *l, uint64_t timeout_ms, struct cule_err *err)
{
    uint64_t deadline = deadline_of(l, timeout_ms);
    begin_call(l);
    l->draining = true;
    int rc = 0;
    while (l->state != LINK_DEAD && !rc) {
        cule_link_write_some(l);
        if (l->state == LINK_DEAD || (l->s.queued == 0 && l->state != LINK_CONNECTING)) {
            break;
        }
        l->s.now_ns = cule_now_ns();
        if (l->s.now_ns >= deadline) {
            rc = cule_err_set(err, CULE_ETIMEOUT, "the peer does not take what is sent");
        } else {
            l->stop = false;
            wait_in_drain(l, deadline);
        }
    }
    l->draining = l->stop = false;
    if (rc || (l->s.queued == 0 && !l->muted && (l->state != LINK_DEAD || l->why.code == 0))) {
        return rc;
    }
    if (l->state != LINK_DEAD) {
        return cule_err_set(err, CULE_ECLOSED, "closed by the peer"); /* what it sent before can still be read */
    }
    ended(l);
    return why(l, err);
}

void cule_link_close_wait(struct cule_link *l)
{
    uint64_t deadline = l->limit_ns;
    uint8_t skip[4096];
    struct cule_err err;
    if (l->state == LINK_CONNECTING) {
        cule_link_die(l, 0, NULL);
        return;
    }
    l->limit_ns = 0;
    cule_session_bye(&l->s);
    int rc = cule_link_drain(l, CULE_LINK_LINGER_MS, &err);
    if (l->state == LINK_DEAD) {
        return;
    }
    if (rc) {
        cule_link_die(l, rc, err.text);
        return;
    }
    l->state = LINK_CLOSING;
    cule_link_finish(l);
    while (l->state != LINK_DEAD) {
        ssize_t n = l->carrier->ops->read(l->carrier, skip, sizeof skip, &l->fds, NULL);
        struct pollfd p = {.fd = l->carrier->rfd, .events = POLLIN};
        if ((n <= 0 && n != CULE_EAGAIN) || (n < 0 && poll(&p, 1, left_ms(deadline, cule_now_ns())) == 0) ||
            cule_now_ns() >= deadline) {
            cule_link_die(l, 0, NULL);
        }
    }
}

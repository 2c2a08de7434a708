/*
 * The two sides of session_sim.c: what the sessions call, with what must hold whenever they do, and the wire between
 * them, which cuts bytes anywhere.
 */
#include "base/pool.h"
#include "wire/ops.h"
#include "wire/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CALLS = 4096, REQS = 4096, WIRE_MAX = 8 << 20, FDS = 4096, OWED = 8192, BODY_MAX = 200000, MS = 1000000 };

struct call {
    uint64_t id;
    int terminal; /* terminal answers seen */
    bool open;
    bool sending; /* our stream goes on */
};

struct req {
    uint64_t id;
    bool open; /* by what this side knows: not answered, not cancelled */
    bool streaming;
};

struct cule_link { /* a side; the sessions know no more of it than its name */
    struct cule_session s;
    struct cule_link *peer;
    uint8_t *wire; /* bytes on their way to the peer */
    size_t wire_head, wire_tail;
    int fd_wire[FDS]; /* descriptors on their way */
    unsigned fd_head, fd_tail;
    struct call call[CALLS];
    unsigned ncalls;
    struct req req[REQS];
    unsigned nreqs;
    uint64_t event_out[CULE_PRIORITIES], event_in[CULE_PRIORITIES];
    struct {
        uint8_t priority;
        uint32_t length;
    } owed[OWED]; /* manual credit: delivered and not given back */
    unsigned nowed;
    uint64_t stream_owed_id[OWED];
    uint32_t stream_owed[OWED];
    unsigned nstreams;
    int pings, pongs;
    int restarts_seen;
    bool writable;
};

static struct cule_link side[2];
static uint64_t seed, run_seed, now_ns;
static int fds_open; /* descriptors that somebody owns */
static uint8_t body[BODY_MAX];
static bool restarts;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

static void enough(int rc)
{
    if (rc == CULE_ENOMEM) {
        print_message("# out of memory\n");
        exit(77);
    }
}

/* --- what the sessions call --- */

static void owe(struct cule_link *l, const struct cule_msg *m)
{
    bool charged = m->h.kind == CULE_REQUEST || m->h.kind == CULE_EVENT || m->h.kind == CULE_DATA;
    if (l->s.cfg.manual_credit && charged) {
        assert_true(l->nowed < OWED);
        l->owed[l->nowed].priority = m->h.priority;
        l->owed[l->nowed++].length = m->h.length;
        if (m->h.kind == CULE_DATA && (m->h.flags & CULE_OPEN)) {
            l->stream_owed_id[l->nstreams] = m->h.id;
            l->stream_owed[l->nstreams++] = (uint32_t)m->len;
        }
    }
}

static struct req *find_req(struct cule_link *l, uint64_t id)
{
    for (unsigned i = l->nreqs; i--;) {
        if (l->req[i].id == id) {
            return &l->req[i];
        }
    }
    return NULL;
}

static void check_body(const struct cule_msg *m)
{
    for (size_t i = 0; i < m->len; i += 977) {
        assert_int_equal(m->body[i], body[i]);
    }
    assert_int_equal(m->h.length, m->len + (m->trace ? CULE_TRACE_SIZE : 0));
}

static void on_message(struct cule_link *l, struct cule_msg *m)
{
    struct req *r = find_req(l, m->h.id);
    owe(l, m);
    fds_open -= (int)m->nfds; /* taken */
    for (unsigned i = 0; i < m->nfds; i++) {
        m->fds[i] = -1;
    }
    switch (m->h.kind) {
    case CULE_REQUEST:
        check_body(m);
        assert_true(!r || !r->open || restarts);
        assert_true(l->nreqs < REQS);
        l->req[l->nreqs++] = (struct req){.id = m->h.id, .open = true};
        break;
    case CULE_CANCEL:
        assert_non_null(r);
        assert_true(r->open);
        r->open = false;
        break;
    case CULE_DATA: check_body(m); break;
    case CULE_EVENT:
        check_body(m);
        assert_true(restarts ? m->h.arg0 > l->event_in[m->h.priority] : m->h.arg0 == l->event_in[m->h.priority] + 1);
        l->event_in[m->h.priority] = m->h.arg0;
        break;
    case CULE_HELLO:
        l->restarts_seen++;
        memset(l->event_in, 0, sizeof l->event_in);
        for (unsigned i = 0; i < l->nreqs; i++) {
            assert_false(l->req[i].open); /* each was cancelled before */
        }
        break;
    default: fail_msg("kind %u reached the application", m->h.kind);
    }
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct call *c = arg;
    owe(l, m);
    fds_open -= (int)m->nfds;
    for (unsigned i = 0; i < m->nfds; i++) {
        m->fds[i] = -1;
    }
    assert_int_equal(c->id, m->h.id);
    assert_true(c->open);
    if (m->h.kind == CULE_ERROR_FRAME) {
        assert_true(m->h.arg0 != 0 && m->len > 0);
    } else {
        check_body(m);
    }
    if (!(m->h.flags & CULE_OPEN)) {
        c->terminal++;
        c->open = c->sending = false;
    }
}

static void on_writable(struct cule_link *l, uint64_t id)
{
    (void)id;
    l->writable = true;
}

static void on_ready(struct cule_link *l)
{
    memset(l->event_in, 0, sizeof l->event_in);
}

static unsigned take_fds(struct cule_link *l, int *fds, unsigned n)
{
    struct cule_link *from = l->peer;
    unsigned got = 0;
    while (got < n && from->fd_head < from->fd_tail) {
        fds[got++] = from->fd_wire[from->fd_head++];
    }
    return got;
}

static void close_fds(struct cule_link *l, const int *fds, unsigned n)
{
    (void)l;
    for (unsigned i = 0; i < n; i++) {
        fds_open -= fds[i] >= 0;
    }
}

static void on_output(struct cule_link *l)
{
    (void)l;
}

static void to_wire(struct cule_link *l, const struct iovec *iov, int n, size_t left)
{
    for (int i = 0; i < n && left; i++) {
        size_t some = CULE_MIN(left, iov[i].iov_len);
        assert_true(l->wire_tail + some <= WIRE_MAX);
        memcpy(l->wire + l->wire_tail, iov[i].iov_base, some);
        l->wire_tail += some;
        left -= some;
    }
}

/* What a large message may write at once: all of it, some, or nothing. */
static size_t on_write(struct cule_link *l, const struct iovec *iov, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        total += iov[i].iov_len;
    }
    assert_int_equal(l->s.queued, 0);
    size_t some = rnd(3) == 0 ? total : rnd(2) ? rnd((uint32_t)total) : 0;
    to_wire(l, iov, n, some);
    return some;
}

static const struct cule_session_ops ops = {.message = on_message,
                                            .ready = on_ready,
                                            .writable = on_writable,
                                            .take_fds = take_fds,
                                            .close_fds = close_fds,
                                            .output = on_output,
                                            .write = on_write};

static void on_pong(struct cule_link *l, void *arg, uint64_t rtt_ns)
{
    (void)arg;
    (void)rtt_ns;
    l->pongs++;
}

/* --- the wire --- */

/* A critical frame goes before all but the frame that is being written. */
static void check_order(const struct cule_session *s, const struct iovec *iov, int n)
{
    int first = s->part_left ? 1 : 0;
    size_t skip = s->part_left && s->part_lane == CULE_CRITICAL ? s->part_left : 0;
    if (cule_buf_len(&s->lane[CULE_CRITICAL].bytes) > skip && n > first) {
        assert_ptr_equal(iov[first].iov_base, cule_buf_data(&s->lane[CULE_CRITICAL].bytes) + skip);
    }
}

static void write_some(struct cule_link *l, bool all)
{
    struct iovec iov[CULE_SESSION_IOV_MAX];
    const int *fds;
    unsigned nfds;
    int n = cule_session_output(&l->s, iov, &fds, &nfds);
    size_t total = 0;
    if (n == 0) {
        return;
    }
    check_order(&l->s, iov, n);
    for (int i = 0; i < n; i++) {
        total += iov[i].iov_len;
    }
    size_t most = rnd(3) ? 500 : 150000;
    total = all ? total : 1 + rnd((uint32_t)CULE_MIN(total, most));
    for (unsigned i = 0; i < nfds; i++) {
        assert_true(l->fd_tail < FDS);
        l->fd_wire[l->fd_tail++] = fds[i];
        fds_open++; /* the kernel's copy */
    }
    to_wire(l, iov, n, total);
    cule_session_wrote(&l->s, total);
    cule_session_notify(&l->s);
}

/* Up to n bytes from the other side's wire. */
static void read_some(struct cule_link *l, size_t n)
{
    struct cule_link *from = l->peer;
    n = CULE_MIN(n, from->wire_tail - from->wire_head);
    if (n == 0) {
        return;
    }
    uint8_t *chunk = malloc(n); /* its own memory, so that a read beyond it is seen */
    enough(chunk ? 0 : CULE_ENOMEM);
    memcpy(chunk, from->wire + from->wire_head, n);
    from->wire_head += n;
    if (from->wire_head == from->wire_tail) {
        from->wire_head = from->wire_tail = 0;
    }
    struct cule_err err = {0};
    int rc;
    cule_session_tick(&l->s, now_ns);
    cule_session_feed(&l->s, chunk, n);
    while ((rc = cule_session_step(&l->s, &err)) > 0) {
    }
    enough(rc);
    if (rc < 0) {
        fail_msg("seed %llu: the link ended: %s", (unsigned long long)run_seed, err.text);
    }
    free(chunk);
}

static void settle(void)
{
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 2; k++) {
            for (int w = 0; w < 50 && side[k].s.queued; w++) {
                write_some(&side[k], true);
            }
            read_some(side[k].peer, WIRE_MAX);
        }
        if (!side[0].s.queued && !side[1].s.queued && !side[0].wire_tail && !side[1].wire_tail) {
            return;
        }
    }
    fail_msg("seed %llu: the two talk for ever: %zu and %zu bytes queued", (unsigned long long)run_seed,
             side[0].s.queued, side[1].s.queued);
}

/*
 * Two sessions against each other in memory under a virtual clock: seeded random requests, streams both ways, cancels,
 * deadlines, descriptors, pings, small windows and replaced peers, over a wire that cuts bytes anywhere. What must hold
 * is checked at every step and, once everything has been dealt with, at the end.
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

static const struct cule_session_ops ops = {.message = on_message,
                                            .ready = on_ready,
                                            .writable = on_writable,
                                            .take_fds = take_fds,
                                            .close_fds = close_fds,
                                            .output = on_output};

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
    size_t left = total;
    for (int i = 0; i < n && left; i++) {
        size_t some = CULE_MIN(left, iov[i].iov_len);
        assert_true(l->wire_tail + some <= WIRE_MAX);
        memcpy(l->wire + l->wire_tail, iov[i].iov_base, some);
        l->wire_tail += some;
        left -= some;
    }
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

/* --- what the applications do --- */

static size_t some_size(void)
{
    switch (rnd(6)) {
    case 0: return 0;
    case 1: return rnd(BODY_MAX);
    case 2: return CULE_PAYLOAD_MAX - 1 + rnd(3);
    default: return rnd(300);
    }
}

static struct cule_msg some_message(enum cule_kind kind, int *fds)
{
    static const uint8_t trace[CULE_TRACE_SIZE] = {1, 2, 3};
    struct cule_msg m = {.body = body, .len = some_size()};
    cule_frame_init(&m.h, kind);
    m.h.priority = (uint8_t)rnd(CULE_PRIORITIES);
    m.trace = rnd(5) ? NULL : trace;
    if (rnd(6) == 0) {
        m.nfds = 1 + rnd(3);
        m.fds = fds;
        for (unsigned i = 0; i < m.nfds; i++) {
            fds[i] = 1000;
        }
    }
    return m;
}

/* The session owns the descriptors of a message it took. */
static int counted(int rc, const struct cule_msg *m)
{
    enough(rc);
    fds_open += rc == 0 ? (int)m->nfds : 0;
    return rc;
}

static void do_event(struct cule_link *l)
{
    int fds[4];
    struct cule_msg m = some_message(CULE_EVENT, fds);
    m.h.arg0 = l->event_out[m.h.priority] + 1;
    int rc = counted(cule_session_send(&l->s, &m, false), &m);
    assert_true(rc == 0 || rc == CULE_EAGAIN);
    l->event_out[m.h.priority] += rc == 0;
}

static void do_call(struct cule_link *l)
{
    int fds[4];
    struct cule_msg m = some_message(CULE_REQUEST, fds);
    struct call *c = &l->call[l->ncalls];
    m.h.flags = rnd(3) ? 0 : CULE_OPEN;
    if (l->ncalls == CALLS) {
        return;
    }
    c->open = true;
    c->sending = m.h.flags & CULE_OPEN;
    cule_session_tick(&l->s, now_ns);
    int rc = counted(cule_session_call(&l->s, &m, rnd(3) ? 0 : 1 + rnd(50), on_answer, c, &c->id), &m);
    assert_true(rc == 0 || rc == CULE_EAGAIN || rc == CULE_ELIMIT);
    if (rc == 0) {
        l->ncalls++;
    } else {
        *c = (struct call){0};
    }
}

static void finish_req(struct cule_link *l, struct req *r, bool plain)
{
    int fds[4];
    struct cule_msg m = some_message(rnd(4) && !plain ? CULE_REPLY : CULE_ERROR_FRAME, fds);
    m.h.id = r->id;
    if (m.h.kind == CULE_ERROR_FRAME) {
        counted(0, &(struct cule_msg){0});
        m.nfds = 0;
        m.fds = NULL;
        m.trace = NULL;
        m.len = 3;
        m.h.arg0 = 4;
    } else if (rnd(3) == 0) {
        m.h.flags = CULE_OPEN;
    }
    int rc = counted(cule_session_answer(&l->s, &m), &m);
    assert_int_equal(rc, 0);
    r->streaming = m.h.flags & CULE_OPEN;
    r->open = r->streaming;
}

static void do_answer(struct cule_link *l)
{
    if (l->nreqs == 0) {
        return;
    }
    struct req *r = &l->req[rnd(l->nreqs)];
    if (!r->open) {
        return;
    }
    if (!r->streaming) {
        finish_req(l, r, false);
        return;
    }
    bool last = rnd(4) == 0;
    int rc = cule_session_data(&l->s, r->id, body, some_size(), last);
    enough(rc);
    assert_true(rc == 0 || rc == CULE_EAGAIN);
    if (rc == 0 && last) {
        r->open = r->streaming = false;
    }
}

static void do_stream(struct cule_link *l)
{
    struct call *c = l->ncalls ? &l->call[rnd(l->ncalls)] : NULL;
    if (c && c->open && c->sending) {
        bool last = rnd(4) == 0;
        int rc = cule_session_data(&l->s, c->id, body, some_size(), last);
        enough(rc);
        assert_true(rc == 0 || rc == CULE_EAGAIN);
        if (rc == 0 && last) {
            c->sending = false;
        }
    }
}

static void do_consume(struct cule_link *l, bool all)
{
    while (l->nowed && (all || rnd(3))) {
        l->nowed--;
        cule_session_consumed(&l->s, l->owed[l->nowed].priority, 1, l->owed[l->nowed].length);
    }
    while (l->nstreams && (all || rnd(3))) {
        l->nstreams--;
        cule_session_stream_consumed(&l->s, l->stream_owed_id[l->nstreams], l->stream_owed[l->nstreams]);
    }
}

static void start(struct cule_link *l, bool server, bool manual)
{
    struct cule_session_config cfg = {.name = server ? "server" : "client",
                                      .message_max = 1 << 20,
                                      .window_bytes = 1 + rnd(300000),
                                      .stream_bytes = 1 + rnd(100000),
                                      .queue_bytes = 1 + rnd(400000),
                                      .window_frames = 1 + rnd(20),
                                      .calls_max = 1 + rnd(60),
                                      .duplex = true,
                                      .server = server,
                                      .hello_first = !restarts,
                                      .manual_credit = manual,
                                      .can_pass_fds = true};
    cule_session_init(&l->s, &cfg, &ops, l);
    cule_session_tick(&l->s, now_ns);
    enough(cule_session_start(&l->s));
}

/* A process is replaced between messages: the next one reads what was on its way to the last. */
static void do_restart(struct cule_link *l)
{
    while (l->s.part_left || l->peer->s.assembler.count) {
        write_some(l, false);
        read_some(l->peer, WIRE_MAX);
    }
    read_some(l->peer, WIRE_MAX);
    while (l->s.decoder.part || l->peer->s.part_left || l->s.assembler.count) {
        write_some(l->peer, false);
        read_some(l, 1 + rnd(64));
    }
    bool server = l->s.cfg.server;
    bool manual = l->s.cfg.manual_credit;
    cule_session_end(&l->s, CULE_ECLOSED, "killed");
    cule_session_release(&l->s);
    for (unsigned i = 0; i < l->ncalls; i++) {
        assert_int_equal(l->call[i].terminal, 1);
    }
    l->ncalls = l->nreqs = l->nowed = l->nstreams = 0;
    l->pings = l->pongs = 0;
    memset(l->call, 0, sizeof l->call);
    memset(l->event_in, 0, sizeof l->event_in);
    memset(l->event_out, 0, sizeof l->event_out);
    start(l, server, manual);
}

/* --- runs --- */

static void step(void)
{
    struct cule_link *l = &side[rnd(2)];
    switch (rnd(12)) {
    case 0: do_event(l); break;
    case 1: do_call(l); break;
    case 2:
    case 3: do_answer(l); break;
    case 4: do_stream(l); break;
    case 5:
        if (l->ncalls && rnd(4) == 0) {
            struct call *c = &l->call[rnd(l->ncalls)];
            if (c->open) {
                assert_int_equal(cule_session_cancel(&l->s, c->id), 0);
                assert_int_equal(c->terminal, 1);
            }
        }
        break;
    case 6:
        now_ns += (uint64_t)rnd(4) * MS;
        cule_session_tick(&l->s, now_ns);
        break;
    case 7: do_consume(l, false); break;
    case 8:
        if (rnd(20) == 0) {
            int rc = cule_session_ping(&l->s, on_pong, NULL);
            enough(rc);
            l->pings += rc == 0;
        }
        /* One side of the two in each run: when both go within one round trip, deadlines are what is left. */
        if (restarts && rnd(100) == 0) {
            do_restart(&side[run_seed % 2]);
        }
        break;
    default: write_some(l, false); read_some(l->peer, rnd(4) ? rnd(300) : rnd(200000));
    }
    for (int k = 0; k < 2; k++) {
        assert_true(side[k].s.calls + side[k].s.requests == side[k].s.exchanges.count);
    }
}

static void close_all(void)
{
    for (int round = 0; round < 3000; round++) {
        bool busy = false;
        settle();
        for (int k = 0; k < 2; k++) {
            struct cule_link *l = &side[k];
            do_consume(l, true);
            for (unsigned i = 0; i < l->ncalls; i++) {
                struct call *c = &l->call[i];
                if (c->open && c->sending) {
                    c->sending = cule_session_data(&l->s, c->id, NULL, 0, true) != 0;
                }
            }
            for (unsigned i = 0; i < l->nreqs; i++) {
                struct req *r = &l->req[i];
                if (r->open && r->streaming) {
                    r->open = cule_session_data(&l->s, r->id, NULL, 0, true) != 0;
                } else if (r->open) {
                    finish_req(l, r, true);
                }
            }
            busy = busy || l->s.exchanges.count;
        }
        if (!busy) {
            break;
        }
    }
    settle();
    do_consume(&side[0], true);
    do_consume(&side[1], true);
    settle();
}

static void check_credit(const struct cule_link *from, const struct cule_link *to)
{
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        const struct cule_credit *s = &from->s.send[p];
        const struct cule_credit *r = &to->s.recv[p];
        assert_int_equal(r->back_frames, r->used_frames); /* nothing leaked: all of it was given back */
        assert_int_equal(r->back_bytes, r->used_bytes);
        assert_true(cule_session_can_send(&from->s, p));
        if (!restarts) {
            assert_int_equal(s->used_frames, r->used_frames);
            assert_int_equal(s->used_bytes, r->used_bytes);
            assert_int_equal(s->granted_frames - s->used_frames + r->due_frames, to->s.cfg.window_frames);
            assert_int_equal(s->granted_bytes - s->used_bytes + r->due_bytes, to->s.cfg.window_bytes);
        }
    }
}

static void run(uint64_t with_seed)
{
    struct cule_pool_stats before;
    struct cule_pool_stats after;
    cule_pool_stats(&before);
    seed = run_seed = with_seed;
    fds_open = 0;
    now_ns = 1000ull * MS;
    for (int k = 0; k < 2; k++) {
        uint8_t *wire = side[k].wire;
        memset(&side[k], 0, sizeof side[k]);
        side[k].wire = wire;
        side[k].peer = &side[1 - k];
    }
    start(&side[0], false, rnd(2));
    start(&side[1], true, rnd(2));
    for (int i = 0; i < 3000; i++) {
        step();
    }
    close_all();
    for (int k = 0; k < 2; k++) {
        struct cule_link *l = &side[k];
        assert_int_equal(l->s.exchanges.count, 0);
        assert_int_equal(l->s.calls + l->s.requests, 0);
        assert_int_equal(l->s.deadlines.count, 0);
        assert_true(cule_list_empty(&l->s.opened));
        assert_true(l->pongs <= l->pings); /* not answered while too much is queued */
        assert_int_equal(l->s.stats.body_errors, 0);
        for (unsigned i = 0; i < l->ncalls; i++) {
            assert_int_equal(l->call[i].terminal, 1);
        }
        check_credit(l, l->peer);
    }
    assert_int_equal(fds_open, 0);
    for (int k = 0; k < 2; k++) {
        cule_session_end(&side[k].s, CULE_ECLOSED, "over");
        cule_session_release(&side[k].s);
    }
    cule_pool_stats(&after);
    assert_int_equal(after.held_bytes, before.held_bytes);
}

static void runs(uint64_t from, int n)
{
    for (int k = 0; k < 2; k++) {
        side[k].wire = malloc(WIRE_MAX);
        enough(side[k].wire ? 0 : CULE_ENOMEM);
    }
    for (size_t i = 0; i < BODY_MAX; i++) {
        body[i] = (uint8_t)(i * 31 + i / 251);
    }
    for (int i = 0; i < n; i++) {
        run(from + (uint64_t)i);
    }
    free(side[0].wire);
    free(side[1].wire);
}

static int count(void)
{
    const char *n = getenv("SIM_RUNS");
    return n ? atoi(n) : 60;
}

static void plain(void **state)
{
    (void)state;
    restarts = false;
    runs(1, count());
}

static void replaced_peers(void **state)
{
    (void)state;
    restarts = true;
    runs(100000, count());
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(replaced_peers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

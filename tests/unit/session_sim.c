/*
 * Two sessions against each other in memory under a virtual clock: seeded random requests, streams both ways, cancels,
 * deadlines, descriptors, pings, small windows and replaced peers, over a wire that cuts bytes anywhere. What must hold
 * is checked at every step and, once everything has been dealt with, at the end.
 */
#include "session_side.h"

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
    return n ? (int)strtol(n, NULL, 10) : 60;
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

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* one test alone */
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(replaced_peers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Links without a loop: asking and serving with calls that block, each to a deadline. */
#include "link_end.h"

/* The callbacks are never to run. */
static struct cule_link_opts plain = {.name = "blocking", .ops = &ops, .window_frames = 10000};

static struct cule_link *over(int fd, bool server)
{
    struct cule_link *l = NULL;
    struct cule_err err = {0};
    struct cule_link_opts o = plain;
    o.is_server = server;
    int rc = cule_link_open_fd(NULL, fd, fd, &o, &l, &err);
    enough(rc);
    if (rc) {
        fail_msg("cannot open: %s", err.text);
    }
    return l;
}

/* --- a server in a process of its own --- */

enum {
    OP_ECHO = 0x4000,
    OP_EVENTS, /* arg0 EVENTs come first */
    OP_STREAM, /* a REPLY with OPEN, arg0 pieces of DATA, the last of them the end */
    OP_NEVER,
    OP_DIE,
    OP_WAIT, /* the next answer takes arg0 ms */
    OP_FDS,
};

static void serve_one(struct cule_link *l, struct cule_msg *m)
{
    struct cule_msg r = cule_msg_make(CULE_REPLY, 0, 0);
    uint64_t id = m->h.id;
    switch (m->h.op) {
    case OP_EVENTS:
        for (uint64_t i = 1; i <= m->h.arg0; i++) {
            enough(cule_link_event(l, 1, 1, i, 0, &i, sizeof i));
        }
        break;
    case OP_STREAM:
        cule_link_reply_open(l, id, 0, 0, "begin", 5);
        for (uint64_t i = 1; i <= m->h.arg0; i++) {
            while (cule_link_data(l, id, big, 10000, i == m->h.arg0) == CULE_EAGAIN) {
                struct cule_msg none;
                cule_link_next(l, &none, 5, NULL); /* credit comes meanwhile */
            }
        }
        return;
    case OP_NEVER: return;
    case OP_DIE: _exit(0);
    case OP_WAIT: usleep((useconds_t)m->h.arg0 * 1000); break;
    default: break;
    }
    r.h.id = id;
    r.h.arg0 = m->h.op == OP_ECHO ? cule_link_left_ms(l, id) : m->h.arg0;
    r.body = m->body;
    r.len = m->len;
    r.fds = m->fds;
    r.nfds = m->nfds;
    enough(cule_link_send(l, &r));
}

static int serve_link(struct cule_link *l)
{
    struct cule_msg m;
    struct cule_err err;
    int rc;
    while ((rc = cule_link_next(l, &m, 0, &err)) > 0) {
        if (m.h.kind == CULE_REQUEST) {
            serve_one(l, &m);
        }
    }
    cule_link_close(l);
    cule_link_free(l);
    return rc == CULE_ECLOSED ? 0 : 1;
}

static pid_t child;

static struct cule_link *with_server(void)
{
    int sv[2];
    pair(sv);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(sv[0]);
        _exit(serve_link(over(sv[1], true)));
    }
    close(sv[1]);
    return over(sv[0], false);
}

static void reap(int want)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), want);
}

static int ask(struct cule_link *l, uint32_t op, uint64_t arg0, const void *body, size_t n, uint64_t timeout_ms,
               struct cule_msg *a)
{
    struct cule_err err;
    struct cule_msg m = cule_msg_make(CULE_REQUEST, 1, op);
    m.h.arg0 = arg0;
    m.body = body;
    m.len = n;
    int rc = cule_link_ask(l, &m, timeout_ms, a, &err);
    enough(rc);
    return rc;
}

static void asking(void **state)
{
    (void)state;
    struct cule_link *l = with_server();
    struct cule_msg a;
    for (size_t n = 0; n < 200000; n = n * 3 + 1) {
        assert_int_equal(ask(l, OP_ECHO, 0, big, n, 5000, &a), 0);
        assert_int_equal(a.h.kind, CULE_REPLY);
        assert_int_equal(a.len, n);
        assert_memory_equal(a.body, big, n);
    }
    assert_int_equal(ask(l, OP_ECHO, 0, big, BIG, 20000, &a), 0);
    assert_memory_equal(a.body, big, BIG);
    assert_int_equal(ask(l, OP_ECHO, 0, big, BIG + 1, 5000, &a), CULE_ETOO_BIG);
    assert_string_equal(cule_link_peer_name(l), "blocking");
    cule_link_close(l);
    cule_link_close(l);
    assert_int_equal(ask(l, OP_ECHO, 0, NULL, 0, 100, &a), CULE_ECLOSED);
    assert_int_equal(cule_link_next(l, &a, 100, NULL), CULE_ECLOSED);
    cule_link_free(l);
    reap(0);
}

static void what_comes_meanwhile(void **state)
{
    (void)state;
    struct cule_link *l = with_server();
    struct cule_msg a;
    struct cule_err err;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(ask(l, OP_EVENTS, 700, "x", 1, 5000, &a), 0);
        assert_memory_equal(a.body, "x", 1);
        for (uint64_t i = 1; i <= 700; i++) {
            assert_int_equal(cule_link_next(l, &a, 1000, &err), 1);
            assert_int_equal(a.h.kind, CULE_EVENT);
            assert_int_equal(a.h.arg0, i);
            assert_memory_equal(a.body, &i, sizeof i);
            if (i == 350) {
                assert_int_equal(ask(l, OP_ECHO, 0, "y", 1, 5000, &a), 0);
            }
        }
    }
    uint64_t begun = cule_now_ns();
    assert_int_equal(cule_link_next(l, &a, 30, &err), CULE_ETIMEOUT);
    assert_in_range((cule_now_ns() - begun) / MS, 29, 500);
    assert_int_equal(ask(l, OP_EVENTS, 3000, NULL, 0, 5000, &a), CULE_ELIMIT); /* more than can be kept */
    cule_link_free(l);
    reap(0);
}

/* Bytes that next has not got to yet are no obstacle to an ask that has to wait for credit. */
static void leftovers(void **state)
{
    (void)state;
    int sv[2];
    struct cule_msg a;
    struct cule_err err;
    uint8_t wire[5 * CULE_HEADER_SIZE];
    pair(sv);
    say(sv[1], CULE_HELLO, 0, 0);
    struct cule_frame credit = frame(CULE_CREDIT, 0, 0);
    credit.arg0 = 1;
    credit.arg1 = 1000;
    say_frame(sv[1], &credit);
    struct cule_link *l = over(sv[0], false);
    for (int i = 0; i < 4; i++) {
        struct cule_frame f = frame(CULE_EVENT, 0, 0);
        f.arg0 = (uint64_t)i;
        cule_frame_encode(&f, false, wire + i * CULE_HEADER_SIZE);
    }
    cule_frame_encode(&credit, false, wire + sizeof wire - CULE_HEADER_SIZE);
    say_bytes(sv[1], wire, sizeof wire);
    assert_int_equal(cule_link_next(l, &a, 1000, &err), 1);
    assert_int_equal(a.h.arg0, 0);
    while (cule_link_event(l, 1, 1, 0, 0, NULL, 0) == 0) {
    }
    struct cule_frame r = frame(CULE_REPLY, 1, 0);
    say_frame(sv[1], &r);
    assert_int_equal(ask(l, OP_ECHO, 0, NULL, 0, 2000, &a), 0);
    for (uint64_t i = 1; i < 4; i++) {
        assert_int_equal(cule_link_next(l, &a, 1000, &err), 1);
        assert_int_equal(a.h.arg0, i);
    }
    cule_link_free(l);
    close(sv[1]);
}

static void deadlines(void **state)
{
    (void)state;
    struct cule_link *l = with_server();
    struct cule_msg a;
    uint64_t begun = cule_now_ns();
    assert_int_equal(ask(l, OP_NEVER, 0, NULL, 0, 40, &a), CULE_ETIMEOUT);
    assert_in_range((cule_now_ns() - begun) / MS, 39, 600);
    /* The server slept in `next` before the request came: its deadline counts from when it came. */
    usleep(80000);
    assert_int_equal(ask(l, OP_ECHO, 0, NULL, 0, 60, &a), 0);
    assert_in_range(a.h.arg0, 30, 60);
    assert_int_equal(ask(l, OP_WAIT, 60, NULL, 0, 20, &a), CULE_ETIMEOUT);
    assert_int_equal(ask(l, OP_ECHO, 0, "z", 1, 5000, &a), 0); /* the late answer is nobody's */
    assert_int_equal(a.len, 1);
    cule_link_free(l);
    reap(0);
}

static void streams(void **state)
{
    (void)state;
    struct cule_link *l = with_server();
    struct cule_msg a;
    struct cule_err err;
    unsigned n = 0;
    assert_int_equal(ask(l, OP_STREAM, 200, NULL, 0, 5000, &a), 0);
    assert_true(a.h.flags & CULE_OPEN);
    assert_memory_equal(a.body, "begin", 5);
    uint64_t id = a.h.id;
    do {
        assert_int_equal(cule_link_next(l, &a, 5000, &err), 1);
        assert_int_equal(a.h.kind, CULE_DATA);
        assert_int_equal(a.h.id, id);
        assert_int_equal(a.len, 10000);
        n++;
    } while (a.h.flags & CULE_OPEN);
    assert_int_equal(n, 200);
    cule_link_free(l);
    reap(0);
}

static void descriptors(void **state)
{
    (void)state;
    struct cule_link *l = with_server();
    struct cule_msg a;
    struct cule_err err;
    int before = count_fds();
    for (int i = 0; i < 3; i++) {
        struct cule_msg m = cule_msg_make(CULE_REQUEST, 1, OP_FDS);
        int fds[2] = {0, 1};
        m.fds = fds;
        m.nfds = 2;
        int rc = cule_link_ask(l, &m, 5000, &a, &err);
        enough(rc);
        assert_int_equal(rc, 0);
        assert_int_equal(a.nfds, 2);
        int fd = cule_msg_take_fd(&a, 1);
        assert_true(fd > 2);
        close(fd);
    }
    assert_int_equal(ask(l, OP_ECHO, 0, NULL, 0, 5000, &a), 0); /* what was not taken is closed by the next call */
    assert_int_equal(count_fds(), before);
    cule_link_free(l);
    reap(0);
}

static void the_peer_dies(void **state)
{
    (void)state;
    struct cule_link *l = with_server();
    struct cule_msg a;
    struct cule_err err = {0};
    assert_int_equal(ask(l, OP_DIE, 0, NULL, 0, 5000, &a), CULE_ECLOSED);
    assert_int_equal(cule_link_next(l, &a, 100, &err), CULE_ECLOSED);
    assert_int_equal(cule_link_drain(l, 100, &err), 0);
    assert_true(err.text[0] != 0);
    cule_link_free(l);
    reap(0);
    /* A request of a peer that goes is cancelled. */
    int sv[2];
    pair(sv);
    say(sv[1], CULE_HELLO, 0, 0);
    say(sv[1], CULE_REQUEST, 1, 0);
    l = over(sv[0], true);
    assert_int_equal(cule_link_next(l, &a, 1000, &err), 1);
    assert_int_equal(a.h.kind, CULE_REQUEST);
    close(sv[1]);
    assert_int_equal(cule_link_next(l, &a, 1000, &err), 1);
    assert_int_equal(a.h.kind, CULE_CANCEL);
    assert_int_equal(cule_link_next(l, &a, 1000, &err), CULE_ECLOSED);
    cule_link_free(l);
}

/* Two that send to each other, each more than the socket holds, and only then read. */
static void drain_both_ways(void **state)
{
    (void)state;
    enum { N = 400, EACH = 9000 };
    int sv[2];
    struct cule_err err = {0};
    struct cule_link_opts o = plain;
    o.window_bytes = 64 << 20;
    pair(sv);
    child = fork();
    assert_true(child >= 0);
    o.is_server = child == 0;
    struct cule_link *l = NULL;
    int fd = sv[child == 0];
    close(sv[child != 0]);
    enough(cule_link_open_fd(NULL, fd, fd, &o, &l, &err));
    struct cule_msg m;
    int ok = l != NULL;
    for (uint64_t i = 1; i <= N && ok; i++) {
        ok = cule_link_event(l, 1, 1, i, 0, big, EACH) == 0;
    }
    ok = ok && cule_link_drain(l, 10000, &err) == 0;
    for (uint64_t i = 1; i <= N && ok; i++) {
        ok = cule_link_next(l, &m, 10000, &err) == 1 && m.h.arg0 == i && m.len == EACH;
    }
    if (child == 0) {
        cule_link_close(l);
        _exit(ok ? 0 : 3);
    }
    assert_true(ok);
    assert_int_equal(cule_link_next(l, &m, 10000, &err), CULE_ECLOSED);
    cule_link_free(l);
    reap(0);
}

/* A peer that takes nothing: drain and close keep to their time. */
static void nobody_reads(void **state)
{
    (void)state;
    int sv[2];
    struct cule_err err;
    pair(sv);
    say(sv[1], CULE_HELLO, 0, 0);
    struct cule_link *l = over(sv[0], false);
    while (cule_link_event(l, 1, 1, 0, 0, big, 60000) == 0) {
    }
    uint64_t begun = cule_now_ns();
    assert_int_equal(cule_link_drain(l, 50, &err), CULE_ETIMEOUT);
    assert_in_range((cule_now_ns() - begun) / MS, 49, 1000);
    begun = cule_now_ns();
    cule_link_close(l);
    assert_in_range((cule_now_ns() - begun) / MS, CULE_LINK_LINGER_MS - 1, CULE_LINK_LINGER_MS + 1000);
    cule_link_free(l);
    close(sv[1]);
}

/* `cat requests | server | decode`, with a server that blocks. */
static void half_closed_pipes(void **state)
{
    (void)state;
    enum { N = 50 };
    int in[2];
    int out[2];
    struct cule_link *l;
    struct cule_link *r;
    struct cule_err err;
    struct cule_msg m;
    uint64_t ids[N];
    unsigned replies = 0;
    struct cule_link_opts o = plain;
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    o.is_server = true;
    enough(cule_link_open_fd(NULL, in[0], out[1], &o, &l, &err));
    for (uint64_t i = 0; i < N; i++) {
        uint8_t wire[CULE_HEADER_SIZE];
        struct cule_frame f = frame(CULE_REQUEST, 2 * i + 1, 0);
        cule_frame_encode(&f, false, wire);
        assert_int_equal(write(in[1], wire, sizeof wire), sizeof wire);
    }
    close(in[1]);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(cule_link_next(l, &m, 1000, &err), 1);
        ids[i] = m.h.id;
    }
    assert_int_equal(cule_link_next(l, &m, 1000, &err), CULE_ECLOSED);
    assert_int_equal(cule_link_next(l, &m, 1000, &err), CULE_ECLOSED);
    for (unsigned i = 0; i < N; i++) {
        enough(cule_link_reply(l, ids[i], 0, 0, NULL, 0)); /* they still go out */
    }
    cule_link_close(l);
    cule_link_free(l);
    o.one_way = true;
    enough(cule_link_open_fd(NULL, out[0], -1, &o, &r, &err));
    int rc;
    while ((rc = cule_link_next(r, &m, 1000, &err)) == 1) {
        replies += m.h.kind == CULE_REPLY;
    }
    assert_int_equal(rc, CULE_ECLOSED);
    assert_int_equal(replies, N);
    cule_link_free(r);
}

/* --- over each carrier --- */

/* A server on a loop, in a child, that answers until its first link is over. */
static void loop_server(const char *listen_on, int ready)
{
    static struct server v;
    loop = NULL;
    struct cule_err err;
    enough(cule_loop_new(&loop, &err));
    const char *bound = serve(&v, listen_on, NULL);
    if (write(ready, bound, strlen(bound)) < 0) {
        _exit(9);
    }
    close(ready);
    UNTIL(v.count && v.end[0].closed);
    _exit(v.end[0].why.code == 0 ? 0 : 4);
}

static void each_carrier(void **state)
{
    (void)state;
    static const char *const kinds[] = {"unix", "tcp", "ring"};
    for (size_t k = 0; k < CULE_COUNT(kinds); k++) {
        int ready[2];
        char bound[256] = {0};
        struct cule_link *l;
        struct cule_err err;
        struct cule_msg a;
        const char *listen_on = fresh(kinds[k]);
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            loop_server(listen_on, ready[1]);
        }
        close(ready[1]);
        assert_true(read(ready[0], bound, sizeof bound - 1) > 0);
        close(ready[0]);
        int rc = cule_link_open(NULL, bound, &plain, &l, &err);
        enough(rc);
        assert_int_equal(rc, 0);
        assert_string_equal(cule_link_transport(l), kinds[k]);
        for (int i = 0; i < 300; i++) {
            assert_int_equal(ask(l, 1, (uint64_t)i, &i, sizeof i, 5000, &a), 0);
            assert_memory_equal(a.body, &i, sizeof i);
            assert_int_equal(a.h.arg0, i);
        }
        assert_int_equal(ask(l, 1, 0, big, BIG, 20000, &a), 0);
        assert_memory_equal(a.body, big, BIG);
        for (uint64_t i = 1; i <= 500; i++) {
            assert_int_equal(cule_link_event(l, 1, 1, i, 0, big, 700), 0);
        }
        cule_link_close(l);
        cule_link_free(l);
        reap(0);
    }
}

/* --- who goes at any byte --- */

static void goes_at_every_byte(void **state)
{
    (void)state;
    uint8_t talk[1024];
    size_t len = 0;
    struct cule_frame f = frame(CULE_HELLO, 0, 6);
    len += cule_frame_write(&f, false, big, talk + len);
    f = frame(CULE_EVENT, 0, 30);
    len += cule_frame_write(&f, false, big, talk + len);
    f = frame(CULE_REQUEST, 1, 9);
    len += cule_frame_write(&f, false, big, talk + len);
    f = frame(CULE_BYE, 0, 0);
    len += cule_frame_write(&f, false, big, talk + len);
    int before = count_fds();
    for (size_t n = 0; n <= len; n++) {
        int sv[2];
        struct cule_link *l = NULL;
        struct cule_err err;
        struct cule_msg m;
        pair(sv);
        say_bytes(sv[1], talk, n);
        close(sv[1]);
        struct cule_link_opts o = plain;
        o.is_server = true;
        int rc = cule_link_open_fd(NULL, sv[0], sv[0], &o, &l, &err);
        enough(rc);
        assert_int_equal(rc == 0, n >= 72); /* the HELLO is whole */
        if (rc) {
            close(sv[0]);
            continue;
        }
        while ((rc = cule_link_next(l, &m, 1000, &err)) == 1) {
        }
        assert_int_equal(rc, n % 8 ? CULE_ETRUNCATED : rc);
        assert_true(rc == CULE_ECLOSED || rc == CULE_ETRUNCATED);
        cule_link_free(l);
    }
    assert_int_equal(count_fds(), before);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* one test alone */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asking),        cmocka_unit_test(what_comes_meanwhile),
        cmocka_unit_test(leftovers),     cmocka_unit_test(deadlines),
        cmocka_unit_test(streams),       cmocka_unit_test(descriptors),
        cmocka_unit_test(the_peer_dies), cmocka_unit_test(drain_both_ways),
        cmocka_unit_test(nobody_reads),  cmocka_unit_test(half_closed_pipes),
        cmocka_unit_test(each_carrier),  cmocka_unit_test(goes_at_every_byte),
    };
    return cmocka_run_group_tests(tests, begin_group, end_group);
}

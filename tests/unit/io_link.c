/* Links on a loop, over every carrier: requests, big messages, credit, descriptors, and how they end. */
#include "link_end.h"

#include "base/pool.h"

#include <malloc.h>

static struct server server;

/* --- over each carrier --- */

static void round_trips(const char *listen_on, const char *transport)
{
    struct end c = {0};
    bool unix_socket = strcmp(transport, "unix") == 0;
    open_end(&c, serve(&server, listen_on, NULL), NULL);
    call_n(&c, "hello", 5, 0); /* before the connection is there */
    UNTIL(strcmp(c.notes, "reply 1 5; ") == 0);
    assert_string_equal(cule_link_transport(c.l), transport);
    assert_string_equal(cule_link_peer_name(c.l), "server");
    assert_true(cule_link_is_ready(c.l));
    assert_int_equal(server.count, 1);
    assert_int_equal(cule_link_peer(server.end[0].l)->has_cred, unix_socket || strcmp(transport, "ring") == 0);
    call_n(&c, big, BIG, 0);
    struct cule_msg q = cule_msg_make(CULE_REQUEST, 0, 1);
    assert_int_equal(cule_link_call(c.l, &q, 0, on_answer, &c, NULL), CULE_EAGAIN); /* the queue is full */
    UNTIL(strcmp(c.notes, "reply 1 5; reply 3 16777216; ") == 0);
    call_n(&c, big, 65536, 0);
    call_n(&c, big, 65537, 5000);
    UNTIL(strcmp(c.notes, "reply 1 5; reply 3 16777216; reply 5 65536; reply 7 65537; ") == 0);
    struct cule_msg m = cule_msg_make(CULE_EVENT, 0, 1);
    m.body = big;
    m.len = BIG + 1;
    assert_int_equal(cule_link_send(c.l, &m), CULE_ETOO_BIG);
    struct cule_link_stats s;
    cule_link_stats(c.l, &s);
    assert_true(s.bytes_out > BIG && s.bytes_in > BIG && s.frames_out > 256);
    assert_int_equal(s.ring_frames > 0, strcmp(transport, "ring") == 0);
    cule_link_close(c.l);
    UNTIL(c.closed && server.end[0].closed);
    assert_int_equal(c.why.code, 0);
    assert_int_equal(server.end[0].why.code, 0);
    end_server(&server);
}

static void over_unix(void **state)
{
    (void)state;
    round_trips(fresh("unix"), "unix");
}

static void over_tcp(void **state)
{
    (void)state;
    round_trips(fresh("tcp"), "tcp");
}

static void over_ring(void **state)
{
    (void)state;
    round_trips(fresh("ring"), "ring");
}

/* This program again, as a server on its standard input and output. */
static char self[4096];

static void over_exec(void **state)
{
    (void)state;
    struct end c = {0};
    char endpoint[4200];
    int before = count_fds();
    snprintf(endpoint, sizeof endpoint, "exec:%s serve", self);
    open_end(&c, endpoint, NULL);
    assert_true(cule_link_exec_pid(c.l) > 0);
    call_n(&c, big, BIG, 0);
    UNTIL(strcmp(c.notes, "reply 1 16777216; ") == 0);
    assert_string_equal(cule_link_peer_name(c.l), "stdio server");
    cule_link_close(c.l);
    UNTIL(c.closed);
    assert_int_equal(c.why.code, 0);
    UNTIL(count_fds() == before);
    /* One that ends at once, and one that is no program. */
    struct end d = {0};
    open_end(&d, "exec:exit 3", NULL);
    UNTIL(d.closed);
    struct end w = {0};
    open_end(&w, "exec:exec sleep 1000", NULL);
    pid_t pid = cule_link_exec_pid(w.l);
    cule_link_free(w.l);
    UNTIL(kill(pid, 0) < 0 && errno == ESRCH);
    UNTIL(count_fds() == before);
}

static void on_serve_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    on_closed(l, ctx, why);
    cule_loop_stop(loop);
}

static void on_serve_accept(struct cule_listener *s, void *ctx, struct cule_link *l)
{
    static const struct cule_link_ops serve_ops = {on_message, on_ready, on_writable, on_skipped, on_serve_closed};
    struct end *e = ctx;
    (void)s;
    e->l = l;
    cule_link_set_ctx(l, &serve_ops, e);
}

static int serve_stdio(void)
{
    struct end e = {0};
    struct cule_err err;
    struct cule_listener *s;
    struct cule_link_opts o = {.name = "stdio server"};
    signal(SIGPIPE, SIG_IGN);
    if (cule_loop_new(&loop, &err) || cule_listen(loop, "-", &o, NULL, on_serve_accept, &e, &s, &err)) {
        return 1;
    }
    cule_loop_run(loop);
    cule_listener_free(s);
    cule_loop_free(loop);
    return e.closed && e.why.code == 0 ? 0 : 2;
}

/* `cat requests | server | decode`: the end of the input is not the end of what was asked. */
static void half_closed_pipes(void **state)
{
    (void)state;
    enum { N = 50 };
    struct end c = {0};
    int in[2];
    int out[2];
    unsigned frames = 0;
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct end e = {.silent = true};
    struct cule_link_opts o = opts_of(&e);
    o.is_server = true;
    open_fd(&e, in[0], out[1], &o);
    for (uint64_t i = 0; i < N; i++) {
        uint8_t wire[CULE_HEADER_SIZE];
        struct cule_frame f = frame(CULE_REQUEST, 2 * i + 1, 0);
        cule_frame_encode(&f, false, wire);
        assert_int_equal(write(in[1], wire, sizeof wire), sizeof wire);
    }
    close(in[1]);
    UNTIL(e.last_id == 2 * N - 1);
    cule_loop_turn(loop, 20);
    assert_false(e.closed);
    /* no answer can come any more to what is asked in the other direction */
    struct cule_msg m = cule_msg_make(CULE_REQUEST, 0, 1);
    assert_int_equal(cule_link_call(e.l, &m, 0, on_answer, &e, NULL), CULE_ECLOSED);
    for (uint64_t i = 0; i < N; i++) {
        enough(cule_link_reply(e.l, 2 * i + 1, i, 0, NULL, 0));
    }
    UNTIL(e.closed);
    assert_int_equal(e.why.code, 0);
    struct cule_link_opts one = opts_of(&c);
    one.one_way = true;
    open_fd(&c, out[0], -1, &one);
    UNTIL(c.closed);
    for (char *p = c.notes; (p = strstr(p, "reply ")); p++) {
        frames++;
    }
    assert_int_equal(frames, N);
    assert_non_null(strstr(c.notes, "bye 0; "));
}

static void half_closed_reader_goes(void **state)
{
    (void)state;
    int in[2];
    int out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct end e = {.silent = true};
    struct cule_link_opts o = opts_of(&e);
    uint8_t wire[CULE_HEADER_SIZE];
    struct cule_frame f = frame(CULE_REQUEST, 1, 0);
    o.is_server = true;
    open_fd(&e, in[0], out[1], &o);
    cule_frame_encode(&f, false, wire);
    assert_int_equal(write(in[1], wire, sizeof wire), sizeof wire);
    close(in[1]);
    UNTIL(e.last_id == 1);
    cule_loop_turn(loop, 20);
    assert_false(e.closed);
    close(out[0]);
    UNTIL(e.closed); /* although nothing is read or written */
    assert_int_equal(e.cancels, 1);
}

/* --- flow --- */

static void events_with_credit(const char *kind, uint32_t frames, uint64_t bytes)
{
    enum { N = 20000 };
    struct end c = {0};
    struct cule_link_opts o = {.name = "server", .ops = &ops, .window_frames = frames, .window_bytes = bytes};
    struct cule_link_opts co = opts_of(&c);
    unsigned again = 0;
    co.queue_bytes = 65536;
    open_end(&c, serve(&server, fresh(kind), &o), &co);
    UNTIL(c.ready);
    for (uint64_t i = 1; i <= N;) {
        unsigned writable = c.writable;
        int rc = send_event(&c, i, big, i % 300);
        if (rc == 0) {
            i++;
            continue;
        }
        assert_int_equal(rc, CULE_EAGAIN);
        assert_int_equal(c.writable, writable); /* never from inside the send */
        again++;
        UNTIL(c.writable > writable);
    }
    UNTIL(server.end[0].events == N);
    assert_false(server.end[0].disorder);
    assert_true(again > 0);
    struct cule_link_stats s;
    cule_link_stats(c.l, &s);
    assert_int_equal(s.again, again);
    assert_true(s.queue_high_water_bytes <= 65536 + 364);
    cule_link_free(c.l);
    UNTIL(server.end[0].closed);
    end_server(&server);
}

static void credit_by_frames(void **state)
{
    (void)state;
    events_with_credit("unix", 7, 0);
}

static void credit_by_bytes(void **state)
{
    (void)state;
    events_with_credit("tcp", 0, 1000);
}

static void credit_on_ring(void **state)
{
    (void)state;
    events_with_credit("ring", 0, 0);
}

static void manual_credit_holds_back(void **state)
{
    (void)state;
    struct end c = {0};
    struct cule_link_opts o = {.name = "server", .ops = &ops, .window_frames = 10, .manual_credit = true};
    open_end(&c, serve(&server, fresh("unix"), &o), NULL);
    UNTIL(c.ready);
    cule_loop_turn(loop, 10);
    uint64_t sent = 0;
    while (send_event(&c, sent + 1, NULL, 0) == 0) {
        sent++;
    }
    assert_int_equal(sent, 10);
    UNTIL(server.end[0].events == 10);
    assert_int_equal(c.writable, 0);
    cule_link_consumed(server.end[0].l, CULE_NORMAL, 5, 0);
    UNTIL(c.writable == 1);
    while (send_event(&c, sent + 1, NULL, 0) == 0) {
        sent++;
    }
    assert_int_equal(sent, 15);
    cule_link_free(c.l);
    end_server(&server);
}

static void pause_and_resume(void **state)
{
    (void)state;
    struct end c = {0};
    open_end(&c, serve(&server, fresh("unix"), NULL), NULL);
    UNTIL(c.ready && server.count && server.end[0].ready);
    cule_link_pause(server.end[0].l, true);
    cule_loop_turn(loop, 10);
    send_event(&c, 1, NULL, 0);
    cule_link_flush(c.l);
    for (int i = 0; i < 5; i++) {
        cule_loop_turn(loop, 5);
    }
    assert_int_equal(server.end[0].events, 0);
    cule_link_pause(server.end[0].l, false);
    UNTIL(server.end[0].events == 1);
    cule_link_free(c.l);
    end_server(&server);
}

/* --- descriptors --- */

static int file_saying(const char *text)
{
    int pv[2];
    assert_int_equal(pipe2(pv, O_CLOEXEC), 0);
    assert_int_equal(write(pv[1], text, strlen(text)), strlen(text));
    close(pv[1]);
    return pv[0];
}

static void descriptors_both_ways(void **state)
{
    (void)state;
    struct end c = {0};
    int before = count_fds();
    open_end(&c, serve(&server, fresh("unix"), NULL), NULL);
    for (int i = 0; i < 6; i++) {
        char text[3] = {'A', (char)('0' + i), 0};
        int fds[2] = {file_saying(text), file_saying(text)};
        struct cule_msg m = cule_msg_make(i % 2 ? CULE_EVENT : CULE_REQUEST, 0, 1);
        m.fds = fds;
        m.nfds = 2;
        m.h.arg0 = (uint64_t)i;
        m.body = big;
        m.len = i == 2 ? 200000 : 3; /* several frames: they go with the first */
        int rc = i % 2 ? cule_link_send(c.l, &m) : cule_link_call(c.l, &m, 0, on_answer, &c, NULL);
        enough(rc);
        assert_int_equal(rc, 0);
        assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC); /* duplicated: ours stay */
        close(fds[0]);
        close(fds[1]);
    }
    UNTIL(c.nfds == 6 && server.end[0].nfds == 6);
    assert_string_equal(c.notes, "reply 1 3; reply 3 200000; reply 5 3; ");
    for (unsigned i = 0; i < 6; i++) {
        char text[4] = {0};
        const struct end *e = i % 2 ? &server.end[0] : &c;
        assert_int_equal(fcntl(e->fds[i / 2 * 2], F_GETFD), FD_CLOEXEC);
        assert_int_equal(read(e->fds[i / 2 * 2], text, 3), 2);
        assert_int_equal(text[1], '0' + (int)i);
    }
    for (unsigned i = 0; i < 6; i++) {
        close(c.fds[i]);
        close(server.end[0].fds[i]);
    }
    int none = 1000;
    struct cule_msg m = cule_msg_make(CULE_EVENT, 0, 1);
    m.fds = &none;
    m.nfds = 1;
    assert_int_equal(cule_link_send(c.l, &m), CULE_EUSAGE);
    cule_link_free(c.l);
    UNTIL(server.end[0].closed);
    end_server(&server);
    UNTIL(count_fds() == before);
    open_end(&c, serve(&server, fresh("tcp"), NULL), NULL);
    none = 0;
    assert_int_equal(cule_link_send(c.l, &m), CULE_EUNSUPPORTED);
    cule_link_free(c.l);
    end_server(&server);
}

/* --- files --- */

static void files(void **state)
{
    (void)state;
    struct end w = {0};
    struct end r = {0};
    char endpoint[128];
    char path[64];
    struct cule_err err;
    struct cule_link_opts o = opts_of(&w);
    snprintf(path, sizeof path, "%s/recording", dir);
    snprintf(endpoint, sizeof endpoint, "file:%s", path);
    int rc = cule_link_open_writer(loop, endpoint, &o, &w.l, &err);
    enough(rc);
    assert_int_equal(rc, 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        assert_int_equal(send_event(&w, i, big, i), 0);
    }
    cule_link_close(w.l);
    UNTIL(w.closed);
    assert_int_equal(w.why.code, 0);
    open_end(&r, endpoint, NULL);
    assert_string_equal(cule_link_transport(r.l), "file");
    UNTIL(r.closed);
    assert_int_equal(r.events, 1000);
    assert_false(r.disorder);
    assert_int_equal(r.why.code, 0);
    /* Junk in front is skipped and said; a cut at the end is said too. */
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "junk", 4, 0), 4);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(ftruncate(fd, st.st_size - 5), 0);
    close(fd);
    struct end s = {0};
    open_end(&s, endpoint, NULL);
    UNTIL(s.closed);
    assert_int_equal(s.events, 998);
    assert_int_equal(s.skipped, 72);
    assert_int_equal(s.why.code, CULE_ETRUNCATED);
    assert_int_equal(cule_link_open(loop, "file:/nowhere/at/all", &o, &s.l, &err), CULE_ENOT_FOUND);
}

/* --- memory --- */

static void bytes_per_idle_link(void **state)
{
    (void)state;
    enum { N = 400 };
    static struct end e[N];
    static int other[N];
    cule_pool_trim();
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < N; i++) {
        int sv[2];
        pair(sv);
        struct cule_link_opts o = opts_of(&e[i]);
        o.is_server = true;
        open_fd(&e[i], sv[0], sv[0], &o);
        other[i] = sv[1];
        say(sv[1], CULE_HELLO, 0, 0);
        say(sv[1], CULE_REQUEST, 1, 100);
    }
    UNTIL(e[N - 1].last_id == 1);
    cule_loop_turn(loop, 10);
    cule_pool_trim(); /* what all links share */
    struct mallinfo2 after = mallinfo2();
    size_t each = (after.uordblks - before.uordblks) / N;
    print_message("# %zu bytes for each idle link\n", each);
    assert_true(after.uordblks == 0 || each < 4096); /* no figures under a sanitizer */
    for (int i = 0; i < N; i++) {
        cule_link_free(e[i].l);
        close(other[i]);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        return serve_stdio();
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    if (!realpath("/proc/self/exe", self)) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_unix),
        cmocka_unit_test(over_tcp),
        cmocka_unit_test(over_ring),
        cmocka_unit_test(over_exec),
        cmocka_unit_test(half_closed_pipes),
        cmocka_unit_test(half_closed_reader_goes),
        cmocka_unit_test(credit_by_frames),
        cmocka_unit_test(credit_by_bytes),
        cmocka_unit_test(credit_on_ring),
        cmocka_unit_test(manual_credit_holds_back),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(descriptors_both_ways),
        cmocka_unit_test(files),
        cmocka_unit_test(bytes_per_idle_link),
    };
    return cmocka_run_group_tests(tests, begin_group, end_group);
}

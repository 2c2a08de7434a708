/* Links whose peer does not keep to the rules, or goes at the worst moment: each ends as it should, and says why. */
#include "link_end.h"

static int peer;     /* the other end of the link under test */
static struct end e; /* the link */
static int fds_before;

/* A server's link over one end of a socketpair, the peer at the other. */
static void begin(const struct cule_link_opts *with)
{
    int sv[2];
    struct cule_link_opts o = with ? *with : (struct cule_link_opts){0};
    fds_before = count_fds();
    e = (struct end){0};
    o.name = "server";
    o.ops = &ops;
    o.ctx = &e;
    o.is_server = true;
    pair(sv);
    peer = sv[1];
    open_fd(&e, sv[0], sv[0], &o);
}

static void hello(void)
{
    say(peer, CULE_HELLO, 0, 0);
    UNTIL(e.ready);
}

/* The peer goes; the link has ended or ends now, and nothing is left open. */
static void finish(void)
{
    close(peer);
    UNTIL(e.closed);
    UNTIL(count_fds() == fds_before);
}

/* The link must end with that code, and must have told the peer. */
static void ends_with(int code)
{
    unsigned frames;
    int heard = hear_error(peer, &frames);
    UNTIL(e.closed);
    assert_int_equal(e.why.code, code);
    assert_int_equal(heard, code);
    assert_true(frames >= 6); /* HELLO, four grants, ERROR */
    finish();
}

static void bad_headers(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        int code;
    } cases[] = {{0, 'X', CULE_EMALFORMED}, {2, 7, CULE_EVERSION}, {30, 9, CULE_ECHECK}};
    for (size_t i = 0; i < CULE_COUNT(cases); i++) {
        uint8_t wire[CULE_HEADER_SIZE];
        struct cule_frame f = frame(CULE_EVENT, 0, 0);
        begin(NULL);
        hello();
        cule_frame_encode(&f, false, wire);
        wire[cases[i].at] = cases[i].value;
        say_bytes(peer, wire, sizeof wire);
        ends_with(cases[i].code);
    }
}

/* Headers whose check holds and whose fields do not. */
static void hostile_headers(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        uint8_t wire[CULE_HEADER_SIZE];
        struct cule_frame f = frame(CULE_EVENT, 0, 0);
        switch (i) {
        case 0: f.kind = 0; break;
        case 1: f.kind = 13; break;
        case 2: f.priority = 4; break;
        case 3: f.flags = 1 << 14; break;
        case 4: f.length = CULE_PAYLOAD_MAX + 1; break;
        default: f.nfds = 254;
        }
        begin(NULL);
        hello();
        cule_frame_encode(&f, false, wire);
        say_bytes(peer, wire, sizeof wire);
        ends_with(CULE_EMALFORMED);
    }
}

static void no_hello(void **state)
{
    (void)state;
    begin(NULL);
    say(peer, CULE_REQUEST, 1, 0);
    ends_with(CULE_EMALFORMED);
    /* Nothing at all, and half a header. */
    const struct cule_link_opts soon = {.connect_timeout_ms = 50};
    for (int i = 0; i < 2; i++) {
        begin(&soon);
        if (i) {
            say_bytes(peer, "CU\1\1", 4);
        }
        UNTIL(e.closed);
        assert_int_equal(e.why.code, CULE_ETIMEOUT);
        finish();
    }
    /* A time limit on the HELLO is none on what follows. */
    begin(&soon);
    hello();
    uint64_t until = cule_now_ns() + 120ull * MS;
    while (cule_now_ns() < until) {
        cule_loop_turn(loop, 20);
    }
    assert_false(e.closed);
    finish();
    assert_int_equal(e.why.code, 0);
}

static void bad_body(void **state)
{
    (void)state;
    uint8_t wire[CULE_HEADER_SIZE + 8];
    struct cule_frame f = frame(CULE_REQUEST, 1, 3);
    begin(NULL);
    hello();
    cule_frame_write(&f, false, "abc", wire);
    wire[sizeof wire - 1] = 1; /* padding */
    say_bytes(peer, wire, sizeof wire);
    say(peer, CULE_REQUEST, 3, 0);
    UNTIL(e.last_id == 3); /* the link goes on */
    struct cule_link_stats s;
    cule_link_stats(e.l, &s);
    assert_int_equal(s.body_errors, 1);
    shutdown(peer, SHUT_WR);
    assert_int_equal(hear_error(peer, NULL), CULE_EMALFORMED);
    assert_int_equal(e.why.code, 0);
    finish();
}

static void too_much(void **state)
{
    (void)state;
    const struct cule_link_opts small = {.message_max = 100000};
    begin(&small);
    hello();
    struct cule_frame f = frame(CULE_REQUEST, 1, CULE_PAYLOAD_MAX);
    f.flags = CULE_MORE;
    say_frame(peer, &f);
    say_frame(peer, &f);
    f.flags = 0;
    say_frame(peer, &f);
    say(peer, CULE_REQUEST, 3, 0);
    UNTIL(e.last_id == 3);
    assert_string_equal(e.notes, "request 3; ");
    shutdown(peer, SHUT_WR);
    assert_int_equal(hear_error(peer, NULL), CULE_ETOO_BIG);
    finish();
}

static void ignores_credit(void **state)
{
    (void)state;
    const struct cule_link_opts manual = {.manual_credit = true, .window_frames = 4, .message_max = 100000};
    begin(&manual);
    hello();
    for (int i = 0; i < 2000 && !e.closed; i++) {
        struct cule_frame f = frame(CULE_EVENT, 0, 0);
        uint8_t wire[CULE_HEADER_SIZE];
        cule_frame_encode(&f, false, wire);
        if (send(peer, wire, sizeof wire, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            cule_loop_turn(loop, 5);
        }
    }
    ends_with(CULE_ELIMIT);
}

static void descriptors_that_do_not_fit(void **state)
{
    (void)state;
    uint8_t wire[CULE_HEADER_SIZE];
    for (int announced = 0; announced < 3; announced += 2) {
        char control[CMSG_SPACE(sizeof(int))] = {0};
        struct cule_frame f = frame(CULE_EVENT, 0, 0);
        begin(NULL);
        hello();
        f.nfds = (uint8_t)announced;
        cule_frame_encode(&f, false, wire);
        struct iovec iov = {wire, sizeof wire};
        struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *m = CMSG_FIRSTHDR(&mh);
        m->cmsg_level = SOL_SOCKET;
        m->cmsg_type = SCM_RIGHTS;
        m->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(m), &(int){1}, sizeof(int));
        assert_int_equal(sendmsg(peer, &mh, MSG_NOSIGNAL), sizeof wire);
        if (announced) {
            ends_with(CULE_EMALFORMED); /* too few */
        } else {
            UNTIL(e.events == 1);
            shutdown(peer, SHUT_WR);
            UNTIL(e.closed);
            assert_int_equal(e.why.code, CULE_EMALFORMED); /* one that nobody claimed */
            finish();
        }
    }
}

/* Everything is asked and nothing is read: the link stays within its limits, and can still be closed. */
static void never_reads(void **state)
{
    (void)state;
    const struct cule_link_opts small = {.queue_bytes = 100000};
    begin(&small);
    hello();
    uint64_t sent = 0;
    int rc;
    while ((rc = send_event(&e, sent + 1, big, 1000)) == 0) {
        sent++;
        cule_loop_turn(loop, 0);
    }
    assert_int_equal(rc, CULE_EAGAIN);
    for (int i = 0; i < 3000; i++) {
        struct cule_frame f = frame(CULE_PING, 1, 0);
        uint8_t wire[CULE_HEADER_SIZE];
        cule_frame_encode(&f, false, wire);
        while (send(peer, wire, sizeof wire, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            cule_loop_turn(loop, 1);
        }
    }
    cule_loop_turn(loop, 10);
    assert_true(cule_link_queued(e.l) < 400000);
    uint64_t begun = cule_now_ns();
    cule_link_close(e.l);
    UNTIL(e.closed);
    assert_int_equal(e.why.code, CULE_ETIMEOUT);
    assert_in_range((cule_now_ns() - begun) / MS, CULE_LINK_LINGER_MS - 50, CULE_LINK_LINGER_MS + 1500);
    finish();
}

static void silent_peer(void **state)
{
    (void)state;
    const struct cule_link_opts pinging = {.ping_ms = 40};
    begin(&pinging);
    hello();
    for (int i = 0; i < 10; i++) {
        usleep(15000); /* it speaks now and then, and lives */
        say(peer, CULE_EVENT, 0, 0);
        cule_loop_turn(loop, 1);
    }
    assert_false(e.closed);
    UNTIL(e.closed);
    assert_int_equal(e.why.code, CULE_ETIMEOUT);
    finish();
}

static void replaced_peer(void **state)
{
    (void)state;
    begin(NULL);
    hello();
    e.silent = true;
    say(peer, CULE_REQUEST, 1, 0);
    UNTIL(e.last_id == 1);
    call_n(&e, NULL, 0, 0);
    say(peer, CULE_HELLO, 0, 0);
    UNTIL(strstr(e.notes, "hello 0; "));
    assert_string_equal(e.notes, "request 1; cancel 1; error 2 peer_restarted; hello 0; ");
    say(peer, CULE_REQUEST, 1, 0); /* ids begin anew */
    UNTIL(e.last_id == 1 && strstr(e.notes, "hello 0; request 1; "));
    finish();
}

/* --- who goes at any byte --- */

static uint8_t talk[4096];
static size_t talk_len;
static bool may_end[sizeof talk]; /* between messages */

static void add(const struct cule_frame *f)
{
    static bool inside;
    talk_len += cule_frame_write(f, false, big, talk + talk_len);
    inside = (f->flags & CULE_MORE) || (inside && f->kind != CULE_EVENT);
    may_end[talk_len] = !inside;
}

static void make_talk(void)
{
    struct cule_frame f = frame(CULE_HELLO, 0, 6);
    talk_len = 0;
    may_end[0] = true;
    add(&f);
    f = frame(CULE_CREDIT, 0, 0);
    f.arg0 = 10;
    f.arg1 = 10000;
    add(&f);
    f = frame(CULE_REQUEST, 1, 100);
    f.flags = CULE_OPEN;
    add(&f);
    f = frame(CULE_EVENT, 0, 33);
    f.flags = CULE_MORE | CULE_CRC;
    add(&f);
    f = frame(CULE_DATA, 1, 10);
    add(&f);
    f = frame(CULE_EVENT, 0, 3);
    add(&f);
    f = frame(CULE_BYE, 0, 0);
    add(&f);
}

static void goes_at_every_byte(void **state)
{
    (void)state;
    make_talk();
    for (size_t n = 0; n <= talk_len; n++) {
        begin(NULL);
        say_bytes(peer, talk, n);
        e.silent = n % 2;
        if (n % 3 == 0) {
            cule_loop_turn(loop, 0);
        }
        finish();
        assert_int_equal(e.why.code, may_end[n] ? 0 : CULE_ETRUNCATED); /* never taken for an orderly end */
        assert_int_equal(e.events, n >= talk_len - CULE_HEADER_SIZE);
    }
}

/* The same conversation one byte at a time is the same conversation. */
static void byte_by_byte(void **state)
{
    (void)state;
    make_talk();
    begin(NULL);
    for (size_t n = 0; n < talk_len; n++) {
        say_bytes(peer, talk + n, 1);
        cule_loop_turn(loop, 0);
    }
    UNTIL(e.closed);
    assert_string_equal(e.notes, "request 1; ");
    assert_int_equal(e.events, 1);
    assert_int_equal(e.event_bytes, 36);
    finish();
}

/* A recording of a client with one bit wrong, each in turn: no crash, no hang, nothing left. */
static void any_bit_wrong(void **state)
{
    (void)state;
    make_talk();
    for (size_t bit = 0; bit < talk_len * 8; bit += 5) {
        begin(NULL);
        talk[bit / 8] ^= (uint8_t)(1 << bit % 8);
        say_bytes(peer, talk, talk_len);
        talk[bit / 8] ^= (uint8_t)(1 << bit % 8);
        shutdown(peer, SHUT_WR);
        UNTIL(e.closed);
        finish();
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* one test alone */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_headers),
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(no_hello),
        cmocka_unit_test(bad_body),
        cmocka_unit_test(too_much),
        cmocka_unit_test(ignores_credit),
        cmocka_unit_test(descriptors_that_do_not_fit),
        cmocka_unit_test(never_reads),
        cmocka_unit_test(silent_peer),
        cmocka_unit_test(replaced_peer),
        cmocka_unit_test(goes_at_every_byte),
        cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(any_bit_wrong),
    };
    return cmocka_run_group_tests(tests, begin_group, end_group);
}

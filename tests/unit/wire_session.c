/* The rules of a link, one by one: what a session writes and tells when it is fed this or that. */
#include "session_script.h"

/* --- greeting --- */

static void hello_and_grants(void **state)
{
    (void)state;
    struct cule_session_config cfg = config(true);
    memset(&l, 0, sizeof l);
    cule_decoder_init(&l.out, CULE_DECODE_STRICT);
    cule_session_init(&l.s, &cfg, &ops, &l);
    enough(cule_session_start(&l.s));
    assert_string_equal(wrote(), "hello; credit 0 p0 8/100000; credit 0 p1 8/100000; credit 0 p2 8/100000; "
                                 "credit 0 p3 8/100000; ");
    feed_hello("a\x1b[31mb\x7f\xc2\x9b\xff\xc3\xa9", 0, 5000);
    assert_string_equal(heard(), "ready 'a?[31mb???\xc3\xa9'; ");
    assert_int_equal(send_event(CULE_NORMAL, 5001), CULE_ETOO_BIG);
    assert_int_equal(send_event(CULE_NORMAL, 5000), 0);
    finish();
}

static void hello_comes_first(void **state)
{
    (void)state;
    struct cule_session_config cfg = config(true);
    memset(&l, 0, sizeof l);
    cule_decoder_init(&l.out, CULE_DECODE_STRICT);
    cule_session_init(&l.s, &cfg, &ops, &l);
    assert_int_equal(feed(CULE_PING, 1, 0, 0), 0);
    assert_int_equal(feed(CULE_EVENT, 0, 0, 0), CULE_EMALFORMED);
    assert_string_equal(wrote(), "pong 1; error 0 malformed; ");
    assert_string_equal(heard(), "");
    finish();
}

static void one_way(void **state)
{
    (void)state;
    struct cule_session_config cfg = config(false);
    cfg.duplex = cfg.hello_first = false;
    memset(&l, 0, sizeof l);
    cule_decoder_init(&l.out, CULE_DECODE_STRICT);
    cule_session_init(&l.s, &cfg, &ops, &l);
    enough(cule_session_start(&l.s));
    assert_string_equal(wrote(), "");
    for (unsigned kind = CULE_HELLO; kind <= CULE_KIND_LAST; kind++) {
        assert_int_equal(feed(kind, 3, 0, 0), 0);
    }
    assert_string_equal(heard(),
                        "hello 3 p2 0; request 3 p2 0; reply 3 p2 0; error 3 p2 0; event 3 p2 0; data 3 p2 0; "
                        "credit 3 p2 0; cancel 3 p2 0 unknown; ping 3 p2 0; pong 3 p2 0; bye 3 p2 0; mark 3 p2 0; ");
    assert_int_equal(call("a", 0, 0, 0), CULE_EUNSUPPORTED);
    assert_int_equal(cule_session_ping(&l.s, NULL, NULL), CULE_EUNSUPPORTED);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(send_event(CULE_NORMAL, 1000), 0); /* no credit on a pipe */
    }
    finish();
}

/* --- requests --- */

static void answers(void **state)
{
    (void)state;
    begin(true);
    feed(CULE_REQUEST, 1, 0, 10);
    assert_string_equal(heard(), "request 1 p2 10; ");
    assert_int_equal(cule_session_left_ms(&l.s, 1), UINT32_MAX);
    assert_int_equal(reply(1, 0, 5), 0);
    assert_int_equal(reply(1, 0, 5), 0); /* late: dropped */
    assert_int_equal(reply(99, 0, 5), 0);
    assert_string_equal(wrote(), "reply 1; ");
    assert_int_equal(call("a", 0, 0, 0), 0);
    assert_int_equal(call("b", 0, 0, 0), 0);
    assert_string_equal(wrote(), "request 2; request 4; ");
    feed(CULE_REPLY, 4, 0, 7);
    feed(CULE_REPLY, 4, 0, 7);
    feed(CULE_DATA, 4, 0, 7);
    feed(CULE_DATA, 2, CULE_OPEN, 7); /* no REPLY with OPEN came before */
    feed(CULE_REPLY, 6, 0, 7);
    feed(CULE_ERROR_FRAME, 2, CULE_OPEN, 7); /* an ERROR is always the last */
    feed(CULE_ERROR_FRAME, 2, 0, 7);
    assert_string_equal(heard(), "answer(b) reply 4 7; answer(a) error 2 unknown 7; ");
    finish();
}

static void ids_belong_to_sides(void **state)
{
    (void)state;
    const uint64_t bad[] = {0, 2};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        begin(true);
        assert_int_equal(feed(CULE_REQUEST, bad[i], 0, 0), CULE_EMALFORMED);
        assert_string_equal(wrote(), "error 0 malformed; ");
        assert_string_equal(heard(), "");
        finish();
    }
    begin(false);
    assert_int_equal(feed(CULE_REQUEST, 2, 0, 0), 0);
    assert_int_equal(feed(CULE_REQUEST, 2, 0, 0), CULE_EMALFORMED); /* open already */
    finish();
    begin(true);
    assert_int_equal(feed(CULE_ERROR_FRAME, 0, 0, 5), CULE_EIO); /* the peer ends the link */
    finish();
}

static void cancels(void **state)
{
    (void)state;
    begin(true);
    feed(CULE_REQUEST, 1, 0, 0);
    feed(CULE_CANCEL, 1, 0, 0);
    assert_string_equal(heard(), "request 1 p2 0; cancel 1 p2 0 cancelled; ");
    assert_string_equal(wrote(), "error 1 cancelled; ");
    feed(CULE_CANCEL, 1, 0, 0); /* late */
    assert_int_equal(reply(1, 0, 0), 0);
    assert_string_equal(wrote(), "");
    assert_string_equal(heard(), "");
    call("a", 0, 0, 0);
    wrote();
    assert_int_equal(cule_session_cancel(&l.s, 2), 0);
    assert_int_equal(cule_session_cancel(&l.s, 2), 0);
    assert_string_equal(wrote(), "cancel 2 cancelled; ");
    feed(CULE_ERROR_FRAME, 2, 0, 3);
    assert_string_equal(heard(), "answer(a) error 2 cancelled 9; ");
    finish();
}

static void deadlines(void **state)
{
    (void)state;
    begin(true);
    struct cule_frame f = frame(CULE_REQUEST, 1, 0, 0);
    f.deadline_ms = 50;
    feed_frame(&f, GOOD);
    call("a", 0, 0, 30);
    call("b", 0, 0, UINT64_MAX); /* further than the clock goes */
    assert_string_equal(wrote(), "request 2; request 4; ");
    assert_int_equal(cule_session_left_ms(&l.s, 1), 50);
    assert_int_equal(cule_session_deadline(&l.s), 1030ull * MS);
    cule_session_tick(&l.s, 1029ull * MS);
    assert_string_equal(heard(), "request 1 p2 0; ");
    assert_int_equal(cule_session_left_ms(&l.s, 1), 21);
    cule_session_tick(&l.s, 1100ull * MS);
    assert_string_equal(heard(), "answer(a) error 2 timeout 17; cancel 1 p2 0 timeout; ");
    assert_string_equal(wrote(), "cancel 2 timeout; error 1 timeout; ");
    assert_int_equal(cule_session_left_ms(&l.s, 1), 0);
    assert_int_equal(cule_session_deadline(&l.s), UINT64_MAX);
    finish();
    assert_string_equal(heard(), "answer(b) error 4 closed 4; ");
}

static void limits_of_calls(void **state)
{
    (void)state;
    begin(true);
    for (uint64_t i = 0; i < 5; i++) {
        assert_int_equal(call("x", 0, 0, 0), i < 4 ? 0 : CULE_ELIMIT);
        feed(CULE_REQUEST, 1 + 2 * i, 0, 0);
    }
    heard();
    assert_string_equal(wrote(), "credit 0 p2 4/0; request 2; request 4; request 6; request 8; error 9 limit; ");
    assert_int_equal(l.s.requests, 4);
    finish();
}

/* --- streams --- */

static void streams(void **state)
{
    (void)state;
    begin(true);
    feed(CULE_REQUEST, 1, CULE_OPEN, 0);
    assert_string_equal(wrote(), "credit 1 p2 0/10000; ");
    feed(CULE_DATA, 1, CULE_OPEN, 4000);
    assert_string_equal(wrote(), "");
    feed(CULE_DATA, 1, CULE_OPEN, 2000);
    assert_string_equal(wrote(), "credit 1 p2 0/6000; ");
    assert_int_equal(reply(1, CULE_OPEN, 0), 0);
    assert_int_equal(cule_session_data(&l.s, 1, body, 500, false), 0);
    feed(CULE_DATA, 1, 0, 10);
    feed(CULE_DATA, 1, 0, 10); /* after the last */
    assert_int_equal(cule_session_data(&l.s, 1, body, 500, true), 0);
    assert_int_equal(cule_session_data(&l.s, 1, body, 500, true), 0); /* nobody reads it */
    assert_string_equal(wrote(), "credit 0 p2 4/6010; reply 1 open; data 1 open; data 1; ");
    assert_string_equal(heard(), "request 1 p2 0 open; data 1 p2 4000 open; data 1 p2 2000 open; data 1 p2 10; ");
    assert_int_equal(l.s.requests, 0);
    call("a", CULE_OPEN, 0, 0);
    feed(CULE_REPLY, 2, CULE_OPEN, 0);
    feed(CULE_REPLY, 2, CULE_OPEN, 0); /* a window is granted once */
    feed(CULE_DATA, 2, CULE_OPEN, 1);
    feed(CULE_DATA, 2, 0, 1);
    assert_string_equal(wrote(), "credit 2 p2 0/10000; request 2 open; ");
    assert_string_equal(heard(), "answer(a) reply 2 0 open; answer(a) reply 2 0 open; answer(a) data 2 1 open; "
                                 "answer(a) data 2 1; ");
    finish();
}

/* --- bodies that do not hold --- */

static void bad_bodies(void **state)
{
    (void)state;
    begin(true);
    assert_int_equal(feed_bad(CULE_REQUEST, 1, 0, 8), 0);
    assert_string_equal(wrote(), "error 1 check; ");
    /* In the middle of a message: the message is void, and answered once. */
    feed(CULE_REQUEST, 3, CULE_MORE, 8);
    feed_bad(CULE_REQUEST, 3, CULE_MORE, 8);
    feed_bad(CULE_REQUEST, 3, CULE_MORE, 8);
    feed(CULE_REQUEST, 3, 0, 8);
    /* At its beginning. */
    feed_bad(CULE_REQUEST, 5, CULE_MORE, 8);
    feed(CULE_REQUEST, 5, 0, 8);
    assert_string_equal(wrote(), "credit 0 p2 4/32; error 3 check; error 5 check; ");
    assert_string_equal(heard(), "");
    /* In a stream: both ends of the exchange learn of it. */
    feed(CULE_REQUEST, 7, CULE_OPEN, 0);
    feed_bad(CULE_DATA, 7, CULE_OPEN, 8);
    assert_string_equal(heard(), "request 7 p2 0 open; cancel 7 p2 0 check; ");
    call("a", 0, 0, 0);
    call("b", 0, 0, 0);
    wrote();
    feed_bad(CULE_REPLY, 2, 0, 8);
    for (int i = 0; i < 4; i++) {
        feed(CULE_REPLY, 4, i < 3 ? CULE_MORE : 0, 65536);
    }
    assert_string_equal(heard(), "answer(a) error 2 check 58; answer(b) error 4 too_big 59; ");
    const char *text = wrote();
    assert_non_null(strstr(text, "cancel 2 check; "));
    assert_non_null(strstr(text, "cancel 4 too_big; "));
    assert_int_equal(feed_bad(CULE_EVENT, 0, 0, 8), 0);
    assert_int_equal(feed(CULE_EVENT, 0, 0, 8), 0); /* the link goes on */
    assert_string_equal(heard(), "event 0 p2 8; ");
    finish();
}

static void bad_headers(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        int code;
    } cases[] = {{0, 'X', CULE_EMALFORMED}, {2, 9, CULE_EVERSION}, {40, 1, CULE_ECHECK}};
    for (size_t i = 0; i < CULE_COUNT(cases); i++) {
        uint8_t wire[CULE_HEADER_SIZE];
        struct cule_frame f = frame(CULE_EVENT, 0, 0, 0);
        begin(true);
        cule_frame_encode(&f, false, wire);
        wire[cases[i].at] = cases[i].value;
        cule_session_feed(&l.s, wire, sizeof wire);
        assert_int_equal(cule_session_step(&l.s, &l.err), cases[i].code);
        char want[64];
        snprintf(want, sizeof want, "error 0 %s; ", cule_err_name(cases[i].code));
        assert_string_equal(wrote(), want);
        finish();
    }
}

static void ends_of_streams(void **state)
{
    (void)state;
    begin(true);
    feed(CULE_EVENT, 0, CULE_MORE, 8);
    assert_int_equal(cule_session_eof(&l.s, &l.err), 0);
    assert_int_equal(cule_session_finished(&l.s, &l.err), CULE_ETRUNCATED); /* inside a message */
    finish();
    begin(true);
    feed(CULE_EVENT, 0, 0, 8);
    cule_session_feed(&l.s, "CU", 2);
    assert_int_equal(cule_session_step(&l.s, &l.err), 0);
    assert_int_equal(cule_session_eof(&l.s, &l.err), CULE_ETRUNCATED);
    finish();
}

/* --- order --- */

static void priorities(void **state)
{
    (void)state;
    begin(false);
    send_event(CULE_LOW, 100);
    send_event(CULE_LOW, 101);
    write_out(70); /* inside the first */
    send_event(CULE_NORMAL, 102);
    send_event(CULE_CRITICAL, 103);
    send_event(CULE_HIGH, 104);
    send_event(CULE_CRITICAL, 105);
    assert_int_equal(l.s.stats.critical_waits, 2);
    assert_string_equal(wrote(), "event 0 p3 100; event 0 p0 103; event 0 p0 105; event 0 p1 104; event 0 p2 102; "
                                 "event 0 p3 101; ");
    finish();
}

/* --- descriptors --- */

static void descriptors(void **state)
{
    (void)state;
    begin(true);
    struct cule_frame f = frame(CULE_EVENT, 0, 0, 0);
    f.nfds = 3;
    l.fds_there = 3;
    assert_int_equal(feed_frame(&f, GOOD), 0);
    assert_int_equal(l.fds_closed, 3); /* nobody took them */
    f.kind = CULE_PING;
    l.fds_there = 3;
    assert_int_equal(feed_frame(&f, GOOD), 0);
    assert_int_equal(l.fds_closed, 6);
    f.flags = CULE_CRC;
    f.length = 8;
    l.fds_there = 3;
    assert_int_equal(feed_frame(&f, BAD_BODY), 0);
    assert_int_equal(l.fds_closed, 9);
    f.flags = 0;
    l.fds_there = 2;
    assert_int_equal(feed_frame(&f, GOOD), CULE_EMALFORMED); /* too few */
    assert_int_equal(l.fds_closed, 11);
    finish();
}

/* Those that were queued go when the queue is dropped, by whatever. */
static void descriptors_out(void **state)
{
    (void)state;
    begin(true);
    int fds[2] = {5, 6};
    struct cule_msg m = {.fds = fds, .nfds = 2};
    cule_frame_init(&m.h, CULE_EVENT);
    for (int i = 0; i < 3; i++) {
        int rc = cule_session_send(&l.s, &m, false);
        enough(rc);
        assert_int_equal(rc, 0);
    }
    write_out(64 + 10); /* the first whole, the second in part */
    assert_int_equal(l.fds_closed, 4);
    feed_hello("new", 0, 0);
    assert_int_equal(l.fds_closed, 6);
    assert_non_null(strstr(wrote(), "event 0 p2 0; event 0 p2 0; hello again; credit"));
    finish();
    struct cule_session_config cfg = config(true);
    cfg.can_pass_fds = false;
    begin_with(&cfg);
    assert_int_equal(cule_session_send(&l.s, &m, false), CULE_EUNSUPPORTED);
    finish();
}

/* --- ends --- */

static void replaced(void **state)
{
    (void)state;
    begin(true);
    feed_credit(CULE_NORMAL, 0, 3, 1000);
    call("a", 0, 0, 10);
    feed(CULE_REQUEST, 1, 0, 0);
    feed(CULE_REQUEST, 3, CULE_MORE, 9); /* half a message */
    assert_int_equal(send_event(CULE_NORMAL, 0), 0);
    assert_int_equal(send_event(CULE_NORMAL, 0), 0);
    assert_int_equal(send_event(CULE_NORMAL, 0), CULE_EAGAIN);
    cule_session_ping(&l.s, (cule_pong_fn *)NULL, NULL);
    heard();
    l.call_again = true;
    /* the PING's callback must not be NULL when it ends: taken out for this test */
    struct cule_list *ping = cule_list_pop(&l.s.pings);
    free(ping);
    feed_hello("new", 0, 0);
    assert_string_equal(heard(), "answer(a) error 2 peer_restarted again:0 22; cancel 1 p2 0 peer_restarted; "
                                 "hello 0 p2 3; ");
    assert_string_equal(wrote(), "hello again; credit 0 p0 8/100000; credit 0 p1 8/100000; credit 0 p2 8/100000; "
                                 "credit 0 p3 8/100000; request 6; ");
    assert_int_equal(l.s.calls, 1);
    assert_int_equal(send_event(CULE_NORMAL, 0), 0); /* without limit until it grants */
    feed(CULE_REQUEST, 3, 0, 9);
    assert_string_equal(heard(), "request 3 p2 9; "); /* not the old half and the new one */
    wrote();
    /* "You are new to me" voids the requests that were meant for another, and is not answered with a greeting. */
    feed_hello("new", CULE_FEATURE_AGAIN, 0);
    assert_string_equal(heard(), "cancel 3 p2 0 peer_restarted; ");
    assert_string_equal(wrote(), "");
    assert_int_equal(l.s.calls, 1);
    finish();
    assert_string_equal(heard(), "answer(again) error 6 closed 4; ");
}

static void half_closed(void **state)
{
    (void)state;
    begin(true);
    feed_credit(CULE_NORMAL, 0, 1, 1000);
    call("a", 0, 0, 0);
    feed(CULE_REQUEST, 1, 0, 0);
    feed(CULE_REQUEST, 3, CULE_OPEN, 0);
    assert_int_equal(send_event(CULE_NORMAL, 0), CULE_EAGAIN);
    heard();
    wrote();
    cule_session_half(&l.s);
    assert_string_equal(heard(), "answer(a) error 2 closed 18; cancel 3 p2 0 closed; ");
    assert_string_equal(wrote(), "error 3 closed; ");
    cule_session_notify(&l.s);
    assert_string_equal(heard(), "writable 0; ");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(send_event(CULE_NORMAL, 0), 0); /* no credit will come, so none is needed */
    }
    assert_int_equal(call("b", 0, 0, 0), CULE_ECLOSED);
    assert_int_equal(reply(1, 0, 0), 0);
    assert_int_equal(l.s.exchanges.count, 0);
    finish();
}

static void on_pong(struct cule_link *k, void *arg, uint64_t rtt_ns)
{
    (void)arg;
    note(k->heard, "pong %llu; ", (unsigned long long)rtt_ns);
}

static void pings(void **state)
{
    (void)state;
    begin(true);
    enough(cule_session_ping(&l.s, on_pong, NULL));
    enough(cule_session_ping(&l.s, on_pong, NULL));
    assert_string_equal(wrote(), "ping 2; ping 4; ");
    cule_session_tick(&l.s, 1007ull * MS);
    feed(CULE_PONG, 4, 0, 0);
    feed(CULE_PONG, 4, 0, 0);
    assert_string_equal(heard(), "pong 7000000; ");
    l.call_again = true;
    call("a", 0, 0, 0);
    finish();
    assert_string_equal(heard(), "answer(a) error 6 closed again:-24 4; pong 0; ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_and_grants), cmocka_unit_test(hello_comes_first),   cmocka_unit_test(one_way),
        cmocka_unit_test(answers),          cmocka_unit_test(ids_belong_to_sides), cmocka_unit_test(cancels),
        cmocka_unit_test(deadlines),        cmocka_unit_test(limits_of_calls),     cmocka_unit_test(streams),
        cmocka_unit_test(bad_bodies),       cmocka_unit_test(bad_headers),         cmocka_unit_test(ends_of_streams),
        cmocka_unit_test(priorities),       cmocka_unit_test(descriptors),         cmocka_unit_test(descriptors_out),
        cmocka_unit_test(replaced),         cmocka_unit_test(half_closed),         cmocka_unit_test(pings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

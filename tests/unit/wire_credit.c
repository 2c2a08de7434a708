/* Credit on a link and on its streams: who may send what, and that none of it gets lost. */
#include "session_script.h"

static void stream_credit(void **state)
{
    (void)state;
    begin(false);
    call("a", CULE_OPEN, 0, 0);
    assert_int_equal(cule_session_data(&l.s, 1, body, 3000, false), 0); /* no grant yet: no limit */
    feed_credit(CULE_NORMAL, 1, 0, 2000);                               /* what went before counts */
    assert_int_equal(cule_session_data(&l.s, 1, body, 1, false), CULE_EAGAIN);
    feed_credit(CULE_NORMAL, 1, 0, 500);
    assert_string_equal(heard(), "");
    /* It is told although the link's queue is full by now: nothing would tell it again. */
    while (l.s.queued < l.s.cfg.queue_bytes) {
        send_event(CULE_LOW, 60000);
    }
    feed_credit(CULE_NORMAL, 1, 0, 600);
    assert_string_equal(heard(), "writable 1; ");
    assert_int_equal(cule_session_data(&l.s, 1, NULL, 0, true), CULE_EAGAIN); /* the queue, this time */
    wrote();
    assert_string_equal(heard(), ""); /* never from inside of writing */
    cule_session_notify(&l.s);
    assert_string_equal(heard(), "writable 0; ");
    cule_session_notify(&l.s);
    assert_string_equal(heard(), "");
    assert_int_equal(cule_session_data(&l.s, 1, NULL, 0, true), 0);
    finish();
}

static void credit(void **state)
{
    (void)state;
    begin(false);
    feed_credit(CULE_NORMAL, 0, 2, 1000);
    assert_true(cule_session_can_send(&l.s, CULE_NORMAL));
    assert_int_equal(send_event(CULE_NORMAL, 0), 0);
    assert_int_equal(send_event(CULE_NORMAL, 150000), 0); /* three frames: a message that began may overdraw */
    assert_int_equal(send_event(CULE_NORMAL, 0), CULE_EAGAIN);
    assert_false(cule_session_can_send(&l.s, CULE_NORMAL));
    assert_int_equal(send_event(CULE_HIGH, 0), 0); /* by priority */
    assert_int_equal(call("a", 0, 0, 0), CULE_EAGAIN);
    assert_int_equal(l.s.exchanges.count, 0);
    wrote();
    cule_session_notify(&l.s);
    heard();
    assert_int_equal(send_event(CULE_NORMAL, 0), CULE_EAGAIN);
    feed_credit(CULE_NORMAL, 0, 2, UINT64_MAX);
    assert_string_equal(heard(), ""); /* four used, four granted */
    feed_credit(CULE_NORMAL, 0, 1, UINT64_MAX);
    assert_string_equal(heard(), "writable 0; ");
    assert_int_equal(send_event(CULE_NORMAL, 0), 0);
    assert_int_equal(send_event(CULE_NORMAL, 0), CULE_EAGAIN);
    struct cule_msg m = {.body = body};
    cule_frame_init(&m.h, CULE_EVENT);
    assert_int_equal(cule_session_send(&l.s, &m, true), 0);
    finish();
    /* A grant before the peer's HELLO was meant for another. */
    struct cule_session_config cfg = config(false);
    cfg.hello_first = false;
    memset(&l, 0, sizeof l);
    cule_decoder_init(&l.out, CULE_DECODE_STRICT);
    cule_session_init(&l.s, &cfg, &ops, &l);
    feed_credit(CULE_NORMAL, 0, 1, 1);
    assert_int_equal(send_event(CULE_NORMAL, 10), 0);
    assert_int_equal(send_event(CULE_NORMAL, 10), 0);
    finish();
}

static void raw_is_charged(void **state)
{
    (void)state;
    uint8_t two[2 * 72];
    struct cule_frame f = frame(CULE_EVENT, 0, 0, 5);
    begin(false);
    feed_credit(CULE_NORMAL, 0, 3, 1000);
    cule_frame_write(&f, false, body, two);
    cule_frame_write(&f, false, body, two + 72);
    assert_int_equal(cule_session_send_raw(&l.s, CULE_NORMAL, two, sizeof two, 2), 0);
    assert_int_equal(l.s.send[CULE_NORMAL].used_frames, 2);
    assert_int_equal(l.s.send[CULE_NORMAL].used_bytes, 10);
    assert_int_equal(cule_session_send_raw(&l.s, CULE_NORMAL, two, sizeof two, 2), 0);
    assert_int_equal(cule_session_send_raw(&l.s, CULE_NORMAL, two, sizeof two, 2), CULE_EAGAIN);
    assert_string_equal(wrote(), "event 0 p2 5; event 0 p2 5; event 0 p2 5; event 0 p2 5; ");
    finish();
}

/* Both sides count the frames of a REPLY after its first, also where nobody waits for it any more. */
static void late_replies_are_charged(void **state)
{
    (void)state;
    begin(true);
    call("a", 0, 0, 0);
    cule_session_cancel(&l.s, 2);
    feed(CULE_REPLY, 2, CULE_MORE, 65536);
    feed(CULE_REPLY, 2, CULE_MORE, 100);
    feed(CULE_REPLY, 2, 0, 10);
    feed(CULE_REPLY, 2, 0, 10);
    assert_int_equal(l.s.recv[CULE_NORMAL].used_frames, 2);
    assert_int_equal(l.s.recv[CULE_NORMAL].used_bytes, 110);
    feed(CULE_REQUEST, 1, 0, 0);
    uint64_t was = l.s.send[CULE_NORMAL].used_frames;
    reply(1, 0, 150000);
    assert_int_equal(l.s.send[CULE_NORMAL].used_frames - was, 2);
    assert_int_equal(l.s.send[CULE_NORMAL].used_bytes, 150000 - 65536);
    finish();
}

static void without_credit(void **state)
{
    (void)state;
    struct cule_session_config cfg = config(true);
    cfg.manual_credit = true;
    begin_with(&cfg);
    int rc = 0;
    int n = 0;
    while (!rc && n < 100000) {
        rc = feed(CULE_EVENT, 0, 0, 0);
        heard();
        n++;
    }
    assert_int_equal(rc, CULE_ELIMIT); /* frames alone */
    assert_string_equal(wrote(), "error 0 limit; ");
    finish();
    begin_with(&cfg);
    for (rc = 0, n = 0; !rc && n < 100; n++) {
        rc = feed(CULE_EVENT, 0, 0, 65536);
    }
    assert_int_equal(rc, CULE_ELIMIT);
    assert_true(n <= 8); /* a window before, a window after, a message */
    finish();
}

static void manual_credit(void **state)
{
    (void)state;
    struct cule_session_config cfg = config(true);
    cfg.manual_credit = true;
    begin_with(&cfg);
    struct cule_credit *c = &l.s.recv[CULE_NORMAL];
    /* What the application never sees is given back: frames of messages before the last, late DATA, what is refused. */
    feed(CULE_EVENT, 0, CULE_MORE, 100);
    feed(CULE_EVENT, 0, 0, 50);
    assert_int_equal(c->used_frames - c->back_frames, 1);
    assert_int_equal(c->used_bytes - c->back_bytes, 150);
    cule_session_consumed(&l.s, CULE_NORMAL, 3, 150); /* counted otherwise: no more than there was */
    assert_int_equal(c->used_frames, c->back_frames);
    feed(CULE_DATA, 77, 0, 60);
    feed(CULE_EVENT, 0, CULE_MORE, 100);
    feed_bad(CULE_EVENT, 0, CULE_MORE, 64);
    feed(CULE_EVENT, 0, 0, 100);
    for (int i = 0; i < 4; i++) {
        feed(CULE_EVENT, 0, i < 3 ? CULE_MORE : 0, 65536); /* larger than it may be */
    }
    assert_int_equal(c->used_frames, c->back_frames);
    assert_int_equal(c->used_bytes, c->back_bytes);
    assert_string_equal(heard(), "event 0 p2 150; ");
    assert_int_equal(l.s.stats.body_errors, 2);
    finish();
}

static void grants_wait_for_the_queue(void **state)
{
    (void)state;
    begin(true);
    while (l.s.queued < l.s.cfg.queue_bytes) {
        send_event(CULE_LOW, 60000);
    }
    for (int i = 0; i < 20; i++) {
        feed(CULE_EVENT, 0, 0, 100);
    }
    assert_int_equal(l.s.recv[CULE_NORMAL].due_frames, 20);
    /* A peer that asks and never reads is not answered without end. */
    for (int i = 0; i < 1000; i++) {
        struct cule_frame f = frame(CULE_PING, 1, 0, 65536);
        feed_frame(&f, GOOD);
    }
    assert_true(l.s.queued < 3 * l.s.cfg.queue_bytes);
    const char *text = wrote();
    assert_non_null(strstr(text, "credit 0 p2 20/2000; "));
    assert_int_equal(l.s.recv[CULE_NORMAL].due_frames, 0);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_credit),
        cmocka_unit_test(credit),
        cmocka_unit_test(raw_is_charged),
        cmocka_unit_test(late_replies_are_charged),
        cmocka_unit_test(without_credit),
        cmocka_unit_test(manual_credit),
        cmocka_unit_test(grants_wait_for_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

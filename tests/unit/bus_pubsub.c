/* The bus's core: publish and subscribe, overflow, groups, history, retained messages, quotas, access. */
#include "../lib/bus_fake.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct peer a, b, c;

static int begin(void **state)
{
    struct cule_bus_config k = world_config();
    (void)state;
    world_begin(&k, false);
    peer_init(&a, 1000);
    peer_init(&b, 1000);
    peer_init(&c, 1001);
    return 0;
}

static int end(void **state)
{
    (void)state;
    peer_gone(&a);
    peer_gone(&b);
    peer_gone(&c);
    struct cule_bus_stats s = stats();
    assert_int_equal(s.queued_now, 0);
    assert_int_equal(s.queued_bytes_now, 0);
    assert_int_equal(s.inflight_now, 0);
    assert_int_equal(s.subscriptions, 0);
    world_end();
    return 0;
}

static void test_publish(void **state)
{
    (void)state;
    assert_int_equal(sub(&b, "{\"pattern\":\"x/+\"}"), 1);
    assert_int_equal(sub(&c, "{\"pattern\":\"x/#\"}"), 1);
    peer_clear(&b);
    pub_ack(&a, 1, "x/y", "hello");
    pub(&a, "x/y/z", "deep");
    pub(&a, "other", "no");
    assert_string_equal(bodies(&b), "hello");
    assert_string_equal(bodies(&c), "hello deep");
    struct got *g = got_of(&b, CULE_EVENT, 0);
    assert_string_equal(g->topic, "x/y");
    assert_int_equal(g->arg1, 1);
    assert_int_equal(g->arg0 >> 32, 0);
    assert_int_equal(g->source, cule_bus_client_number(a.client));
    assert_int_equal(g->id, 0);
    g = got_of(&a, CULE_REPLY, 0);
    assert_int_equal(g->arg0, 2);
    assert_int_equal(g->arg1, 1);
    assert_int_equal(stats().delivered, 3);
}

static void test_bad_publish(void **state)
{
    (void)state;
    pub_ack(&a, 1, "x/+", "");
    pub_ack(&a, 3, "", "");
    pub_ack(&a, 5, "$bus/x", "");
    ask(&a, CULE_S_BUS, CULE_OP_BUS_PUBLISH, 7, 100, 0, "short");
    ask(&a, CULE_S_BUS, 0x3ff, 9, 0, 0, "");
    ask(&a, CULE_FOURCC('x', 'y', 'z', 0), 1, 11, 0, 0, "");
    assert_int_equal(got_of(&a, CULE_ERROR_FRAME, 0)->code, CULE_EMALFORMED);
    assert_int_equal(got_of(&a, CULE_ERROR_FRAME, 1)->code, CULE_EMALFORMED);
    assert_int_equal(got_of(&a, CULE_ERROR_FRAME, 2)->code, CULE_EAUTH);
    assert_int_equal(got_of(&a, CULE_ERROR_FRAME, 3)->code, CULE_EMALFORMED);
    assert_int_equal(got_of(&a, CULE_ERROR_FRAME, 4)->code, CULE_ENO_OP);
    assert_int_equal(got_of(&a, CULE_ERROR_FRAME, 5)->code, CULE_ENO_SERVICE);
}

static void test_bad_subscribe(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "{\"pattern\":\"a//b\"}",
        "{\"pattern\":\"a\",\"unknown\":1}",
        "{\"pattern\":\"a\",\"queue\":0}",
        "{\"pattern\":\"a\",\"overflow\":\"explode\"}",
        "{\"pattern\":\"a\",\"last\":1,\"from_seq\":1}",
        "{\"pattern\":\"a\",\"durable\":\"d\"}",
        "{\"pattern\":\"a\",\"after\":[]}",
        "{\"pattern\":\"a\",\"respond\":true,\"ack\":true}",
        "{\"pattern\":\"a\"} trailing",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(sub(&a, bad[i]), 0);
        assert_int_equal(last_got(&a)->kind, CULE_ERROR_FRAME);
    }
    assert_int_equal(sub(&a, "{\"pattern\":\"a\",\"ack\":true,\"durable\":\"d\"}"), 0);
    assert_int_equal(last_got(&a)->code, CULE_EUNSUPPORTED);
    assert_int_equal(stats().subscriptions, 0);
}

static void test_unsubscribe(void **state)
{
    (void)state;
    uint64_t id = sub(&b, "{\"pattern\":\"t\"}");
    ask(&b, CULE_S_BUS, CULE_OP_BUS_UNSUBSCRIBE, 5, id, 0, "");
    assert_int_equal(last_got(&b)->kind, CULE_REPLY);
    ask(&b, CULE_S_BUS, CULE_OP_BUS_UNSUBSCRIBE, 7, id, 0, "");
    assert_int_equal(last_got(&b)->code, CULE_ENOT_FOUND);
    pub(&a, "t", "x");
    assert_int_equal(count_of(&b, CULE_EVENT), 0);
}

static void test_tagged_and_overlapping(void **state)
{
    (void)state;
    uint64_t one = sub(&b, "{\"pattern\":\"t\",\"tagged\":true}");
    uint64_t two = sub(&b, "{\"pattern\":\"#\",\"tagged\":true}");
    pub(&a, "t", "x");
    assert_int_equal(count_of(&b, CULE_EVENT), 2);
    uint64_t tags = (got_of(&b, CULE_EVENT, 0)->arg0 >> 32) + (got_of(&b, CULE_EVENT, 1)->arg0 >> 32);
    assert_int_equal(tags, one + two);
}

static void fill(const char *topic, int n)
{
    char body[16];
    for (int i = 1; i <= n; i++) {
        snprintf(body, sizeof body, "%d", i);
        pub(&a, topic, body);
    }
}

static void test_drop_oldest(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"queue\":3}");
    peer_credit(&b, 0);
    fill("t", 5);
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "3 4 5");
    assert_int_equal(stats().dropped, 2);
    ask(&a, CULE_S_BUS, CULE_OP_BUS_EXPLAIN, 77, 0, 0, "{\"pattern\":\"t\"}");
    assert_non_null(strstr(last_got(&a)->body, "\"what\":\"drop\""));
    assert_non_null(strstr(last_got(&a)->body, "\"count\":2"));
}

static void test_drop_newest(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"queue\":3,\"overflow\":\"drop-newest\"}");
    peer_credit(&b, 0);
    fill("t", 5);
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "1 2 3");
}

static void test_drop_spares_the_urgent(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"queue\":2}");
    peer_credit(&b, 0);
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_CRITICAL, "t", "c1");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_CRITICAL, "t", "c2");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_LOW, "t", "l1");
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "c1 c2");
}

static void test_priorities(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\"}");
    sub(&b, "{\"pattern\":\"u\"}");
    peer_credit(&b, 0);
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_LOW, "t", "l");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_NORMAL, "t", "n");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_HIGH, "t", "h");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_CRITICAL, "u", "c");
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "c h n l");
    assert_int_equal(stats().critical_passed, 0);
    assert_int_equal(stats().critical_queued, 1);
}

static void test_disconnect(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"queue\":2,\"overflow\":\"disconnect\"}");
    peer_credit(&b, 0);
    fill("t", 2);
    assert_false(b.kicked);
    fill("t", 1);
    assert_true(b.kicked);
    assert_non_null(strstr(b.why, "'t'"));
    fill("t", 5); /* nobody to queue for any more */
    assert_int_equal(stats().disconnected, 1);
}

static void test_block(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "jobs/#:overflow=block,limit=2", NULL), 0);
    sub(&b, "{\"pattern\":\"jobs/#\"}");
    peer_credit(&b, 0);
    uint64_t before = a.consumed_frames;
    pub(&a, "jobs/x", "1");
    pub(&a, "jobs/x", "2");
    assert_int_equal(a.consumed_frames, before + 2);
    pub(&a, "jobs/x", "3"); /* credit withheld */
    assert_int_equal(a.consumed_frames, before + 2);
    pub_ack(&a, 21, "jobs/x", "4");
    pub_ack(&a, 23, "free", "not behind: other priority is");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_CRITICAL, "free", "passes");
    assert_null(got_of(&a, CULE_REPLY, 0));
    assert_int_equal(stats().parked_now, 3);
    /* The deadline of 4 passes: the link says so and tells us. */
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_CANCEL);
    m.h.id = 21;
    cule_bus_message(F.bus, a.client, &m, F.now);
    assert_int_equal(stats().parked_now, 2);
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "1 2 3");
    assert_int_equal(stats().parked_now, 0);
    assert_int_equal(stats().dropped, 0);
    assert_int_equal(got_of(&a, CULE_REPLY, 0)->id, 23);
    assert_int_equal(a.consumed_frames, before + 6);
    peer_gone(&a); /* with nothing left behind */
    peer_init(&a, 1000);
}

static void test_block_ends_with_the_subscriber(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "j:overflow=block,limit=1", NULL), 0);
    sub(&b, "{\"pattern\":\"j\"}");
    peer_credit(&b, 0);
    pub_ack(&a, 1, "j", "1");
    pub_ack(&a, 3, "j", "2");
    assert_int_equal(count_of(&a, CULE_REPLY), 1);
    peer_gone(&b);
    peer_init(&b, 1000);
    assert_int_equal(count_of(&a, CULE_REPLY), 2);
}

static void test_subscriber_cannot_block_by_itself(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"queue\":1,\"overflow\":\"block\"}");
    peer_credit(&b, 0);
    fill("t", 3);
    assert_int_equal(stats().parked_now, 0);
    assert_int_equal(stats().dropped, 2);
}

static void test_group(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"w/#\",\"group\":\"g\"}");
    sub(&c, "{\"pattern\":\"w/#\",\"group\":\"g\"}");
    fill("w/1", 6);
    assert_int_equal(count_of(&b, CULE_EVENT), 3);
    assert_int_equal(count_of(&c, CULE_EVENT), 3);
    peer_credit(&b, 0);
    fill("w/1", 2);
    assert_int_equal(count_of(&c, CULE_EVENT), 5);
    peer_credit(&c, 0);
    fill("w/1", 2);
    assert_int_equal(stats().queued_now, 2);
    peer_credit(&b, -1);
    assert_int_equal(count_of(&b, CULE_EVENT), 5);
    assert_int_equal(sub(&b, "{\"pattern\":\"w/#\",\"group\":\"g\",\"ack\":true}"), 0);
    assert_int_equal(last_got(&b)->code, CULE_EEXISTS);
}

static void test_retained(void **state)
{
    (void)state;
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, CULE_RETAIN, CULE_NORMAL, "r/1", "one");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, CULE_RETAIN, CULE_NORMAL, "r/2", "two");
    sub(&b, "{\"pattern\":\"r/#\"}");
    assert_string_equal(bodies(&b), "one two");
    assert_true(got_of(&b, CULE_EVENT, 0)->flags & CULE_RETAIN);
    pub(&a, "r/1", "live");
    assert_false(got_of(&b, CULE_EVENT, 2)->flags & CULE_RETAIN);
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, CULE_RETAIN, CULE_NORMAL, "r/2", "");
    peer_clear(&c);
    sub(&c, "{\"pattern\":\"r/#\"}");
    assert_string_equal(bodies(&c), "one");
    peer_clear(&c);
    sub(&c, "{\"pattern\":\"r/1\",\"retained\":false}");
    assert_string_equal(bodies(&c), "");
    /* Without credit it is delivered before the live one all the same. */
    peer_gone(&c);
    peer_init(&c, 1001);
    c.credit[CULE_NORMAL] = 0;
    sub(&c, "{\"pattern\":\"r/1\"}");
    pub(&a, "r/1", "after");
    peer_credit(&c, -1);
    assert_string_equal(bodies(&c), "one after");
}

static void test_history(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "h/#:history=4", NULL), 0);
    fill("h/x", 6);
    sub(&b, "{\"pattern\":\"h/x\",\"from_seq\":5}");
    assert_string_equal(bodies(&b), "5 6");
    peer_clear(&b);
    sub(&b, "{\"pattern\":\"h/x\",\"last\":3}");
    assert_string_equal(bodies(&b), "4 5 6");
    peer_clear(&c);
    sub(&c, "{\"pattern\":\"h/+\",\"from_seq\":0}");
    assert_string_equal(bodies(&c), "3 4 5 6");
    assert_int_equal(stats().dropped, 0);
    peer_clear(&c);
    sub(&c, "{\"pattern\":\"h/+\",\"from_seq\":1}"); /* asks for what is gone: told */
    assert_string_equal(bodies(&c), "3 4 5 6");
    assert_int_equal(stats().dropped, 2);
    peer_clear(&c);
    sub(&c, "{\"pattern\":\"#\",\"after\":{\"h/x\":5},\"since_ms\":1700000000000}");
    assert_string_equal(bodies(&c), "6");
}

static void test_history_meets_live(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "h:history=100", NULL), 0);
    fill("h", 5);
    peer_credit(&b, 2);
    sub(&b, "{\"pattern\":\"h\",\"from_seq\":1}");
    fill("h", 3);
    assert_string_equal(bodies(&b), "1 2");
    peer_credit(&b, 4);
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "1 2 3 4 5 1 2 3");
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(got_of(&b, CULE_EVENT, i)->arg1, i + 1);
    }
    fill("h", 1);
    assert_int_equal(count_of(&b, CULE_EVENT), 9);
}

/* With policy block a publisher does not push out of the history what a subscriber is still being given. */
static void test_block_spares_a_replay(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "h:history=4,overflow=block", NULL), 0);
    fill("h", 4);
    peer_credit(&b, 1);
    sub(&b, "{\"pattern\":\"h\",\"from_seq\":1}");
    fill("h", 3);
    assert_int_equal(stats().parked_now, 2);
    peer_credit(&b, -1);
    assert_string_equal(bodies(&b), "1 2 3 4 1 2 3");
    assert_int_equal(stats().dropped, 0);
}

static void test_history_by_age_and_bytes(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "age:history-age=1s", NULL), 0);
    assert_int_equal(cule_bus_set_topic(F.bus, "size:history-bytes=10", NULL), 0);
    pub(&a, "age", "old");
    pub(&a, "size", "12");
    pub(&a, "size", "34");
    pass_ms(2500);
    pub(&a, "age", "new");
    sub(&b, "{\"pattern\":\"age\",\"from_seq\":0}");
    assert_string_equal(bodies(&b), "new");
    peer_clear(&b);
    sub(&b, "{\"pattern\":\"size\",\"from_seq\":0}");
    assert_string_equal(bodies(&b), "34");
    assert_int_equal(cule_bus_set_topic(F.bus, "x:bad=1", NULL), CULE_EMALFORMED);
    assert_int_equal(cule_bus_set_topic(F.bus, "x", NULL), CULE_EUSAGE);
    assert_int_equal(cule_bus_set_topic(F.bus, "x:durability=disk", NULL), CULE_EUNSUPPORTED);
}

static void test_since(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_topic(F.bus, "h:history=100", NULL), 0);
    pub(&a, "h", "old");
    pass_ms(5000);
    pub(&a, "h", "new");
    char json[80];
    snprintf(json, sizeof json, "{\"pattern\":\"h\",\"since_ms\":%llu}", 1700000000000ull + F.now / ms - 1000);
    sub(&b, json);
    assert_string_equal(bodies(&b), "new");
}

static void test_configure(void **state)
{
    (void)state;
    pub(&a, "k", "1");
    ask(&c, CULE_S_BUS, CULE_OP_BUS_CONFIGURE, 3, 0, 0, "{\"pattern\":\"k\",\"history\":10}");
    assert_int_equal(last_got(&c)->code, CULE_EAUTH);
    ask(&a, CULE_S_BUS, CULE_OP_BUS_CONFIGURE, 3, 0, 0, "{\"pattern\":\"k\",\"history\":10,\"max_message\":3}");
    assert_int_equal(last_got(&a)->kind, CULE_REPLY);
    pub(&a, "k", "2");
    pub_ack(&a, 5, "k", "four");
    assert_int_equal(last_got(&a)->code, CULE_ETOO_BIG);
    sub(&b, "{\"pattern\":\"k\",\"from_seq\":0}");
    assert_string_equal(bodies(&b), "2");
    ask(&a, CULE_S_BUS, CULE_OP_BUS_CONFIGURE, 7, 0, 0, "{\"pattern\":\"k\",\"overflow\":\"never\"}");
    assert_int_equal(last_got(&a)->code, CULE_EMALFORMED);
}

static void test_large(void **state)
{
    static char body[66000];
    (void)state;
    memset(body, 'x', sizeof body - 1);
    sub(&b, "{\"pattern\":\"big\"}");
    put(&a, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_NORMAL, "big", body);
    assert_int_equal(got_of(&b, CULE_EVENT, 0)->len, sizeof body - 1);
    assert_int_equal(a.consumed_frames, 2);
}

static void test_list_and_stats(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"x/#\",\"name\":\"me\"}");
    pub(&a, "x/y", "1");
    ask(&a, CULE_S_BUS, CULE_OP_BUS_LIST, 3, 0, 0, "{\"what\":\"topics\"}");
    assert_non_null(strstr(last_got(&a)->body, "\"topic\":\"x/y\",\"seq\":1"));
    ask(&a, CULE_S_BUS, CULE_OP_BUS_LIST, 3, 0, 0, "");
    assert_non_null(strstr(last_got(&a)->body, "\"clients\":[{\"id\":1,\"name\":\"test\""));
    ask(&a, CULE_S_BUS, CULE_OP_BUS_LIST, 3, 0, 0, "{\"what\":\"subscriptions\"}");
    assert_non_null(strstr(last_got(&a)->body, "\"pattern\":\"x/#\""));
    ask(&a, CULE_S_CULE, CULE_OP_CULE_STATS, 3, 0, 0, "");
    assert_non_null(strstr(last_got(&a)->body, "\"published\":1"));
    ask(&a, CULE_S_CULE, CULE_OP_CULE_STATS, 3, 1, 0, "");
    assert_non_null(strstr(last_got(&a)->body, "cule_bus_published_total 1"));
    ask(&a, CULE_S_CULE, CULE_OP_CULE_HEALTH, 3, 0, 0, "");
    assert_string_equal(last_got(&a)->body, "{\"state\":\"ok\",\"reason\":\"\"}");
    ask(&a, CULE_S_CULE, CULE_OP_CULE_ECHO, 3, 4, 5, "echo");
    assert_string_equal(last_got(&a)->body, "echo");
    assert_int_equal(last_got(&a)->arg1, 5);
}

static void test_tap(void **state)
{
    (void)state;
    ask(&c, CULE_S_BUS, CULE_OP_BUS_TAP, 31, 0, 0, "{\"pattern\":\"x/#\"}");
    assert_true(last_got(&c)->open);
    pub(&a, "x/1", "seen");
    pub(&a, "y", "not");
    assert_int_equal(count_of(&c, CULE_DATA), 1);
    assert_true(last_got(&c)->flags & CULE_NESTED);
    assert_int_equal(last_got(&c)->len, 64 + 64 + 8);
    pub(&c, "x/1", "its own: a tap that saw itself would never end");
    assert_int_equal(count_of(&c, CULE_DATA), 1);
    ask(&c, CULE_S_BUS, CULE_OP_BUS_TAP, 33, 0, 0, "{\"client\":2}");
    sub(&b, "{\"pattern\":\"y\"}"); /* seen coming in */
    pub(&a, "y", "1");              /* seen going out */
    assert_int_equal(count_of(&c, CULE_DATA), 3);
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_CANCEL);
    m.h.id = 31;
    cule_bus_message(F.bus, c.client, &m, F.now);
    pub(&a, "x/1", "unseen");
    assert_int_equal(count_of(&c, CULE_DATA), 3);
    peer_gone(&b); /* ends the other */
    peer_init(&b, 1000);
    assert_true(last_got(&c)->last);
}

static void test_explain_follow(void **state)
{
    (void)state;
    ask(&c, CULE_S_BUS, CULE_OP_BUS_EXPLAIN, 31, 0, 0, "{\"follow\":true}");
    assert_true(last_got(&c)->open);
    pub_ack(&a, 1, "$x", "");
    assert_int_equal(last_got(&c)->kind, CULE_DATA);
    assert_non_null(strstr(last_got(&c)->body, "\"what\":\"deny\""));
}

static void test_trace_passes(void **state)
{
    char payload[32 + 2] = "0123456789abcdef0123456789abcdeftb";
    struct cule_msg m = {0};
    (void)state;
    sub(&b, "{\"pattern\":\"t\"}");
    cule_frame_init(&m.h, CULE_EVENT);
    m.h.service = CULE_S_BUS;
    m.h.op = CULE_OP_BUS_PUBLISH;
    m.h.arg0 = 1;
    m.h.flags = CULE_TRACE;
    m.trace = (const uint8_t *)payload;
    m.body = m.trace + 32;
    m.len = 2;
    cule_bus_message(F.bus, a.client, &m, F.now);
    struct got *g = got_of(&b, CULE_EVENT, 0);
    assert_true(g->flags & CULE_TRACE);
    assert_string_equal(g->topic, "t");
    assert_string_equal(g->body, "b");
}

static void test_draining(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\"}");
    peer_credit(&b, 0);
    pub(&a, "t", "1");
    cule_bus_drain(F.bus);
    assert_false(cule_bus_idle(F.bus));
    pub_ack(&a, 1, "t", "2");
    assert_int_equal(last_got(&a)->code, CULE_ECLOSED);
    peer_credit(&b, -1);
    assert_true(cule_bus_idle(F.bus));
    assert_string_equal(bodies(&b), "1");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        T(test_publish),
        T(test_bad_publish),
        T(test_bad_subscribe),
        T(test_unsubscribe),
        T(test_drop_oldest),
        T(test_tagged_and_overlapping),
        T(test_drop_newest),
        T(test_drop_spares_the_urgent),
        T(test_priorities),
        T(test_disconnect),
        T(test_block),
        T(test_block_ends_with_the_subscriber),
        T(test_group),
        T(test_subscriber_cannot_block_by_itself),
        T(test_retained),
        T(test_history),
        T(test_configure),
        T(test_history_meets_live),
        T(test_since),
        T(test_history_by_age_and_bytes),
        T(test_large),
        T(test_list_and_stats),
        T(test_tap),
        T(test_explain_follow),
        T(test_draining),
        T(test_trace_passes),
        T(test_block_spares_a_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

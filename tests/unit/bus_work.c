/* The bus's core: acknowledgements, dead letters, requests and streams, quotas, the ACL, capabilities. */
#include "../lib/bus_fake.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct peer a, b, c;

static void open_world(const struct cule_bus_config *k)
{
    world_begin(k, false);
    peer_init(&a, 1000);
    peer_init(&b, 1000);
    peer_init(&c, 1001);
}

static int begin(void **state)
{
    struct cule_bus_config k = world_config();
    (void)state;
    open_world(&k);
    return 0;
}

static int begin_limits(void **state)
{
    struct cule_bus_config k = world_config();
    (void)state;
    k.limits.rate = 10;
    k.limits.uid_rate = 15;
    k.limits.subscriptions = 2;
    k.limits.uid_subscriptions = 3;
    k.limits.queue_bytes = 20;
    k.limits.uid_clients = 2;
    k.limits.topics = 4;
    open_world(&k);
    return 0;
}

static int end(void **state)
{
    (void)state;
    peer_gone(&a);
    peer_gone(&b);
    peer_gone(&c);
    struct cule_bus_stats s = stats();
    assert_int_equal(s.inflight_now, 0);
    assert_int_equal(s.routes, 0);
    assert_int_equal(s.subscriptions, 0);
    world_end();
    return 0;
}

/* --- acknowledgements --- */

static void test_ack(void **state)
{
    (void)state;
    uint64_t id = sub(&b, "{\"pattern\":\"t\",\"ack\":true,\"max_inflight\":2}");
    pub(&a, "t", "1");
    pub(&a, "t", "2");
    pub(&a, "t", "3");
    assert_string_equal(bodies(&b), "1 2");
    struct got *g = got_of(&b, CULE_EVENT, 0);
    assert_true(g->flags & CULE_ACK_WANTED);
    assert_int_equal(g->arg0 >> 32, id);
    assert_int_equal(g->id, 1);
    ack(&b, g);
    assert_string_equal(bodies(&b), "1 2 3");
    ack(&b, got_of(&b, CULE_EVENT, 0)); /* twice */
    assert_int_equal(stats().late_acks, 1);
    ack(&b, got_of(&b, CULE_EVENT, 1));
    ack(&b, got_of(&b, CULE_EVENT, 2));
    assert_int_equal(stats().acked, 3);
    assert_int_equal(stats().inflight_now, 0);
    pass_ms(100000);
    assert_int_equal(stats().redelivered, 0);
}

static void test_redelivery_and_dead_letter(void **state)
{
    (void)state;
    sub(&c, "{\"pattern\":\"$bus/#\"}");
    sub(&b, "{\"pattern\":\"t\",\"ack\":true,\"ack_wait_ms\":100,\"max_deliver\":3}");
    pub(&a, "t", "poison");
    pass_ms(99);
    assert_int_equal(count_of(&b, CULE_EVENT), 1);
    pass_ms(150);
    assert_int_equal(count_of(&b, CULE_EVENT), 3);
    assert_true(got_of(&b, CULE_EVENT, 1)->flags & CULE_REDELIVERED);
    assert_int_equal(got_of(&b, CULE_EVENT, 1)->arg1, 1);
    pass_ms(200);
    assert_int_equal(count_of(&b, CULE_EVENT), 3);
    assert_int_equal(stats().dead, 1);
    bool letter = false;
    bool event = false;
    for (unsigned i = 0; i < count_of(&c, CULE_EVENT); i++) {
        struct got *g = got_of(&c, CULE_EVENT, i);
        letter |= strcmp(g->topic, "$bus/dead/t") == 0 && strcmp(g->body, "poison") == 0;
        event |= strcmp(g->topic, "$bus/events") == 0 && strstr(g->body, "\"what\":\"dead\"");
    }
    assert_true(letter);
    assert_true(event);
    /* It is kept for whoever comes later. */
    peer_clear(&a);
    sub(&a, "{\"pattern\":\"$bus/dead/#\",\"from_seq\":0}");
    assert_string_equal(bodies(&a), "poison");
}

static void test_nack(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"ack\":true}");
    pub(&a, "t", "1");
    nack(&b, last_got(&b), "");
    assert_string_equal(bodies(&b), "1 1");
    nack(&b, last_got(&b), "{\"delay_ms\":500}");
    pass_ms(499);
    assert_string_equal(bodies(&b), "1 1");
    pass_ms(2);
    assert_string_equal(bodies(&b), "1 1 1");
    nack(&b, last_got(&b), "{\"dead\":true,\"reason\":\"bad\"}");
    assert_int_equal(stats().dead, 1);
    assert_int_equal(stats().nacked, 3);
    pub(&a, "t", "2");
    nack(&b, last_got(&b), "not json");
    assert_string_equal(bodies(&b), "1 1 1 2 2");
    ack(&b, last_got(&b));
}

static void test_group_member_dies(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"ack\":true,\"group\":\"g\"}");
    for (int i = 0; i < 4; i++) {
        char body[16];
        snprintf(body, sizeof body, "%d", i);
        pub(&a, "t", body);
    }
    sub(&c, "{\"pattern\":\"t\",\"ack\":true,\"group\":\"g\"}");
    ack(&b, got_of(&b, CULE_EVENT, 1));
    peer_gone(&b);
    peer_init(&b, 1000);
    assert_string_equal(bodies(&c), "0 2 3");
    assert_true(got_of(&c, CULE_EVENT, 0)->flags & CULE_REDELIVERED);
    for (unsigned i = 0; i < 3; i++) {
        ack(&c, got_of(&c, CULE_EVENT, i));
    }
    assert_int_equal(stats().acked, 4);
}

static void test_slow_handler(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"t\",\"ack\":true}");
    pub(&a, "t", "1");
    pass_ms(900);
    assert_int_equal(stats().slow, 0);
    pass_ms(1000);
    assert_int_equal(stats().slow, 1);
    assert_non_null(strstr(F.logged, "slow handler"));
    pass_ms(5000);
    assert_int_equal(stats().slow, 1);
    ack(&b, got_of(&b, CULE_EVENT, 0));
    pub(&a, "t", "2");
    pass_ms(3000);
    assert_int_equal(stats().slow, 2);
}

/* --- requests --- */

static void answer(struct peer *p, uint64_t id, int kind, unsigned flags, const char *body)
{
    struct cule_msg m = {0};
    cule_frame_init(&m.h, (enum cule_kind)kind);
    m.h.id = id;
    m.h.flags = (uint16_t)flags;
    m.h.arg0 = kind == CULE_ERROR_FRAME ? (uint64_t)-CULE_EHANDLER : 7;
    m.body = (const uint8_t *)body;
    m.len = strlen(body);
    cule_bus_answer(F.bus, p->route[id / 2 % 256], &m, F.now);
    cule_bus_flush(F.bus, F.now);
}

static void request(struct peer *p, uint64_t id, const char *topic, const char *body)
{
    put(p, CULE_REQUEST, CULE_OP_BUS_REQUEST, id, 0, CULE_NORMAL, topic, body);
}

static void test_request(void **state)
{
    (void)state;
    request(&a, 1, "svc/x", "early");
    assert_int_equal(last_got(&a)->code, CULE_ENO_RESPONDER);
    sub(&b, "{\"pattern\":\"svc/#\",\"respond\":true}");
    sub(&c, "{\"pattern\":\"svc/#\",\"respond\":true}");
    request(&a, 3, "svc/x", "one");
    request(&a, 5, "svc/x", "two");
    assert_int_equal(count_of(&b, CULE_REQUEST), 1);
    assert_int_equal(count_of(&c, CULE_REQUEST), 1);
    struct got *g = got_of(&b, CULE_REQUEST, 0);
    assert_string_equal(g->topic, "svc/x");
    assert_string_equal(g->body, "one");
    answer(&b, g->id, CULE_REPLY, 0, "reply");
    assert_string_equal(last_got(&a)->body, "reply");
    assert_int_equal(last_got(&a)->id, 3);
    assert_int_equal(last_got(&a)->arg0, 7);
    request(&a, 7, "svc/x", "three"); /* to the one with fewer open */
    assert_int_equal(count_of(&b, CULE_REQUEST), 2);
    answer(&c, got_of(&c, CULE_REQUEST, 0)->id, CULE_ERROR_FRAME, 0, "broke");
    assert_int_equal(last_got(&a)->code, CULE_EHANDLER);
    assert_string_equal(last_got(&a)->body, "broke");
    peer_gone(&b); /* in the middle of one */
    assert_int_equal(last_got(&a)->code, CULE_ECLOSED);
    assert_int_equal(last_got(&a)->id, 7);
    peer_init(&b, 1000);
    pub(&a, "svc/x", "an event is not for responders");
    assert_int_equal(count_of(&c, CULE_EVENT), 0);
}

static void test_request_waits_for_credit(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"s\",\"respond\":true}");
    peer_credit(&b, 0);
    request(&a, 1, "s", "x");
    request(&a, 3, "s", "y");
    assert_int_equal(count_of(&a, CULE_ERROR_FRAME), 0);
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_CANCEL);
    m.h.id = 1;
    cule_bus_message(F.bus, a.client, &m, F.now);
    peer_credit(&b, -1);
    assert_int_equal(count_of(&b, CULE_REQUEST), 1);
    assert_string_equal(got_of(&b, CULE_REQUEST, 0)->body, "y");
    cule_frame_init(&m.h, CULE_CANCEL);
    m.h.id = 3;
    cule_bus_message(F.bus, a.client, &m, F.now);
    assert_int_equal(count_of(&b, CULE_CANCEL), 1);
    answer(&b, 2, CULE_REPLY, 0, "late");
    assert_int_equal(count_of(&a, CULE_REPLY), 0);
}

static void test_streams(void **state)
{
    struct cule_msg m = {0};
    (void)state;
    sub(&b, "{\"pattern\":\"s\",\"respond\":true}");
    put(&a, CULE_REQUEST, CULE_OP_BUS_REQUEST, 1, CULE_OPEN, CULE_NORMAL, "s", "head");
    uint64_t id = got_of(&b, CULE_REQUEST, 0)->id;
    b.stream_credit = 1;
    for (int i = 0; i < 3; i++) {
        char body[16];
        cule_frame_init(&m.h, CULE_DATA);
        m.h.id = 1;
        m.h.flags = i < 2 ? CULE_OPEN : 0;
        m.body = (const uint8_t *)body;
        m.len = (size_t)snprintf(body, sizeof body, "d%d", i);
        cule_bus_message(F.bus, a.client, &m, F.now);
    }
    assert_int_equal(count_of(&b, CULE_DATA), 1);
    assert_int_equal(a.consumed_stream, 2);
    b.stream_credit = -1;
    cule_bus_writable(F.bus, b.client, id, F.now);
    assert_int_equal(count_of(&b, CULE_DATA), 3);
    assert_true(got_of(&b, CULE_DATA, 2)->last);
    assert_int_equal(a.consumed_stream, 6);
    a.stream_credit = 1;
    answer(&b, id, CULE_REPLY, CULE_OPEN, "first");
    answer(&b, id, CULE_DATA, CULE_OPEN, "more");
    answer(&b, id, CULE_DATA, CULE_OPEN, "waits");
    answer(&b, id, CULE_DATA, 0, "end");
    assert_int_equal(count_of(&a, CULE_DATA), 1);
    assert_int_equal(stats().routes, 1);
    a.stream_credit = -1;
    cule_bus_writable(F.bus, a.client, 1, F.now);
    assert_int_equal(count_of(&a, CULE_DATA), 3);
    assert_true(last_got(&a)->last);
    assert_string_equal(last_got(&a)->body, "end");
    assert_int_equal(stats().routes, 0);
    assert_int_equal(stats().answered, 1);
}

static void test_capability_passes(void **state)
{
    struct cule_msg m = {0};
    (void)state;
    sub(&b, "{\"pattern\":\"s\",\"respond\":true}");
    cule_frame_init(&m.h, CULE_REQUEST);
    m.h.service = CULE_S_BUS;
    m.h.op = CULE_OP_BUS_REQUEST;
    m.h.id = 1;
    m.h.arg0 = 1;
    m.h.flags = CULE_DELEGATE;
    m.h.cap = cule_cap_make(1, 1, 3); /* the asker's own: odd */
    m.body = (const uint8_t *)"s";
    m.len = 1;
    cule_bus_message(F.bus, a.client, &m, F.now);
    struct got *g = got_of(&b, CULE_REQUEST, 0);
    assert_int_not_equal(g->cap, 0);
    assert_int_not_equal(g->cap, m.h.cap);
    assert_int_equal(g->cap >> 48, 3);
    m.h.flags = 0;
    m.h.id = 3;
    m.h.cap = cule_cap_make(44, 9, 3); /* nobody gave out this one */
    cule_bus_message(F.bus, a.client, &m, F.now);
    assert_int_equal(last_got(&a)->code, CULE_EBAD_CAP);
}

/* --- quotas and access --- */

static void test_quotas(void **state)
{
    (void)state;
    /* a and b share a uid: clients, then messages, then subscriptions. */
    struct peer extra;
    peer_init(&extra, 1000);
    assert_null(extra.client);
    for (int i = 0; i < 12; i++) {
        pub(&a, "t", "x");
    }
    pub_ack(&a, 1, "t", "x");
    assert_int_equal(last_got(&a)->code, CULE_EQUOTA);
    assert_non_null(strstr(last_got(&a)->body, "client's quota"));
    assert_int_equal(stats().published, 10);
    for (int i = 0; i < 6; i++) {
        pub_ack(&b, 1, "t", "x");
    }
    assert_int_equal(stats().published, 15);
    assert_non_null(strstr(last_got(&b)->body, "uid's quota"));
    pass_ms(1000);
    pub_ack(&a, 3, "t", "x");
    assert_int_equal(last_got(&a)->kind, CULE_REPLY);
    assert_int_equal(sub(&a, "{\"pattern\":\"1\"}"), 1);
    assert_int_equal(sub(&a, "{\"pattern\":\"2\"}"), 2);
    assert_int_equal(sub(&a, "{\"pattern\":\"3\"}"), 0);
    assert_int_equal(sub(&b, "{\"pattern\":\"1\"}"), 1);
    assert_int_equal(sub(&b, "{\"pattern\":\"2\"}"), 0);
    assert_int_equal(sub(&c, "{\"pattern\":\"2\"}"), 1);
}

static void test_quota_of_bytes_and_topics(void **state)
{
    (void)state;
    sub(&c, "{\"pattern\":\"q\"}");
    peer_credit(&c, 0);
    for (int i = 0; i < 4; i++) {
        pub(&a, "q", "123456789"); /* 10 bytes with its topic: two fit */
    }
    assert_int_equal(stats().queued_now, 2);
    assert_int_equal(stats().dropped, 2);
    pass_ms(3000);
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        pub_ack(&a, 1, name, ""); /* idle topics make room */
        assert_int_equal(last_got(&a)->kind, CULE_REPLY);
    }
    assert_true(stats().topics <= 4);
    uint64_t seen = last_got(&a)->arg1;
    pass_ms(1000);
    pub_ack(&a, 1, "n0", ""); /* forgotten, but its numbers do not begin anew */
    assert_true(last_got(&a)->arg1 > 1 && last_got(&a)->arg1 >= seen);
    pass_ms(3000);
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "r%d", i);
        put(&a, CULE_REQUEST, CULE_OP_BUS_PUBLISH, 5, CULE_RETAIN, CULE_NORMAL, name, "kept");
    }
    assert_int_equal(last_got(&a)->code, CULE_EQUOTA);
}

static const char acl_text[] = "# rules\n"
                               "token robot sha256:7365637265747365637265747365637265747365637265747365637265747365\n"
                               "deny uid:1001 subscribe private/#\n"
                               "allow uid:1001 subscribe #\n"
                               "allow uid:1000 publish pub/# rate=3\n"
                               "allow token:robot all #\n"
                               "allow cap:2 publish capped\n";

static void test_acl(void **state)
{
    (void)state;
    assert_int_equal(cule_bus_set_acl(F.bus, acl_text, NULL), 0);
    assert_int_equal(sub(&c, "{\"pattern\":\"pub/#\"}"), 1);
    assert_int_equal(sub(&c, "{\"pattern\":\"private/x\"}"), 0);
    assert_int_equal(last_got(&c)->code, CULE_EAUTH);
    assert_int_equal(sub(&c, "{\"pattern\":\"#\"}"), 0); /* takes in what is denied */
    pub_ack(&c, 1, "pub/x", "");
    assert_int_equal(last_got(&c)->code, CULE_EAUTH);
    for (int i = 0; i < 4; i++) {
        pub_ack(&a, 1, "pub/x", "");
        assert_int_equal(last_got(&a)->kind, i < 3 ? CULE_REPLY : CULE_ERROR_FRAME);
    }
    assert_int_equal(last_got(&a)->code, CULE_EQUOTA);
    ask(&b, CULE_S_CULE, CULE_OP_CULE_AUTH, 5, 0, 0, "wrong");
    assert_int_equal(last_got(&b)->code, CULE_EAUTH);
    assert_int_equal(sub(&b, "{\"pattern\":\"#\"}"), 0);
    ask(&b, CULE_S_CULE, CULE_OP_CULE_AUTH, 5, 0, 0, "secret");
    assert_int_equal(last_got(&b)->arg0, 1);
    assert_int_equal(sub(&b, "{\"pattern\":\"#\"}"), 1);
    ask(&b, CULE_S_BUS, CULE_OP_BUS_EXPLAIN, 7, 0, 0, "");
    assert_non_null(strstr(last_got(&b)->body, "deny")); /* and with its line */
    /* The broker's own uid has no say of its own any more. */
    ask(&a, CULE_S_BUS, CULE_OP_BUS_CONFIGURE, 3, 0, 0, "{\"pattern\":\"k\",\"history\":1}");
    assert_int_equal(last_got(&a)->code, CULE_EAUTH);
    struct cule_err err;
    assert_int_equal(cule_bus_set_acl(F.bus, "allow everybody all #\n", &err), CULE_EMALFORMED);
    assert_non_null(strstr(err.text, "line 1"));
    assert_int_equal(cule_bus_set_acl(F.bus, "\nallow * all a//b\n", &err), CULE_EMALFORMED);
    assert_non_null(strstr(err.text, "line 2"));
    assert_int_equal(cule_bus_set_acl(F.bus, "allow * publish #\n", NULL), 0); /* reload: the token is gone */
    assert_int_equal(sub(&b, "{\"pattern\":\"x\"}"), 0);
}

static void test_acl_by_certificate_and_group(void **state)
{
    struct cule_bus_identity who = {.name = "x", .transport = "tls", .cert = "alice"};
    struct peer tls;
    (void)state;
    assert_int_equal(cule_bus_set_acl(F.bus, "allow cert:alice publish a\nallow gid:1001 publish b\n", NULL), 0);
    memset(&tls, 0, sizeof tls);
    assert_int_equal(cule_bus_client_add(F.bus, &tls, &who, F.now, &tls.client, NULL), 0);
    pub_ack(&tls, 1, "a", "");
    assert_int_equal(last_got(&tls)->kind, CULE_REPLY);
    pub_ack(&tls, 3, "b", "");
    assert_int_equal(last_got(&tls)->code, CULE_EAUTH);
    pub_ack(&c, 1, "b", "");
    assert_int_equal(last_got(&c)->kind, CULE_REPLY);
    pub_ack(&a, 1, "a", "");
    assert_int_equal(last_got(&a)->code, CULE_EAUTH);
    peer_gone(&tls);
}

static void test_granted_capability(void **state)
{
    struct cule_msg m = {0};
    (void)state;
    assert_int_equal(cule_bus_set_acl(F.bus, acl_text, NULL), 0);
    ask(&b, CULE_S_CULE, CULE_OP_CULE_AUTH, 5, 0, 0, "secret");
    ask(&b, CULE_S_BUS, CULE_OP_BUS_CONFIGURE, 7, 0, 0, "{\"grant\":{\"client\":3,\"rights\":2,\"ttl_ms\":5000}}");
    assert_int_equal(last_got(&b)->kind, CULE_REPLY);
    struct got *g = got_of(&c, CULE_EVENT, 0);
    assert_true(g->flags & CULE_DELEGATE);
    uint64_t cap = g->cap;
    for (int i = 0; i < 4; i++) {
        cule_frame_init(&m.h, CULE_REQUEST);
        m.h.service = CULE_S_BUS;
        m.h.op = CULE_OP_BUS_PUBLISH;
        m.h.id = 11;
        m.h.arg0 = 6;
        m.h.cap = i == 0 ? 0 : i == 2 ? cap + 2 : cap;
        m.body = (const uint8_t *)"capped";
        m.len = 6;
        if (i == 3) {
            pass_ms(6000);
        }
        cule_bus_message(F.bus, c.client, &m, F.now);
        assert_int_equal(last_got(&c)->kind, i == 1 ? CULE_REPLY : CULE_ERROR_FRAME);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
#define Q(f) cmocka_unit_test_setup_teardown(f, begin_limits, end)
    const struct CMUnitTest tests[] = {
        T(test_ack),
        T(test_redelivery_and_dead_letter),
        T(test_nack),
        T(test_group_member_dies),
        T(test_slow_handler),
        T(test_request),
        T(test_request_waits_for_credit),
        T(test_streams),
        T(test_capability_passes),
        Q(test_quotas),
        Q(test_quota_of_bytes_and_topics),
        T(test_acl),
        T(test_acl_by_certificate_and_group),
        T(test_granted_capability),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

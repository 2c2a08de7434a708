/* The bus's core and its store: topics on disk, failures, history read back, durable groups, restarts. */
#include "../lib/bus_fake.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct peer a, b, c;

static void open_world(bool store, const struct cule_bus_config *k)
{
    world_begin(k, store);
    peer_init(&a, 1000);
    peer_init(&b, 1000);
    peer_init(&c, 1001);
}

static int begin(void **state)
{
    struct cule_bus_config k = world_config();
    (void)state;
    open_world(true, &k);
    assert_int_equal(cule_bus_set_topic(F.bus, "d/#:durability=disk,history=1000", NULL), 0);
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
    assert_int_equal(s.subscriptions, 0);
    world_end();
    return 0;
}

static unsigned number(const struct got *g)
{
    return (unsigned)strtoul(g->body, NULL, 10);
}

static void test_disk(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"d/#\"}");
    pub_ack(&a, 1, "d/x", "1");
    assert_int_equal(count_of(&a, CULE_REPLY), 0);
    assert_int_equal(count_of(&b, CULE_EVENT), 0); /* nobody sees what is not on disk */
    store_run();
    assert_int_equal(last_got(&a)->arg1, 1);
    assert_string_equal(bodies(&b), "1");
    pub_ack(&a, 3, "d/x", "2");
    peer_gone(&a);
    peer_init(&a, 1000);
    store_run();
    assert_string_equal(bodies(&b), "1 2");
}

static void test_disk_fails(void **state)
{
    (void)state;
    sub(&b, "{\"pattern\":\"#\"}");
    pub_ack(&a, 1, "d/x", "1");
    store_run();
    F.store_fails = true;
    pub_ack(&a, 3, "d/x", "2");
    pub_ack(&a, 5, "d/x", "3");
    store_run();
    assert_int_equal(last_got(&a)->code, CULE_EDISK);
    assert_true(stats().degraded);
    assert_int_equal(F.logs, 1);
    pub_ack(&a, 7, "d/x", "4");
    assert_int_equal(last_got(&a)->code, CULE_EDISK); /* at once */
    pub_ack(&a, 9, "m", "memory goes on");
    assert_int_equal(last_got(&a)->kind, CULE_REPLY);
    ask(&a, CULE_S_CULE, CULE_OP_CULE_HEALTH, 11, 0, 0, "");
    assert_non_null(strstr(last_got(&a)->body, "degraded"));
    pass_ms(1500);
    assert_int_equal(F.probes, 1);
    cule_bus_stored(F.bus, 0, CULE_EDISK, "still full", F.now);
    pass_ms(1500);
    assert_int_equal(F.probes, 2);
    cule_bus_stored(F.bus, 0, 0, "", F.now);
    F.store_fails = false;
    assert_false(stats().degraded);
    pub_ack(&a, 13, "d/x", "5");
    store_run();
    assert_int_equal(last_got(&a)->arg1, 2); /* no gap in the numbers */
}

static void test_store_queue_full(void **state)
{
    (void)state;
    F.store_full = true;
    pub_ack(&a, 1, "d/x", "1");
    assert_int_equal(stats().parked_now, 1);
    F.store_full = false;
    cule_bus_flush(F.bus, F.now);
    store_run();
    assert_int_equal(last_got(&a)->kind, CULE_REPLY);
}

static void publish_disk(int from, int to)
{
    char body[16];
    for (int i = from; i <= to; i++) {
        snprintf(body, sizeof body, "%d", i);
        pub(&a, "d/x", body);
    }
    store_run();
}

static void test_history_from_disk(void **state)
{
    (void)state;
    publish_disk(1, 900); /* far more than memory keeps of it */
    sub(&b, "{\"pattern\":\"d/#\",\"from_seq\":1}");
    publish_disk(901, 905);
    store_run();
    assert_int_equal(count_of(&b, CULE_EVENT), 905);
    for (unsigned i = 0; i < 905; i++) {
        struct got *g = got_of(&b, CULE_EVENT, i);
        assert_int_equal(g->arg1, i + 1);
        assert_int_equal(number(g), i + 1);
    }
    assert_true(stats().loaded > 0);
}

static void test_durable_group(void **state)
{
    const char *json = "{\"pattern\":\"d/#\",\"ack\":true,\"group\":\"g\",\"durable\":\"workers\",\"queue\":4,"
                       "\"max_inflight\":2}";
    (void)state;
    assert_int_equal(sub(&b, json), 1);
    assert_string_equal(F.defined, "workers");
    publish_disk(1, 20);
    assert_string_equal(bodies(&b), "1 2");
    assert_int_equal(stats().dropped, 0); /* what does not fit stays on disk */
    peer_gone(&b);
    publish_disk(21, 30);
    peer_init(&b, 1000);
    assert_int_equal(sub(&b, json), 1);
    for (unsigned i = 0; i < 30; i++) {
        struct got *g = got_of(&b, CULE_EVENT, i);
        assert_non_null(g);
        assert_int_equal(number(g), i + 1);
        ack(&b, g);
        store_run();
    }
    assert_int_equal(F.done_floor, 30);
    assert_int_equal(count_of(&b, CULE_EVENT), 30);
    ask(&b, CULE_S_BUS, CULE_OP_BUS_UNSUBSCRIBE, 5, 1, 1, "");
    assert_string_equal(F.defined, "-workers");
}

static void test_durable_begins_where_it_was_made(void **state)
{
    (void)state;
    publish_disk(1, 5);
    assert_int_equal(sub(&b, "{\"pattern\":\"d/#\",\"ack\":true,\"durable\":\"w\"}"), 1);
    assert_int_equal(F.done_calls, 1); /* said to the store at once, before any message */
    assert_int_equal(F.done_floor, 5);
    assert_string_equal(F.done_topic, "d/x");
    assert_int_equal(sub(&c, "{\"pattern\":\"d/#\",\"ack\":true,\"durable\":\"v\",\"from_seq\":3}"), 1);
    assert_int_equal(F.done_floor, 2);
    assert_string_equal(bodies(&c), "3 4 5");
}

static void test_restart(void **state)
{
    const char *json = "{\"pattern\":\"d/#\",\"ack\":true,\"durable\":\"w\"}";
    struct cule_bus_config k = world_config();
    (void)state;
    publish_disk(1, 10);
    /* Another broker over the same store: 1 to 3 and 5 are done. */
    struct stored *disk = F.disk;
    size_t ndisk = F.ndisk;
    F.disk = NULL;
    F.ndisk = 0;
    peer_gone(&a);
    peer_gone(&b);
    peer_gone(&c);
    world_end();
    open_world(true, &k);
    F.disk = disk;
    F.ndisk = ndisk;
    assert_int_equal(cule_bus_set_topic(F.bus, "d/#:durability=disk", NULL), 0);
    assert_int_equal(cule_bus_restore_topic(F.bus, "d/x", 3, 1, 10), 0);
    assert_int_equal(cule_bus_restore_durable(F.bus, "w", json, strlen(json), F.now), 0);
    assert_int_equal(cule_bus_restore_done(F.bus, "w", "d/x", 3, 3, true), 0);
    assert_int_equal(cule_bus_restore_done(F.bus, "w", "d/x", 3, 5, false), 0);
    cule_bus_restored(F.bus, F.now);
    sub(&b, json);
    store_run();
    assert_string_equal(bodies(&b), "4 6 7 8 9 10");
    publish_disk(11, 11);
    assert_string_equal(bodies(&b), "4 6 7 8 9 10 11");
    assert_int_equal(last_got(&b)->arg1, 11);
    ack(&b, got_of(&b, CULE_EVENT, 0));
    assert_int_equal(F.done_floor, 5);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        T(test_disk),
        T(test_disk_fails),
        T(test_store_queue_full),
        T(test_history_from_disk),
        T(test_durable_group),
        T(test_durable_begins_where_it_was_made),
        T(test_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

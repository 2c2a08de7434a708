/* The bus client's parts that need no bus: topics and patterns, positions, the names of the bridge. */
#include "../../cmd/cule-ipc/bridge_map.c"
#include "../../cmd/cule-ipc/busclient_seen.c"
#include "../../cmd/cule-ipc/busclient_topic.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool matches(const char *pattern, const char *topic)
{
    return busclient_matches(pattern, topic, strlen(topic));
}

static void test_patterns(void **state)
{
    (void)state;
    assert_true(matches("a/b", "a/b"));
    assert_false(matches("a/b", "a/bc"));
    assert_false(matches("a/b", "a"));
    assert_false(matches("a", "a/b"));
    assert_true(matches("a/+", "a/b"));
    assert_false(matches("a/+", "a/b/c"));
    assert_true(matches("+/b/+", "x/b/y"));
    assert_true(matches("#", "a/b/c"));
    assert_true(matches("a/#", "a/b/c"));
    assert_true(matches("a/#", "a"));
    assert_false(matches("a/#", "ab"));
    assert_false(matches("#", "$bus/events"));
    assert_false(matches("+/events", "$bus/events"));
    assert_true(matches("$bus/#", "$bus/events"));
}

static void test_checks(void **state)
{
    (void)state;
    char longest[BUSCLIENT_TOPIC_MAX + 2];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(busclient_check_topic(longest, NULL), CULE_EUSAGE);
    longest[BUSCLIENT_TOPIC_MAX] = '\0';
    assert_int_equal(busclient_check_topic(longest, NULL), 0);
    const char *const bad[] = {"", "/", "a/", "/a", "a//b", "a/\n", "a/+", "#", "\x7f"};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(busclient_check_topic(bad[i], NULL), CULE_EUSAGE);
    }
    const char *const bad_patterns[] = {"a/#/b", "a+", "+a", "#a", "a/b#", ""};
    for (size_t i = 0; i < CULE_COUNT(bad_patterns); i++) {
        assert_int_equal(busclient_check_pattern(bad_patterns[i], NULL), CULE_EUSAGE);
    }
    assert_int_equal(busclient_check_pattern("a/+/b/#", NULL), 0);
    assert_int_equal(busclient_check_pattern("#", NULL), 0);
}

static void test_split(void **state)
{
    (void)state;
    struct busclient_delivery d;
    struct cule_msg m = {.body = (const uint8_t *)"topicbody", .len = 9};
    m.h.arg0 = 5 | (uint64_t)7 << 32;
    m.h.arg1 = 42;
    m.h.id = 3;
    assert_true(busclient_split(&m, &d));
    assert_int_equal(d.topic_len, 5);
    assert_int_equal(d.len, 4);
    assert_memory_equal(d.body, "body", 4);
    assert_int_equal(d.seq, 42);
    assert_int_equal(d.subscription, 7);
    assert_int_equal(d.number, 0); /* no ack is wanted */
    m.h.flags = CULE_ACK_WANTED;
    assert_true(busclient_split(&m, &d));
    assert_int_equal(d.number, 3);
    m.h.arg0 = 10;
    assert_false(busclient_split(&m, &d));
    m.h.arg0 = 0;
    assert_false(busclient_split(&m, &d));
    m.h.arg0 = 256;
    assert_false(busclient_split(&m, &d));
}

static bool note(struct busclient_seen *t, const char *topic, unsigned priority, uint64_t seq)
{
    return busclient_seen_note(t, topic, strlen(topic), priority, seq);
}

static uint64_t position_of(const struct busclient_seen *t, const char *topic)
{
    return busclient_seen_position(t, topic, strlen(topic));
}

static void test_positions(void **state)
{
    (void)state;
    struct busclient_seen *t = busclient_seen_new(1000);
    assert_non_null(t);
    assert_true(note(t, "a", CULE_NORMAL, 1));
    assert_true(note(t, "a", CULE_NORMAL, 2));
    assert_false(note(t, "a", CULE_NORMAL, 2));
    assert_false(note(t, "a", CULE_NORMAL, 1));
    assert_true(note(t, "b", CULE_NORMAL, 1));
    assert_int_equal(position_of(t, "a"), 2);
    /* A critical message that overtook is no reason to skip those it overtook, nor to take it twice. */
    assert_true(note(t, "a", CULE_CRITICAL, 9));
    assert_int_equal(position_of(t, "a"), 2);
    assert_true(note(t, "a", CULE_NORMAL, 3));
    assert_false(note(t, "a", CULE_CRITICAL, 9));
    assert_int_equal(busclient_seen_newest(t, "a", 1), 9);
    busclient_seen_forget(t, "a", 1);
    assert_int_equal(position_of(t, "a"), 0);
    assert_true(note(t, "a", CULE_NORMAL, 1));
    assert_int_equal(position_of(t, "none"), 0);
    busclient_seen_free(t);
}

static void test_positions_are_bounded(void **state)
{
    (void)state;
    struct busclient_seen *t = busclient_seen_new(100);
    char name[32];
    assert_non_null(t);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "topic/%d", i);
        assert_true(note(t, name, CULE_NORMAL, 5));
    }
    for (int i = 0; i < 200; i++) { /* beyond the limit a double is taken, never a message lost */
        snprintf(name, sizeof name, "topic/%d", i);
        assert_int_equal(note(t, name, CULE_NORMAL, 5), i >= 100);
        assert_int_equal(position_of(t, name), i < 100 ? 5 : 0);
    }
    busclient_seen_free(t);
}

static void test_positions_as_json(void **state)
{
    (void)state;
    struct busclient_seen *t = busclient_seen_new(100);
    struct cule_buf b;
    assert_non_null(t);
    cule_buf_init(&b, 0);
    assert_int_equal(busclient_seen_json(t, "#", 1000, &b), 0);
    assert_int_equal(cule_buf_len(&b), 2);
    cule_buf_clear(&b);
    note(t, "a/\"x", CULE_NORMAL, 7);
    note(t, "b/y", CULE_NORMAL, 8);
    assert_int_equal(busclient_seen_json(t, "a/+", 1000, &b), 0);
    assert_int_equal(cule_buf_addc(&b, '\0'), 0);
    assert_string_equal((char *)cule_buf_data(&b), "{\"a/\\\"x\":7}");
    cule_buf_clear(&b);
    assert_int_equal(busclient_seen_json(t, "#", 5, &b), CULE_ELIMIT);
    cule_buf_release(&b);
    busclient_seen_free(t);
}

static void there_and_back(const char *map, const char *topic, const char *subject)
{
    struct bridge_map m;
    char s[BRIDGE_SUBJECT_MAX], back[BRIDGE_NAME_MAX + 1];
    assert_int_equal(bridge_map_parse(&m, map, NULL), 0);
    assert_true(bridge_map_subject(&m, topic, strlen(topic), s));
    assert_string_equal(s, subject);
    assert_true(bridge_map_topic(&m, s, back));
    assert_string_equal(back, topic);
}

static void test_bridge_names(void **state)
{
    (void)state;
    there_and_back("a/#=x.y.>", "a/b/c", "x.y.b.c");
    there_and_back("a/#=x.y.>", "a", "x.y");
    there_and_back("#=>", "a/b", "a.b");
    there_and_back("a/+/c/+=p.*.q.*", "a/1/c/2", "p.1.q.2");
    there_and_back("+/#=*.z.>", "a/b/c", "a.z.b.c");
    there_and_back("a=b", "a", "b");
    there_and_back("a/+=a.*", "a/v1.2 *>%", "a.v1%2E2%20%2A%3E%25");
}

static void test_bridge_refusals(void **state)
{
    (void)state;
    struct bridge_map m;
    char s[BRIDGE_SUBJECT_MAX], t[BRIDGE_NAME_MAX + 1];
    const char *const bad[] = {"a", "a=", "=a", "a/#=b.*", "a/+=b", "a=b.>", "a=b..c", "a/#/b=c.>.d", "a=b c", "a=.b"};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(bridge_map_parse(&m, bad[i], NULL), CULE_EUSAGE);
    }
    assert_int_equal(bridge_map_parse(&m, "a/+>b.*", NULL), 0);
    assert_true(m.to_nats && !m.to_bus);
    assert_int_equal(bridge_map_parse(&m, "a/+<b.*", NULL), 0);
    assert_true(!m.to_nats && m.to_bus);
    assert_false(bridge_map_subject(&m, "a/b/c", 5, s));
    assert_false(bridge_map_subject(&m, "x/b", 3, s));
    assert_false(bridge_map_topic(&m, "b", t));
    assert_true(bridge_map_topic(&m, "b.with/slash+#", t)); /* which no topic's level may have */
    assert_string_equal(t, "a/with%2Fslash%2B%23");
    /* What would be too long is not cut, but refused. */
    char subject[600];
    memset(subject, 'x', sizeof subject - 1);
    memcpy(subject, "b.", 2);
    subject[sizeof subject - 1] = '\0';
    assert_false(bridge_map_topic(&m, subject, t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_positions_are_bounded),
        cmocka_unit_test(test_positions_as_json),
        cmocka_unit_test(test_bridge_names),
        cmocka_unit_test(test_bridge_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Topics, patterns and the subscription index: rules by table, and the index against plain matching. */
#include "core/bus/topic.h"
#include "core/bus/trie.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int topic(const char *s)
{
    return cule_topic_check(s, strlen(s), NULL);
}

static int pattern(const char *s)
{
    return cule_pattern_check(s, strlen(s), NULL);
}

static void test_topics(void **state)
{
    static const char *const good[] = {"a", "a/b", "a b/c", "\xc3\xa4/\xe2\x82\xac", "$bus/x", "a/$b"};
    static const char *const bad[] = {"",   "/",    "/a",      "a/",   "a//b",     "a/+",         "#",
                                      "a#", "a\nb", "a\x7f/b", "\xff", "\xc0\x80", "\xed\xa0\x80"};
    char longest[CULE_TOPIC_OWN_MAX + 2];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(topic(good[i]), 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(topic(bad[i]), CULE_EMALFORMED);
    }
    memset(longest, 'x', sizeof longest);
    assert_int_equal(cule_topic_check(longest, 255, NULL), 0);
    assert_int_equal(cule_topic_check(longest, 256, NULL), CULE_EMALFORMED);
    longest[0] = '$';
    assert_int_equal(cule_topic_check(longest, 300, NULL), 0);
    assert_int_equal(cule_topic_check(longest, 301, NULL), CULE_EMALFORMED);
    assert_int_equal(cule_topic_check("a\0b", 3, NULL), CULE_EMALFORMED);
}

static void test_patterns(void **state)
{
    static const char *const good[] = {"#", "+", "a/#", "+/b/#", "a/+/c", "+/+"};
    static const char *const bad[] = {"a#", "#/a", "a/#/b", "a+", "+a", "a/b+/c", "a//#"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(pattern(good[i]), 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(pattern(bad[i]), CULE_EMALFORMED);
    }
}

static bool match(const char *p, const char *t)
{
    return cule_pattern_match(p, strlen(p), t, strlen(t));
}

static void test_match(void **state)
{
    (void)state;
    assert_true(match("#", "a"));
    assert_true(match("#", "a/b/c"));
    assert_true(match("a/#", "a"));
    assert_true(match("a/#", "a/b"));
    assert_false(match("a/#", "ab"));
    assert_true(match("+", "a"));
    assert_false(match("+", "a/b"));
    assert_true(match("a/+/c", "a/b/c"));
    assert_false(match("a/+/c", "a/b/d"));
    assert_false(match("a/+", "a"));
    assert_false(match("a", "a/b"));
    assert_false(match("#", "$bus/x"));
    assert_false(match("+/x", "$bus/x"));
    assert_true(match("$bus/#", "$bus/x"));
    assert_true(match("$bus/+", "$bus/x"));
}

static void test_covers_and_overlap(void **state)
{
    static const struct {
        const char *a, *b;
        bool covers, overlap;
    } rows[] = {
        {"#", "a/b", true, true},       {"#", "#", true, true},       {"a/#", "#", false, true},
        {"a/#", "a/+", true, true},     {"a/+", "a/#", false, true},  {"a/+", "a/b", true, true},
        {"a/b", "a/+", false, true},    {"a/b", "a/c", false, false}, {"#", "$bus/#", false, false},
        {"a/#", "a", true, true},       {"a/+", "a", false, false},   {"+/b", "a/+", false, true},
        {"a/+/c", "+/b", false, false}, {"x/#", "y/#", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *a = rows[i].a;
        const char *b = rows[i].b;
        assert_int_equal(cule_pattern_covers(a, strlen(a), b, strlen(b)), rows[i].covers);
        assert_int_equal(cule_pattern_overlap(a, strlen(a), b, strlen(b)), rows[i].overlap);
        assert_int_equal(cule_pattern_overlap(b, strlen(b), a, strlen(a)), rows[i].overlap);
    }
}

struct entry {
    struct cule_trie_item item;
    char pattern[64];
    unsigned hits;
};

static void hit(void *arg, struct cule_trie_item *item)
{
    (void)arg;
    CULE_CONTAINER(item, struct entry, item)->hits++;
}

static uint32_t seed = 12345;
static unsigned rnd(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void make(char out[64], bool pattern_too)
{
    static const char *const levels[] = {"a", "b", "cc", "$d", "\xc3\xa4"};
    unsigned n = 1 + rnd(5);
    size_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned k = rnd(pattern_too ? 8 : 5);
        const char *l = k < 5 ? levels[k] : k < 7 ? "+" : "#";
        at += (size_t)snprintf(out + at, 64 - at, "%s%s", i ? "/" : "", l);
        if (*l == '#') {
            break;
        }
    }
}

static void test_trie_agrees(void **state)
{
    enum { N = 400 };
    static struct entry e[N];
    struct cule_trie t;
    (void)state;
    cule_trie_init(&t, 99);
    for (int round = 0; round < 4000; round++) {
        struct entry *x = &e[rnd(N)];
        if (x->item.at) {
            cule_trie_remove(&t, &x->item);
        } else {
            make(x->pattern, true);
            assert_int_equal(cule_trie_add(&t, x->pattern, strlen(x->pattern), &x->item), 0);
        }
        char name[64];
        make(name, false);
        for (int i = 0; i < N; i++) {
            e[i].hits = 0;
        }
        cule_trie_match(&t, name, strlen(name), hit, NULL);
        for (int i = 0; i < N; i++) {
            unsigned want = e[i].item.at && match(e[i].pattern, name);
            assert_int_equal(e[i].hits, want);
        }
    }
    for (int i = 0; i < N; i++) {
        cule_trie_remove(&t, &e[i].item);
    }
    assert_int_equal(t.edges.count, 0);
    cule_trie_release(&t);
}

static void test_strmap(void **state)
{
    enum { N = 3000 };
    static char keys[N][16];
    static bool in[N];
    struct cule_strmap m;
    (void)state;
    cule_strmap_init(&m, 5);
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "key%d", i);
    }
    for (int round = 0; round < 20000; round++) {
        unsigned i = rnd(N);
        if (in[i]) {
            assert_ptr_equal(cule_strmap_take(&m, keys[i], strlen(keys[i])), keys[i]);
        } else {
            assert_int_equal(cule_strmap_put(&m, keys[i], strlen(keys[i]), keys[i]), 0);
        }
        in[i] = !in[i];
        unsigned k = rnd(N);
        assert_ptr_equal(cule_strmap_get(&m, keys[k], strlen(keys[k])), in[k] ? keys[k] : NULL);
    }
    size_t n = 0;
    for (size_t at = 0; cule_strmap_next(&m, &at);) {
        n++;
    }
    assert_int_equal(n, m.count);
    cule_strmap_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topics),      cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_match),       cmocka_unit_test(test_covers_and_overlap),
        cmocka_unit_test(test_trie_agrees), cmocka_unit_test(test_strmap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

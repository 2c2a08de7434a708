/* UTF-8, base64, numbers, durations and sizes. */
#include "base/base64.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void every_character(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char text[4];
        uint32_t back;
        if (c >= 0xd800 && c < 0xe000) {
            continue;
        }
        unsigned n = cule_utf8_put(c, text);
        assert_int_equal(cule_utf8_next(text, n, &back), n);
        assert_int_equal(back, c);
        assert_int_equal(cule_utf8_next(text, n - 1, &back), 0);
    }
}

static void not_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x80\x80", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80", "\xff",
        "\xc3",         "\xe2\x82",         "\xe2(\xa1",        "\xc3("};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        uint32_t c;
        assert_int_equal(cule_utf8_next(bad[i], strlen(bad[i]), &c), 0);
        for (size_t lead = 0; lead < 17; lead++) {
            char text[32] = "aaaaaaaaaaaaaaaaa";
            memcpy(text + lead, bad[i], strlen(bad[i]));
            assert_false(cule_utf8_valid(text, lead + strlen(bad[i])));
        }
    }
    assert_true(cule_utf8_valid(NULL, 0));
    assert_true(cule_utf8_valid("plain \xc3\xa9 and \xf0\x9f\x98\x80 long enough for words", 40));
    assert_true(cule_utf8_valid("a\0b", 3));
}

static void base64_known(void **state)
{
    (void)state;
    /* RFC 4648, section 10. */
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < CULE_COUNT(pairs); i++) {
        char text[16];
        char back[16];
        size_t n = strlen(pairs[i][0]);
        assert_int_equal(cule_base64_encode(text, pairs[i][0], n), cule_base64_size(n));
        assert_memory_equal(text, pairs[i][1], cule_base64_size(n));
        assert_int_equal(cule_base64_decode(back, pairs[i][1], strlen(pairs[i][1])), n);
        assert_memory_equal(back, pairs[i][0], n);
    }
    static const char *const bad[] = {"Z",        "Zg",   "Zg=",  "Zh==", "Zm9=",  "Z===", "====",   "Zm9v====",
                                      "Zg==Zg==", "Zm-v", "Zm9 ", "Z=9v", "Zm\n9", "=m9v", "\xffm9v"};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        char back[16];
        assert_int_equal(cule_base64_decode(back, bad[i], strlen(bad[i])), CULE_EMALFORMED);
    }
}

static void base64_all_lengths(void **state)
{
    (void)state;
    uint8_t bytes[256];
    uint8_t back[260];
    char text[400];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 167);
    }
    for (size_t n = 0; n <= sizeof bytes; n++) {
        size_t m = cule_base64_encode(text, bytes, n);
        assert_int_equal(cule_base64_decode(back, text, m), n);
        assert_memory_equal(back, bytes, n);
    }
}

static void numbers(void **state)
{
    (void)state;
    uint64_t v = 77;
    assert_int_equal(cule_parse_u64("0", &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(cule_parse_u64("010", &v), 0);
    assert_int_equal(v, 10);
    assert_int_equal(cule_parse_u64("18446744073709551615", &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(cule_parse_u64("0xFfffffffffffffff", &v), 0);
    assert_true(v == UINT64_MAX);
    v = 77;
    assert_int_equal(cule_parse_u64("18446744073709551616", &v), CULE_ELIMIT);
    assert_int_equal(cule_parse_u64("0x10000000000000000", &v), CULE_ELIMIT);
    static const char *const bad[] = {"", " 1", "1 ", "-1", "+1", "0x", "1.5", "0xg", "12a", "x"};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(cule_parse_u64(bad[i], &v), CULE_EMALFORMED);
    }
    assert_int_equal(v, 77);
    assert_int_equal(cule_parse_u64_n("123", 2, &v), 0);
    assert_int_equal(v, 12);
}

static void durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"250ms", 250},
                {"5s", 5000},
                {"2m", 120000},
                {"1h", 3600000},
                {"7d", 604800000},
                {"3", 3000},
                {"1.5s", 1500},
                {"0.25", 250},
                {"0", 0},
                {"0.0001s", 1},
                {"0.5ms", 1},
                {"0.000", 0},
                {"0.0000000001s", 1},
                {"1.0000000000000000", 1000}};
    static const char *const bad[] = {"", "s", "5x", "5 s", "-1s", "1.s", ".5s", "5sec", "1e3", "5S"};
    uint64_t v;
    for (size_t i = 0; i < CULE_COUNT(good); i++) {
        assert_int_equal(cule_parse_duration_ms(good[i].text, &v), 0);
        assert_int_equal(v, good[i].ms);
    }
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(cule_parse_duration_ms(bad[i], &v), CULE_EMALFORMED);
    }
    assert_int_equal(cule_parse_duration_ms("18446744073709551615s", &v), CULE_ELIMIT);
    assert_int_equal(cule_parse_duration_ms("99999999999999999999ms", &v), CULE_ELIMIT);
    assert_int_equal(cule_parse_duration_ms("18446744073709551615ms", &v), 0);
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t n;
    } good[] = {{"0", 0},           {"4096", 4096},        {"64K", 65536},   {"16M", 16777216},
                {"1G", 1073741824}, {"2T", 2199023255552}, {"64KiB", 65536}, {"7B", 7}};
    static const char *const bad[] = {"", "K", "1k", "1KB", "1Ki", "-1", "1 K", "1.5M", "1KiBx"};
    uint64_t v;
    for (size_t i = 0; i < CULE_COUNT(good); i++) {
        assert_int_equal(cule_parse_size(good[i].text, &v), 0);
        assert_int_equal(v, good[i].n);
    }
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(cule_parse_size(bad[i], &v), CULE_EMALFORMED);
    }
    assert_int_equal(cule_parse_size("18446744073709551615K", &v), CULE_ELIMIT);
    assert_int_equal(cule_parse_size("16777216T", &v), CULE_ELIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character), cmocka_unit_test(not_utf8),
        cmocka_unit_test(base64_known),    cmocka_unit_test(base64_all_lengths),
        cmocka_unit_test(numbers),         cmocka_unit_test(durations),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

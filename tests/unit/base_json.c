/* JSON reader and writer. */
#include "base/bytes.h"
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct cule_json doc;

static int setup(void **state)
{
    (void)state;
    cule_json_init(&doc);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cule_json_release(&doc);
    return 0;
}

/* Parses a copy of its own size, so that a look beyond the end shows under the sanitizer. */
static int parse(const char *text, struct cule_err *err)
{
    static char *copy;
    size_t n = strlen(text);
    free(copy);
    copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, text, n);
    int rc = cule_json_parse(&doc, copy, n, err);
    if (rc) {
        free(copy);
        copy = NULL;
    }
    return rc;
}

static void good(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "12",
        "-3.25",
        "1e5",
        "1.5E-7",
        "\"\"",
        "[]",
        "{}",
        "[[],[]]",
        "[1,2]",
        "{\"\":1}",
        "{\"a\":{}}",
        "\n[\t1\r,2 ]",
        "\"\\u0000\\ud83d\\ude00\"",
        "\"\xf0\x9f\x98\x80 \xc3\xa9\"",
    };
    for (size_t i = 0; i < CULE_COUNT(texts); i++) {
        struct cule_err err;
        assert_int_equal(parse(texts[i], &err), 0);
        assert_int_equal(doc.token[0].after, doc.count);
    }
    assert_int_equal(cule_json_parse(&doc, NULL, 0, NULL), CULE_EMALFORMED);
}

static void bad(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"", "column 1:"},
        {" ", "column 2:"},
        {"nul", "not a value"},
        {"True", "not a value"},
        {"01", "column 1: a number must not begin with 0"},
        {"-", "not a value"},
        {"+1", "not a value"},
        {"1.", "column 2: digits must follow the point"},
        {".5", "not a value"},
        {"1e", "exponent"},
        {"NaN", "not a value"},
        {"1 2", "column 3: something stands behind"},
        {"[1,]", "column 4:"},
        {"[1 2]", "',' or ']' is missing"},
        {"[1", "',' or ']' is missing"},
        {"[", "a value is missing"},
        {"]", "not a value"},
        {"[}", "not a value"},
        {"{\"a\":1,}", "a key in quotes is missing"},
        {"{\"a\" 1}", "':' is missing"},
        {"{a:1}", "a key in quotes"},
        {"{\"a\"}", "':' is missing"},
        {"{\"a\":}", "not a value"},
        {"{1:2}", "a key in quotes"},
        {"\"abc", "column 1: this string does not end"},
        {"\"a\nb\"", "control character"},
        {"\"\\x\"", "not an escape"},
        {"\"\\u12g4\"", "not an escape"},
        {"\"\\u12", "not an escape"},
        {"\"\\ud800\"", "lone surrogate"},
        {"\"\\ud800\\u0041\"", "lone surrogate"},
        {"\"\\udc00\"", "lone surrogate"},
        {"\"\\", "not an escape"},
        {"\"\xff\"", "not UTF-8"},
        {"\"\xc0\x80\"", "not UTF-8"},
        {"\"\xed\xa0\x80\"", "not UTF-8"},
        {"\"\xe2\x82", "not UTF-8"},
        {"{\n\"a\":\n  x}", "line 3, column 3: not a value"},
        {"// x\n1", "not a value"},
        {"'a'", "not a value"},
    };
    for (size_t i = 0; i < CULE_COUNT(cases); i++) {
        struct cule_err err;
        assert_int_equal(parse(cases[i].text, &err), CULE_EMALFORMED);
        if (!strstr(err.text, cases[i].says)) {
            fail_msg("%s: '%s' does not say '%s'", cases[i].text, err.text, cases[i].says);
        }
        assert_int_equal(doc.count, 0);
        assert_int_equal(parse(cases[i].text, NULL), CULE_EMALFORMED);
    }
}

static void limits(void **state)
{
    (void)state;
    struct cule_err err;
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 64, ']', 64);
    deep[128] = '\0';
    assert_int_equal(parse(deep, &err), 0);
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    deep[130] = '\0';
    assert_int_equal(parse(deep, &err), CULE_ELIMIT);
    /* More tokens than lie in the document itself, then more than allowed. */
    char *many = malloc(40001);
    assert_non_null(many);
    memset(many, ',', 40000);
    for (int i = 1; i < 39999; i += 2) {
        many[i] = '7';
    }
    many[0] = '[';
    many[39999] = '\0';
    many[39998] = ']';
    assert_int_equal(parse(many, &err), 0);
    assert_int_equal(doc.token[0].count, 19999);
    int n = 0;
    for (int i = cule_json_first(&doc, 0); i >= 0; i = cule_json_next(&doc, i)) {
        n++;
    }
    assert_int_equal(n, 19999);
    doc.token_max = 10000;
    cule_json_release(&doc);
    doc.token_max = 10000;
    assert_int_equal(parse(many, &err), CULE_ELIMIT);
    free(many);
}

static void looking_around(void **state)
{
    (void)state;
    struct cule_err err;
    uint64_t u = 0;
    bool b = false;
    double d = 0;
    char s[8];
    assert_int_equal(parse("{\"a\":[1,{\"x\":2},\"s\"],\"big\":\"18446744073709551615\",\"neg\":-1,\"t\":true,"
                           "\"\\u006bey\":\"v\\n\",\"dup\":1,\"dup\":2,\"f\":2.5,\"nil\":null,\"hex\":\"0x10\","
                           "\"long\":\"123456789\",\"esc\":\"\\u0041\\u0042\\u0043\",\"nul\":\"a\\u0000b\"}",
                           &err),
                     0);
    int a = cule_json_find(&doc, 0, "a");
    assert_int_equal(cule_json_type(&doc, a), CULE_JSON_ARRAY);
    int e = cule_json_first(&doc, a);
    assert_int_equal(cule_json_u64(&doc, e, &u), 0);
    assert_int_equal(u, 1);
    e = cule_json_next(&doc, e);
    assert_int_equal(cule_json_get_u64(&doc, e, "x", &u, &err), 1);
    assert_int_equal(u, 2);
    size_t n;
    const char *raw = cule_json_raw(&doc, e, &n);
    assert_int_equal(n, 7);
    assert_memory_equal(raw, "{\"x\":2}", 7);
    e = cule_json_next(&doc, e);
    assert_true(cule_json_equal(&doc, e, "s"));
    raw = cule_json_raw(&doc, e, &n);
    assert_memory_equal(raw, "\"s\"", 3);
    assert_int_equal(cule_json_next(&doc, e), -1);
    assert_int_equal(cule_json_get_u64(&doc, 0, "big", &u, &err), 1);
    assert_true(u == UINT64_MAX);
    assert_int_equal(cule_json_get_u64(&doc, 0, "neg", &u, &err), CULE_EMALFORMED);
    assert_string_equal(err.text, "'neg' must be a whole number, not a number");
    assert_int_equal(cule_json_get_u64(&doc, 0, "none", &u, &err), 0);
    assert_int_equal(cule_json_get_u64(&doc, 0, "nil", &u, &err), 0);
    assert_int_equal(cule_json_get_u64(&doc, 0, "hex", &u, &err), 1);
    assert_int_equal(u, 16);
    assert_int_equal(cule_json_get_bool(&doc, 0, "t", &b, &err), 1);
    assert_true(b);
    assert_int_equal(cule_json_get_bool(&doc, 0, "a", &b, &err), CULE_EMALFORMED);
    assert_int_equal(cule_json_get_str(&doc, 0, "key", s, sizeof s, &err), 1);
    assert_string_equal(s, "v\n");
    assert_int_equal(cule_json_get_u64(&doc, 0, "dup", &u, &err), 1);
    assert_int_equal(u, 2);
    assert_int_equal(cule_json_double(&doc, cule_json_find(&doc, 0, "f"), &d), 0);
    assert_true(d == 2.5);
    assert_int_equal(cule_json_get_str(&doc, 0, "long", s, sizeof s, &err), CULE_ETOO_BIG);
    assert_int_equal(cule_json_get_str(&doc, 0, "esc", s, sizeof s, &err), 1);
    assert_string_equal(s, "ABC"); /* 18 bytes in the text, 3 decoded */
    assert_int_equal(cule_json_get_str(&doc, 0, "nul", s, sizeof s, &err), CULE_EMALFORMED);
    assert_int_equal(cule_json_find(&doc, a, "x"), -1);
    assert_int_equal(cule_json_find(&doc, -1, "x"), -1);
    assert_int_equal(cule_json_first(&doc, cule_json_find(&doc, 0, "none")), -1);
    int count = 0;
    for (int k = cule_json_first(&doc, 0); k >= 0; k = cule_json_next(&doc, k)) {
        assert_true(cule_json_value(&doc, k) == k + 1);
        count++;
    }
    assert_int_equal(count, 13);
    static const char *const keys[] = {"a", "big", "neg", "t", "key", "dup", NULL};
    assert_int_equal(cule_json_only(&doc, 0, keys, &err), CULE_EMALFORMED);
    assert_string_equal(err.text, "unknown key 'f'");
}

static void writing(void **state)
{
    (void)state;
    struct cule_buf b;
    struct cule_json_writer w;
    cule_buf_init(&b, 0);
    cule_json_begin(&w, &b);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "s", "a\"\\\b\f\n\r\t\x01\x7f\xc3\xa9");
    cule_json_member_str(&w, "none", NULL);
    cule_json_member_u64(&w, "u", UINT64_MAX);
    cule_json_member_i64(&w, "i", INT64_MIN);
    cule_json_member_double(&w, "d", 0.1);
    cule_json_member_bool(&w, "b", false);
    cule_json_key(&w, "a");
    cule_json_open(&w, '[');
    cule_json_put_u64(&w, 0);
    cule_json_put_u64_str(&w, 10);
    cule_json_put_bytes(&w, "\xff\xc3(", 3);
    cule_json_open(&w, '[');
    cule_json_close(&w, ']');
    cule_json_put_raw(&w, "{\"x\":1}", 7);
    cule_json_close(&w, ']');
    cule_json_close(&w, '}');
    assert_int_equal(cule_json_end(&w), 0);
    cule_buf_addc(&b, '\0');
    assert_string_equal((char *)cule_buf_data(&b),
                        "{\"s\":\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f\xc3\xa9\",\"none\":null,"
                        "\"u\":18446744073709551615,\"i\":-9223372036854775808,\"d\":0.1,\"b\":false,"
                        "\"a\":[0,\"10\",\"\xef\xbf\xbd\xef\xbf\xbd(\",[],{\"x\":1}]}");
    cule_buf_release(&b);
    /* The first failure stays. */
    cule_buf_init(&b, 10);
    cule_json_begin(&w, &b);
    cule_json_open(&w, '[');
    cule_json_put_str(&w, "this does not fit");
    cule_json_put_u64(&w, 1);
    assert_int_equal(cule_json_end(&w), CULE_ELIMIT);
    cule_buf_release(&b);
}

static void digits(void **state)
{
    (void)state;
    uint64_t v = 1;
    for (int i = 0; i < 64; i++, v *= 3) {
        for (int d = -1; d < 2; d++) {
            char text[21];
            text[cule_json_digits(v + (uint64_t)d, text)] = '\0';
            assert_true(strtoull(text, NULL, 10) == v + (uint64_t)d);
            assert_true(text[0] != '0' || !text[1]);
        }
    }
}

/* Every string comes back: quote, read, decode. */
static void strings_there_and_back(void **state)
{
    (void)state;
    char text[100];
    uint32_t x = 1;
    for (int round = 0; round < 3000; round++) {
        size_t n = (size_t)round % sizeof text;
        for (size_t i = 0; i < n; i++) {
            x = x * 1664525 + 1013904223;
            text[i] = (char)((x >> 24) & (round & 1 ? 0x3f : 0x7f));
        }
        struct cule_buf b;
        struct cule_buf back;
        cule_buf_init(&b, 0);
        cule_buf_init(&back, 0);
        assert_int_equal(cule_json_quote(&b, text, n), 0);
        assert_int_equal(cule_json_parse(&doc, (char *)cule_buf_data(&b), cule_buf_len(&b), NULL), 0);
        assert_int_equal(cule_json_str_add(&doc, 0, &back), 0);
        assert_int_equal(cule_buf_len(&back), n);
        assert_true(n == 0 || memcmp(cule_buf_data(&back), text, n) == 0);
        cule_buf_release(&b);
        cule_buf_release(&back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(good, setup, teardown),
        cmocka_unit_test_setup_teardown(bad, setup, teardown),
        cmocka_unit_test_setup_teardown(limits, setup, teardown),
        cmocka_unit_test_setup_teardown(looking_around, setup, teardown),
        cmocka_unit_test_setup_teardown(writing, setup, teardown),
        cmocka_unit_test_setup_teardown(digits, setup, teardown),
        cmocka_unit_test_setup_teardown(strings_there_and_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

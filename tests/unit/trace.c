/* Trace identifiers, span lines, and Chrome's JSON. */
#include "wire/trace.h"

#include "base/json.h"
#include "wire/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void traceparent(void **state)
{
    (void)state;
    static const char good[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    struct cule_trace t, u;
    struct cule_err err;
    char out[CULE_TRACEPARENT_SIZE];
    uint8_t prefix[CULE_TRACE_SIZE];
    assert_int_equal(cule_traceparent_parse(&t, good, &err), 0);
    assert_int_equal(t.id[0], 0x4b);
    assert_int_equal(t.span[7], 0xb7);
    assert_int_equal(t.flags, 1);
    assert_string_equal(cule_traceparent_format(&t, out), good);
    cule_trace_put(&t, prefix);
    assert_int_equal(prefix[15], 0x36);
    assert_int_equal(prefix[16], 0x00);
    assert_int_equal(prefix[24], 0x01);
    assert_int_equal(cule_trace_get(&u, prefix), 0);
    assert_memory_equal(&t, &u, sizeof t);
    memset(prefix + 16, 0, 8);
    assert_int_equal(cule_trace_get(&u, prefix), CULE_EMALFORMED);

    static const char *const bad[] = {
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    };
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(cule_traceparent_parse(&t, bad[i], &err), CULE_EMALFORMED);
    }
    assert_int_equal(cule_traceparent_parse(&t, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", &err),
                     0);
}

static void children(void **state)
{
    (void)state;
    static const uint8_t zero[24];
    uint8_t random[24];
    struct cule_trace root, child;
    for (unsigned i = 0; i < sizeof random; i++) {
        random[i] = (uint8_t)(i + 1);
    }
    cule_trace_root(&root, random);
    assert_int_equal(root.flags, CULE_TRACE_SAMPLED);
    cule_trace_child(&child, &root, random);
    assert_memory_equal(child.id, root.id, 16);
    assert_memory_not_equal(child.span, root.span, 8);
    cule_trace_root(&root, zero);
    uint8_t prefix[CULE_TRACE_SIZE];
    cule_trace_put(&root, prefix);
    assert_int_equal(cule_trace_get(&child, prefix), 0);
}

static struct cule_span sample(void)
{
    struct cule_span s = {.parent = {9, 9},
                          .start_ns = UINT64_C(1763690000123456789),
                          .end_ns = UINT64_C(1763690000123999999),
                          .service = (uint32_t)CULE_S_STOR,
                          .op = CULE_OP_STOR_READ,
                          .pid = 4711,
                          .track = 3,
                          .code = CULE_ETIMEOUT,
                          .program = "a \"quoted\" name"};
    memset(s.trace.id, 0xab, 16);
    memset(s.trace.span, 0xcd, 8);
    return s;
}

static void span_lines(void **state)
{
    (void)state;
    struct cule_buf b;
    struct cule_err err;
    struct cule_span s = sample();
    struct cule_span t;
    cule_buf_init(&b, 0);
    assert_int_equal(cule_span_line(&s, &b), 0);
    assert_int_equal(cule_buf_data(&b)[cule_buf_len(&b) - 1], '\n');
    assert_int_equal(cule_span_parse(&t, (char *)cule_buf_data(&b), cule_buf_len(&b), &err), 0);
    assert_memory_equal(t.trace.id, s.trace.id, 16);
    assert_memory_equal(t.trace.span, s.trace.span, 8);
    assert_memory_equal(t.parent, s.parent, 8);
    assert_true(t.start_ns == s.start_ns && t.end_ns == s.end_ns);
    assert_int_equal(t.code, CULE_ETIMEOUT);
    assert_string_equal(t.program, s.program);
    assert_int_equal(t.service, s.service);
    assert_int_equal(t.op, s.op);
    /* Cut anywhere, it is refused and nothing else happens. */
    for (size_t n = 0; n < cule_buf_len(&b) - 2; n++) {
        assert_true(cule_span_parse(&t, (char *)cule_buf_data(&b), n, &err) < 0);
    }
    cule_buf_release(&b);
}

static void chrome(void **state)
{
    (void)state;
    struct cule_buf b;
    struct cule_err err;
    struct cule_chrome c;
    struct cule_json doc;
    struct cule_span parent = sample();
    struct cule_span child = sample();
    memcpy(child.parent, parent.trace.span, 8);
    memset(child.trace.span, 0xee, 8);
    child.pid = 4712;
    cule_buf_init(&b, 0);
    assert_int_equal(cule_chrome_begin(&c, &b), 0);
    assert_int_equal(cule_chrome_span(&c, &child), 0);
    assert_int_equal(cule_chrome_span(&c, &parent), 0);
    assert_int_equal(cule_chrome_end(&c), 0);
    cule_json_init(&doc);
    assert_int_equal(cule_json_parse(&doc, (char *)cule_buf_data(&b), cule_buf_len(&b), &err), 0);
    int n = 0, arrows = 0, names = 0, spans = 0;
    for (int i = cule_json_first(&doc, cule_json_find(&doc, 0, "traceEvents")); i >= 0; i = cule_json_next(&doc, i)) {
        int ph = cule_json_find(&doc, i, "ph");
        n++;
        arrows += cule_json_equal(&doc, ph, "s") || cule_json_equal(&doc, ph, "f");
        names += cule_json_equal(&doc, ph, "M");
        if (cule_json_equal(&doc, ph, "X")) {
            size_t len;
            const char *ts = cule_json_raw(&doc, cule_json_find(&doc, i, "ts"), &len);
            spans++;
            assert_memory_equal(ts, "1763690000123456.789", len);
            assert_true(cule_json_equal(&doc, cule_json_find(&doc, i, "name"), "STOR/read"));
        }
    }
    assert_int_equal(spans, 2);
    assert_int_equal(arrows, 2);
    assert_int_equal(names, 2);
    assert_int_equal(n, 6);
    cule_json_release(&doc);
    cule_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traceparent),
        cmocka_unit_test(children),
        cmocka_unit_test(span_lines),
        cmocka_unit_test(chrome),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}

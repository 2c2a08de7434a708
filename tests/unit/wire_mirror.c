/* Frames as JSON beyond the golden vectors: random frames, large messages, depth, errors' columns, limits; and the
 * line for people. */
#include "base/pool.h"
#include "wire/decode.h"
#include "wire/mirror.h"
#include "wire/ops.h"
#include "wire/print.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint64_t seed = 88172645463325252;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Small numbers and zeros are as likely as any. */
static uint64_t some(void)
{
    uint64_t v = rnd();
    return v & 1 ? v >> (v >> 1 & 63) : 0;
}

static size_t some_payload(uint8_t *p, size_t max)
{
    static const char *const texts[] = {"{\"a\":1}", "[1,2.5,\"x\"]", "{\"a\": 1}", "plain", "caf\xc3\xa9 \x01",
                                        "[1e5]",     "{\"b\":[{}]}",  "\xff\xfe",   "",      "{\"k\":\"\\u0007\"}"};
    size_t n;
    switch (rnd() % 3) {
    case 0:
        n = rnd() % max;
        for (size_t i = 0; i < n; i++) {
            p[i] = (uint8_t)rnd();
        }
        return n;
    case 1:
        n = rnd() % max;
        for (size_t i = 0; i < n; i++) {
            p[i] = (uint8_t)(rnd() % 0x60 + 0x20);
        }
        return n;
    default: break;
    }
    const char *text = texts[rnd() % CULE_COUNT(texts)];
    n = strlen(text);
    memcpy(p, text, n);
    return n;
}

static void random_frame(struct cule_frame *f)
{
    cule_frame_init(f, (enum cule_kind)(1 + rnd() % CULE_KIND_LAST));
    f->priority = (uint8_t)(rnd() % 4);
    f->nfds = (uint8_t)(some() % 254);
    f->flags = (uint16_t)(some() & (0xff | CULE_FLAGS_KNOWN_HIGH) & ~(CULE_TRACE | CULE_NESTED));
    f->service = rnd() & 1 ? (uint32_t)CULE_S_BUS : (uint32_t)some();
    f->op = rnd() & 1 ? CULE_OP_BUS_DELIVER : (uint32_t)some();
    f->id = some();
    f->source = (uint32_t)some();
    f->deadline_ms = (uint32_t)some();
    f->arg0 = rnd() & 1 ? rnd() % 20 : some();
    f->arg1 = some();
    f->cap = some();
}

static void there_and_back(struct cule_mirror *m, const struct cule_frame *f, const uint8_t *payload)
{
    struct cule_buf bytes;
    struct cule_buf line;
    struct cule_buf back;
    struct cule_buf again;
    struct cule_frame g;
    struct cule_err err;
    cule_buf_init(&bytes, 0);
    cule_buf_init(&line, 0);
    cule_buf_init(&back, 0);
    cule_buf_init(&again, 0);
    assert_int_equal(cule_frame_add(&bytes, f, false, payload), 0);
    assert_int_equal(cule_mirror_write(m, f, payload, &line, &err), 0);
    if (cule_mirror_encode(m, (char *)cule_buf_data(&line), cule_buf_len(&line), &back, &err)) {
        fail_msg("%s in %.*s", err.text, (int)cule_buf_len(&line), (char *)cule_buf_data(&line));
    }
    assert_int_equal(cule_buf_len(&bytes), cule_buf_len(&back));
    assert_memory_equal(cule_buf_data(&bytes), cule_buf_data(&back), cule_buf_len(&back));
    assert_int_equal(cule_frame_decode(&g, false, cule_buf_data(&back), &err), 0);
    assert_int_equal(cule_mirror_write(m, &g, cule_buf_data(&back) + 64, &again, &err), 0);
    assert_int_equal(cule_buf_len(&line), cule_buf_len(&again));
    assert_memory_equal(cule_buf_data(&line), cule_buf_data(&again), cule_buf_len(&again));
    cule_buf_release(&bytes);
    cule_buf_release(&line);
    cule_buf_release(&back);
    cule_buf_release(&again);
}

static void random_frames(void **state)
{
    (void)state;
    static uint8_t payload[CULE_PAYLOAD_MAX];
    struct cule_mirror m;
    cule_mirror_init(&m);
    for (int i = 0; i < 30000; i++) {
        struct cule_frame f;
        random_frame(&f);
        size_t n = rnd() % 4 == 0 ? CULE_TRACE_SIZE : 0;
        if (n) {
            f.flags |= CULE_TRACE;
            for (size_t k = 0; k < n; k++) {
                payload[k] = (uint8_t)rnd();
            }
        }
        n += some_payload(payload + n, 100);
        f.length = (uint32_t)n;
        if (rnd() % 4 == 0) {
            /* The whole so far becomes the inside of another. */
            static uint8_t inner[1024];
            size_t used = 0;
            for (uint64_t k = rnd() % 3; k; k--) {
                used += cule_frame_write(&f, true, payload, inner + used);
            }
            memcpy(payload, inner, used);
            random_frame(&f);
            f.flags |= CULE_NESTED;
            f.length = (uint32_t)used;
        }
        there_and_back(&m, &f, payload);
    }
    cule_mirror_release(&m);
}

static void largest_frames(void **state)
{
    (void)state;
    static uint8_t payload[CULE_PAYLOAD_MAX];
    struct cule_mirror m;
    struct cule_frame f;
    cule_mirror_init(&m);
    cule_frame_init(&f, CULE_DATA);
    f.length = CULE_PAYLOAD_MAX;
    f.flags = CULE_CRC;
    for (int kind = 0; kind < 4; kind++) {
        memset(payload, kind == 0 ? 'x' : kind == 1 ? 0xff : kind == 2 ? 1 : '"', sizeof payload);
        there_and_back(&m, &f, payload);
    }
    /* An array of 32,767 elements. */
    memset(payload, ',', sizeof payload);
    for (size_t i = 1; i < sizeof payload; i += 2) {
        payload[i] = '7';
    }
    payload[0] = '[';
    payload[sizeof payload - 2] = '7';
    payload[sizeof payload - 1] = ']';
    there_and_back(&m, &f, payload);
    cule_mirror_release(&m);
}

/* A line may be a whole message; it is cut into frames. */
static void large_message(void **state)
{
    (void)state;
    struct cule_mirror m;
    struct cule_msg msg;
    struct cule_buf line;
    struct cule_buf bytes;
    struct cule_err err;
    size_t n = 200000;
    uint8_t *body = malloc(n);
    assert_non_null(body);
    memset(body, 'm', n);
    cule_mirror_init(&m);
    cule_buf_init(&line, 0);
    cule_buf_init(&bytes, 0);
    msg = (struct cule_msg){.body = body, .len = n};
    cule_frame_init(&msg.h, CULE_REPLY);
    assert_int_equal(cule_mirror_write_msg(&m, &msg, &line, &err), 0);
    assert_int_equal(cule_mirror_encode(&m, (char *)cule_buf_data(&line), cule_buf_len(&line), &bytes, &err), 0);
    assert_int_equal(cule_buf_len(&bytes), 4 * 64 + n);
    m.message_max = n - 1;
    cule_buf_clear(&bytes);
    assert_int_equal(cule_mirror_encode(&m, (char *)cule_buf_data(&line), cule_buf_len(&line), &bytes, &err),
                     CULE_ETOO_BIG);
    free(body);
    cule_buf_release(&line);
    cule_buf_release(&bytes);
    cule_mirror_release(&m);
}

/* Frames in frames, deeper than shown one by one, and JSON at its greatest depth in the innermost. */
static void depth(void **state)
{
    (void)state;
    static uint8_t payload[4096];
    static uint8_t next[4096];
    struct cule_mirror m;
    struct cule_frame f;
    size_t n = 120;
    cule_mirror_init(&m);
    memset(payload, '[', 60);
    memset(payload + 60, ']', 60);
    for (int level = 0; level < 7; level++) {
        cule_frame_init(&f, CULE_DATA);
        f.length = (uint32_t)n;
        f.flags = level ? CULE_NESTED : 0;
        there_and_back(&m, &f, payload);
        n = cule_frame_write(&f, true, payload, next);
        memcpy(payload, next, n);
    }
    cule_mirror_release(&m);
}

static void errors_name_the_column(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *says;
    } cases[] = {
        {"{\"kind\":\"data\",\"priority\":\"loud\"}", "column 27: 'priority' has no such name"},
        {"{\"kind\":\"data\",\"nfds\":999}", "column 23: 'nfds' must be a whole number of at most 253"},
        {"{\"kind\":\"data\",\"colour\":1}", "column 16: unknown key 'colour'"},
        {"{\"kind\":\"data\",\"flags\":[\"open\",\"x\"]}", "column 32: 'flags' has no such flag"},
        {"{\"kind\":\"data\",}", "column 16: a key in quotes is missing"},
    };
    struct cule_mirror m;
    cule_mirror_init(&m);
    for (size_t i = 0; i < CULE_COUNT(cases); i++) {
        struct cule_msg msg;
        struct cule_err err;
        assert_int_equal(cule_mirror_read(&m, cases[i].line, strlen(cases[i].line), &msg, &err), CULE_EMALFORMED);
        assert_string_equal(err.text, cases[i].says);
    }
    cule_mirror_release(&m);
}

static void nothing_added_on_failure(void **state)
{
    (void)state;
    struct cule_mirror m;
    struct cule_frame f;
    struct cule_buf out;
    struct cule_err err;
    cule_mirror_init(&m);
    cule_buf_init(&out, 2000);
    assert_int_equal(cule_buf_add(&out, "before", 6), 0);
    cule_frame_init(&f, CULE_DATA);
    static uint8_t payload[3000];
    f.length = sizeof payload;
    assert_int_equal(cule_mirror_write(&m, &f, payload, &out, &err), CULE_ELIMIT);
    assert_int_equal(cule_buf_len(&out), 6);
    f.flags = CULE_TRACE;
    f.length = 31;
    assert_int_equal(cule_mirror_write(&m, &f, payload, &out, &err), CULE_EMALFORMED);
    assert_int_equal(cule_buf_len(&out), 6);
    cule_buf_release(&out);
    cule_mirror_release(&m);
}

static const char *print(const struct cule_frame *f, const void *payload, size_t show)
{
    static char text[1024];
    struct cule_buf b;
    cule_buf_init(&b, 0);
    assert_int_equal(cule_print_frame(f, payload, show, &b), 0);
    assert_true(cule_buf_len(&b) < sizeof text);
    memcpy(text, cule_buf_data(&b), cule_buf_len(&b));
    text[cule_buf_len(&b)] = '\0';
    cule_buf_release(&b);
    return text;
}

static void printing(void **state)
{
    (void)state;
    struct cule_frame f;
    cule_frame_init(&f, CULE_REQUEST);
    f.service = (uint32_t)CULE_S_BUS;
    f.op = CULE_OP_BUS_PUBLISH;
    f.id = 5;
    f.priority = CULE_HIGH;
    f.flags = CULE_ACK_WANTED | CULE_OPEN;
    f.deadline_ms = 250;
    f.arg0 = 3;
    f.length = 15;
    assert_string_equal(print(&f, "a/bhello world!", 64),
                        "request BUS publish id 5 high [ack_wanted open] within 250 ms topic 'a/b' 12 bytes "
                        "'hello world!'");
    assert_string_equal(print(&f, "a/bhello world!", 5),
                        "request BUS publish id 5 high [ack_wanted open] within 250 ms topic 'a/b' 12 bytes 'hello' "
                        "...");
    cule_frame_init(&f, CULE_ERROR_FRAME);
    f.op = CULE_OP_ANY_ERROR;
    f.arg0 = 16;
    f.arg1 = 2;
    assert_string_equal(print(&f, NULL, 64), "error not_found (2)");
    cule_frame_init(&f, CULE_CREDIT);
    f.arg0 = 64;
    f.arg1 = 1024;
    assert_string_equal(print(&f, NULL, 64), "credit 64 frames 1024 bytes");
    cule_frame_init(&f, CULE_DATA);
    f.length = 4;
    assert_string_equal(print(&f, "\xff\x00\x01\x02", 64), "data 4 bytes ff000102");
    f.length = 6;
    assert_string_equal(print(&f, "abc\xc3\xa9z", 4), "data 6 bytes 'abc' ...");
    /* Every value of every field prints. */
    uint8_t zeros[64] = {0};
    for (int i = 0; i < 20000; i++) {
        random_frame(&f);
        f.length = 64;
        assert_true(strlen(print(&f, zeros, 64)) > 3);
    }
}

/* Nothing that a terminal would act on gets through, whatever the bytes. */
static void terminal_safe(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x1b[31m", "\xc2\x9b", "\x7f", "\r", "\n", "\b", "\xe2\x80\xae", "\xff\x9b"};
    struct cule_buf b;
    cule_buf_init(&b, 0);
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        assert_int_equal(cule_print_safe(bad[i], strlen(bad[i]), &b), 0);
    }
    assert_int_equal(cule_print_safe("caf\xc3\xa9 \\ \0", 9, &b), 0);
    assert_int_equal(cule_buf_addc(&b, '\0'), 0);
    assert_string_equal((char *)cule_buf_data(&b), "\\x1b[31m\\u{9b}\\x7f\\r\\n\\x08\\u{202e}\\xff\\x9b"
                                                   "caf\xc3\xa9 \\\\ \\x00");
    cule_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_frames),
        cmocka_unit_test(largest_frames),
        cmocka_unit_test(large_message),
        cmocka_unit_test(depth),
        cmocka_unit_test(errors_name_the_column),
        cmocka_unit_test(nothing_added_on_failure),
        cmocka_unit_test(printing),
        cmocka_unit_test(terminal_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

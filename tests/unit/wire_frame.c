/* The header, the CRC, and the tables of names. */
#include "wire/crc32c.h"
#include "wire/frame.h"
#include "wire/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void crc_known(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0};
    uint8_t ones[32];
    memset(ones, 0xff, sizeof ones);
    /* RFC 3720 B.4 and the usual check value. */
    assert_int_equal(cule_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(cule_crc32c(0, zeros, 32), 0x8a9136aa);
    assert_int_equal(cule_crc32c(0, ones, 32), 0x62a8ab43);
    assert_int_equal(cule_crc32c_portable(0, "123456789", 9), 0xe3069283);
    assert_int_equal(cule_crc32c(0, NULL, 0), 0);
    assert_non_null(cule_crc32c_name());
}

static void crc_same_both_ways(void **state)
{
    (void)state;
    enum { N = 20000 };
    uint8_t *b = malloc(N);
    assert_non_null(b);
    uint32_t x = 1;
    for (int i = 0; i < N; i++) {
        x = x * 1664525 + 1013904223;
        b[i] = (uint8_t)(x >> 24);
    }
    for (size_t n = 0; n < N; n += 1 + n / 7) {
        for (size_t at = 0; at < 9; at++) {
            size_t m = n + at > N ? N - at : n;
            uint32_t want = cule_crc32c_portable(7, b + at, m);
            assert_int_equal(cule_crc32c(7, b + at, m), want);
            /* In two steps at any place. */
            size_t cut = m / 3;
            assert_int_equal(cule_crc32c(cule_crc32c(7, b + at, cut), b + at + cut, m - cut), want);
        }
    }
    for (size_t at = 0; at < 1000; at++) {
        uint8_t h[64];
        memcpy(h, b + at, 64);
        memset(h + 28, 0, 4);
        uint32_t want = cule_crc32c_portable(0, h, 64);
        memcpy(h + 28, b, 4);
        assert_int_equal(cule_crc32c_header(h), want);
    }
    free(b);
}

static struct cule_frame sample(void)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_REQUEST);
    f.priority = CULE_HIGH;
    f.nfds = 3;
    f.flags = CULE_OPEN | CULE_ACK_WANTED | CULE_DELEGATE;
    f.service = (uint32_t)CULE_S_BUS;
    f.op = CULE_OP_BUS_PUBLISH;
    f.id = 0x1122334455667788;
    f.length = 65536;
    f.source = 0xdeadbeef;
    f.deadline_ms = 250;
    f.arg0 = UINT64_MAX;
    f.arg1 = 1;
    f.cap = cule_cap_make(0x01020304, 0x0506, 0x0708);
    return f;
}

static void layout(void **state)
{
    (void)state;
    struct cule_frame f = sample();
    uint8_t w[64];
    cule_frame_encode(&f, false, w);
    static const uint8_t want[64] = {
        'C',  'U',  1,    2,    1,    3,    0x04, 0x12, 'B',  'U',  'S',  0,    0x00, 0x03, 0,    0,
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0,    0,    1,    0,    0,    0,    0,    0,
        0xef, 0xbe, 0xad, 0xde, 250,  0,    0,    0,    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        1,    0,    0,    0,    0,    0,    0,    0,    4,    3,    2,    1,    6,    5,    8,    7,
    };
    assert_memory_equal(w, want, 28);
    assert_memory_equal(w + 32, want + 32, 32);
    assert_int_equal(cule_get32(w + 28), cule_crc32c_portable(0, want, 64));
}

static void there_and_back(void **state)
{
    (void)state;
    struct cule_frame f = sample();
    struct cule_frame g;
    struct cule_err err;
    uint8_t w[64];
    f.check = 12345; /* ignored and left alone */
    f.flags |= CULE_PHASE;
    cule_frame_encode(&f, false, w);
    assert_int_equal(f.check, 12345);
    assert_int_equal(cule_frame_decode(&g, false, w, &err), 0);
    assert_int_equal(g.flags, f.flags & ~CULE_PHASE);
    g.flags = f.flags;
    g.check = f.check;
    assert_memory_equal(&f, &g, sizeof f);
    assert_int_equal(cule_frame_decode(&g, true, w, &err), CULE_EMALFORMED);
    cule_frame_encode(&f, true, w);
    assert_memory_equal(w, "cu", 2);
    assert_int_equal(cule_frame_decode(&g, true, w, &err), 0);
    assert_int_equal(cule_frame_decode(&g, false, w, &err), CULE_EMALFORMED);
}

/* Any single flipped bit is found, and the code tells what kind of damage it is. */
static void flipped_bits(void **state)
{
    (void)state;
    struct cule_frame f = sample();
    struct cule_frame g;
    struct cule_err err;
    uint8_t w[64];
    cule_frame_encode(&f, false, w);
    for (int bit = 0; bit < 512; bit++) {
        w[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int want = bit < 16 ? CULE_EMALFORMED : bit < 24 ? CULE_EVERSION : CULE_ECHECK;
        assert_int_equal(cule_frame_decode(&g, false, w, &err), want);
        assert_int_equal(err.code, want);
        assert_true(err.text[0]);
        w[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static int refused(const struct cule_frame *f, const char *field)
{
    struct cule_err err;
    struct cule_frame g;
    uint8_t w[64];
    bool phase = f->flags & CULE_PHASE;
    cule_frame_encode(f, false, w);
    if (phase) {
        w[7] |= 0x80;
        cule_put32(w + 28, cule_crc32c_header(w));
    }
    int rc = cule_frame_decode(&g, false, w, &err);
    if (rc) {
        assert_non_null(strstr(err.text, field));
    }
    assert_int_equal(cule_frame_validate(f, &err), rc);
    return rc;
}

static void fields(void **state)
{
    (void)state;
    struct cule_frame f;
#define WITH(field, value) (f = sample(), f.field = (value), refused(&f, #field))
    assert_int_equal(WITH(kind, 0), CULE_EMALFORMED);
    assert_int_equal(WITH(kind, 13), CULE_EMALFORMED);
    assert_int_equal(WITH(kind, 12), 0);
    assert_int_equal(WITH(kind, 255), CULE_EMALFORMED);
    assert_int_equal(WITH(priority, 3), 0);
    assert_int_equal(WITH(priority, 4), CULE_EMALFORMED);
    assert_int_equal(WITH(nfds, 253), 0);
    assert_int_equal(WITH(nfds, 254), CULE_EMALFORMED);
    assert_int_equal(WITH(length, 65537), CULE_EMALFORMED);
    assert_int_equal(WITH(length, UINT32_MAX), CULE_EMALFORMED);
    assert_int_equal(WITH(version, 2), CULE_EVERSION);
    assert_int_equal(WITH(flags, 0x00ff), 0); /* unknown low bits are ignored */
    assert_int_equal(WITH(flags, 0x3f00), 0); /* all known high bits */
    assert_int_equal(WITH(flags, 0x4000), CULE_EMALFORMED);
    assert_int_equal(WITH(flags, CULE_PHASE), CULE_EMALFORMED);
#undef WITH
}

static void writing(void **state)
{
    (void)state;
    struct cule_frame f;
    uint8_t out[64 + 16 + 4];
    cule_frame_init(&f, CULE_DATA);
    f.length = 9;
    f.flags = CULE_CRC;
    memset(out, 0xaa, sizeof out);
    assert_int_equal(cule_frame_write(&f, false, "123456789", out), 84);
    assert_memory_equal(out + 64, "123456789\0\0\0\0\0\0\0", 16);
    assert_int_equal(cule_get32(out + 80), cule_crc32c(0, out + 64, 16));
    f.flags = 0;
    assert_int_equal(cule_frame_write(&f, false, "123456789", out), 80);
    f.length = 0;
    assert_int_equal(cule_frame_write(&f, false, NULL, out), 64);
    f.flags = CULE_CRC;
    assert_int_equal(cule_frame_write(&f, false, NULL, out), 68);
    assert_int_equal(cule_get32(out + 64), 0);
}

static void services(void **state)
{
    (void)state;
    uint32_t s;
    char text[CULE_SERVICE_TEXT];
    assert_int_equal(cule_service_parse("bus", &s), 0);
    assert_int_equal(s, CULE_FOURCC('B', 'U', 'S', 0));
    assert_string_equal(cule_service_text(s, text), "BUS");
    assert_int_equal(cule_service_parse("BUS", &s), 0);
    assert_int_equal(s, CULE_FOURCC('B', 'U', 'S', 0));
    assert_int_equal(cule_service_parse("my", &s), 0);
    assert_int_equal(s, CULE_FOURCC('m', 'y', 0, 0));
    assert_int_equal(cule_service_parse("toolong", &s), CULE_EMALFORMED);
    assert_int_equal(cule_service_parse("a\nb", &s), CULE_EMALFORMED);
    assert_int_equal(cule_service_parse("\\x4", &s), CULE_EMALFORMED);
    /* A user's "bus" is not the bus. */
    s = CULE_FOURCC('b', 'u', 's', 0);
    assert_string_equal(cule_service_text(s, text), "\\x62us");
    uint32_t x = 99;
    for (int i = 0; i < 200000; i++) {
        uint32_t back;
        x = x * 1664525 + 1013904223;
        s = i & 1 ? x : x & (i & 2 ? 0x7f7f7f7f : 0x00ffff00);
        assert_int_equal(cule_service_parse(cule_service_text(s, text), &back), 0);
        assert_int_equal(back, s);
    }
    for (const struct cule_service *t = cule_services; t->name; t++) {
        assert_int_equal(cule_service_parse(t->name, &s), 0);
        assert_int_equal(s, t->service);
        assert_int_equal(cule_service_parse(cule_service_text(s, text), &x), 0);
        assert_int_equal(x, s);
    }
}

static void ops(void **state)
{
    (void)state;
    uint32_t op;
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        assert_int_equal(cule_op_parse(o->service, o->name, &op), 0);
        assert_int_equal(op, o->op);
        assert_string_equal(cule_op_name(o->service, op), o->name);
    }
    assert_int_equal(cule_op_parse((uint32_t)CULE_S_BUS, "ok", &op), 0);
    assert_int_equal(op, 0x8000);
    assert_int_equal(cule_op_parse((uint32_t)CULE_S_STOR, "publish", &op), CULE_EMALFORMED);
    assert_int_equal(cule_op_parse(0, "0x4001", &op), 0);
    assert_int_equal(op, 0x4001);
    assert_int_equal(cule_op_parse(0, "4294967295", &op), 0);
    assert_int_equal(op, UINT32_MAX);
    assert_int_equal(cule_op_parse(0, "4294967296", &op), CULE_EMALFORMED);
    assert_int_equal(cule_op_parse(0, "0x", &op), CULE_EMALFORMED);
    assert_int_equal(cule_op_parse(0, "", &op), CULE_EMALFORMED);
    assert_int_equal(cule_op_parse(0, "12x", &op), CULE_EMALFORMED);
    assert_null(cule_op_name((uint32_t)CULE_S_STOR, 0x7777));
}

static void kinds(void **state)
{
    (void)state;
    for (unsigned k = 1; k <= CULE_KIND_LAST; k++) {
        assert_int_equal(cule_kind_parse(cule_kind_name(k)), k);
    }
    assert_null(cule_kind_name(0));
    assert_null(cule_kind_name(13));
    assert_int_equal(cule_kind_parse("nonsense"), CULE_EMALFORMED);
    assert_string_equal(cule_kind_name(CULE_ERROR_FRAME), "error");
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        assert_int_equal(cule_priority_parse(cule_priority_name(p)), p);
    }
    assert_null(cule_priority_name(4));
    assert_int_equal(cule_priority_parse("3"), 3);
    assert_int_equal(cule_priority_parse("4"), CULE_EMALFORMED);
    assert_int_equal(cule_priority_parse("low"), CULE_LOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known),      cmocka_unit_test(crc_same_both_ways), cmocka_unit_test(layout),
        cmocka_unit_test(there_and_back), cmocka_unit_test(flipped_bits),       cmocka_unit_test(fields),
        cmocka_unit_test(writing),        cmocka_unit_test(services),           cmocka_unit_test(ops),
        cmocka_unit_test(kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

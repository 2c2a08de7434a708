/* Messages from frames and back: limits, interleaving, refusals, descriptors. */
#include "base/pool.h"
#include "wire/decode.h"
#include "wire/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static int dropped[64];
static unsigned ndropped;

static void drop(void *ctx, const int *fds, unsigned nfds)
{
    (void)ctx;
    for (unsigned i = 0; i < nfds; i++) {
        dropped[ndropped++] = fds[i];
    }
}

static struct cule_frame frame(unsigned kind, uint64_t id, uint16_t flags, size_t n)
{
    struct cule_frame f;
    cule_frame_init(&f, kind);
    f.id = id;
    f.flags = flags;
    f.length = (uint32_t)n;
    return f;
}

static struct cule_assembler fresh(void)
{
    struct cule_assembler a;
    cule_assembler_init(&a);
    a.drop_fds = drop;
    ndropped = 0;
    return a;
}

static int push(struct cule_assembler *a, unsigned kind, uint64_t id, uint16_t flags, const char *text,
                struct cule_msg *m)
{
    struct cule_frame f = frame(kind, id, flags, strlen(text));
    struct cule_err err;
    return cule_assembler_push(a, &f, (const uint8_t *)text, NULL, 0, m, &err);
}

static void single_passes_through(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    const char *text = "hello";
    struct cule_frame f = frame(CULE_REQUEST, 1, CULE_OPEN, 5);
    int fds[2] = {7, 8};
    assert_int_equal(cule_assembler_push(&a, &f, (const uint8_t *)text, fds, 2, &m, NULL), 1);
    assert_ptr_equal(m.body, text);
    assert_ptr_equal(m.fds, fds);
    assert_int_equal(m.nfds, 2);
    assert_int_equal(m.len, 5);
    assert_null(m.trace);
    assert_int_equal(m.h.flags, CULE_OPEN);
    struct cule_buf none;
    assert_false(cule_assembler_keep(&a, &none));
    cule_assembler_release(&a);
    assert_int_equal(ndropped, 0);
}

static void interleaved(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    struct cule_pool_stats before;
    struct cule_pool_stats after;
    cule_pool_stats(&before);
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE | CULE_OPEN, "ab", &m), 0);
    assert_int_equal(push(&a, CULE_REPLY, 1, CULE_MORE, "12", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 3, CULE_MORE, "xy", &m), 0);
    assert_int_equal(a.open, 3);
    assert_int_equal(a.total, 6);
    assert_int_equal(push(&a, CULE_REQUEST, 5, 0, "single", &m), 1);
    assert_int_equal(m.len, 6);
    assert_int_equal(push(&a, CULE_REPLY, 1, CULE_OPEN, "34", &m), 1);
    assert_memory_equal(m.body, "1234", 4);
    assert_int_equal(m.h.kind, CULE_REPLY);
    assert_int_equal(m.h.length, 4);
    assert_int_equal(m.h.flags, CULE_OPEN); /* the last frame's */
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "", &m), 1);
    assert_memory_equal(m.body, "ab", 2);
    assert_int_equal(m.h.flags, 0);
    assert_int_equal(push(&a, CULE_REQUEST, 3, CULE_MORE, "z", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 3, 0, "!", &m), 1);
    assert_memory_equal(m.body, "xyz!", 4);
    struct cule_buf mine;
    assert_true(cule_assembler_keep(&a, &mine));
    assert_int_equal(a.open, 0);
    assert_int_equal(a.total, 0);
    cule_assembler_release(&a);
    assert_memory_equal(m.body, "xyz!", 4);
    cule_buf_release(&mine);
    cule_pool_stats(&after);
    assert_int_equal(before.held_bytes, after.held_bytes);
}

static void too_big_is_refused_once(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    a.message_max = 5;
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "abc", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "def", &m), CULE_ETOO_BIG);
    assert_int_equal(m.h.id, 1);
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "ghi", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 3, 0, "fine", &m), 1);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "jkl", &m), 0);
    /* That was its last frame: the id is free again. */
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "new", &m), 1);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "single", &m), CULE_ETOO_BIG);
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "abc", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "def", &m), CULE_ETOO_BIG);
    assert_int_equal(a.count, 0);
    assert_int_equal(a.refused, 3);
    assert_int_equal(a.total, 0);
    cule_assembler_release(&a);
}

static void limits(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    a.open_max = 2;
    a.total_max = 10;
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "abc", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 3, CULE_MORE, "abc", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 5, CULE_MORE, "abc", &m), CULE_ELIMIT);
    assert_int_equal(push(&a, CULE_REQUEST, 5, CULE_MORE, "def", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 7, CULE_MORE, "abc", &m), CULE_ELIMIT);
    assert_int_equal(push(&a, CULE_REQUEST, 9, CULE_MORE, "abc", &m), CULE_EREFUSED);
    assert_int_equal(push(&a, CULE_REQUEST, 3, CULE_MORE, "12345", &m), CULE_ELIMIT); /* 11 bytes in all */
    assert_int_equal(a.total, 3);
    assert_int_equal(a.open, 1);
    assert_int_equal(push(&a, CULE_REQUEST, 5, 0, "ghi", &m), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "def", &m), 1);
    assert_int_equal(m.len, 6);
    assert_int_equal(push(&a, CULE_REQUEST, 5, CULE_MORE, "abc", &m), 0);
    assert_int_equal(cule_assembler_abort(&a, 0, 5), 1);
    assert_int_equal(cule_assembler_abort(&a, 0, 5), 0);
    assert_int_equal(a.total, 0);
    cule_assembler_release(&a);
}

/* A bad body anywhere in a message throws all of it away, and its id is free again behind its last frame. */
static void spoiled(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    struct cule_frame more = frame(CULE_REQUEST, 1, CULE_MORE, 0);
    struct cule_frame last = frame(CULE_REQUEST, 1, 0, 0);
    assert_false(cule_assembler_has(&a, &last));
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "ab", &m), 0);
    assert_true(cule_assembler_has(&a, &last));
    assert_int_equal(cule_assembler_spoil(&a, &more), 1);
    assert_int_equal(a.total, 0);
    assert_int_equal(cule_assembler_spoil(&a, &more), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "cd", &m), 0);
    assert_false(cule_assembler_has(&a, &last));
    /* The first frame, the last one, and one that is a message by itself. */
    assert_int_equal(cule_assembler_spoil(&a, &more), 1);
    assert_int_equal(push(&a, CULE_REQUEST, 1, CULE_MORE, "ab", &m), 0);
    assert_int_equal(cule_assembler_spoil(&a, &last), 0);
    assert_int_equal(cule_assembler_spoil(&a, &last), 1);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "fine", &m), 1);
    assert_int_equal(a.refused, 3);
    a.open_max = 1;
    for (uint64_t id = 0; id < 2; id++) {
        more.id = id;
        assert_int_equal(cule_assembler_spoil(&a, &more), 1);
    }
    more.id = 2;
    assert_int_equal(cule_assembler_spoil(&a, &more), CULE_EREFUSED);
    cule_assembler_release(&a);
}

static void descriptors(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    int fds[3] = {10, 11, 12};
    struct cule_frame f = frame(CULE_REQUEST, 1, CULE_MORE, 2);
    assert_int_equal(cule_assembler_push(&a, &f, (const uint8_t *)"ab", fds, 3, &m, NULL), 0);
    fds[0] = -1;
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "cd", &m), 1);
    assert_int_equal(m.nfds, 3);
    assert_int_equal(m.fds[0], 10);
    assert_int_equal(m.fds[2], 12);
    assert_int_equal(ndropped, 0); /* the receiver's now */
    /* Later frames may carry none; the whole message is given up, descriptors too. */
    fds[0] = 20;
    assert_int_equal(cule_assembler_push(&a, &f, (const uint8_t *)"ab", fds, 1, &m, NULL), 0);
    fds[0] = 21;
    assert_int_equal(cule_assembler_push(&a, &f, (const uint8_t *)"cd", fds, 1, &m, NULL), CULE_EMALFORMED);
    assert_int_equal(ndropped, 2);
    assert_int_equal(dropped[0], 21);
    assert_int_equal(dropped[1], 20);
    fds[0] = 22;
    f.id = 2;
    assert_int_equal(cule_assembler_push(&a, &f, (const uint8_t *)"ab", fds, 1, &m, NULL), 0);
    cule_assembler_release(&a);
    assert_int_equal(ndropped, 3);
    assert_int_equal(dropped[2], 22);
}

static void trace_prefix(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    uint8_t p[40];
    memset(p, 't', 32);
    memset(p + 32, 'b', 8);
    struct cule_frame f = frame(CULE_REQUEST, 1, CULE_TRACE | CULE_MORE, 40);
    assert_int_equal(cule_assembler_push(&a, &f, p, NULL, 0, &m, NULL), 0);
    assert_int_equal(push(&a, CULE_REQUEST, 1, 0, "more", &m), 1);
    assert_memory_equal(m.trace, p, 32);
    assert_memory_equal(m.body, "bbbbbbbbmore", 12);
    assert_int_equal(m.len, 12);
    assert_true(m.h.flags & CULE_TRACE);
    f.flags = CULE_TRACE;
    assert_int_equal(cule_assembler_push(&a, &f, p, NULL, 0, &m, NULL), 1);
    assert_ptr_equal(m.trace, p);
    assert_ptr_equal(m.body, p + 32);
    f.length = 31;
    assert_int_equal(cule_assembler_push(&a, &f, p, NULL, 0, &m, NULL), CULE_EMALFORMED);
    cule_assembler_release(&a);
}

/* Cutting and putting together are each other's reverse, at the sizes around every boundary. */
static void cut_and_join(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 8, 65503, 65504, 65505, 65535, 65536, 65537, 131040, 131072, 300000};
    static uint8_t body[300000];
    uint8_t trace[32] = "0123456789abcdef0123456789abcde";
    for (size_t i = 0; i < sizeof body; i++) {
        body[i] = (uint8_t)(i * 31 >> 3);
    }
    for (size_t i = 0; i < CULE_COUNT(sizes) * 4; i++) {
        bool traced = i & 1;
        struct cule_msg m = {.body = body, .len = sizes[i / 4], .trace = traced ? trace : NULL, .nfds = 2};
        m.h = frame(CULE_REPLY, 9, i & 2 ? CULE_OPEN | CULE_CRC : 0, 0);
        struct cule_buf b;
        cule_buf_init(&b, 0);
        assert_int_equal(cule_msg_add(&b, &m), 0);
        struct cule_assembler a = fresh();
        struct cule_decoder d;
        struct cule_frame f;
        const uint8_t *payload;
        struct cule_err err;
        struct cule_msg got;
        int fds[2] = {1, 2};
        int rc;
        int whole = 0;
        cule_decoder_init(&d, CULE_DECODE_STRICT);
        cule_decoder_feed(&d, cule_buf_data(&b), cule_buf_len(&b));
        while ((rc = cule_decoder_next(&d, &f, &payload, &err)) == CULE_DECODED_FRAME) {
            assert_int_equal(f.nfds, d.frames == 1 ? 2 : 0);
            whole = cule_assembler_push(&a, &f, payload, fds, f.nfds, &got, &err);
            assert_true(whole >= 0);
            assert_true(whole == 1 || (f.flags & CULE_MORE));
        }
        assert_int_equal(rc, 0);
        assert_int_equal(whole, 1);
        assert_int_equal(d.frames, CULE_MAX(1, (m.len + (traced ? 32 : 0) + 65535) / 65536));
        assert_int_equal(got.len, m.len);
        assert_int_equal(got.nfds, 2);
        assert_memory_equal(got.body, body, m.len);
        assert_int_equal(got.h.flags, m.h.flags | (traced ? CULE_TRACE : 0));
        assert_true(traced ? memcmp(got.trace, trace, 32) == 0 : got.trace == NULL);
        cule_assembler_release(&a);
        cule_decoder_release(&d);
        cule_buf_release(&b);
    }
}

static void many_open_at_once(void **state)
{
    (void)state;
    struct cule_assembler a = fresh();
    struct cule_msg m;
    for (uint64_t id = 0; id < 256; id++) {
        assert_int_equal(push(&a, CULE_DATA, id, CULE_MORE, "x", &m), 0);
    }
    assert_int_equal(push(&a, CULE_DATA, 300, CULE_MORE, "x", &m), CULE_ELIMIT);
    for (uint64_t id = 0; id < 256; id++) {
        assert_int_equal(push(&a, CULE_DATA, 255 - id, 0, "y", &m), 1);
        assert_int_equal(m.h.id, 255 - id);
        assert_memory_equal(m.body, "xy", 2);
    }
    cule_assembler_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_passes_through),
        cmocka_unit_test(interleaved),
        cmocka_unit_test(too_big_is_refused_once),
        cmocka_unit_test(limits),
        cmocka_unit_test(spoiled),
        cmocka_unit_test(descriptors),
        cmocka_unit_test(trace_prefix),
        cmocka_unit_test(cut_and_join),
        cmocka_unit_test(many_open_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

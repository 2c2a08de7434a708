/* The stream decoder: any split, bad headers, bad bodies, gaps, and what it holds in between. */
#include "base/pool.h"
#include "wire/crc32c.h"
#include "wire/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { STREAM_MAX = 400000, LOG_MAX = 65536 };
static uint8_t stream[STREAM_MAX];
static size_t stream_len;

static void put(unsigned kind, uint64_t id, uint16_t flags, size_t length)
{
    static uint8_t payload[CULE_PAYLOAD_MAX];
    struct cule_frame f;
    cule_frame_init(&f, kind);
    f.id = id;
    f.flags = flags;
    f.length = (uint32_t)length;
    for (size_t i = 0; i < length; i++) {
        payload[i] = (uint8_t)(i * 7 + id);
    }
    stream_len += cule_frame_write(&f, false, payload, stream + stream_len);
}

static void put_bytes(const char *p, size_t n)
{
    memcpy(stream + stream_len, p, n);
    stream_len += n;
}

/* Everything a decoder says about stream[], in text, fed in pieces of at most `piece` bytes (0: random ones). */
static const char *tell(enum cule_decode_mode mode, size_t piece)
{
    static char log[LOG_MAX];
    size_t at = 0;
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    size_t used = 0;
    int rc = 0;
    bool ended = false;
    uint32_t x = 5;
    cule_decoder_init(&d, mode);
    log[0] = '\0';
    while (!ended) {
        x = x * 1664525 + 1013904223;
        size_t n = CULE_MIN(piece ? piece : (x >> 16) % 300, stream_len - used);
        if (used == stream_len) {
            int end = cule_decoder_end(&d, &err);
            if (end) {
                at += (size_t)snprintf(log + at, LOG_MAX - at, "end %s; ", cule_err_name(end));
                break;
            }
            ended = true;
        } else {
            /* A copy of its own, so that a look beyond the chunk shows under the sanitizer. */
            uint8_t *chunk = malloc(n ? n : 1);
            assert_non_null(chunk);
            memcpy(chunk, stream + used, n);
            cule_decoder_feed(&d, chunk, n);
            used += n;
            while ((rc = cule_decoder_next(&d, &f, &payload, &err)) > 0) {
                if (rc == CULE_DECODED_GAP) {
                    at += (size_t)snprintf(log + at, LOG_MAX - at, "gap %d@%d; ", (int)d.gap_bytes, (int)d.gap_offset);
                } else {
                    at += (size_t)snprintf(log + at, LOG_MAX - at, "%s %d:%u:%08x; ",
                                           rc == CULE_DECODED_FRAME ? "frame" : "bad", (int)f.id, f.length,
                                           cule_crc32c(0, payload, f.length));
                }
                assert_true(at < LOG_MAX - 100);
            }
            free(chunk);
            if (rc < 0) {
                at += (size_t)snprintf(log + at, LOG_MAX - at, "error %s; ", cule_err_name(rc));
                assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), rc);
                break;
            }
            continue;
        }
        while ((rc = cule_decoder_next(&d, &f, &payload, &err)) > 0) {
            at += rc == CULE_DECODED_GAP
                      ? (size_t)snprintf(log + at, LOG_MAX - at, "gap %d@%d; ", (int)d.gap_bytes, (int)d.gap_offset)
                      : (size_t)snprintf(log + at, LOG_MAX - at, "%s %d:%u:%08x; ",
                                         rc == CULE_DECODED_FRAME ? "frame" : "bad", (int)f.id, f.length,
                                         cule_crc32c(0, payload, f.length));
        }
        at += (size_t)snprintf(log + at, LOG_MAX - at, "end %s; ", rc ? cule_err_name(rc) : "clean");
    }
    cule_decoder_release(&d);
    return log;
}

/* The same in every split; returns what was told. */
static const char *tell_all(enum cule_decode_mode mode)
{
    static char whole[LOG_MAX];
    static const size_t pieces[] = {0, 1, 2, 3, 7, 8, 63, 64, 65, 100, 127, 128, 129, 1000, 4096, 65536};
    snprintf(whole, sizeof whole, "%s", tell(mode, STREAM_MAX));
    for (size_t i = 0; i < CULE_COUNT(pieces); i++) {
        assert_string_equal(tell(mode, pieces[i]), whole);
    }
    return whole;
}

static void any_split(void **state)
{
    (void)state;
    stream_len = 0;
    for (unsigned i = 0; i < 40; i++) {
        put(CULE_EVENT, i, i % 3 ? 0 : CULE_CRC, i % 5 ? i * 11 : 0);
    }
    put(CULE_DATA, 100, CULE_CRC, 65536);
    put(CULE_DATA, 101, 0, 65529);
    const char *text = tell_all(CULE_DECODE_STRICT);
    assert_non_null(strstr(text, "frame 100:65536:"));
    assert_non_null(strstr(text, "frame 39:429:"));
    assert_non_null(strstr(text, "end clean; "));
    assert_null(strstr(text, "bad"));
    tell_all(CULE_DECODE_RESYNC);
}

static void cut_anywhere(void **state)
{
    (void)state;
    stream_len = 0;
    put(CULE_EVENT, 1, CULE_CRC, 5);
    put(CULE_EVENT, 2, 0, 12);
    size_t first = 64 + 8 + 4;
    size_t all = stream_len;
    for (size_t n = 0; n <= all; n++) {
        stream_len = n;
        bool clean = n == 0 || n == first || n == all;
        for (int mode = 0; mode < 2; mode++) {
            const char *text = tell(mode, 10);
            assert_true(clean ? strstr(text, "end clean") != NULL : strstr(text, "end truncated") != NULL);
            assert_true((n >= first) == (strstr(text, "frame 1:5:") != NULL));
        }
    }
}

static void truncation_says_what_is_missing(void **state)
{
    (void)state;
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    stream_len = 0;
    put(CULE_EVENT, 1, 0, 100);
    cule_decoder_init(&d, CULE_DECODE_STRICT);
    cule_decoder_feed(&d, stream, 64 + 40);
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), 0);
    assert_int_equal(cule_decoder_want(&d), 64);
    assert_int_equal(cule_decoder_end(&d, &err), CULE_ETRUNCATED);
    assert_non_null(strstr(err.text, "64 bytes short of the frame at byte 0"));
    cule_decoder_release(&d);
}

static void bad_header_ends_a_socket(void **state)
{
    (void)state;
    stream_len = 0;
    put(CULE_EVENT, 1, 0, 8);
    put(CULE_EVENT, 2, 0, 8);
    stream[64 + 8 + 20] ^= 1;
    assert_non_null(strstr(tell_all(CULE_DECODE_STRICT), "error check"));
    /* What is no frame at all is told from the first byte on, not when 64 have come. */
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    cule_decoder_init(&d, CULE_DECODE_STRICT);
    cule_decoder_feed(&d, "GET / HTTP/1.1\r\n", 16);
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), CULE_EMALFORMED);
    assert_non_null(strstr(err.text, "at byte 0 of the stream"));
    assert_null(d.part);
    cule_decoder_release(&d);
}

static void bad_bodies(void **state)
{
    (void)state;
    stream_len = 0;
    put(CULE_DATA, 1, CULE_CRC, 16);
    stream[70] ^= 4;
    put(CULE_DATA, 2, 0, 5);
    stream[stream_len - 1] = 1; /* padding */
    put(CULE_DATA, 3, CULE_TRACE, 31);
    put(CULE_DATA, 4, CULE_TRACE | CULE_CRC, 32);
    put(CULE_DATA, 5, CULE_CRC, 0);
    stream[stream_len - 2] = 9;
    put(CULE_DATA, 6, CULE_CRC, 3);
    const char *text = tell_all(CULE_DECODE_STRICT);
    assert_non_null(strstr(text, "bad 1:16:"));
    assert_non_null(strstr(text, "bad 2:5:"));
    assert_non_null(strstr(text, "bad 3:31:"));
    assert_non_null(strstr(text, "frame 4:32:"));
    assert_non_null(strstr(text, "bad 5:0:"));
    assert_non_null(strstr(text, "frame 6:3:"));
    assert_non_null(strstr(text, "end clean"));
}

static void garbage_between(void **state)
{
    (void)state;
    stream_len = 0;
    put_bytes("CUCUCUhello", 11);
    put(CULE_EVENT, 1, 0, 8);
    put(CULE_EVENT, 2, 0, 20);
    put_bytes("C", 1);
    put(CULE_EVENT, 3, CULE_CRC, 65536);
    put(CULE_EVENT, 4, 0, 0);
    put_bytes("CU\1\2 not a header but long enough to be taken for one if nobody looks closely..", 80);
    put(CULE_EVENT, 5, 0, 1);
    put_bytes("tail", 4);
    const char *text = tell_all(CULE_DECODE_RESYNC);
    assert_int_equal(strncmp(text, "gap 11@0; frame 1:8:", 20), 0);
    assert_non_null(strstr(text, "gap 1@"));
    assert_non_null(strstr(text, "frame 4:0:"));
    assert_non_null(strstr(text, "gap 156@"));
    /* The last frame is followed by garbage: nothing confirms it, so it is skipped together with that. */
    assert_null(strstr(text, "frame 5:"));
    assert_non_null(strstr(text, "end clean"));
    /* Followed by the end it holds. */
    stream_len -= 4;
    text = tell_all(CULE_DECODE_RESYNC);
    assert_non_null(strstr(text, "gap 80@"));
    assert_non_null(strstr(text, "frame 5:1:"));
}

/* A header that holds but stands inside another's payload is no place to go on from: its successor does not hold. */
static void successor_must_hold(void **state)
{
    (void)state;
    struct cule_frame f;
    uint8_t fake[64];
    stream_len = 0;
    put_bytes("xx", 2);
    cule_frame_init(&f, CULE_EVENT);
    f.id = 7777;
    f.length = 4008;
    cule_frame_encode(&f, false, fake);
    put_bytes((char *)fake, 64);
    for (int i = 0; i < 100; i++) {
        put(CULE_EVENT, (uint64_t)i + 1, 0, 16);
    }
    const char *text = tell_all(CULE_DECODE_RESYNC);
    assert_int_equal(strncmp(text, "gap 66@0; frame 1:16:", 21), 0);
    assert_null(strstr(text, "frame 7777:"));
    assert_non_null(strstr(text, "frame 100:16:"));
}

static void every_flip_is_survived(void **state)
{
    (void)state;
    stream_len = 0;
    for (int i = 0; i < 6; i++) {
        put(CULE_EVENT, (uint64_t)i + 1, CULE_CRC, 8);
    }
    size_t one = 64 + 8 + 4;
    for (size_t bit = 0; bit < one * 8; bit++) {
        stream[2 * one + bit / 8] ^= (uint8_t)(1 << bit % 8);
        const char *text = tell(CULE_DECODE_RESYNC, 50);
        /* All but the third come through; the third is a gap or a bad body. */
        for (int i = 1; i <= 6; i++) {
            char name[32];
            snprintf(name, sizeof name, "frame %d:8:", i);
            assert_true((strstr(text, name) != NULL) == (i != 3));
        }
        assert_non_null(strstr(text, bit < 512 ? "gap 76@152" : "bad 3:8"));
        stream[2 * one + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void holds_nothing_between_frames(void **state)
{
    (void)state;
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    struct cule_pool_stats before;
    struct cule_pool_stats after;
    stream_len = 0;
    put(CULE_EVENT, 1, 0, 1000);
    put(CULE_EVENT, 2, 0, 10);
    cule_pool_stats(&before);
    cule_decoder_init(&d, CULE_DECODE_STRICT);
    cule_decoder_feed(&d, stream, 500);
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), 0);
    assert_int_equal(cule_decoder_want(&d), 564);
    cule_pool_stats(&after);
    assert_true(after.held_bytes > before.held_bytes);
    cule_decoder_feed(&d, stream + 500, stream_len - 500);
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), 1);
    assert_int_equal(f.id, 1);
    assert_int_equal(cule_decoder_unread(&d), 80);
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), 1);
    assert_ptr_equal(payload, stream + stream_len - 16); /* not copied */
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), 0);
    cule_pool_stats(&after);
    assert_int_equal(after.held_bytes, before.held_bytes);
    assert_int_equal(cule_decoder_want(&d), 0);
    assert_int_equal(cule_decoder_end(&d, &err), 0);
    assert_int_equal(d.frames, 2);
    cule_decoder_release(&d);
}

/* Headers that hold and claim much cannot make the decoder hold more than about two frames, or work quadratically. */
static void hostile_resync_is_bounded(void **state)
{
    (void)state;
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    uint8_t fake[65];
    cule_frame_init(&f, CULE_EVENT);
    f.length = 65536;
    cule_frame_encode(&f, false, fake);
    fake[64] = 'x';
    cule_decoder_init(&d, CULE_DECODE_RESYNC);
    cule_decoder_feed(&d, "x", 1);
    assert_int_equal(cule_decoder_next(&d, &f, &payload, &err), 0);
    for (int i = 0; i < 100000; i++) {
        cule_decoder_feed(&d, fake, sizeof fake);
        int rc;
        while ((rc = cule_decoder_next(&d, &f, &payload, &err)) > 0) {
        }
        assert_int_equal(rc, 0);
        assert_true(d.part_cap <= 262144);
    }
    cule_decoder_release(&d);
}

static void nested_frames(void **state)
{
    (void)state;
    uint8_t b[256];
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    size_t used;
    cule_frame_init(&f, CULE_EVENT);
    f.length = 3;
    f.flags = CULE_CRC;
    size_t n = cule_frame_write(&f, true, "abc", b);
    f.length = 0;
    size_t m = cule_frame_write(&f, true, NULL, b + n);
    assert_int_equal(cule_frame_nested(b, n + m, &f, &payload, &used, &err), 1);
    assert_int_equal(used, n);
    assert_memory_equal(payload, "abc", 3);
    assert_int_equal(cule_frame_nested(b + n, m, &f, &payload, &used, &err), 1);
    assert_int_equal(used, m);
    assert_int_equal(cule_frame_nested(b, 0, &f, &payload, &used, &err), 0);
    assert_int_equal(cule_frame_nested(b, 63, &f, &payload, &used, &err), CULE_ETRUNCATED);
    assert_int_equal(cule_frame_nested(b, n - 1, &f, &payload, &used, &err), CULE_ETRUNCATED);
    b[64] ^= 1;
    assert_int_equal(cule_frame_nested(b, n, &f, &payload, &used, &err), CULE_ECHECK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(truncation_says_what_is_missing),
        cmocka_unit_test(bad_header_ends_a_socket),
        cmocka_unit_test(bad_bodies),
        cmocka_unit_test(garbage_between),
        cmocka_unit_test(successor_must_hold),
        cmocka_unit_test(every_flip_is_survived),
        cmocka_unit_test(holds_nothing_between_frames),
        cmocka_unit_test(hostile_resync_is_bounded),
        cmocka_unit_test(nested_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

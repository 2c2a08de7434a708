/*
 * The stream decoder against a plain one that sees the whole stream, in any split.
 *
 * Byte 0: bit 0 the mode, bit 1 "make the check of every header right", bit 2 the payload CRCs too. Byte 1: how the
 * stream is cut; its low values are fixed sizes, the others seed a generator. The rest is the stream.
 */
#include "wire/decode.h"
#include "wire/crc32c.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAM_MAX = 1 << 17, EVENTS_MAX = 4096 };

struct event {
    uint64_t what; /* a result, or a negative error */
    uint64_t at;   /* where the frame or gap ends in the stream */
    uint64_t sum;  /* of header and payload */
};

struct story {
    struct event e[EVENTS_MAX];
    size_t n;
};

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #x);                                     \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void tell(struct story *s, int what, uint64_t at, uint64_t sum)
{
    CHECK(s->n < EVENTS_MAX);
    s->e[s->n++] = (struct event){(uint64_t)what, at, sum};
}

static uint64_t sum_of(const struct cule_frame *f, const uint8_t *payload)
{
    return (uint64_t)cule_crc32c(0, f, sizeof *f) << 32 | cule_crc32c(0, payload, cule_frame_tail(f));
}

/* --- the plain one ------------------------------------------------------------------------------------------ */

static bool holds(const uint8_t *p, size_t n, struct cule_frame *f)
{
    return n >= CULE_HEADER_SIZE && cule_frame_decode(f, false, p, NULL) == 0;
}

static bool candidate(const uint8_t *p, size_t n)
{
    struct cule_frame f;
    struct cule_frame next;
    if (!holds(p, n, &f)) {
        return false;
    }
    size_t size = CULE_HEADER_SIZE + cule_frame_tail(&f);
    return n == size || (n > size && holds(p + size, n - size, &next));
}

static void plainly(struct story *s, const uint8_t *p, size_t n, bool resync)
{
    size_t at = 0;
    s->n = 0;
    while (at < n) {
        struct cule_frame f;
        size_t left = n - at;
        bool begins = p[at] == 'C' && (left < 2 || p[at + 1] == 'U');
        if (begins && left < CULE_HEADER_SIZE) {
            tell(s, CULE_ETRUNCATED, at, 0);
            return;
        }
        if (begins && holds(p + at, left, &f)) {
            size_t size = CULE_HEADER_SIZE + cule_frame_tail(&f);
            if (size > left) {
                tell(s, CULE_ETRUNCATED, at, 0);
                return;
            }
            const uint8_t *payload = p + at + CULE_HEADER_SIZE;
            at += size;
            tell(s, cule_frame_check_body(&f, payload, NULL) ? CULE_DECODED_BAD_BODY : CULE_DECODED_FRAME, at,
                 sum_of(&f, payload));
        } else if (resync) {
            size_t from = at;
            do {
                at++;
            } while (at < n && !candidate(p + at, n - at));
            tell(s, CULE_DECODED_GAP, at, at - from);
        } else {
            int rc = left < CULE_HEADER_SIZE || !begins ? CULE_EMALFORMED : cule_frame_decode(&f, false, p + at, NULL);
            tell(s, rc, at, 0);
            return;
        }
    }
}

/* --- memory that is readable as long as a piece is ------------------------------------------------------------ */

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

static uint8_t lent[STREAM_MAX] __attribute__((aligned(64)));

static void lend(const uint8_t *p, size_t n)
{
    ASAN_UNPOISON_MEMORY_REGION(lent, n);
    memcpy(lent, p, n);
}

static void take_back(size_t n)
{
    memset(lent, 0xdd, n);
    ASAN_POISON_MEMORY_REGION(lent, n);
}

/* --- the decoder -------------------------------------------------------------------------------------------- */

/* Until it wants more; false when the stream cannot go on. */
static bool drain(struct cule_decoder *d, struct story *s)
{
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err;
    int rc;
    while ((rc = cule_decoder_next(d, &f, &payload, &err)) > 0) {
        tell(s, rc, d->offset, rc == CULE_DECODED_GAP ? d->gap_bytes : sum_of(&f, payload));
        if (rc == CULE_DECODED_GAP) {
            CHECK(d->gap_offset + d->gap_bytes == d->offset);
        }
    }
    if (rc < 0) {
        CHECK(err.code == rc && err.text[0]);
        tell(s, rc, d->offset, 0);
    }
    return rc == 0;
}

static void in_pieces(struct story *s, const uint8_t *p, size_t n, bool resync, uint8_t cut)
{
    struct cule_decoder d;
    struct cule_err err;
    uint32_t x = cut * 2654435761u;
    s->n = 0;
    cule_decoder_init(&d, resync ? CULE_DECODE_RESYNC : CULE_DECODE_STRICT);
    for (size_t at = 0; at < n;) {
        x = x * 1664525 + 1013904223;
        size_t piece = cut < 128 ? (size_t)cut + 1 : cut == 255 ? n : (x >> 16) % (2u << (cut & 15) % 11);
        piece = CULE_MIN(piece, n - at);
        lend(p + at, piece);
        cule_decoder_feed(&d, lent, piece);
        bool on = drain(&d, s);
        take_back(piece);
        if (!on) {
            cule_decoder_release(&d);
            return;
        }
        at += piece;
        CHECK(cule_decoder_unread(&d) == 0);
    }
    int rc = cule_decoder_end(&d, &err);
    if (rc) {
        tell(s, rc, d.offset, 0);
    } else if (drain(&d, s)) {
        CHECK(d.offset == n);
    }
    CHECK(d.part == NULL);
    cule_decoder_release(&d);
}

static void make_right(uint8_t *p, size_t n, bool bodies)
{
    for (size_t at = 0; at + CULE_HEADER_SIZE <= n; at++) {
        struct cule_frame f;
        if (p[at] != 'C' || p[at + 1] != 'U') {
            continue;
        }
        cule_put32(p + at + 28, cule_crc32c_header(p + at));
        if (!bodies || !holds(p + at, n - at, &f)) {
            continue;
        }
        size_t padded = cule_pad8(f.length);
        size_t left = n - at - CULE_HEADER_SIZE;
        if (cule_frame_tail(&f) <= left && (f.flags & CULE_CRC)) {
            cule_put32(p + at + CULE_HEADER_SIZE + padded, cule_crc32c(0, p + at + CULE_HEADER_SIZE, padded));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t stream[STREAM_MAX];
    static struct story want;
    static struct story got;
    if (size < 2 || size - 2 > STREAM_MAX) {
        return 0;
    }
    static bool ready;
    if (!ready) {
        ASAN_POISON_MEMORY_REGION(lent, sizeof lent);
        ready = true;
    }
    size_t n = size - 2;
    bool resync = data[0] & 1;
    memcpy(stream, data + 2, n);
    if (data[0] & 2) {
        make_right(stream, n, data[0] & 4);
    }
    plainly(&want, stream, n, resync);
    in_pieces(&got, stream, n, resync, data[1]);
    CHECK(want.n == got.n);
    CHECK(memcmp(want.e, got.e, want.n * sizeof want.e[0]) == 0);
    return 0;
}

/* The stream decoder: whole frames straight from the chunk, cut ones through a copy. */
#include "wire/decode.h"

#include "base/pool.h"
#include "wire/crc32c.h"

#include <assert.h>

void cule_decoder_init(struct cule_decoder *d, enum cule_decode_mode mode)
{
    *d = (struct cule_decoder){.mode = (uint8_t)mode};
}

static void part_drop(struct cule_decoder *d)
{
    if (d->part) {
        cule_pool_put(d->part, d->part_cap);
    }
    d->part = NULL;
    d->part_head = d->part_tail = d->part_cap = d->want = 0;
}

void cule_decoder_release(struct cule_decoder *d)
{
    part_drop(d);
    d->chunk = NULL;
    d->chunk_len = 0;
}

void cule_decoder_feed(struct cule_decoder *d, const void *p, size_t n)
{
    assert(d->chunk_len == 0 && !d->ended);
    d->chunk = p;
    d->chunk_len = n;
}

/* --- the body -------------------------------------------------------------------------------------------- */

int cule_frame_check_body(const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    size_t padded = cule_pad8(f->length);
    if (padded != f->length) {
        /* The padding is the high bytes of the last word. */
        uint64_t last = cule_get64(payload + padded - 8);
        if (last >> 8 * (f->length & 7)) {
            return cule_err_set(err, CULE_EMALFORMED, "the padding behind %u bytes of payload is not zero", f->length);
        }
    }
    if (f->flags & CULE_CRC) {
        uint32_t have = cule_get32(payload + padded);
        uint32_t crc = cule_crc32c(0, payload, padded);
        if (have != crc) {
            return cule_err_set(err, CULE_ECHECK, "the payload's CRC is 0x%08x, its bytes give 0x%08x", have, crc);
        }
    }
    if ((f->flags & CULE_TRACE) && f->length < CULE_TRACE_SIZE) {
        return cule_err_set(err, CULE_EMALFORMED, "a payload of %u bytes has no room for the trace prefix of %d",
                            f->length, CULE_TRACE_SIZE);
    }
    return 0;
}

static int deliver(struct cule_decoder *d, const struct cule_frame *f, const uint8_t *body, struct cule_err *err)
{
    d->frames++;
    if (((f->length & 7) | (f->flags & (CULE_CRC | CULE_TRACE))) && cule_frame_check_body(f, body, err)) {
        d->bad_bodies++;
        return CULE_DECODED_BAD_BODY;
    }
    return CULE_DECODED_FRAME;
}

int cule_frame_nested(const uint8_t *p, size_t n, struct cule_frame *f, const uint8_t **payload, size_t *used,
                      struct cule_err *err)
{
    if (n == 0) {
        return 0;
    }
    if (n < CULE_HEADER_SIZE) {
        return cule_err_set(err, CULE_ETRUNCATED, "%zu bytes are left where a nested frame's header should be", n);
    }
    int rc = cule_frame_decode(f, true, p, err);
    if (rc) {
        return rc;
    }
    if (n - CULE_HEADER_SIZE < cule_frame_tail(f)) {
        return cule_err_set(err, CULE_ETRUNCATED, "a nested frame of %u bytes is cut short by %zu", f->length,
                            cule_frame_tail(f) - (n - CULE_HEADER_SIZE));
    }
    *payload = p + CULE_HEADER_SIZE;
    *used = CULE_HEADER_SIZE + cule_frame_tail(f);
    rc = cule_frame_check_body(f, *payload, err);
    return rc ? rc : 1;
}

/* --- the part: bytes kept from one chunk to the next ----------------------------------------------------- */

/* Makes the part hold `need` bytes from its head on, as far as the chunk has them. 1 when it does, 0 when the
 * chunk is used up, or CULE_ENOMEM with nothing changed. */
static int part_fill(struct cule_decoder *d, size_t need)
{
    size_t have = d->part_tail - d->part_head;
    if (have >= need) {
        return 1;
    }
    size_t n = CULE_MIN(need - have, d->chunk_len);
    if (d->part_head + need > d->part_cap) {
        /* While seeking, the head moves on through what is held: twice the room keeps the sliding rare. */
        size_t room = d->seeking ? 2 * need : need;
        if (d->part_cap >= room) {
            memmove(d->part, d->part + d->part_head, have);
        } else {
            size_t cap;
            uint8_t *to = cule_pool_get(room, &cap);
            if (!to) {
                return CULE_ENOMEM;
            }
            if (d->part) {
                memcpy(to, d->part + d->part_head, have);
                cule_pool_put(d->part, d->part_cap);
            }
            d->part = to;
            d->part_cap = cap;
        }
        d->part_head = 0;
        d->part_tail = have;
    }
    if (n) {
        memcpy(d->part + d->part_tail, d->chunk, n);
        d->part_tail += n;
        d->chunk += n;
        d->chunk_len -= n;
    }
    d->want = need - (have + n);
    return have + n == need;
}

/* Takes n bytes from the part's head; what was returned from there stays readable until the next call. */
static void part_take(struct cule_decoder *d, size_t n)
{
    d->part_head += n;
    d->offset += n;
    d->want = 0;
}

static void chunk_take(struct cule_decoder *d, size_t n)
{
    d->chunk += n;
    d->chunk_len -= n;
    d->offset += n;
}

/* --- in step with the stream ----------------------------------------------------------------------------- */

/* A header that does not hold at the current place: the end, or the beginning of a gap. */
static int lost(struct cule_decoder *d, int rc, struct cule_err *err)
{
    if (d->mode == CULE_DECODE_STRICT) {
        d->failed = rc;
        part_drop(d);
        d->chunk_len = 0;
        return cule_err_context(err, rc, "at byte %llu of the stream", (unsigned long long)d->offset);
    }
    d->seeking = true;
    d->gap_cause = rc;
    d->gap_offset = d->offset;
    d->gap_bytes = 0;
    return 0;
}

/* The first bytes of a header that has not come whole: the magic need not wait for the rest. */
static int check_beginning(const uint8_t *p, size_t n, struct cule_err *err)
{
    if (n >= 1 && p[0] != 'C') {
        return cule_err_set(err, CULE_EMALFORMED, "no frame begins here (the first byte is 0x%02x)", p[0]);
    }
    if (n >= 2 && p[1] != 'U') {
        return cule_err_set(err, CULE_EMALFORMED, "no frame begins here (magic is 0x%02x 0x%02x)", p[0], p[1]);
    }
    return 0;
}

/* The frame at the part's head, filled from the chunk. */
static int next_from_part(struct cule_decoder *d, struct cule_frame *f, const uint8_t **payload, struct cule_err *err)
{
    int rc = part_fill(d, CULE_HEADER_SIZE);
    if (rc < 0) {
        return cule_err_set(err, rc, "no memory to keep a frame's header");
    }
    const uint8_t *at = d->part + d->part_head;
    int bad = rc ? cule_frame_decode(f, false, at, err) : check_beginning(at, d->part_tail - d->part_head, err);
    if (bad) {
        return lost(d, bad, err);
    }
    if (rc == 0) {
        return 0;
    }
    size_t size = CULE_HEADER_SIZE + cule_frame_tail(f);
    rc = part_fill(d, size);
    if (rc < 0) {
        return cule_err_set(err, rc, "no memory to keep a frame of %zu bytes", size);
    }
    if (rc == 0) {
        return 0;
    }
    *payload = d->part + d->part_head + CULE_HEADER_SIZE;
    part_take(d, size);
    return deliver(d, f, *payload, err);
}

/* --- looking for the next frame ---------------------------------------------------------------------------- */

static void skip(struct cule_decoder *d, size_t n)
{
    d->gap_bytes += n;
    if (d->part) {
        part_take(d, n);
    } else {
        chunk_take(d, n);
    }
}

/* Bytes from p to the first place where a magic stands or may begin; n where there is none. */
static size_t find_magic(const uint8_t *p, size_t n)
{
    const uint8_t *hit = memmem(p, n, "CU", 2);
    if (hit) {
        return (size_t)(hit - p);
    }
    return n && p[n - 1] == 'C' ? n - 1 : n;
}

/*
 * Whether the bytes at p may be where the stream goes on: 1 yes, 0 no, and -1 with *need where more must be
 * seen. `last` tells that no more will come.
 */
static int candidate(const uint8_t *p, size_t n, bool last, size_t *need)
{
    struct cule_frame f;
    *need = CULE_HEADER_SIZE;
    if (n < *need) {
        return last ? 0 : -1;
    }
    if (cule_frame_decode(&f, false, p, NULL)) {
        return 0;
    }
    size_t size = CULE_HEADER_SIZE + cule_frame_tail(&f);
    *need = size + CULE_HEADER_SIZE;
    if (n < *need) {
        return last ? n == size : -1;
    }
    return cule_frame_decode(&f, false, p + size, NULL) == 0;
}

static int gap_end(struct cule_decoder *d, struct cule_err *err)
{
    d->seeking = false;
    d->gaps++;
    d->skipped += d->gap_bytes;
    cule_err_set(err, d->gap_cause, "skipped %llu bytes at byte %llu of the stream: %s",
                 (unsigned long long)d->gap_bytes, (unsigned long long)d->gap_offset, cule_err_text(d->gap_cause));
    return CULE_DECODED_GAP;
}

/* Moves on to the next frame that holds: a gap when there is one, 0 when the bytes at hand do not tell. */
static int seek(struct cule_decoder *d, struct cule_err *err)
{
    size_t need = CULE_HEADER_SIZE;
    for (;;) {
        if (d->part && d->part_head == d->part_tail) {
            part_drop(d);
        }
        const uint8_t *p = d->part ? d->part + d->part_head : d->chunk;
        size_t n = d->part ? d->part_tail - d->part_head : d->chunk_len;
        if (n == 0) {
            return d->ended ? gap_end(d, err) : 0;
        }
        /* What is at the place of the gap's beginning failed already. */
        size_t miss = d->gap_bytes ? find_magic(p, n) : 1 + find_magic(p + 1, n - 1);
        if (miss) {
            skip(d, miss);
            continue;
        }
        int verdict = candidate(p, n, d->ended, &need);
        if (verdict > 0) {
            return gap_end(d, err);
        }
        if (verdict == 0) {
            skip(d, 1);
            continue;
        }
        int rc = part_fill(d, need);
        if (rc <= 0) {
            return rc ? cule_err_set(err, rc, "no memory to look for the next frame") : 0;
        }
    }
}

/* --- the calls -------------------------------------------------------------------------------------------- */

/* After the end, in step: nothing, or a frame cut short. */
static int truncated(struct cule_decoder *d, struct cule_err *err)
{
    size_t have = d->part ? d->part_tail - d->part_head : 0;
    size_t want = d->want;
    part_drop(d);
    if (have == 0) {
        return 0;
    }
    d->failed = CULE_ETRUNCATED;
    return cule_err_set(err, d->failed, "the stream ends %zu bytes short of the %s at byte %llu (%zu bytes are there)",
                        want, have < CULE_HEADER_SIZE ? "header" : "frame", (unsigned long long)d->offset, have);
}

/* Everything but a frame that lies whole in the chunk. */
static int next_slow(struct cule_decoder *d, struct cule_frame *f, const uint8_t **payload, struct cule_err *err)
{
    for (;;) {
        int rc;
        if (d->failed) {
            return cule_err_set(err, d->failed, "the stream ended at a bad frame: %s", cule_err_text(d->failed));
        }
        if (d->seeking) {
            return seek(d, err);
        }
        if (d->part && d->part_head == d->part_tail) {
            part_drop(d);
            if (d->chunk_len) {
                return cule_decoder_next(d, f, payload, err);
            }
        }
        if (!d->part && !d->chunk_len) {
            return 0;
        }
        rc = next_from_part(d, f, payload, err);
        if (rc || !d->seeking) {
            return rc || !d->ended ? rc : truncated(d, err);
        }
    }
}

int cule_decoder_next(struct cule_decoder *d, struct cule_frame *f, const uint8_t **payload, struct cule_err *err)
{
    if (!d->part && !d->seeking && d->chunk_len >= CULE_HEADER_SIZE) {
        const uint8_t *p = d->chunk;
        int rc = cule_frame_decode(f, false, p, err);
        if (rc == 0) {
            size_t size = CULE_HEADER_SIZE + cule_frame_tail(f);
            if (size <= d->chunk_len) {
                *payload = p + CULE_HEADER_SIZE;
                chunk_take(d, size);
                return deliver(d, f, *payload, err);
            }
        } else {
            rc = lost(d, rc, err);
            if (rc) {
                return rc;
            }
        }
    }
    return next_slow(d, f, payload, err);
}

int cule_decoder_end(struct cule_decoder *d, struct cule_err *err)
{
    assert(d->chunk_len == 0);
    d->ended = true;
    if (d->failed) {
        return cule_err_set(err, d->failed, "the stream ended at a bad frame: %s", cule_err_text(d->failed));
    }
    return d->seeking ? 0 : truncated(d, err);
}

/*
 * The stream decoder: bytes in, frames out, any split; no descriptors, no clock.
 *
 * The caller feeds a chunk and calls next until it answers 0, then may reuse the chunk's memory. A frame that
 * lies whole in the chunk is returned pointing into it; only a frame cut by the end of the chunk is copied, to
 * pooled memory that goes back when the frame has been taken. Between frames a decoder holds none.
 *
 *     cule_decoder_feed(&d, p, n);
 *     while ((rc = cule_decoder_next(&d, &frame, &payload, &err)) > 0) { ... }
 *     if (rc < 0) ...;                               the stream cannot go on
 *
 * A payload holds until the next call on this decoder. It is followed by its zero padding.
 *
 * What a bad header means is the mode's: STRICT ends there, as a socket must. RESYNC looks, as a reader of pipes
 * and files must, for the next header that holds and whose successor, or the end of the stream, holds too, and
 * reports what it skipped as one CULE_DECODED_GAP.
 */
#ifndef CULE_WIRE_DECODE_H
#define CULE_WIRE_DECODE_H

#include "wire/frame.h"

enum cule_decode_mode { CULE_DECODE_STRICT, CULE_DECODE_RESYNC };

enum cule_decoded {
    CULE_DECODED_FRAME = 1,    /* *f and *payload are a frame */
    CULE_DECODED_BAD_BODY = 2, /* the same, but its body does not hold: *err says why; the stream goes on */
    CULE_DECODED_GAP = 3,      /* RESYNC: d->gap_bytes were skipped from d->gap_offset on; *err says why */
};

struct cule_decoder {
    /* Counters, for the caller to read. */
    uint64_t offset; /* bytes of the stream taken so far: after a frame, where the next one begins */
    uint64_t frames; /* returned, those with a bad body included */
    uint64_t bad_bodies;
    uint64_t gaps;       /* RESYNC: gaps reported */
    uint64_t skipped;    /* RESYNC: bytes in all of them */
    uint64_t gap_offset; /* the gap reported last, or being skipped */
    uint64_t gap_bytes;
    /* The rest is the decoder's own. */
    const uint8_t *chunk; /* unread bytes, the caller's */
    size_t chunk_len;
    uint8_t *part; /* copied bytes of a frame that the chunk cut, NULL between frames */
    size_t part_head;
    size_t part_tail;
    size_t part_cap;
    size_t want;
    int failed;    /* the error that ended the stream */
    int gap_cause; /* the error that began the gap */
    uint8_t mode;
    bool seeking; /* RESYNC: inside a gap */
    bool ended;
};

void cule_decoder_init(struct cule_decoder *d, enum cule_decode_mode mode);
void cule_decoder_release(struct cule_decoder *d);

/* Hands over the next chunk. The last one must have been used up: next answered 0. */
void cule_decoder_feed(struct cule_decoder *d, const void *p, size_t n);

/*
 * One of enum cule_decoded; 0: more bytes are needed, or the stream ended clean; or a negative error, which
 * stays: CULE_EMALFORMED, CULE_EVERSION, CULE_ECHECK (STRICT, a bad header), CULE_ETRUNCATED (after end),
 * CULE_ENOMEM (does not stay; calling again tries again). *f and *payload are set for the first two results
 * alone; *payload is never NULL then.
 */
int cule_decoder_next(struct cule_decoder *d, struct cule_frame *f, const uint8_t **payload, struct cule_err *err);

/*
 * The stream ends here. 0, or CULE_ETRUNCATED with what is missing, or the error that ended it before. In RESYNC
 * mode the caller calls next until it answers 0 or less once more, for the end may make frames hold, and it closes
 * a gap.
 */
int cule_decoder_end(struct cule_decoder *d, struct cule_err *err);

/* Bytes that complete the header or frame which is held in part; 0 between frames. At least so many must come
 * before next answers anything but 0 (a bad header apart). */
static inline size_t cule_decoder_want(const struct cule_decoder *d)
{
    return d->part ? d->want : 0;
}

/* Bytes of the chunk that were not looked at yet: what to keep when the caller stops taking frames for a while. */
static inline size_t cule_decoder_unread(const struct cule_decoder *d)
{
    return d->chunk_len;
}

/*
 * The body's checks, for whoever takes frames from elsewhere: padding of zeros, the payload CRC where flagged, and
 * room for the trace prefix. payload is followed by cule_frame_tail(f) - f->length bytes. 0, CULE_EMALFORMED or
 * CULE_ECHECK.
 */
int cule_frame_check_body(const struct cule_frame *f, const uint8_t *payload, struct cule_err *err);

/* The frames inside the payload of a NESTED frame, one after the other: 1 and *used bytes taken, 0 at the end of
 * the payload, or the error of cule_frame_decode, of cule_frame_check_body or CULE_ETRUNCATED. */
int cule_frame_nested(const uint8_t *p, size_t n, struct cule_frame *f, const uint8_t **payload, size_t *used,
                      struct cule_err *err);

#endif

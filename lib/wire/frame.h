/*
 * The frame: 64 bytes of header, then the payload padded to 8 bytes. cule-frame(5) is its documentation.
 *
 * struct cule_frame is the header in host order, one cache line. On a little-endian machine it is also the
 * wire image; cule_frame_encode and cule_frame_decode are the only places that know otherwise.
 */
#ifndef CULE_WIRE_FRAME_H
#define CULE_WIRE_FRAME_H

#include "base/bytes.h"
#include "base/err.h"

#include <stdbool.h>

enum {
    CULE_HEADER_SIZE = 64,
    CULE_PAYLOAD_MAX = 65536,            /* bytes of payload in one frame */
    CULE_FRAME_MAX = 64 + 65536 + 4,     /* header, payload, payload CRC */
    CULE_MESSAGE_MAX = 16 * 1024 * 1024, /* default for what a side takes; stated in its HELLO */
    CULE_FDS_MAX = 253,                  /* SCM_MAX_FD */
    CULE_VERSION_1 = 1,
    CULE_TRACE_SIZE = 32,
};

enum cule_kind {
    CULE_HELLO = 1,
    CULE_REQUEST,
    CULE_REPLY,
    CULE_ERROR_FRAME,
    CULE_EVENT,
    CULE_DATA,
    CULE_CREDIT,
    CULE_CANCEL,
    CULE_PING,
    CULE_PONG,
    CULE_BYE,
    CULE_MARK,
    CULE_KIND_LAST = CULE_MARK,
};

enum cule_priority { CULE_CRITICAL, CULE_HIGH, CULE_NORMAL, CULE_LOW, CULE_PRIORITIES };

enum cule_flag {
    CULE_RETAIN = 1 << 0,
    CULE_REDELIVERED = 1 << 1,
    CULE_ACK_WANTED = 1 << 2,
    CULE_MORE = 1 << 8,
    CULE_OPEN = 1 << 9,
    CULE_TRACE = 1 << 10,
    CULE_CRC = 1 << 11,
    CULE_DELEGATE = 1 << 12,
    CULE_NESTED = 1 << 13,
    CULE_PHASE = 1 << 15,
    CULE_FLAGS_KNOWN_HIGH = CULE_MORE | CULE_OPEN | CULE_TRACE | CULE_CRC | CULE_DELEGATE | CULE_NESTED,
};

struct cule_frame {
    uint8_t magic[2]; /* "CU"; "cu" inside the payload of a NESTED frame */
    uint8_t version;
    uint8_t kind;     /* enum cule_kind */
    uint8_t priority; /* enum cule_priority */
    uint8_t nfds;
    uint16_t flags;   /* enum cule_flag */
    uint32_t service; /* four characters, the first in the low byte */
    uint32_t op;
    uint64_t id;
    uint32_t length; /* bytes of payload, padding and payload CRC apart */
    uint32_t check;
    uint32_t source;
    uint32_t deadline_ms;
    uint64_t arg0;
    uint64_t arg1;
    uint64_t cap; /* 32-bit index, 16-bit generation, 16-bit rights, index in the low bits */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct cule_frame) == CULE_HEADER_SIZE, "the header is one cache line");

#define CULE_FOURCC(a, b, c, d)                                                                                        \
    ((uint32_t)(uint8_t)(a) | (uint32_t)(uint8_t)(b) << 8 | (uint32_t)(uint8_t)(c) << 16 | (uint32_t)(uint8_t)(d) << 24)

/* A capability handle's parts. */
static inline uint64_t cule_cap_make(uint32_t index, uint16_t generation, uint16_t rights)
{
    return (uint64_t)index | (uint64_t)generation << 32 | (uint64_t)rights << 48;
}

/* Bytes that follow the header: payload, padding, and the 4 bytes of the payload CRC where flagged, which
 * stand directly behind the padded payload; nothing may rely on the next header being aligned in a stream. */
static inline size_t cule_frame_tail(const struct cule_frame *f)
{
    return cule_pad8(f->length) + ((f->flags & CULE_CRC) ? 4 : 0);
}

/* A header with magic, version and the given kind set, priority normal, all else 0. */
void cule_frame_init(struct cule_frame *f, enum cule_kind kind);

/*
 * Writes the 64 wire bytes of *f to out with the check computed (f->check is ignored and left alone).
 * `nested` writes the lower-case magic. The caller sees to payload and padding.
 */
void cule_frame_encode(const struct cule_frame *f, bool nested, uint8_t out[CULE_HEADER_SIZE]);

/*
 * Reads 64 bytes. 0, or CULE_EMALFORMED (magic, kind, priority, flag, length), CULE_EVERSION, CULE_ECHECK,
 * with the field and the value seen in *err. Never reads past 64 bytes; *f is whole only on 0.
 */
int cule_frame_decode(struct cule_frame *f, bool nested, const uint8_t in[CULE_HEADER_SIZE], struct cule_err *err);

/* The checks of decode on a header already in host order, the CRC apart: what a ring slot is held to. */
int cule_frame_validate(const struct cule_frame *f, struct cule_err *err);

/*
 * A whole frame, header, payload, padding and CRC where f->flags has it, to out, which holds
 * 64 + cule_frame_tail(f) bytes. Returns that size. f->length says how much payload there is.
 */
size_t cule_frame_write(const struct cule_frame *f, bool nested, const void *payload, uint8_t *out);

/* The same where the payload stands at out + 64 already: adds what is around it. */
size_t cule_frame_seal(const struct cule_frame *f, bool nested, uint8_t *out);

#endif

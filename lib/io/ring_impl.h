/*
 * The inside of the ring, shared by ring.c, ring_handover.c, ring_data.c and ring_wait.c (and by the tests that play
 * a hostile peer). Not for other modules: ring.h is the interface and says what the mapping holds.
 */
#ifndef CULE_IO_RING_IMPL_H
#define CULE_IO_RING_IMPL_H

#include "io/ring.h"

#include <stddef.h>

enum {
    RING_SLEEP_CREATOR = 0, /* offsets in the mapping */
    RING_SLEEP_ATTACHER = 128,
    RING_CONSUMED_BY_ATTACHER = 256,
    RING_CONSUMED_BY_CREATOR = 384,
    RING_SLOTS_AT = 4096,
    RING_PAGE = 4096,
    RING_ALIGN = 64, /* of payloads */
    RING_MESSAGE = 32,
};

enum ring_sleep { RING_FOR_SLOTS = 1, RING_FOR_ROOM = 2, RING_BY_FUTEX = 4, RING_BY_BELL = 8 };
_Static_assert((int)RING_FOR_SLOTS == (int)CULE_RING_READABLE && (int)RING_FOR_ROOM == (int)CULE_RING_WRITABLE,
               "a want is what the sleep word says");

/* PHASE within the first word of a slot, and the half of the fourth word that is not check. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define RING_PHASE_BIT ((uint64_t)CULE_PHASE << 48)
#define RING_NFDS_BITS ((uint64_t)0xff << 40)
#define RING_NOT_CHECK ((uint64_t)0x00000000ffffffff)
#else
#define RING_PHASE_BIT ((uint64_t)CULE_PHASE)
#define RING_NFDS_BITS ((uint64_t)0xff << 16)
#define RING_NOT_CHECK ((uint64_t)0xffffffff00000000)
#endif
_Static_assert(offsetof(struct cule_frame, flags) == 6 && offsetof(struct cule_frame, nfds) == 5 &&
                   offsetof(struct cule_frame, check) == 28,
               "the words of a slot");

/* The header as eight words; may_alias, because its fields are of other types. */
typedef uint64_t ring_word __attribute__((may_alias));

/* The mapping; the two ends of a pair share one. */
struct ring_map {
    uint8_t *base;
    size_t size;
    int refs;
};

struct cule_ring {
    /* Sending. Positions count from 0 and never wrap (64 bits). */
    uint64_t tx_tail;     /* slots published */
    uint64_t tx_consumed; /* slots that the peer has consumed, as last read */
    uint64_t tx_pos;      /* bytes of the area used since the beginning */
    uint64_t tx_freed;    /* the same up to tx_consumed */
    uint64_t tx_phase;    /* RING_PHASE_BIT or 0 for the current lap */
    uint8_t *tx_slots;    /* in the mapping */
    uint8_t *tx_area;     /* in the mapping */
    uint64_t *tx_shared;  /* in the mapping: slots consumed by the peer */
    uint64_t *tx_end;     /* ours: tx_pos behind each slot's payload */
    uint32_t *peer_sleep; /* in the mapping */
    uint32_t tx_need;     /* payload bytes of the send that last found no room */
    uint32_t tx_reserved; /* bytes reserved, and ... */
    uint64_t tx_reserve;  /* ... where, as a position; tx_reserving says if at all */
    bool tx_reserving;
    bool peer_sleeps;      /* it did when last looked at */
    bool peer_bell_usable; /* the peer listens to its eventfd */

    /* Receiving. */
    uint64_t rx_next;      /* the slot to look at */
    uint64_t rx_phase;     /* RING_PHASE_BIT or 0: what a published slot carries in this lap */
    uint64_t rx_pos;       /* bytes of the area used up to rx_next */
    uint64_t rx_freed;     /* slots released, at most rx_next */
    uint64_t rx_freed_pos; /* bytes used up to rx_freed */
    uint64_t rx_told;      /* rx_freed as last stored for the peer */
    uint64_t rx_told_pos;
    uint8_t *rx_slots;   /* in the mapping */
    uint8_t *rx_area;    /* in the mapping */
    uint64_t *rx_shared; /* in the mapping: slots consumed by us */
    uint64_t *rx_end;    /* ours, where payloads are lent: rx_pos behind each slot's payload */
    uint8_t *rx_copy;    /* the copied payload; NULL until one comes, from the pool */
    size_t rx_copy_cap;
    uint32_t *own_sleep; /* in the mapping */
    bool rx_peeked;      /* rx_head is the slot rx_next */
    bool lends;

    uint32_t slots, area; /* powers of two */
    int ended;            /* 0, or why: CULE_ECLOSED lets what was published be taken */

    /* Waiting. */
    uint32_t spin_ns;   /* what an adaptive wait may spin now */
    uint32_t spin_lost; /* waits since it fell to 0 */
    enum cule_ring_spin spin;
    unsigned doorbells; /* that we listen to */

    struct cule_ring_stats stats;
    struct cule_frame rx_head;

    /* The rest is cold. */
    struct ring_map *map;
    int memfd; /* the creator's until the hand-over */
    int sock;
    int bell;      /* our eventfd, or -1 */
    int peer_bell; /* the peer's, or -1 */
    bool creator;
    bool trust_same_uid;
    bool accepted;
    uint8_t answer[RING_MESSAGE]; /* of the attacher, as far as it came */
    unsigned answer_len;
    struct cule_err why;
};

/* A hand-over message in host order. */
struct ring_message {
    uint16_t version;
    uint8_t kind;
    uint8_t doorbells;
    uint32_t slots;
    uint32_t area;
    uint64_t size;
    uint32_t code;
};
enum { RING_OFFER = 1, RING_ACCEPT = 2, RING_REFUSE = 3, RING_VERSION = 1 };

/* ring.c */
uint64_t cule_ring_map_size(uint32_t slots, uint32_t area);
int cule_ring_geometry_check(uint32_t slots, uint32_t area, struct cule_err *err);
/* A handle over a mapping whose reference it takes over on success. */
int cule_ring_make(struct cule_ring **out, struct ring_map *map, uint32_t slots, uint32_t area, bool creator,
                   const struct cule_ring_opts *opts, struct cule_err *err);
int cule_ring_map_fd(struct ring_map **out, int fd, size_t size, struct cule_err *err);
void cule_ring_map_release(struct ring_map *map);
int cule_ring_lend_set_up(struct cule_ring *r, struct cule_err *err); /* once the peer is known */
/* Ends the ring: the reason is kept, the socket shut down so that the peer learns of it. Returns code. */
int cule_ring_fail(struct cule_ring *r, int code, const char *fmt, ...) CULE_PRINTF(3, 4);

/* ring_handover.c */
/* Bytes that came over the socket: the answer first, then doorbells, which mean nothing more. */
void cule_ring_answer(struct cule_ring *r, const uint8_t *bytes, size_t n);

/* ring_wait.c */
void cule_ring_wake(struct cule_ring *r);

/* ring_data.c */
/* What holds of want now. Room is that for r->tx_need bytes. */
unsigned cule_ring_ready(struct cule_ring *r, unsigned want);
/* Lets the peer know what was consumed so far, and wakes it if it waits for that. */
void cule_ring_tell(struct cule_ring *r);
void cule_ring_copy_release(struct cule_ring *r);

/* Where n bytes of payload lie when `pos` bytes were used before: the wrap rule. */
static inline uint64_t ring_place(uint64_t pos, uint32_t n, uint32_t area)
{
    uint64_t offset = pos & (area - 1);
    return offset + n > area ? pos + (area - offset) : pos;
}

static inline uint64_t ring_behind(uint64_t start, uint32_t n)
{
    return start + ((n + RING_ALIGN - 1) & ~(uint32_t)(RING_ALIGN - 1));
}

/* The slot at rx_next carries this lap's phase. The acquire makes the rest of the slot and its payload readable. */
static inline bool ring_visible(const struct cule_ring *r)
{
    const ring_word *slot = (const ring_word *)(r->rx_slots + (r->rx_next & (r->slots - 1)) * CULE_HEADER_SIZE);
    return !((__atomic_load_n(slot, __ATOMIC_ACQUIRE) ^ r->rx_phase) & RING_PHASE_BIT);
}

#endif

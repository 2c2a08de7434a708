/* Frames into and out of a ring: the path that every message takes. */
#include "io/futex.h"
#include "io/ring_impl.h"

#include "base/pool.h"

#define likely(c) __builtin_expect(!!(c), 1)
#define unlikely(c) __builtin_expect(!!(c), 0)

/* --- sending --------------------------------------------------------------------------------------------- */

/* Reads how far the peer has consumed; it may only move forward and not beyond what was published. */
static int refresh_consumed(struct cule_ring *r)
{
    uint64_t now = __atomic_load_n(r->tx_shared, __ATOMIC_ACQUIRE);
    if (now - r->tx_consumed > r->tx_tail - r->tx_consumed) {
        return cule_ring_fail(r, CULE_EMALFORMED,
                              "the ring's peer claims %llu slots consumed, %llu were published and %llu claimed before",
                              (unsigned long long)now, (unsigned long long)r->tx_tail,
                              (unsigned long long)r->tx_consumed);
    }
    if (now != r->tx_consumed) {
        r->tx_consumed = now;
        r->tx_freed = r->tx_end[(now - 1) & (r->slots - 1)];
    }
    return 0;
}

static inline bool fits(const struct cule_ring *r, uint32_t n, uint64_t start)
{
    return r->tx_tail - r->tx_consumed < r->slots && (n == 0 || start + n - r->tx_freed <= r->area);
}

/* 1 with *start where n bytes may lie, 0 full, or why the ring has ended. */
static inline int find_room(struct cule_ring *r, uint32_t n, uint64_t *start)
{
    *start = n ? ring_place(r->tx_pos, n, r->area) : r->tx_pos;
    if (likely(fits(r, n, *start))) {
        return 1;
    }
    int rc = refresh_consumed(r);
    if (rc) {
        return rc;
    }
    return fits(r, n, *start);
}

static int no_room(struct cule_ring *r, uint32_t n)
{
    r->tx_need = n;
    r->stats.full++;
    return CULE_EAGAIN;
}

static inline int check_sendable(const struct cule_ring *r, const struct cule_frame *f)
{
    if (unlikely(r->ended)) {
        return r->ended;
    }
    if (unlikely(f->length > CULE_PAYLOAD_MAX)) {
        return CULE_ETOO_BIG;
    }
    return unlikely(f->nfds) ? CULE_EUNSUPPORTED : 0;
}

/* Writes the slot's words 1 to 7, then the first with release: one cache line changes hands per frame. */
static inline void publish(struct cule_ring *r, const struct cule_frame *f, uint64_t end)
{
    uint64_t index = r->tx_tail & (r->slots - 1);
    ring_word *slot = (ring_word *)(r->tx_slots + index * CULE_HEADER_SIZE);
    const ring_word *from = (const ring_word *)f;
    uint64_t first = (from[0] & ~RING_PHASE_BIT) | r->tx_phase;
    slot[1] = from[1];
    slot[2] = from[2];
    slot[3] = from[3] & RING_NOT_CHECK;
    slot[4] = from[4];
    slot[5] = from[5];
    slot[6] = from[6];
    slot[7] = from[7];
    __atomic_store_n(slot, first, __ATOMIC_RELEASE);
    r->tx_end[index] = end;
    r->tx_pos = end;
    r->tx_tail++;
    if (unlikely(index == r->slots - 1)) {
        r->tx_phase ^= RING_PHASE_BIT;
    }
    r->tx_reserving = false;
}

static inline int push(struct cule_ring *r, const struct cule_frame *f, const void *payload)
{
    uint64_t start;
    uint32_t n = f->length;
    int rc = check_sendable(r, f);
    if (unlikely(rc)) {
        return rc;
    }
    rc = find_room(r, n, &start);
    if (unlikely(rc <= 0)) {
        return rc ? rc : no_room(r, n);
    }
    if (n) {
        memcpy(r->tx_area + (start & (r->area - 1)), payload, n);
        r->stats.bytes_out += n;
        start = ring_behind(start, n);
    }
    publish(r, f, start);
    return 0;
}

/*
 * The half of the sleep protocol that wakes. Publisher: store the slot (or the consumed count), FENCE, load the
 * peer's sleep word. Sleeper (ring_wait.c): store its sleep word, FENCE, load the slot (or the count), sleep. The two
 * fences are in one total order. If the publisher's comes first, the sleeper's load sees what was published and it
 * does not sleep. If the sleeper's comes first, the publisher's load sees the sleep word and wakes; the futex sleeps
 * only while the word still has the sleeper's value, and the publisher swaps it with 0 before it wakes, so a wake
 * between the sleeper's look and its sleep is not lost either. While the peer is awake or spins, the word is 0
 * and its line stays shared in both caches: the load is a hit and no line moves.
 * A peer that slept the last time is taken to sleep again: then the swap comes at once, which saves moving the line
 * twice. That is right as well: both sides' swaps of the one word are in one order, and whichever is second acquires
 * what the first released.
 */
static inline void wake_if_wanted(struct cule_ring *r, uint32_t event)
{
    if (r->peer_sleeps) {
        cule_ring_wake(r);
        return;
    }
    cule_full_fence();
    if (unlikely(__atomic_load_n(r->peer_sleep, __ATOMIC_RELAXED) & event)) {
        cule_ring_wake(r);
    }
}

int cule_ring_push(struct cule_ring *r, const struct cule_frame *f, const void *payload)
{
    return push(r, f, payload);
}

void cule_ring_flush(struct cule_ring *r)
{
    wake_if_wanted(r, RING_FOR_SLOTS);
}

int cule_ring_send(struct cule_ring *r, const struct cule_frame *f, const void *payload)
{
    int rc = push(r, f, payload);
    if (likely(!rc)) {
        wake_if_wanted(r, RING_FOR_SLOTS);
    }
    return rc;
}

int cule_ring_reserve(struct cule_ring *r, uint32_t n, void **at)
{
    uint64_t start;
    if (r->ended) {
        return r->ended;
    }
    if (n > CULE_PAYLOAD_MAX) {
        return CULE_ETOO_BIG;
    }
    int rc = find_room(r, n, &start);
    if (rc <= 0) {
        return rc ? rc : no_room(r, n);
    }
    r->tx_reserving = true;
    r->tx_reserved = n;
    r->tx_reserve = start;
    *at = r->tx_area + (start & (r->area - 1));
    return 0;
}

int cule_ring_commit(struct cule_ring *r, const struct cule_frame *f)
{
    uint32_t n = f->length;
    int rc = check_sendable(r, f);
    if (rc) {
        return rc;
    }
    if (!r->tx_reserving || n > r->tx_reserved) {
        return CULE_EUSAGE;
    }
    uint64_t end = r->tx_pos;
    if (n) {
        /* A shorter payload may fit before the wrap where the reservation did not: the consumer will look there. */
        uint64_t start = ring_place(r->tx_pos, n, r->area);
        if (start != r->tx_reserve) {
            memmove(r->tx_area + (start & (r->area - 1)), r->tx_area + (r->tx_reserve & (r->area - 1)), n);
        }
        end = ring_behind(start, n);
        r->stats.bytes_out += n;
    }
    publish(r, f, end);
    return 0;
}

/* --- receiving ------------------------------------------------------------------------------------------- */

void cule_ring_tell(struct cule_ring *r)
{
    __atomic_store_n(r->rx_shared, r->rx_freed, __ATOMIC_RELEASE);
    r->rx_told = r->rx_freed;
    r->rx_told_pos = r->rx_freed_pos;
    wake_if_wanted(r, RING_FOR_ROOM);
}

/*
 * A quarter at a time, so that the line with the count changes hands seldom. No producer waits in vain for the rest:
 * when all was consumed, less than a quarter of the slots and of the area (which holds at least four of the largest
 * payloads) is still untold, and any frame fits into what the producer then sees as free.
 */
static inline void freed(struct cule_ring *r, uint64_t slots, uint64_t pos)
{
    r->rx_freed = slots;
    r->rx_freed_pos = pos;
    if (unlikely(slots - r->rx_told >= r->slots / 4 || pos - r->rx_told_pos >= r->area / 4)) {
        cule_ring_tell(r);
    }
}

/* cule_frame_validate and nfds == 0 on the first word and the length, without a call and a branch
 * for each field. A test holds the two against each other. */
static inline bool header_holds(const struct cule_frame *f, uint64_t first)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    enum { FLAGS_BAD = 0xff00 & ~CULE_FLAGS_KNOWN_HIGH };
    const uint64_t fixed = 'C' | 'U' << 8 | CULE_VERSION_1 << 16;
    const uint64_t mask =
        0xffffff | (uint64_t)(0xff & ~(CULE_PRIORITIES - 1)) << 32 | RING_NFDS_BITS | (uint64_t)FLAGS_BAD << 48;
    return (first & mask) == fixed && (uint8_t)((first >> 24) - CULE_HELLO) <= CULE_KIND_LAST - CULE_HELLO &&
           f->length <= CULE_PAYLOAD_MAX;
#else
    return !(first & RING_NFDS_BITS) && cule_frame_validate(f, NULL) == 0;
#endif
}

static int bad_header(struct cule_ring *r, const struct cule_frame *f)
{
    struct cule_err err = {0};
    int rc = cule_frame_validate(f, &err);
    if (rc) {
        return cule_ring_fail(r, CULE_EMALFORMED, "bad header in the ring: %s", err.text);
    }
    return cule_ring_fail(r, CULE_EMALFORMED, "bad header in the ring: nfds is %u, a ring carries no descriptors",
                          f->nfds);
}

/* The next header, copied out and then checked: 1, 0 nothing there, or why the ring has ended. */
static inline int load_header(struct cule_ring *r, struct cule_frame *f)
{
    int ended = r->ended; /* read before the slot: what was published before the hang-up is then visible */
    const ring_word *slot = (const ring_word *)(r->rx_slots + (r->rx_next & (r->slots - 1)) * CULE_HEADER_SIZE);
    ring_word *to = (ring_word *)f;
    if (unlikely(ended && ended != CULE_ECLOSED)) {
        return ended;
    }
    uint64_t first = __atomic_load_n(slot, __ATOMIC_ACQUIRE) ^ r->rx_phase;
    if (first & RING_PHASE_BIT) {
        return ended;
    }
    to[0] = first; /* PHASE has become 0 */
    to[1] = slot[1];
    to[2] = slot[2];
    to[3] = slot[3] & RING_NOT_CHECK;
    to[4] = slot[4];
    to[5] = slot[5];
    to[6] = slot[6];
    to[7] = slot[7];
    __asm__ volatile("" ::: "memory"); /* whatever is looked at from here on is the copy, not the slot again */
    if (unlikely(!header_holds(f, first))) {
        return bad_header(r, f);
    }
    return 1;
}

static inline void advance(struct cule_ring *r, uint64_t end)
{
    uint64_t index = r->rx_next & (r->slots - 1);
    r->rx_next++;
    r->rx_pos = end;
    r->rx_peeked = false;
    if (unlikely(index == r->slots - 1)) {
        r->rx_phase ^= RING_PHASE_BIT;
    }
}

static bool copy_room(struct cule_ring *r)
{
    if (!r->rx_copy) {
        r->rx_copy = cule_pool_get(CULE_PAYLOAD_MAX, &r->rx_copy_cap);
    }
    return r->rx_copy != NULL;
}

void cule_ring_copy_release(struct cule_ring *r)
{
    if (r->rx_copy) {
        cule_pool_put(r->rx_copy, r->rx_copy_cap);
        r->rx_copy = NULL;
    }
}

int cule_ring_peek(struct cule_ring *r, struct cule_frame *f)
{
    if (!r->rx_peeked) {
        int rc = load_header(r, &r->rx_head);
        if (rc <= 0) {
            return rc;
        }
        r->rx_peeked = true;
    }
    *f = r->rx_head;
    return 1;
}

int cule_ring_take(struct cule_ring *r, void *to)
{
    if (!r->rx_peeked || r->rx_freed != r->rx_next) {
        return CULE_EUSAGE;
    }
    uint32_t n = r->rx_head.length;
    uint64_t end = r->rx_pos;
    if (n) {
        uint64_t start = ring_place(r->rx_pos, n, r->area);
        memcpy(to, r->rx_area + (start & (r->area - 1)), n);
        r->stats.bytes_in += n;
        end = ring_behind(start, n);
    }
    advance(r, end);
    freed(r, r->rx_next, end);
    return 0;
}

int cule_ring_recv(struct cule_ring *r, struct cule_frame *f, const void **payload)
{
    if (unlikely(r->rx_peeked)) {
        *f = r->rx_head;
    } else {
        int rc = load_header(r, f);
        if (rc <= 0) {
            return rc;
        }
    }
    uint32_t n = f->length;
    uint64_t end = r->rx_pos;
    const uint8_t *at = NULL;
    if (n) {
        uint64_t start = ring_place(r->rx_pos, n, r->area);
        at = r->rx_area + (start & (r->area - 1));
        end = ring_behind(start, n);
        if (!r->lends) {
            if (unlikely(!copy_room(r))) {
                return CULE_ENOMEM;
            }
            at = memcpy(r->rx_copy, at, n);
        }
        r->stats.bytes_in += n;
    }
    *payload = at;
    if (r->lends) {
        r->rx_end[r->rx_next & (r->slots - 1)] = end;
        advance(r, end);
    } else {
        advance(r, end);
        freed(r, r->rx_next, end);
    }
    return 1;
}

void cule_ring_release(struct cule_ring *r)
{
    if (r->rx_freed != r->rx_next) {
        freed(r, r->rx_freed + 1, r->rx_end[r->rx_freed & (r->slots - 1)]);
    }
}

unsigned cule_ring_ready(struct cule_ring *r, unsigned want)
{
    unsigned is = 0;
    uint64_t start;
    if (r->ended && r->ended != CULE_ECLOSED) {
        return 0;
    }
    if ((want & CULE_RING_READABLE) && (r->rx_peeked || ring_visible(r))) {
        is |= CULE_RING_READABLE;
    }
    if ((want & CULE_RING_WRITABLE) && !r->ended && find_room(r, r->tx_need, &start) > 0) {
        is |= CULE_RING_WRITABLE;
    }
    return is;
}

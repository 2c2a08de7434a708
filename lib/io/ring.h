/*
 * The shared-memory ring between two processes of one machine: two single-producer single-consumer rings, one each
 * way, and a payload area each, in one sealed memfd that is handed over a connected Unix stream socket. The socket
 * stays open: its hang-up tells that the peer is gone.
 *
 * The side that creates the ring is the server's, the one that attaches the client's; afterwards both are alike.
 * A handle belongs to one thread at a time. It is not to be used by a child after fork.
 *
 * A blocking program:                               An event loop that watches cule_ring_fd and _socket:
 *     cule_ring_send_wait(r, &f, body, 1000);           when either is readable: cule_ring_disarm(r);
 *     cule_ring_recv_wait(r, &f, &body, 1000);          take what cule_ring_recv gives, until it gives 0;
 *     cule_ring_release(r);                             cule_ring_arm(r, CULE_RING_READABLE): above 0, begin again.
 *
 * THE MAPPING (host byte order; every number not named here is zero)
 *     offset 0      sleep word of the creator, 4 bytes        128    sleep word of the attacher, 4 bytes
 *     offset 256    slots the attacher has consumed, 8 bytes  384    slots the creator has consumed, 8 bytes
 *     offset 4096   slots of the ring creator -> attacher, 64 bytes each
 *     then          slots of the ring attacher -> creator
 *     then          payload area creator -> attacher, then payload area attacher -> creator
 *     size          4096 + 2 * (64 * slots + area), rounded up to 4096
 * slots is a power of two from 4 to 65,536, area a power of two from 256 KiB to 64 MiB, the same both ways.
 *
 * SLOTS. A slot is the frame's header. Frame number p (from 0, each way) lies in slot p mod slots. Its first 8 bytes
 * are stored last, with release; the flag PHASE in them is 1 in laps 0, 2, 4, ... and 0 in laps 1, 3, 5, ..., lap
 * being p / slots, so a consumer sees a new slot by its PHASE alone. check is 0 and not looked at, nfds is 0.
 * A consumer stores how many slots it has consumed, lazily: at the latest when that is a quarter of the slots, or a
 * quarter of the area, more than it last stored. A producer may hold at most `slots` beyond the stored number.
 *
 * PAYLOADS lie contiguous and in order. With w bytes of the area used since the beginning, a payload of n > 0 bytes
 * begins at w, or, where w mod area + n exceeds area, at the next multiple of area; w then stands behind it, rounded
 * up to 64. n = 0 leaves w as it is. The payload CRC of a frame with the flag CRC is not carried: whoever forwards
 * the frame to a stream computes it anew.
 *
 * SLEEP WORDS. 0: awake. Else bits: 1 wake me for a new slot, 2 wake me for consumed slots, 4 by FUTEX_WAKE on this
 * word, 8 by my doorbell. A sleeper stores the word, fences, looks once more, sleeps. Whoever has published
 * (slots or consumed) fences, reads the peer's word and, if that event is asked for, swaps the word with 0 and does
 * what the value it got says.
 *
 * HAND-OVER. The creator sends 32 bytes, little-endian, with SCM_RIGHTS on them:
 *     0 magic "CURI"   4 u16 version 1   6 u8 kind   7 u8 doorbells   8 u32 slots   12 u32 area   16 u64 size of the
 *     mapping   24 u32 code   28 u32 zero
 * kind 1 OFFER carries the memfd and, with doorbell bit 2, two eventfds: the creator's and the attacher's. The
 * attacher answers with kind 2 ACCEPT (the fields repeated; doorbells: what the attacher listens to), or kind 3
 * REFUSE (code: why, as in an ERROR frame) and hangs up. Doorbell bits: 1 futex, 2 eventfd, 4 a byte on the socket.
 * Bit 4 is always set; every later byte on the socket is a doorbell and means nothing else. Frames may be published
 * from the OFFER on. Eventfds are used only between processes of one user: nothing makes a write to a
 * descriptor that a stranger controls certain not to block, whereas a send on the socket can be.
 * The memfd carries the seals SHRINK, GROW and SEAL; an attacher checks them, its size and the geometry before it maps.
 *
 * SAFETY. The peer may write anything anywhere at any time: positions are kept outside the mapping, headers are
 * copied out before they are checked, offsets are computed and not read, and consumed counts that make no sense, or a
 * header that does not hold, end the ring with CULE_EMALFORMED (cule_ring_why says more). Payloads are copied out too,
 * unless trust_same_uid is set and the peer's uid is ours: then they are lent.
 *
 * DEATH. Nothing in shared memory is locked and a half-written slot is never published, so kill -9 at any instruction
 * leaves a readable ring: the survivor takes what was published, then gets CULE_ECLOSED. A sleeper sees the hang-up
 * at once, or after CULE_RING_SLICE_US if it sleeps on the futex; a spinner after CULE_RING_SPIN_CHECK_US.
 * A child that a peer forked without exec holds the socket too and delays this.
 */
#ifndef CULE_IO_RING_H
#define CULE_IO_RING_H

#include "base/err.h"
#include "wire/frame.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CULE_RING_SLOTS_MIN = 4,
    CULE_RING_SLOTS_MAX = 65536,
    CULE_RING_SLOTS = 1024, /* default */
    CULE_RING_AREA_MIN = 256 * 1024,
    CULE_RING_AREA_MAX = 64 * 1024 * 1024,
    CULE_RING_AREA = 512 * 1024, /* default, bytes each way */
    CULE_RING_SPIN_US = 50,      /* the most an adaptive wait spins */
    CULE_RING_SPIN_CHECK_US = 1000,
    CULE_RING_SLICE_US = 5000, /* sleep on the futex; longer waits go on at the doorbell */
};

enum cule_ring_want { CULE_RING_READABLE = 1, CULE_RING_WRITABLE = 2 };

enum cule_ring_doorbell { CULE_RING_FUTEX = 1, CULE_RING_EVENTFD = 2, CULE_RING_SOCKET = 4 };

enum cule_ring_spin { CULE_RING_SPIN_ADAPTIVE, CULE_RING_SPIN_ALWAYS, CULE_RING_SPIN_NEVER };

struct cule_ring_opts {
    uint32_t slots;           /* creator: 0 is the default */
    uint32_t area;            /* creator: bytes each way; 0 is the default */
    unsigned doorbells;       /* enum cule_ring_doorbell; 0 is all */
    enum cule_ring_spin spin; /* how cule_ring_wait waits */
    bool trust_same_uid;      /* lend payloads if the peer runs under our effective uid */
};

struct cule_ring_stats {
    uint64_t frames_out, bytes_out; /* published by us; payload bytes */
    uint64_t frames_in, bytes_in;
    uint64_t wakes;     /* wake calls we made: the slow path of sending and of consuming */
    uint64_t sleeps;    /* times we went to sleep: the slow path of waiting */
    uint64_t waits;     /* times we waited at all */
    uint64_t spins_won; /* waits that ended while spinning */
    uint64_t full;      /* sends that found no room */
    uint64_t missed;    /* sleeps that ran out although there was something: the peer did not wake us */
};

struct cule_ring;

/* The creator's end. opts may be NULL. 0, CULE_EUSAGE (geometry), CULE_ENOMEM, CULE_ENOFD, CULE_EIO. */
int cule_ring_create(struct cule_ring **out, const struct cule_ring_opts *opts, struct cule_err *err);

/* Offers the ring to the peer of a connected Unix stream socket, without blocking. On success the ring owns the
 * socket; on failure it stays the caller's. The attacher's answer is taken in by later calls. 0, CULE_EUSAGE (handed
 * over already), CULE_EAGAIN (the socket is full), CULE_ECLOSED, CULE_EIO. */
int cule_ring_handover(struct cule_ring *r, int sock, struct cule_err *err);

/* The attacher's end: waits for the offer, checks it, maps it and answers. The ring owns the socket on success.
 * With timeout_ms 0 it never blocks and is to be called when the socket is readable. 0, CULE_ETIMEOUT (nothing was
 * read: call again), CULE_ECLOSED, CULE_EMALFORMED, CULE_EVERSION, CULE_ENOMEM, CULE_ENOFD, CULE_EIO. */
int cule_ring_attach(struct cule_ring **out, int sock, const struct cule_ring_opts *opts, int timeout_ms,
                     struct cule_err *err);

/* Both ends in this process, for two threads: out[0] is the creator's. */
int cule_ring_pair(struct cule_ring *out[2], const struct cule_ring_opts *opts, struct cule_err *err);

/* Closes everything and frees r, which may be NULL. The peer takes what was published, then gets CULE_ECLOSED. */
void cule_ring_close(struct cule_ring *r);

/*
 * Sending. f->length bytes at payload; f->nfds must be 0; PHASE and check are the ring's own and *f is not changed.
 * 0, CULE_EAGAIN (full: never blocks), CULE_ETOO_BIG, CULE_EUNSUPPORTED (descriptors), CULE_ECLOSED, CULE_EMALFORMED.
 * push publishes without waking the peer; flush wakes it if it sleeps; send is both.
 */
int cule_ring_push(struct cule_ring *r, const struct cule_frame *f, const void *payload);
void cule_ring_flush(struct cule_ring *r);
int cule_ring_send(struct cule_ring *r, const struct cule_frame *f, const void *payload);
/* Blocks for room. Also CULE_ETIMEOUT. */
int cule_ring_send_wait(struct cule_ring *r, const struct cule_frame *f, const void *payload, int timeout_ms);

/* Room for n bytes of payload, to be written in place and then published by commit with f->length <= n (as push:
 * flush follows). One reservation at a time; any other send voids it. */
int cule_ring_reserve(struct cule_ring *r, uint32_t n, void **at);
int cule_ring_commit(struct cule_ring *r, const struct cule_frame *f);

/*
 * Receiving: 1 with *f and *payload (NULL when f->length is 0), 0 when there is nothing, or a negative code, among
 * them CULE_ECLOSED once the hang-up has been noticed (by wait, disarm or check) and everything was taken.
 * A copied payload holds until the next call of recv, wait or arm; a lent one until its release. Releases go in
 * order, one for each frame received; with copied payloads they do nothing.
 */
int cule_ring_recv(struct cule_ring *r, struct cule_frame *f, const void **payload);
void cule_ring_release(struct cule_ring *r);
/* Blocks for a frame. Also CULE_ETIMEOUT. */
int cule_ring_recv_wait(struct cule_ring *r, struct cule_frame *f, const void **payload, int timeout_ms);

/* The same in two steps: peek gives the next header (again and again the same, read from the mapping once), take
 * consumes it and copies its payload to `to`, which holds f->length bytes. take without a peek that gave 1 is
 * CULE_EUSAGE. Nothing is to be released after take. CULE_EUSAGE also while lent payloads are out. */
int cule_ring_peek(struct cule_ring *r, struct cule_frame *f);
int cule_ring_take(struct cule_ring *r, void *to);

/* Waits for any of `want` (enum cule_ring_want): spins for a bounded time, then sleeps. Writable means room for the
 * frame that last got CULE_EAGAIN. Returns what holds of want (> 0), CULE_ETIMEOUT, or why the ring has ended.
 * A negative timeout_ms waits without a deadline. */
int cule_ring_wait(struct cule_ring *r, unsigned want, int timeout_ms);

/* For an event loop: watch both descriptors for readability (cule_ring_fd is the socket's where no eventfd is in
 * use, before the hand-over -1). arm says "I am going to sleep": 0, or what holds of want already (> 0, and not
 * armed), or a negative code. disarm takes it back, drains the doorbell and looks for a hang-up: 0, or a negative
 * code when the ring has ended; frames may still be there to receive then. spin waits as wait does before it sleeps,
 * and returns what holds of want or 0. */
int cule_ring_fd(const struct cule_ring *r);
int cule_ring_socket(const struct cule_ring *r);
int cule_ring_arm(struct cule_ring *r, unsigned want);
int cule_ring_disarm(struct cule_ring *r);
int cule_ring_spin(struct cule_ring *r, unsigned want);

/* Looks at the socket without blocking: 0 the peer lives, or why the ring has ended. */
int cule_ring_check(struct cule_ring *r);

/* True once the attacher has accepted; always true for an attacher. */
bool cule_ring_accepted(const struct cule_ring *r);
/* True where payloads are lent. */
bool cule_ring_lends(const struct cule_ring *r);
/* Why the ring has ended; code 0 and empty text while it lives. */
const struct cule_err *cule_ring_why(const struct cule_ring *r);
void cule_ring_stats(const struct cule_ring *r, struct cule_ring_stats *out);

#endif

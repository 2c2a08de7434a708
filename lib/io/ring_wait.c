/* Waiting for a ring: spinning, sleeping, doorbells, and seeing that the peer is gone. */
#include "io/futex.h"
#include "io/ring_impl.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

enum {
    SPIN_UNTIMED = 64,     /* polls before the clock is read for the first time: about 2 us */
    SPIN_LEAST_NS = 1000,  /* a budget below this is 0 */
    SPIN_RETRY_EVERY = 32, /* a budget of 0 is tried again after so many waits */
    SPIN_RETRY_NS = 4000,  /* ... with this */
    SOCKET_READS_MAX = 4,  /* per look at the socket; what is left is seen at the next look */
    SOCKET_READ_BYTES = 512,
};

/* --- the peer ---------------------------------------------------------------------------------------------- */

void cule_ring_wake(struct cule_ring *r)
{
    uint32_t word = __atomic_exchange_n(r->peer_sleep, 0, __ATOMIC_SEQ_CST);
    int saved = errno;
    r->peer_sleeps = word != 0;
    if (word & RING_BY_FUTEX) {
        cule_futex_wake(r->peer_sleep, 1, true);
        r->stats.wakes++;
    }
    if (word & RING_BY_BELL) {
        const uint64_t one = 1;
        if (!r->peer_bell_usable || write(r->peer_bell, &one, sizeof one) < 0) {
            send(r->sock, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* full: then it is readable already */
        }
        r->stats.wakes++;
    }
    errno = saved;
}

int cule_ring_check(struct cule_ring *r)
{
    uint8_t bytes[SOCKET_READ_BYTES];
    int saved = errno;
    if (r->sock < 0) {
        return r->ended;
    }
    for (int i = 0; i < SOCKET_READS_MAX && !r->ended; i++) {
        ssize_t n = recv(r->sock, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0) {
            cule_ring_answer(r, bytes, (size_t)n);
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        } else if (n == 0 || errno != EINTR) {
            r->ended = CULE_ECLOSED;
            cule_err_set(&r->why, CULE_ECLOSED, "the ring's peer hung up");
        }
    }
    errno = saved;
    return r->ended;
}

/* What holds of want; else looks at the socket, and once more at the ring, as the peer may have published before it
 * hung up. Returns what holds, 0, or why the ring has ended. */
static int ready_or_ended(struct cule_ring *r, unsigned want)
{
    unsigned is = cule_ring_ready(r, want);
    if (is || !cule_ring_check(r)) {
        return (int)is;
    }
    is = cule_ring_ready(r, want);
    return is ? (int)is : r->ended;
}

/* --- spinning ---------------------------------------------------------------------------------------------- */

static inline unsigned spin_untimed(struct cule_ring *r, unsigned want)
{
    for (int i = 0; i < SPIN_UNTIMED; i++) {
        /* The common wait is for a slot alone, which is one load. */
        if (want == CULE_RING_READABLE ? ring_visible(r) : cule_ring_ready(r, want)) {
            return cule_ring_ready(r, want);
        }
        cule_cpu_relax();
    }
    return 0;
}

/* Spins for at most budget_ns and not beyond the deadline; *spun_ns is how long it took. */
static unsigned spin_timed(struct cule_ring *r, unsigned want, uint64_t budget_ns, uint64_t deadline_ns,
                           uint64_t *spun_ns)
{
    uint64_t start = cule_mono_ns(), now = start;
    unsigned is = 0;
    while (!is && now - start < budget_ns && now < deadline_ns) {
        is = spin_untimed(r, want);
        now = cule_mono_ns();
    }
    *spun_ns = now - start;
    return is;
}

/*
 * The budget follows what spinning has brought. A wait that ended while spinning makes it twice what that wait took,
 * approached by a quarter of the way; one that did not halves it, down to none. So it settles near the peer's usual
 * answer time where that is short, and near nothing where the peer is slow or needs this very core to answer.
 */
static unsigned spin_adaptive(struct cule_ring *r, unsigned want, uint64_t deadline_ns)
{
    uint64_t budget = r->spin_ns, spun = 0;
    if (!budget) {
        if (++r->spin_lost < SPIN_RETRY_EVERY) {
            return 0;
        }
        r->spin_lost = 0;
        budget = SPIN_RETRY_NS;
    }
    unsigned is = spin_untimed(r, want);
    if (is) {
        if (r->spin_ns < SPIN_RETRY_NS) {
            r->spin_ns = SPIN_RETRY_NS;
        }
        return is;
    }
    is = spin_timed(r, want, budget, deadline_ns, &spun);
    if (is) {
        uint64_t aim = CULE_MIN(2 * spun + SPIN_RETRY_NS, (uint64_t)CULE_RING_SPIN_US * 1000);
        r->spin_ns = (uint32_t)((3 * budget + aim) / 4);
    } else {
        r->spin_ns = r->spin_ns / 2 < SPIN_LEAST_NS ? 0 : r->spin_ns / 2;
    }
    return is;
}

static unsigned spin(struct cule_ring *r, unsigned want, uint64_t deadline_ns)
{
    r->stats.waits++;
    unsigned is = r->spin == CULE_RING_SPIN_NEVER ? 0 : spin_adaptive(r, want, deadline_ns);
    r->stats.spins_won += is != 0;
    return is;
}

/* Never sleeps, but looks at the socket now and then. */
static int spin_always(struct cule_ring *r, unsigned want, uint64_t deadline_ns)
{
    r->stats.waits++;
    unsigned is = spin_untimed(r, want);
    if (is) {
        r->stats.spins_won++;
        return (int)is;
    }
    for (;;) {
        uint64_t spun;
        is = spin_timed(r, want, CULE_RING_SPIN_CHECK_US * 1000, deadline_ns, &spun);
        int rc = is ? (int)is : ready_or_ended(r, want);
        if (rc) {
            r->stats.spins_won += rc > 0;
            return rc;
        }
        if (deadline_ns != CULE_NEVER && cule_mono_ns() >= deadline_ns) {
            return CULE_ETIMEOUT;
        }
    }
}

/* --- sleeping ---------------------------------------------------------------------------------------------- */

/* The half of the sleep protocol that sleeps (wake_if_wanted in ring_data.c has the other half and the proof):
 * says how to be woken, fences, looks once more. Returns what holds, and is awake again then, or 0. */
static unsigned announce(struct cule_ring *r, uint32_t word)
{
    __atomic_exchange_n(r->own_sleep, word, __ATOMIC_SEQ_CST);
    cule_full_fence();
    unsigned is = cule_ring_ready(r, word & (RING_FOR_SLOTS | RING_FOR_ROOM));
    if (is) {
        __atomic_store_n(r->own_sleep, 0, __ATOMIC_RELAXED);
    }
    return is;
}

/* A plain store: the line is at the peer, who swapped the word to wake us, and is not waited for. */
static void awake(struct cule_ring *r)
{
    __atomic_store_n(r->own_sleep, 0, __ATOMIC_RELAXED);
}

static void drain_bell(struct cule_ring *r)
{
    uint64_t count;
    if (r->bell >= 0) {
        ssize_t n = read(r->bell, &count, sizeof count);
        (void)n; /* nothing there is well too */
    }
}

static void poll_bell(struct cule_ring *r, uint64_t deadline_ns)
{
    struct pollfd fds[2] = {{.fd = r->sock, .events = POLLIN}, {.fd = r->bell, .events = POLLIN}};
    struct timespec t, *left = NULL;
    if (deadline_ns != CULE_NEVER) {
        uint64_t now = cule_mono_ns(), ns = deadline_ns > now ? deadline_ns - now : 0;
        t = (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
        left = &t;
    }
    ppoll(fds, 2, left, NULL);
}

/* One sleep, by futex or by doorbell; true if it lasted until `until`. What holds, or why it ended, is in *rc. */
static bool sleep_once(struct cule_ring *r, unsigned want, bool futex, uint64_t until, int *rc)
{
    uint32_t word = want | (futex ? RING_BY_FUTEX : RING_BY_BELL);
    *rc = (int)announce(r, word);
    if (*rc) {
        return false;
    }
    r->stats.sleeps++;
    bool woken = true;
    if (futex) {
        woken = cule_futex_wait(r->own_sleep, word, until, true);
    } else {
        poll_bell(r, until);
        drain_bell(r);
    }
    unsigned is = woken ? 0 : cule_ring_ready(r, want);
    if (is && __atomic_load_n(r->own_sleep, __ATOMIC_RELAXED)) {
        r->stats.missed++; /* nobody has swapped the word, though there is something */
    }
    awake(r);
    *rc = is ? (int)is : ready_or_ended(r, want);
    /* The clock and not the call says whether time is up: a hostile peer could wake us without end. */
    return !*rc && until != CULE_NEVER && cule_mono_ns() >= until;
}

/*
 * Sleeps on the futex first, which is the quickest to wake from, but which a hang-up does not end; so only for
 * one slice. A wait that lasts longer goes on at the doorbell and the socket, which needs no slices: an idle ring
 * costs no wake-ups, and the slower wake does not matter to who has slept that long. A slice is longer than the
 * kernel's tick (4 ms at 250 Hz): a nearer timer has to be programmed at every sleep, which made a round trip a tenth
 * slower.
 */
static int sleep_until(struct cule_ring *r, unsigned want, uint64_t start_ns, uint64_t deadline_ns)
{
    int rc = 0;
    if (r->doorbells & CULE_RING_FUTEX) {
        uint64_t slice = CULE_MIN(start_ns + CULE_RING_SLICE_US * 1000u, deadline_ns);
        while (!rc && !sleep_once(r, want, true, slice, &rc)) {
        }
    }
    if (!rc && (deadline_ns == CULE_NEVER || cule_mono_ns() < deadline_ns)) {
        cule_ring_copy_release(r); /* a ring that idles holds no buffer */
        while (!rc && !sleep_once(r, want, false, deadline_ns, &rc)) {
        }
    }
    return rc ? rc : CULE_ETIMEOUT;
}

/* Where the ring has ended a wait must not be entered: what is there may be taken, nothing more will come. */
static int ready_before_wait(struct cule_ring *r, unsigned want)
{
    unsigned is = cule_ring_ready(r, want);
    return is ? (int)is : r->ended;
}

/* start_ns is when the wait began: a sleep does not read the clock a second time before it begins. */
static int wait_until(struct cule_ring *r, unsigned want, uint64_t start_ns, uint64_t deadline_ns)
{
    if (r->spin == CULE_RING_SPIN_ALWAYS) {
        return spin_always(r, want, deadline_ns);
    }
    unsigned is = spin(r, want, deadline_ns);
    return is ? (int)is : sleep_until(r, want, start_ns, deadline_ns);
}

static uint64_t deadline_after(uint64_t start_ns, int timeout_ms)
{
    return timeout_ms < 0 ? CULE_NEVER : start_ns + (uint64_t)timeout_ms * 1000000u;
}

int cule_ring_wait(struct cule_ring *r, unsigned want, int timeout_ms)
{
    int rc = ready_before_wait(r, want);
    if (rc) {
        return rc;
    }
    uint64_t start_ns = cule_mono_ns();
    return wait_until(r, want, start_ns, deadline_after(start_ns, timeout_ms));
}

int cule_ring_spin(struct cule_ring *r, unsigned want)
{
    int rc = ready_before_wait(r, want);
    return rc ? rc : (int)spin(r, want, CULE_NEVER);
}

/* Blocks until rc (of a send or a receive) is to be tried again: 0, or why not. The first look does not read the
 * clock, as most waits end while spinning; *deadline_ns is 0 until it is known. */
static int wait_again(struct cule_ring *r, unsigned want, int timeout_ms, uint64_t *deadline_ns)
{
    uint64_t start_ns;
    if (!*deadline_ns) {
        bool may_spin = r->spin == CULE_RING_SPIN_ALWAYS || (r->spin == CULE_RING_SPIN_ADAPTIVE && r->spin_ns);
        if (may_spin && spin_untimed(r, want)) {
            r->stats.waits++;
            r->stats.spins_won++;
            return 0;
        }
        start_ns = cule_mono_ns();
        *deadline_ns = deadline_after(start_ns, timeout_ms);
    } else {
        start_ns = cule_mono_ns();
    }
    int rc = ready_before_wait(r, want);
    rc = rc ? rc : wait_until(r, want, start_ns, *deadline_ns);
    return rc > 0 ? 0 : rc;
}

int cule_ring_recv_wait(struct cule_ring *r, struct cule_frame *f, const void **payload, int timeout_ms)
{
    uint64_t deadline_ns = 0;
    for (;;) {
        int rc = cule_ring_recv(r, f, payload);
        if (rc) {
            return rc;
        }
        rc = wait_again(r, CULE_RING_READABLE, timeout_ms, &deadline_ns);
        if (rc) {
            return rc;
        }
    }
}

int cule_ring_send_wait(struct cule_ring *r, const struct cule_frame *f, const void *payload, int timeout_ms)
{
    uint64_t deadline_ns = 0;
    for (;;) {
        int rc = cule_ring_send(r, f, payload);
        if (rc != CULE_EAGAIN) {
            return rc;
        }
        cule_ring_flush(r); /* what was pushed before may be what the peer has to consume */
        rc = wait_again(r, CULE_RING_WRITABLE, timeout_ms, &deadline_ns);
        if (rc) {
            return rc;
        }
    }
}

/* --- event loops ------------------------------------------------------------------------------------------- */

int cule_ring_arm(struct cule_ring *r, unsigned want)
{
    cule_ring_copy_release(r);
    unsigned is = announce(r, want | RING_BY_BELL);
    if (is) {
        return (int)is;
    }
    if (r->ended) {
        awake(r);
    } else {
        r->stats.sleeps++;
    }
    return r->ended;
}

int cule_ring_disarm(struct cule_ring *r)
{
    awake(r);
    drain_bell(r);
    return cule_ring_check(r);
}

/* Two threads over one ring: no wake-up is lost, whichever the doorbell and however small the ring. */
#include "io/futex.h"
#include "io/ring.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 20000, ROUNDS = 4000, STREAM = 60000 };

struct end {
    struct cule_ring *ring;
    int count;
    bool by_loop; /* waits as an event loop does */
    const char *failed;
};

/* Waits as an event loop would: arms, polls both descriptors, disarms. 0, or why it ended. */
static int loop_wait(struct cule_ring *r, unsigned want)
{
    int rc = cule_ring_arm(r, want);
    if (rc) {
        return rc > 0 ? 0 : rc;
    }
    struct pollfd fds[2] = {{.fd = cule_ring_fd(r), .events = POLLIN}, {.fd = cule_ring_socket(r), .events = POLLIN}};
    if (poll(fds, 2, TIMEOUT_MS) == 0) {
        return CULE_ETIMEOUT;
    }
    rc = cule_ring_disarm(r);
    return rc == CULE_ECLOSED ? 0 : rc; /* what was published is still to be taken */
}

static int receive(struct end *e, struct cule_frame *f, const void **payload)
{
    int rc;
    if (!e->by_loop) {
        return cule_ring_recv_wait(e->ring, f, payload, TIMEOUT_MS);
    }
    while ((rc = cule_ring_recv(e->ring, f, payload)) == 0) {
        rc = loop_wait(e->ring, CULE_RING_READABLE);
        if (rc) {
            return rc;
        }
    }
    return rc;
}

static int transmit(struct end *e, const struct cule_frame *f, const void *payload)
{
    int rc;
    if (!e->by_loop) {
        return cule_ring_send_wait(e->ring, f, payload, TIMEOUT_MS);
    }
    while ((rc = cule_ring_send(e->ring, f, payload)) == CULE_EAGAIN) {
        rc = loop_wait(e->ring, CULE_RING_WRITABLE);
        if (rc) {
            return rc;
        }
    }
    return rc;
}

static void *echo(void *arg)
{
    struct end *e = arg;
    struct cule_frame f;
    const void *payload;
    for (int i = 0; i < e->count; i++) {
        if (receive(e, &f, &payload) != 1) {
            e->failed = "receive";
            break;
        }
        if (transmit(e, &f, payload)) {
            e->failed = "transmit";
            break;
        }
        cule_ring_release(e->ring);
    }
    return NULL;
}

/* One frame in flight: each side sleeps for nearly each frame, so a lost wake-up stops it for good. */
static void ping_pong(const struct cule_ring_opts *opts, bool by_loop)
{
    struct cule_ring *ends[2];
    struct cule_ring_stats stats;
    struct cule_frame f, answer;
    const void *payload;
    pthread_t thread;
    assert_int_equal(cule_ring_pair(ends, opts, NULL), 0);
    struct end asker = {.ring = ends[0], .by_loop = by_loop};
    struct end answerer = {.ring = ends[1], .count = ROUNDS, .by_loop = by_loop};
    assert_int_equal(pthread_create(&thread, NULL, echo, &answerer), 0);
    cule_frame_init(&f, CULE_PING);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t body = ~i;
        f.id = i;
        f.length = i & 1 ? sizeof body : 0;
        assert_int_equal(transmit(&asker, &f, &body), 0);
        assert_int_equal(receive(&asker, &answer, &payload), 1);
        assert_int_equal(answer.id, i);
        assert_true(!answer.length || memcmp(payload, &body, sizeof body) == 0);
        cule_ring_release(ends[0]);
    }
    pthread_join(thread, NULL);
    assert_null(answerer.failed);
    cule_ring_stats(ends[1], &stats);
    assert_true(stats.missed <= 1); /* 1: the other thread stood between publishing and waking for a whole slice */
    cule_ring_stats(ends[0], &stats);
    assert_true(stats.missed <= 1);
    assert_int_equal(stats.frames_out, ROUNDS);
    assert_int_equal(stats.frames_in, ROUNDS);
    if (opts->spin == CULE_RING_SPIN_NEVER || by_loop) {
        assert_true(stats.sleeps > 0);
        assert_true(stats.wakes > 0);
    }
    if (opts->spin == CULE_RING_SPIN_ALWAYS && !by_loop) {
        assert_int_equal(stats.sleeps, 0);
        assert_int_equal(stats.wakes, 0); /* no wake call while the peer spins */
    }
    cule_ring_close(ends[0]);
    cule_ring_close(ends[1]);
}

static void test_ping_pong(void **state)
{
    (void)state;
    const struct cule_ring_opts never_futex = {.spin = CULE_RING_SPIN_NEVER, .doorbells = CULE_RING_FUTEX, .slots = 4};
    const struct cule_ring_opts never_bell = {.spin = CULE_RING_SPIN_NEVER, .doorbells = CULE_RING_EVENTFD, .slots = 4};
    const struct cule_ring_opts never_sock = {.spin = CULE_RING_SPIN_NEVER, .doorbells = CULE_RING_SOCKET, .slots = 4};
    const struct cule_ring_opts adaptive = {.trust_same_uid = true};
    ping_pong(&never_futex, false);
    ping_pong(&never_bell, false);
    ping_pong(&never_bell, true);
    ping_pong(&never_sock, false);
    ping_pong(&never_sock, true);
    ping_pong(&adaptive, false);
    ping_pong(&adaptive, true);
}

static void test_ping_pong_spinning(void **state)
{
    (void)state;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < 2) {
        skip(); /* with one core each turn lasts a time slice */
    }
    const struct cule_ring_opts always = {.spin = CULE_RING_SPIN_ALWAYS};
    ping_pong(&always, false);
}

static void *drink(void *arg)
{
    struct end *e = arg;
    struct cule_frame f;
    const void *payload;
    for (int i = 0; i < e->count; i++) {
        if (receive(e, &f, &payload) != 1 || f.id != (uint64_t)i) {
            e->failed = "receive";
            break;
        }
        for (uint32_t k = 0; k < f.length; k += 97) {
            if (((const uint8_t *)payload)[k] != (uint8_t)i) {
                e->failed = "payload";
            }
        }
        cule_ring_release(e->ring);
    }
    return NULL;
}

/* A stream through a tiny ring: the sender sleeps for room, the receiver for slots, in turn. */
static void stream(const struct cule_ring_opts *opts, bool by_loop, int count)
{
    static uint8_t body[CULE_PAYLOAD_MAX];
    struct cule_ring *ends[2];
    struct cule_frame f;
    pthread_t thread;
    assert_int_equal(cule_ring_pair(ends, opts, NULL), 0);
    struct end from = {.ring = ends[0], .by_loop = by_loop};
    struct end to = {.ring = ends[1], .count = count, .by_loop = by_loop};
    assert_int_equal(pthread_create(&thread, NULL, drink, &to), 0);
    cule_frame_init(&f, CULE_DATA);
    for (int i = 0; i < count; i++) {
        f.id = (uint64_t)i;
        f.length = i % 16 == 0 ? (uint32_t)(i * 37) % (CULE_PAYLOAD_MAX + 1) : 0;
        memset(body, i, f.length);
        assert_int_equal(transmit(&from, &f, body), 0);
    }
    pthread_join(thread, NULL);
    assert_null(to.failed);
    cule_ring_close(ends[0]);
    cule_ring_close(ends[1]);
}

static void test_stream(void **state)
{
    (void)state;
    const struct cule_ring_opts never = {.spin = CULE_RING_SPIN_NEVER, .slots = 4, .area = CULE_RING_AREA_MIN};
    const struct cule_ring_opts lent = {.slots = 8, .area = CULE_RING_AREA_MIN, .trust_same_uid = true};
    const struct cule_ring_opts socket_bell = {.doorbells = CULE_RING_SOCKET, .slots = 4};
    stream(&never, false, STREAM);
    stream(&never, true, STREAM / 3);
    stream(&lent, false, STREAM);
    stream(&socket_bell, true, STREAM / 3);
}

/* Frames pushed without a flush wake nobody; the flush does. */
static void test_flush(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    struct cule_frame f;
    struct cule_ring_stats stats;
    assert_int_equal(cule_ring_pair(ends, NULL, NULL), 0);
    struct pollfd bell = {.fd = cule_ring_fd(ends[1]), .events = POLLIN};
    cule_frame_init(&f, CULE_EVENT);
    assert_int_equal(cule_ring_arm(ends[1], CULE_RING_READABLE), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cule_ring_push(ends[0], &f, NULL), 0);
    }
    assert_int_equal(poll(&bell, 1, 0), 0);
    cule_ring_flush(ends[0]);
    assert_int_equal(poll(&bell, 1, 0), 1);
    cule_ring_flush(ends[0]);
    cule_ring_stats(ends[0], &stats);
    assert_int_equal(stats.wakes, 1);
    assert_int_equal(cule_ring_disarm(ends[1]), 0);
    assert_int_equal(poll(&bell, 1, 0), 0);
    assert_int_equal(cule_ring_arm(ends[1], CULE_RING_READABLE), CULE_RING_READABLE);
    cule_ring_close(ends[0]);
    cule_ring_close(ends[1]);
}

static void test_deadlines(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    struct cule_frame f;
    const void *payload;
    for (int spin = CULE_RING_SPIN_ADAPTIVE; spin <= CULE_RING_SPIN_NEVER; spin++) {
        const struct cule_ring_opts opts = {.spin = (enum cule_ring_spin)spin};
        assert_int_equal(cule_ring_pair(ends, &opts, NULL), 0);
        for (int ms = 0; ms <= 20; ms += 10) {
            uint64_t start = cule_mono_ns();
            assert_int_equal(cule_ring_recv_wait(ends[0], &f, &payload, ms), CULE_ETIMEOUT);
            assert_true(cule_mono_ns() - start >= (uint64_t)ms * 1000000);
            assert_int_equal(cule_ring_wait(ends[0], CULE_RING_READABLE, ms), CULE_ETIMEOUT);
        }
        cule_ring_close(ends[0]);
        cule_ring_close(ends[1]);
    }
}

/* A wait that has gone from the futex to the doorbell is still woken. */
static void *send_late(void *arg)
{
    struct cule_frame f;
    struct timespec later = {.tv_nsec = 4 * CULE_RING_SLICE_US * 1000};
    cule_frame_init(&f, CULE_EVENT);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &later, NULL); /* the time is what is tested here */
    cule_ring_send(arg, &f, NULL);
    return NULL;
}

static void test_long_sleep(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    struct cule_ring_stats stats;
    pthread_t thread;
    assert_int_equal(cule_ring_pair(ends, NULL, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, send_late, ends[1]), 0);
    assert_int_equal(cule_ring_wait(ends[0], CULE_RING_READABLE, TIMEOUT_MS), CULE_RING_READABLE);
    pthread_join(thread, NULL);
    cule_ring_stats(ends[0], &stats);
    assert_true(stats.sleeps >= 2);
    assert_true(stats.sleeps < 8); /* idle time costs no wake-ups */
    cule_ring_close(ends[0]);
    cule_ring_close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ping_pong), cmocka_unit_test(test_ping_pong_spinning), cmocka_unit_test(test_stream),
        cmocka_unit_test(test_flush),     cmocka_unit_test(test_deadlines),          cmocka_unit_test(test_long_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

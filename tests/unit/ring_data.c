/* Frames through a ring whose two ends are in one thread: geometry, order, wrap, room, lending, bad headers. */
#include "io/ring.h"
#include "io/ring_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed = 88172645463325252u;

static uint64_t random_u64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* A payload that tells which message and which byte it is. */
static void paint(uint8_t *p, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(id * 131 + i * 7 + (i >> 8));
    }
}

static bool painted(const uint8_t *p, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++) {
        if (p[i] != (uint8_t)(id * 131 + i * 7 + (i >> 8))) {
            return false;
        }
    }
    return true;
}

static struct cule_frame frame(uint64_t id, uint32_t length)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_DATA);
    f.id = id;
    f.length = length;
    f.flags = (uint16_t)(id & 1 ? CULE_MORE : CULE_RETAIN);
    f.service = CULE_FOURCC('T', 'E', 'S', 'T');
    f.op = (uint32_t)id * 3;
    f.source = 7;
    f.deadline_ms = 9;
    f.arg0 = id * 5;
    f.arg1 = ~id;
    f.cap = id << 32;
    return f;
}

static void open_pair(struct cule_ring *ends[2], uint32_t slots, uint32_t area, bool trust)
{
    struct cule_err err = {0};
    const struct cule_ring_opts opts = {.slots = slots, .area = area, .trust_same_uid = trust};
    assert_int_equal(cule_ring_pair(ends, &opts, &err), 0);
    assert_int_equal(cule_ring_lends(ends[0]), trust);
}

static void close_pair(struct cule_ring *ends[2])
{
    cule_ring_close(ends[0]);
    cule_ring_close(ends[1]);
}

static void expect(struct cule_ring *r, uint64_t id, uint32_t length)
{
    struct cule_frame f, want = frame(id, length);
    const void *payload = &f;
    assert_int_equal(cule_ring_recv(r, &f, &payload), 1);
    assert_memory_equal(&f, &want, sizeof f);
    if (length) {
        assert_true(painted(payload, length, id));
    } else {
        assert_null(payload);
    }
    cule_ring_release(r);
}

static void test_geometry(void **state)
{
    (void)state;
    static const struct cule_ring_opts bad[] = {{.slots = 2},        {.slots = 5},         {.slots = 131072},
                                                {.area = 1000},      {.area = 128 * 1024}, {.area = 3 << 20},
                                                {.area = 128u << 20}};
    struct cule_ring *r = NULL, *ends[2];
    struct cule_err err;
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        err.text[0] = 0;
        assert_int_equal(cule_ring_create(&r, &bad[i], &err), CULE_EUSAGE);
        assert_non_null(strstr(err.text, "power of two"));
    }
    assert_int_equal(cule_ring_create(&r, NULL, &err), 0);
    assert_int_equal(cule_ring_fd(r), -1);
    cule_ring_close(r);
    cule_ring_close(NULL);
    open_pair(ends, CULE_RING_SLOTS_MIN, CULE_RING_AREA_MIN, false);
    close_pair(ends);
    open_pair(ends, CULE_RING_SLOTS_MAX, CULE_RING_AREA_MAX, true);
    close_pair(ends);
}

static void test_full_and_empty(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    struct cule_frame f, got;
    struct cule_ring_stats stats;
    const void *payload;
    open_pair(ends, 4, 0, false);
    assert_int_equal(cule_ring_recv(ends[1], &got, &payload), 0);
    uint64_t in = 0, out = 0;
    for (int lap = 0; lap < 9; lap++) { /* through both phases */
        for (int i = 0; i < 4; i++, in++) {
            f = frame(in, 0);
            assert_int_equal(cule_ring_send(ends[0], &f, NULL), 0);
        }
        f = frame(in, 0);
        assert_int_equal(cule_ring_send(ends[0], &f, NULL), CULE_EAGAIN);
        assert_int_equal(cule_ring_wait(ends[0], CULE_RING_WRITABLE, 0), CULE_ETIMEOUT);
        for (int i = 0; i < 4; i++, out++) {
            expect(ends[1], out, 0);
        }
        assert_int_equal(cule_ring_recv(ends[1], &got, &payload), 0);
        assert_int_equal(cule_ring_wait(ends[0], CULE_RING_WRITABLE, 0), CULE_RING_WRITABLE);
    }
    cule_ring_stats(ends[0], &stats);
    assert_int_equal(stats.frames_out, 36);
    assert_int_equal(stats.full, 9);
    cule_ring_stats(ends[1], &stats);
    assert_int_equal(stats.frames_in, 36);
    close_pair(ends);
}

static void test_every_length(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    uint8_t *body = malloc(CULE_PAYLOAD_MAX);
    struct cule_frame f;
    open_pair(ends, 8, CULE_RING_AREA_MIN, false);
    for (uint32_t n = 0; n <= CULE_PAYLOAD_MAX; n += n < 2048 || n > CULE_PAYLOAD_MAX - 70 ? 1 : 61) {
        f = frame(n, n);
        paint(body, n, n);
        assert_int_equal(cule_ring_send(ends[n & 1], &f, body), 0);
        expect(ends[!(n & 1)], n, n);
    }
    f = frame(1, CULE_PAYLOAD_MAX + 1);
    assert_int_equal(cule_ring_send(ends[0], &f, body), CULE_ETOO_BIG);
    f = frame(1, 0);
    f.nfds = 1;
    assert_int_equal(cule_ring_send(ends[0], &f, body), CULE_EUNSUPPORTED);
    free(body);
    close_pair(ends);
}

/* The largest payloads fill the area at every alignment of the wrap, and an emptied ring always takes one more. */
static void test_wrap(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    uint8_t *body = malloc(CULE_PAYLOAD_MAX);
    open_pair(ends, 64, CULE_RING_AREA_MIN, false);
    uint64_t id = 0;
    for (uint32_t shift = 0; shift < CULE_RING_AREA_MIN; shift += 4032) {
        struct cule_frame f = frame(id, 4032);
        paint(body, 4032, id);
        assert_int_equal(cule_ring_send(ends[0], &f, body), 0);
        expect(ends[1], id++, 4032);
        uint64_t first = id;
        for (;; id++) {
            f = frame(id, CULE_PAYLOAD_MAX);
            paint(body, CULE_PAYLOAD_MAX, id);
            int rc = cule_ring_send(ends[0], &f, body);
            if (rc) {
                assert_int_equal(rc, CULE_EAGAIN);
                break;
            }
        }
        assert_in_range(id - first, 2, 4);
        for (; first < id; first++) {
            expect(ends[1], first, CULE_PAYLOAD_MAX);
        }
        assert_int_equal(cule_ring_wait(ends[0], CULE_RING_WRITABLE, 0), CULE_RING_WRITABLE);
    }
    free(body);
    close_pair(ends);
}

/* A random walk against a plain queue: what must fit fits, what comes out is what went in, in both modes. */
static void model(uint32_t slots, bool trust, int steps)
{
    struct cule_ring *ends[2];
    uint32_t *lengths = calloc((size_t)steps + 1, sizeof *lengths);
    uint8_t *body = malloc(CULE_PAYLOAD_MAX);
    uint64_t sent = 0, received = 0, released = 0;
    const void *lent[8];
    open_pair(ends, slots, CULE_RING_AREA_MIN, trust);
    for (int i = 0; i < steps; i++) {
        uint64_t dice = random_u64();
        uint32_t n = dice & 1 ? 0 : (uint32_t)(dice >> 40) % (dice & 2 ? 300 : CULE_PAYLOAD_MAX + 1);
        if (dice >> 8 & 1) {
            struct cule_frame f = frame(sent, n);
            paint(body, n, sent);
            void *at;
            int rc;
            if (dice & 4) {
                uint32_t more = CULE_MIN(n + (uint32_t)(dice >> 20 & 0xfff), (uint32_t)CULE_PAYLOAD_MAX);
                rc = cule_ring_reserve(ends[0], more, &at);
                if (!rc) {
                    memcpy(at, body, n);
                    rc = cule_ring_commit(ends[0], &f);
                }
            } else {
                rc = cule_ring_push(ends[0], &f, body);
            }
            if (rc) {
                assert_int_equal(rc, CULE_EAGAIN);
                assert_true(sent > released);
            } else {
                lengths[sent++] = n;
            }
        } else if (dice & 8 && received == released) {
            struct cule_frame f;
            if (received < sent) {
                assert_int_equal(cule_ring_peek(ends[1], &f), 1);
                assert_int_equal(cule_ring_peek(ends[1], &f), 1);
                assert_int_equal(f.id, received);
                assert_int_equal(cule_ring_take(ends[1], body), 0);
                assert_true(painted(body, lengths[received], received));
                released = ++received;
            } else {
                assert_int_equal(cule_ring_peek(ends[1], &f), 0);
                assert_int_equal(cule_ring_take(ends[1], body), CULE_EUSAGE);
            }
        } else if (received < sent && received - released < 8) {
            struct cule_frame f;
            assert_int_equal(cule_ring_recv(ends[1], &f, &lent[received % 8]), 1);
            assert_int_equal(f.id, received);
            assert_int_equal(f.length, lengths[received]);
            assert_true(!f.length || painted(lent[received % 8], f.length, received));
            received++;
            released = trust ? released : received;
        } else if (released < received) {
            assert_true(!lengths[released] || painted(lent[released % 8], lengths[released], released));
            cule_ring_release(ends[1]);
            released++;
        }
    }
    assert_true(sent > (uint64_t)steps / 8);
    free(lengths);
    free(body);
    close_pair(ends);
}

static void test_model(void **state)
{
    (void)state;
    model(4, false, 20000);
    model(256, false, 20000);
    model(4, true, 20000);
    model(256, true, 20000);
}

/* A lent payload is in the mapping and its room is not given away before the release. */
static void test_lent(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    struct cule_frame f = frame(0, CULE_PAYLOAD_MAX), got;
    const void *first, *second;
    uint8_t *body = malloc(CULE_PAYLOAD_MAX);
    open_pair(ends, 16, CULE_RING_AREA_MIN, true);
    paint(body, CULE_PAYLOAD_MAX, 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(cule_ring_send(ends[0], &f, body), 0);
    }
    assert_int_equal(cule_ring_recv(ends[1], &got, &first), 1);
    assert_int_equal(cule_ring_recv(ends[1], &got, &second), 1);
    assert_in_range((uintptr_t)first, (uintptr_t)ends[1]->map->base,
                    (uintptr_t)ends[1]->map->base + ends[1]->map->size);
    assert_int_equal(cule_ring_send(ends[0], &f, body), CULE_EAGAIN);
    assert_true(painted(first, CULE_PAYLOAD_MAX, 0));
    cule_ring_release(ends[1]);
    assert_int_equal(cule_ring_send(ends[0], &f, body), 0);
    assert_int_equal(cule_ring_send(ends[0], &f, body), CULE_EAGAIN);
    cule_ring_release(ends[1]);
    cule_ring_release(ends[1]); /* one too many does nothing */
    assert_int_equal(cule_ring_send(ends[0], &f, body), 0);
    assert_int_equal(cule_ring_send(ends[0], &f, body), CULE_EAGAIN);
    free(body);
    close_pair(ends);
}

/* Every bit of the first word and many lengths: the quick check says what cule_frame_validate says. */
static void test_header_check(void **state)
{
    (void)state;
    for (int i = 0; i < 1200; i++) {
        struct cule_ring *ends[2];
        struct cule_frame f = frame(1, 0), got;
        const void *payload;
        if (i < 64) {
            ((uint8_t *)&f)[i / 8] ^= (uint8_t)(1 << i % 8);
        } else if (i < 64 + 256) {
            f.kind = (uint8_t)i;
        } else if (i < 64 + 512) {
            f.priority = (uint8_t)i;
        } else {
            uint64_t dice = random_u64();
            f.length = dice & 1 ? (uint32_t)dice : CULE_PAYLOAD_MAX - 2 + (uint32_t)(dice >> 8 & 3);
            f.flags = (uint16_t)(dice >> 16 & (dice & 2 ? 0xffff : 0x3f07));
        }
        f.flags &= (uint16_t)~CULE_PHASE;
        bool good = f.nfds == 0 && cule_frame_validate(&f, NULL) == 0;
        open_pair(ends, 4, 0, false);
        /* As a hostile peer would: straight into the slot. */
        struct cule_frame *slot = (struct cule_frame *)ends[1]->rx_slots;
        f.flags |= CULE_PHASE;
        *slot = f;
        int rc = cule_ring_recv(ends[1], &got, &payload);
        assert_int_equal(rc, good ? 1 : CULE_EMALFORMED);
        if (!good) {
            assert_non_null(strstr(cule_ring_why(ends[1])->text, "bad header in the ring"));
            assert_int_equal(cule_ring_recv(ends[1], &got, &payload), CULE_EMALFORMED);
            assert_int_equal(cule_ring_send(ends[1], &got, NULL), CULE_EMALFORMED);
            assert_int_equal(cule_ring_wait(ends[1], CULE_RING_READABLE, -1), CULE_EMALFORMED);
            assert_int_equal(cule_ring_check(ends[0]), CULE_ECLOSED); /* the peer learns at once */
        }
        close_pair(ends);
    }
}

/* Consumed counts that go back or run ahead end the ring. */
static void test_bad_counts(void **state)
{
    (void)state;
    static const uint64_t bad[] = {0, 3, 9, UINT64_MAX, 1u << 31};
    for (size_t i = 0; i < CULE_COUNT(bad); i++) {
        struct cule_ring *ends[2];
        struct cule_frame f = frame(0, 0);
        open_pair(ends, 4, 0, false);
        for (int k = 0; k < 8; k++) {
            assert_int_equal(cule_ring_send(ends[0], &f, NULL), 0);
            *ends[0]->tx_shared = CULE_MIN((uint64_t)k + 1, 4u);
        }
        *ends[0]->tx_shared = bad[i];
        assert_int_equal(cule_ring_send(ends[0], &f, NULL), CULE_EMALFORMED);
        assert_non_null(strstr(cule_ring_why(ends[0])->text, "slots consumed"));
        close_pair(ends);
    }
}

static void test_close_drains(void **state)
{
    (void)state;
    struct cule_ring *ends[2];
    struct cule_frame f = frame(0, 3), got;
    const void *payload;
    uint8_t body[3];
    open_pair(ends, 8, 0, false);
    paint(body, 3, 0);
    assert_int_equal(cule_ring_send(ends[0], &f, body), 0);
    assert_int_equal(cule_ring_send(ends[0], &f, body), 0);
    cule_ring_close(ends[0]);
    assert_int_equal(cule_ring_check(ends[1]), CULE_ECLOSED);
    assert_int_equal(cule_ring_wait(ends[1], CULE_RING_READABLE, -1), CULE_RING_READABLE);
    expect(ends[1], 0, 3);
    expect(ends[1], 0, 3);
    assert_int_equal(cule_ring_recv(ends[1], &got, &payload), CULE_ECLOSED);
    assert_int_equal(cule_ring_wait(ends[1], CULE_RING_READABLE, -1), CULE_ECLOSED);
    assert_int_equal(cule_ring_send(ends[1], &f, body), CULE_ECLOSED);
    cule_ring_close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometry),     cmocka_unit_test(test_full_and_empty), cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_wrap),         cmocka_unit_test(test_model),          cmocka_unit_test(test_lent),
        cmocka_unit_test(test_header_check), cmocka_unit_test(test_bad_counts),     cmocka_unit_test(test_close_drains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A peer that writes random bytes all over the mapping while we read and write: never a crash, never a hang. */
#include "io/futex.h"
#include "io/ring.h"
#include "io/ring_impl.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 20000, LIVES = 300, LIFE_MS = 8 };

static uint64_t step(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Scribbles until killed: anywhere; on the control lines; on slots, with headers that nearly hold. */
static _Noreturn void scribble(struct cule_ring *r, uint64_t s)
{
    uint8_t *base = r->map->base;
    struct cule_frame f;
    cule_frame_init(&f, CULE_DATA);
    for (uint64_t i = 0;; i++) {
        uint64_t dice = step(&s);
        uint64_t *word = (uint64_t *)(base + (step(&s) % (r->map->size / 8)) * 8);
        switch (dice % 8) {
        case 0: __atomic_store_n(word, step(&s), __ATOMIC_RELAXED); break;
        case 1:
            word = (uint64_t *)(base + step(&s) % 64 * 8);
            __atomic_store_n(word, dice & 64 ? step(&s) : step(&s) % 70, __ATOMIC_RELAXED);
            break;
        case 2: /* ring its bell for nothing, or answer nonsense */
            if (i % 512 == 0) {
                send(r->sock, &dice, 1 + dice / 8 % 8, MSG_DONTWAIT | MSG_NOSIGNAL);
            }
            break;
        case 3: /* claim a plausible consumption */
            __atomic_store_n(r->rx_shared, *r->rx_shared + (dice >> 8 & 3), __ATOMIC_RELAXED);
            break;
        default: /* a header in either phase, now and then with a wild length */
            f.length = dice & 256 ? (uint32_t)(dice >> 32) % (CULE_PAYLOAD_MAX + 1) : 0;
            if (dice >> 10 % 4096 == 0) {
                f.length = (uint32_t)(dice >> 32);
            }
            f.flags = dice & 512 ? CULE_PHASE : 0;
            memcpy(r->tx_slots + dice / 1024 % r->slots * CULE_HEADER_SIZE, &f, sizeof f);
        }
    }
}

/* Publishes as it should, and changes behind our back what it has published, within what a header may say; so that
 * many frames are taken while they change. */
static _Noreturn void deceive(struct cule_ring *r, uint64_t s)
{
    static uint8_t body[CULE_PAYLOAD_MAX];
    struct cule_frame f, got;
    const void *payload;
    cule_frame_init(&f, CULE_DATA);
    for (;;) {
        uint64_t dice = step(&s);
        f.length = dice & 15 ? (uint32_t)(dice >> 8) % 512 : (uint32_t)(dice >> 8) % (CULE_PAYLOAD_MAX + 1);
        cule_ring_send(r, &f, body);
        cule_ring_recv(r, &got, &payload);
        struct cule_frame *slot = (struct cule_frame *)(r->tx_slots + (dice >> 20) % r->slots * CULE_HEADER_SIZE);
        slot->length = (uint32_t)(dice >> 40) % (CULE_PAYLOAD_MAX + 1);
        slot->arg0 = dice;
        memset(r->tx_area + (dice >> 24) % (r->area - 512), (int)dice, 512);
        r->ended = 0; /* it does not mind */
    }
}

struct life {
    int ended;
    uint64_t frames;
};

/* Uses the ring as an honest program would, for a while or until it ends. */
static struct life suffer(struct cule_ring *r, uint64_t s)
{
    static uint8_t body[CULE_PAYLOAD_MAX], sink[CULE_PAYLOAD_MAX];
    struct life l = {0};
    struct cule_frame f;
    const void *payload;
    uint64_t until = cule_mono_ns() + LIFE_MS * 1000000u;
    while (!l.ended && cule_mono_ns() < until) {
        int rc = 0;
        switch (step(&s) % 5) {
        case 0:
            cule_frame_init(&f, CULE_DATA);
            f.length = (uint32_t)(step(&s) % (CULE_PAYLOAD_MAX + 1));
            rc = cule_ring_send(r, &f, body);
            break;
        case 1: rc = cule_ring_wait(r, CULE_RING_READABLE | CULE_RING_WRITABLE, 1); break;
        case 2:
            rc = cule_ring_peek(r, &f);
            if (rc == 1) {
                assert_true(f.length <= CULE_PAYLOAD_MAX);
                assert_int_equal(cule_ring_take(r, sink), 0);
            }
            break;
        case 3:
            rc = cule_ring_arm(r, CULE_RING_READABLE);
            rc = rc < 0 ? rc : cule_ring_disarm(r);
            break;
        default:
            rc = cule_ring_recv(r, &f, &payload);
            if (rc == 1) {
                assert_true(f.length <= CULE_PAYLOAD_MAX && cule_frame_validate(&f, NULL) == 0);
                memcpy(sink, payload ? payload : body, f.length);
                cule_ring_release(r);
                l.frames++;
            }
        }
        if (rc < 0 && rc != CULE_EAGAIN && rc != CULE_ETIMEOUT) {
            l.ended = rc;
        }
    }
    return l;
}

static void test_scribbler(void **state)
{
    (void)state;
    unsigned malformed = 0;
    uint64_t frames = 0;
    for (int i = 0; i < LIVES; i++) {
        const struct cule_ring_opts opts = {.slots = i & 2 ? 4 : 256, .area = CULE_RING_AREA_MIN};
        struct cule_ring *r;
        int socks[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        bool creates = (pid == 0) == (i & 1);
        int mine = pid ? 0 : 1;
        close(socks[!mine]);
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
        }
        int rc =
            creates ? cule_ring_create(&r, &opts, NULL) : cule_ring_attach(&r, socks[mine], &opts, TIMEOUT_MS, NULL);
        rc = rc || !creates ? rc : cule_ring_handover(r, socks[mine], NULL);
        if (pid == 0) {
            if (rc) {
                _exit(1);
            }
            if (i % 3 == 0) {
                deceive(r, (uint64_t)i * 7919 + 1);
            }
            scribble(r, (uint64_t)i * 7919 + 1);
        }
        assert_int_equal(rc, 0);
        struct life l = suffer(r, (uint64_t)i * 104729 + 1);
        frames += l.frames;
        if (l.ended == CULE_EMALFORMED || l.ended == CULE_EREFUSED) {
            malformed++;
            assert_true(cule_ring_why(r)->text[0]);
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        cule_ring_close(r);
    }
    print_message("# %d lives, %u ended as malformed, %llu frames taken all the same\n", LIVES, malformed,
                  (unsigned long long)frames);
    assert_true(malformed > LIVES / 4);
    assert_true(frames > LIVES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scribbler)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The ring against the machine's floor: a bare cache-line ping-pong, a bare futex ping-pong, a pipe.
 *
 *     ring [rtt|payload|throughput|sleep|adaptive]...      all of them when none is named
 *
 * Two processes, pinned to two cores. Floor and ours take turns; of ROUNDS rounds the median counts. One JSON object
 * a line: ratio says how many times better than the peer we are, target is in the same terms.
 */
#include "io/ring.h"
#include "io/futex.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { ROUNDS = 5, WARM_UP = 2000, STAMPS = 20000, LINE = 128, TIMEOUT_MS = 10000 };

/* What the two processes share beside what is measured. */
struct shared {
    uint64_t ping __attribute__((aligned(LINE)));
    uint64_t pong __attribute__((aligned(LINE)));
    uint32_t futex_ping __attribute__((aligned(LINE)));
    uint32_t futex_pong __attribute__((aligned(LINE)));
};

static struct shared *shared;
static uint64_t stamps[STAMPS];

static void die(const char *what)
{
    fprintf(stderr, "ring: %s\n", what);
    exit(4);
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set); /* refused or one core only: measured all the same */
}

/* --- what is measured: the asker's and the answerer's side of n round trips -------------------------------- */

struct side {
    struct cule_ring *ring; /* the ring's */
    int in, out;            /* the pipe's */
    uint32_t payload;
};

struct subject {
    const char *name;
    void (*ask)(struct side *s, uint64_t n, uint64_t *stamp); /* stamp: NULL, or where the time of each end goes */
    void (*answer)(struct side *s, uint64_t n);
    enum cule_ring_spin spin;
    uint32_t payload;
};

static void line_ask(struct side *s, uint64_t n, uint64_t *stamp)
{
    (void)s;
    for (uint64_t i = 1; i <= n; i++) {
        __atomic_store_n(&shared->ping, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&shared->pong, __ATOMIC_ACQUIRE) != i) {
            cule_cpu_relax();
        }
        if (stamp) {
            *stamp++ = cule_mono_ns();
        }
    }
}

static void line_answer(struct side *s, uint64_t n)
{
    (void)s;
    for (uint64_t i = 1; i <= n; i++) {
        while (__atomic_load_n(&shared->ping, __ATOMIC_ACQUIRE) != i) {
            cule_cpu_relax();
        }
        __atomic_store_n(&shared->pong, i, __ATOMIC_RELEASE);
    }
}

/* Both directions in one line: what the machine can do where there is no message and no second line. */
static void one_line_ask(struct side *s, uint64_t n, uint64_t *stamp)
{
    (void)s;
    for (uint64_t i = 1; i <= n; i++) {
        __atomic_store_n(&shared->ping, 2 * i - 1, __ATOMIC_RELEASE);
        while (__atomic_load_n(&shared->ping, __ATOMIC_ACQUIRE) != 2 * i) {
            cule_cpu_relax();
        }
        if (stamp) {
            *stamp++ = cule_mono_ns();
        }
    }
}

static void one_line_answer(struct side *s, uint64_t n)
{
    (void)s;
    for (uint64_t i = 1; i <= n; i++) {
        while (__atomic_load_n(&shared->ping, __ATOMIC_ACQUIRE) != 2 * i - 1) {
            cule_cpu_relax();
        }
        __atomic_store_n(&shared->ping, 2 * i, __ATOMIC_RELEASE);
    }
}

static void futex_await(uint32_t *word, uint32_t value)
{
    uint32_t seen;
    while ((seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != value) {
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
}

static void futex_set(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_ask(struct side *s, uint64_t n, uint64_t *stamp)
{
    (void)s;
    for (uint32_t i = 1; i <= n; i++) {
        futex_set(&shared->futex_ping, i);
        futex_await(&shared->futex_pong, i);
        if (stamp) {
            *stamp++ = cule_mono_ns();
        }
    }
}

static void futex_answer(struct side *s, uint64_t n)
{
    (void)s;
    for (uint32_t i = 1; i <= n; i++) {
        futex_await(&shared->futex_ping, i);
        futex_set(&shared->futex_pong, i);
    }
}

static void pipe_ask(struct side *s, uint64_t n, uint64_t *stamp)
{
    char b[CULE_HEADER_SIZE] = {0};
    for (uint64_t i = 0; i < n; i++) {
        if (write(s->out, b, sizeof b) != sizeof b || read(s->in, b, sizeof b) != sizeof b) {
            die("pipe");
        }
        if (stamp) {
            *stamp++ = cule_mono_ns();
        }
    }
}

static void pipe_answer(struct side *s, uint64_t n)
{
    char b[CULE_HEADER_SIZE];
    for (uint64_t i = 0; i < n; i++) {
        if (read(s->in, b, sizeof b) != sizeof b || write(s->out, b, sizeof b) != sizeof b) {
            die("pipe");
        }
    }
}

static void ring_ask(struct side *s, uint64_t n, uint64_t *stamp)
{
    static uint8_t body[CULE_PAYLOAD_MAX];
    struct cule_frame f, answer;
    const void *payload;
    cule_frame_init(&f, CULE_PING);
    f.length = s->payload;
    for (uint64_t i = 1; i <= n; i++) {
        f.id = i;
        if (cule_ring_send(s->ring, &f, body) || cule_ring_recv_wait(s->ring, &answer, &payload, TIMEOUT_MS) != 1 ||
            answer.id != i) {
            die("ring");
        }
        cule_ring_release(s->ring);
        if (stamp) {
            *stamp++ = cule_mono_ns();
        }
    }
}

static void ring_answer(struct side *s, uint64_t n)
{
    struct cule_frame f;
    const void *payload;
    for (uint64_t i = 0; i < n; i++) {
        if (cule_ring_recv_wait(s->ring, &f, &payload, TIMEOUT_MS) != 1 || cule_ring_send(s->ring, &f, payload)) {
            die("ring");
        }
        cule_ring_release(s->ring);
    }
}

/* --- running it -------------------------------------------------------------------------------------------- */

static void start_sides(struct side *asker, struct side *answerer, const struct subject *what, int socks[2])
{
    int there[2], back[2];
    struct cule_err err;
    *asker = *answerer = (struct side){.payload = what->payload};
    if (pipe(there) || pipe(back) || socketpair(AF_UNIX, SOCK_STREAM, 0, socks)) {
        die("no descriptors");
    }
    asker->out = there[1], asker->in = back[0];
    answerer->in = there[0], answerer->out = back[1];
    const struct cule_ring_opts opts = {.spin = what->spin};
    if (cule_ring_create(&asker->ring, &opts, &err)) {
        die(err.text);
    }
    memset(shared, 0, sizeof *shared);
}

static void become_answerer(struct side *s, const struct subject *what, int sock, uint64_t n, int other)
{
    const struct cule_ring_opts opts = {.spin = what->spin};
    struct cule_err err;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(other);
    pin(1);
    if (cule_ring_attach(&s->ring, sock, &opts, TIMEOUT_MS, &err)) {
        die(err.text);
    }
    what->answer(s, WARM_UP);
    what->answer(s, n);
    _exit(0);
}

/* The mean nanoseconds of a round trip over n of them. With stamped, n is STAMPS and stamps hold each. */
static double run(const struct subject *what, uint64_t n, bool stamped, struct cule_ring_stats *stats)
{
    struct side asker, answerer;
    int socks[2], status;
    start_sides(&asker, &answerer, what, socks);
    pid_t pid = fork();
    if (pid == 0) {
        become_answerer(&answerer, what, socks[1], n, socks[0]);
    }
    close(socks[1]);
    if (cule_ring_handover(asker.ring, socks[0], NULL)) {
        die("hand-over");
    }
    pin(0);
    what->ask(&asker, WARM_UP, NULL);
    uint64_t start = cule_mono_ns();
    what->ask(&asker, n, stamped ? stamps : NULL);
    uint64_t took = cule_mono_ns() - start;
    if (stamped) {
        for (uint64_t i = n - 1; i > 0; i--) {
            stamps[i] -= stamps[i - 1];
        }
        stamps[0] -= start;
    }
    waitpid(pid, &status, 0);
    if (stats) {
        cule_ring_stats(asker.ring, stats);
    }
    cule_ring_close(asker.ring);
    const int fds[] = {asker.in, asker.out, answerer.in, answerer.out};
    for (size_t i = 0; i < CULE_COUNT(fds); i++) {
        close(fds[i]);
    }
    return (double)took / (double)n;
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof *v, by_double);
    return v[ROUNDS / 2];
}

/* One line. A target of 0 is none, and so is a ratio of 0. */
static void report(const char *name, double value, const char *unit, const char *peer, double peer_value, double ratio,
                   double target)
{
    printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"peer\":\"%s\",\"peer_value\":%.4g,\"ratio\":%.3g,", name,
           value, unit, peer, peer_value, ratio);
    if (target > 0) {
        printf("\"target\":%.3g}\n", target);
    } else {
        printf("\"target\":null}\n");
    }
    fflush(stdout);
}

static void percentiles(const struct subject *what, double out[3], struct cule_ring_stats *stats)
{
    run(what, STAMPS, true, stats);
    qsort(stamps, STAMPS, sizeof *stamps, by_u64);
    const double at[3] = {0.5, 0.99, 0.999};
    for (int i = 0; i < 3; i++) {
        out[i] = (double)stamps[(size_t)(at[i] * (STAMPS - 1))];
    }
}

static void report_percentiles(const char *name, const char *peer, const double a[3], const double b[3])
{
    static const char *const suffix[3] = {"p50", "p99", "p99_9"};
    char line[64];
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "%s_%s", name, suffix[i]);
        report(line, a[i], "ns", peer, b[i], b[i] / a[i], 0);
    }
}

/* Ours against a peer: rounds in turn, the medians, then the percentiles of stamped round trips. The ratio is the
 * median of the rounds' own, since a virtual machine's cores drift apart and together from second to second. */
static void compare(const char *name, const struct subject *ours, const struct subject *peer, uint64_t n, double target,
                    struct cule_ring_stats *stats)
{
    double a[ROUNDS], b[ROUNDS], ratio[ROUNDS], pa[3], pb[3];
    for (int i = 0; i < ROUNDS; i++) {
        b[i] = run(peer, n, false, NULL);
        a[i] = run(ours, n, false, stats);
        ratio[i] = b[i] / a[i];
    }
    report(name, median(a), "ns", peer->name, median(b), median(ratio), target);
    percentiles(peer, pb, NULL);
    percentiles(ours, pa, NULL);
    report_percentiles(name, peer->name, pa, pb);
}

/* The same for what sleeps. Every round trip is stamped and the median one counts, not the mean: now and then the
 * answer comes before the asker has gone to sleep, for long stretches even, and a mean over those would flatter. */
static void compare_sleeping(const char *name, const struct subject *ours, const struct subject *peer, double target)
{
    double a[3][ROUNDS], b[3][ROUNDS], ratio[ROUNDS], one[3], other[3], slept[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        struct cule_ring_stats stats;
        percentiles(peer, other, NULL);
        percentiles(ours, one, &stats);
        slept[i] = 100.0 * (double)stats.sleeps / (double)stats.frames_out;
        ratio[i] = other[0] / one[0];
        for (int k = 0; k < 3; k++) {
            a[k][i] = one[k];
            b[k][i] = other[k];
        }
    }
    for (int k = 0; k < 3; k++) {
        one[k] = median(a[k]);
        other[k] = median(b[k]);
    }
    report(name, one[0], "ns", peer->name, other[0], median(ratio), target);
    report_percentiles(name, peer->name, one, other);
    char line[64];
    snprintf(line, sizeof line, "%s_slept", name);
    report(line, median(slept), "%", "none", 0, 0, 0);
}

static const struct subject cache_line = {"bare cache-line ping-pong", line_ask, line_answer, 0, 0};
static const struct subject one_line = {"one cache line both ways", one_line_ask, one_line_answer, 0, 0};
static const struct subject bare_futex = {"bare futex ping-pong", futex_ask, futex_answer, 0, 0};
static const struct subject bare_pipe = {"pipe", pipe_ask, pipe_answer, 0, 0};
static const struct subject ring_spinning = {"ring", ring_ask, ring_answer, CULE_RING_SPIN_ALWAYS, 0};
static const struct subject ring_payload = {"ring", ring_ask, ring_answer, CULE_RING_SPIN_ALWAYS, 64};
static const struct subject ring_sleeping = {"ring", ring_ask, ring_answer, CULE_RING_SPIN_NEVER, 0};
static const struct subject ring_adaptive = {"ring", ring_ask, ring_answer, CULE_RING_SPIN_ADAPTIVE, 0};

static void bench_rtt(void)
{
    compare("ring_rtt_spin", &ring_spinning, &cache_line, 200000, 1 / 1.3, NULL);
    compare("ring_rtt_spin_one_line", &ring_spinning, &one_line, 200000, 0, NULL);
}

static void bench_payload(void)
{
    compare("ring_rtt_spin_payload_64", &ring_payload, &cache_line, 200000, 0, NULL);
}

static void bench_adaptive(void)
{
    struct cule_ring_stats stats;
    compare("ring_rtt_adaptive", &ring_adaptive, &cache_line, 200000, 0, &stats);
    report("ring_rtt_adaptive_slow_share", 100.0 * (double)(stats.wakes + stats.sleeps) / (double)stats.frames_out, "%",
           "none", 0, 0, 0);
}

static void bench_sleep(void)
{
    compare_sleeping("ring_rtt_sleep", &ring_sleeping, &bare_futex, 1 / 1.1);
    compare_sleeping("ring_rtt_sleep_pipe", &ring_sleeping, &bare_pipe, 1);
}

/* --- throughput -------------------------------------------------------------------------------------------- */

enum { BATCH = 64, FRAMES = 20 * 1000 * 1000 };

static void drink(int sock, uint64_t n)
{
    struct cule_ring *r;
    struct cule_frame f;
    const void *payload;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(1);
    if (cule_ring_attach(&r, sock, NULL, TIMEOUT_MS, NULL)) {
        die("attach");
    }
    for (uint64_t i = 0; i < n; i++) {
        if (cule_ring_recv_wait(r, &f, &payload, TIMEOUT_MS) != 1 || f.id != i) {
            die("a frame is missing");
        }
    }
    cule_frame_init(&f, CULE_BYE);
    cule_ring_send_wait(r, &f, NULL, TIMEOUT_MS);
    _exit(0);
}

/* Millions of frames a second, flushed every BATCH. */
static double throughput(uint64_t n, uint32_t length)
{
    static const uint8_t body[CULE_PAYLOAD_MAX];
    struct cule_ring *r;
    struct cule_frame f;
    const void *payload;
    int socks[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, socks) || cule_ring_create(&r, NULL, NULL)) {
        die("no ring");
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(socks[0]);
        drink(socks[1], n);
    }
    close(socks[1]);
    if (cule_ring_handover(r, socks[0], NULL)) {
        die("hand-over");
    }
    pin(0);
    cule_frame_init(&f, CULE_EVENT);
    f.length = length;
    uint64_t start = cule_mono_ns();
    for (uint64_t i = 0; i < n; i++) {
        f.id = i;
        if (cule_ring_push(r, &f, body) && cule_ring_send_wait(r, &f, body, TIMEOUT_MS)) {
            die("send");
        }
        if (i % BATCH == BATCH - 1) {
            cule_ring_flush(r);
        }
    }
    cule_ring_flush(r);
    if (cule_ring_recv_wait(r, &f, &payload, TIMEOUT_MS) != 1) {
        die("no end");
    }
    uint64_t took = cule_mono_ns() - start;
    waitpid(pid, NULL, 0);
    cule_ring_close(r);
    return (double)n * 1e3 / (double)took;
}

/* The same frames through a pipe, BATCH to a write, read as they come. */
static double pipe_throughput(uint64_t n)
{
    static char block[BATCH * CULE_HEADER_SIZE], in[1 << 16];
    int p[2];
    if (pipe(p)) {
        die("no descriptors");
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(p[1]);
        pin(1);
        while (read(p[0], in, sizeof in) > 0) {
        }
        _exit(0);
    }
    close(p[0]);
    pin(0);
    uint64_t start = cule_mono_ns();
    for (uint64_t i = 0; i < n / BATCH; i++) {
        if (write(p[1], block, sizeof block) != sizeof block) {
            die("pipe");
        }
    }
    close(p[1]);
    waitpid(pid, NULL, 0);
    return (double)n * 1e3 / (double)(cule_mono_ns() - start);
}

static void bench_throughput(void)
{
    double header[ROUNDS], payload[ROUNDS], pipes[ROUNDS], ratio[2][ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        pipes[i] = pipe_throughput(FRAMES / 10);
        header[i] = throughput(FRAMES, 0);
        payload[i] = throughput(FRAMES / 2, 64);
        ratio[0][i] = header[i] / pipes[i];
        ratio[1][i] = payload[i] / pipes[i];
    }
    double pipe_median = median(pipes);
    report("ring_throughput_64", median(header), "M frames/s", "pipe, 64 frames a write", pipe_median, median(ratio[0]),
           0);
    report("ring_throughput_payload_64", median(payload), "M frames/s", "pipe, 64 frames a write", pipe_median,
           median(ratio[1]), 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"rtt", bench_rtt},
               {"payload", bench_payload},
               {"adaptive", bench_adaptive},
               {"sleep", bench_sleep},
               {"throughput", bench_throughput}};
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        die("no memory");
    }
    for (int a = argc > 1; a < argc || argc == 1; a++) {
        bool known = argc == 1;
        for (size_t i = 0; i < CULE_COUNT(all); i++) {
            if (argc == 1 || strcmp(argv[a], all[i].name) == 0) {
                all[i].run();
                known = true;
            }
        }
        if (!known) {
            die("usage: ring [rtt|payload|adaptive|sleep|throughput]...");
        }
        if (argc == 1) {
            break;
        }
    }
    return 0;
}

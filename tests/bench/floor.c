/* The machine's floor: what system calls and memory cost here, before anything of ours. */
#include "measure.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { SMALL = 64, BLOCK = 65536, TRIPS = 20000, BLOCKS = 20000, COPY = 64 * 1024 * 1024 };

static uint32_t *words; /* two, a cache-line pair apart, shared */

static double us[TRIPS]; /* of single trips: the median counts, which other work on the machine moves little */

/* Round trips of 64 bytes between two pinned processes: microseconds for one. */
static double trips(int in, int out, int child_in, int child_out, struct cule_hist *h)
{
    char b[SMALL] = {0};
    pid_t p = child();
    if (p == 0) {
        pin(1);
        for (;;) {
            read_full(child_in, b, sizeof b);
            write_full(child_out, b, sizeof b);
        }
    }
    pin(0);
    for (int i = -TRIPS / 10; i < TRIPS; i++) {
        uint64_t t = now_ns();
        write_full(out, b, sizeof b);
        read_full(in, b, sizeof b);
        t = now_ns() - t;
        if (i >= 0) {
            us[i] = (double)t / 1000;
            if (h) {
                cule_hist_add(h, t);
            }
        }
    }
    reap(p);
    return median(us, TRIPS);
}

static double socketpair_rtt(struct cule_hist *h)
{
    int sv[2];
    sockets(sv);
    double rtt = trips(sv[0], sv[0], sv[1], sv[1], h);
    close(sv[0]);
    close(sv[1]);
    return rtt;
}

static double pipe_rtt(void)
{
    int a[2], b[2];
    if (pipe(a) || pipe(b)) {
        die("pipe");
    }
    double rtt = trips(b[0], a[1], a[0], b[1], NULL);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
    return rtt;
}

static void futex_wait(uint32_t *w, uint32_t seen)
{
    while (__atomic_load_n(w, __ATOMIC_ACQUIRE) == seen) {
        syscall(SYS_futex, w, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
}

static void futex_post(uint32_t *w)
{
    __atomic_add_fetch(w, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, w, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static double futex_rtt(void)
{
    uint32_t *ping = words, *pong = words + 64;
    *ping = *pong = 0;
    pid_t p = child();
    if (p == 0) {
        pin(1);
        for (uint32_t i = 0;; i++) {
            futex_wait(ping, i);
            futex_post(pong);
        }
    }
    pin(0);
    for (int i = -TRIPS / 10; i < TRIPS; i++) {
        uint64_t t = now_ns();
        uint32_t seen = *pong;
        futex_post(ping);
        futex_wait(pong, seen);
        if (i >= 0) {
            us[i] = (double)(now_ns() - t) / 1000;
        }
    }
    reap(p);
    return median(us, TRIPS);
}

static double pipe_throughput(void)
{
    static char b[BLOCK];
    int a[2];
    if (pipe(a)) {
        die("pipe");
    }
    pid_t p = child();
    if (p == 0) {
        pin(1);
        close(a[0]);
        for (int i = 0; i < BLOCKS; i++) {
            write_full(a[1], b, sizeof b);
        }
        _exit(0);
    }
    close(a[1]);
    pin(0);
    uint64_t begin = now_ns(), got = 0;
    ssize_t n;
    while ((n = read(a[0], b, sizeof b)) > 0) {
        got += (uint64_t)n;
    }
    double s = (double)(now_ns() - begin) / 1e9;
    close(a[0]);
    waitpid(p, NULL, 0);
    return (double)got / s / 1e6;
}

static double copy(void)
{
    char *from = malloc(COPY), *to = malloc(COPY);
    if (!from || !to) {
        die("malloc");
    }
    memset(from, 1, COPY);
    memset(to, 2, COPY);
    uint64_t begin = now_ns();
    for (int i = 0; i < 8; i++) {
        memcpy(to, from, COPY);
        __asm__ volatile("" ::"r"(to) : "memory");
    }
    double s = (double)(now_ns() - begin) / 1e9;
    free(from);
    free(to);
    return 8.0 * COPY / s / 1e6;
}

int main(void)
{
    static struct cule_hist h;
    double v[5][ROUNDS];
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) {
        die("mmap");
    }
    cule_hist_init(&h);
    for (int r = 0; r < ROUNDS; r++) {
        v[0][r] = socketpair_rtt(NULL);
        v[1][r] = pipe_rtt();
        v[2][r] = futex_rtt();
        v[3][r] = pipe_throughput();
        v[4][r] = copy();
    }
    socketpair_rtt(&h);
    emit("floor_socketpair_rtt_64", median(v[0], ROUNDS), "us", NULL, NONE, true, NONE);
    emit_tail("floor_socketpair_rtt_64", &h);
    emit("floor_pipe_rtt_64", median(v[1], ROUNDS), "us", NULL, NONE, true, NONE);
    emit("floor_futex_rtt", median(v[2], ROUNDS), "us", NULL, NONE, true, NONE);
    emit("floor_pipe_64k", median(v[3], ROUNDS), "MB/s", NULL, NONE, false, NONE);
    emit("floor_memcpy", median(v[4], ROUNDS), "MB/s", NULL, NONE, false, NONE);
    return 0;
}

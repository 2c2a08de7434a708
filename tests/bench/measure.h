/*
 * What the measuring programs share: pinning, children, medians, and the one output format, a JSON object on a line
 * with name, value, unit, peer, peer_value, ratio and target. ratio says how many times better than the peer we are,
 * above 1 is better whatever the unit; target is in the same terms; null where there is none.
 */
#ifndef CULE_BENCH_MEASURE_H
#define CULE_BENCH_MEASURE_H

#include "base/hist.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5 };
#define NONE NAN
#define UNUSED __attribute__((unused))

UNUSED static void die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(4);
}

UNUSED static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* To one core; refused or with one core only it is measured all the same. */
UNUSED static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

UNUSED static void unpin(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (unsigned i = 0; i < CPU_SETSIZE; i++) {
        CPU_SET(i, &set);
    }
    sched_setaffinity(0, sizeof set, &set);
}

/* A child that dies with us. */
UNUSED static pid_t child(void)
{
    fflush(stdout);
    pid_t parent = getpid(), p = fork();
    if (p < 0) {
        die("fork");
    }
    if (p == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(4);
        }
    }
    return p;
}

UNUSED static void reap(pid_t p)
{
    kill(p, SIGKILL);
    waitpid(p, NULL, 0);
}

/* Runs a measure in a process of its own: libraries of peers do not survive a fork once they were used. */
UNUSED static double apart(double (*measure)(void))
{
    int p[2];
    double v = NONE;
    if (pipe(p)) {
        die("pipe");
    }
    pid_t c = child();
    if (c == 0) {
        close(p[0]);
        v = measure();
        _exit(write(p[1], &v, sizeof v) == sizeof v ? 0 : 4);
    }
    close(p[1]);
    if (read(p[0], &v, sizeof v) != sizeof v) {
        fprintf(stderr, "%s: a measure failed\n", program_invocation_short_name);
        exit(4);
    }
    close(p[0]);
    waitpid(c, NULL, 0);
    return v;
}

UNUSED static void sockets(int sv[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0) {
        die("socketpair");
    }
}

UNUSED static void read_full(int fd, void *p, size_t n)
{
    for (size_t have = 0; have < n;) {
        ssize_t r = read(fd, (char *)p + have, n - have);
        if (r <= 0) {
            _exit(0); /* the other side is done */
        }
        have += (size_t)r;
    }
}

UNUSED static void write_full(int fd, const void *p, size_t n)
{
    for (size_t have = 0; have < n;) {
        ssize_t r = write(fd, (const char *)p + have, n - have);
        if (r <= 0) {
            _exit(0);
        }
        have += (size_t)r;
    }
}

static int measure_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

UNUSED static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, measure_compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

UNUSED static void number(const char *key, double v)
{
    if (isfinite(v)) {
        printf(",\"%s\":%.6g", key, v);
    } else {
        printf(",\"%s\":null", key);
    }
}

/* peer NULL: there is none. peer_value NONE: it is not installed. lower: a lower value is better. */
UNUSED static void emit(const char *name, double value, const char *unit, const char *peer, double peer_value,
                        bool lower, double target)
{
    double ratio = peer && value > 0 && peer_value > 0 ? (lower ? peer_value / value : value / peer_value) : NONE;
    printf("{\"name\":\"%s\"", name);
    number("value", value);
    printf(",\"unit\":\"%s\"", unit);
    if (peer) {
        printf(",\"peer\":\"%s\"", peer);
    } else {
        printf(",\"peer\":null");
    }
    number("peer_value", peer ? peer_value : NONE);
    number("ratio", ratio);
    number("target", target);
    printf("}\n");
    fflush(stdout);
}

/* The tail of a histogram of nanoseconds, as measures without a peer. */
UNUSED static void emit_tail(const char *name, const struct cule_hist *h)
{
    static const struct {
        const char *suffix;
        double at;
    } points[] = {{"p50", 50}, {"p99", 99}, {"p99_9", 99.9}, {"p99_99", 99.99}};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        char full[128];
        snprintf(full, sizeof full, "%s_%s", name, points[i].suffix);
        emit(full, (double)cule_hist_at(h, points[i].at) / 1000, "us", NULL, NONE, true, NONE);
    }
}

#endif

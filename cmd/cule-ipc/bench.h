/*
 * cule-ipc bench in three parts: bench.c (options, what is printed), bench_ours.c (our carriers and the bus),
 * bench_peer.c (zmq, nng and NATS, whose libraries are opened when asked for and only where they are installed).
 * Each measure runs against a process of its own.
 */
#ifndef CULE_IPC_BENCH_H
#define CULE_IPC_BENCH_H

#include "base/hist.h"
#include "busclient.h"
#include "io/spawn.h"

enum { BENCH_WAIT_MS = 30000, BENCH_SIZE_MAX = 8 * 1024 * 1024 };

struct bench_opts {
    const char *endpoint, *peers;
    uint64_t size, count;
    bool round_trips, throughput; /* neither: both */
};

struct bench_result {
    struct cule_hist rtt;  /* nanoseconds */
    double messages_per_s; /* one way; 0: not measured */
    uint64_t messages;     /* that it is an average of */
};

/* --- bench_ours.c --- */
/* pipe, unix, ring, tcp, bus, or an endpoint where somebody answers. */
int bench_ours(const struct bench_opts *o, struct bench_result *r, struct cule_err *err);

/* --- bench_peer.c --- */
/* zmq, nng or nats: round trips only. CULE_ENOT_FOUND where it is not installed. */
int bench_peer(const char *name, const struct bench_opts *o, struct bench_result *r, struct cule_err *err);

/* A child that dies with us; it must end by _exit. Negative: CULE_ELIMIT. */
pid_t bench_fork(struct cule_err *err);
void bench_reap(pid_t p);
/* A path for sockets that nobody else has. */
void bench_path(char *out, size_t n, const char *what);

#endif

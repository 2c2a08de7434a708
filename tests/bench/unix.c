/*
 * A framed round trip of 64 bytes over a Unix socket against a raw socketpair, zmq REQ/REP over ipc, nng REQ/REP over
 * ipc and NATS request/reply; all in this run, interleaved, pinned alike: asker and answerer on two cores, then both on
 * one.
 *
 * Ours is cule_link_ask to a process that answers with cule_link_next and cule_link_reply. Each peer is used as its
 * documentation has it for this: REQ and REP sockets; a subscription with a callback and natsConnection_Request, with
 * sends flushed at once.
 */
#include "io/link.h"
#include "measure.h"

/* Macros, so that the makefile builds this also where a peer is not installed. */
#define ZMQ_H <zmq.h>
#define NNG_H <nng/nng.h>
#define NNG_REQ_H <nng/protocol/reqrep0/req.h>
#define NNG_REP_H <nng/protocol/reqrep0/rep.h>
#define NATS_H <nats/nats.h>
#if __has_include(<zmq.h>)
#include ZMQ_H
#define HAVE_ZMQ 1
#endif
#if __has_include(<nng/nng.h>)
#include NNG_H
#include NNG_REQ_H
#include NNG_REP_H
#define HAVE_NNG 1
#endif
#if __has_include(<nats/nats.h>)
#include NATS_H
#include "natsd.h"
#define HAVE_NATS 1
#endif

enum { SIZE = 64, TRIPS = 10000, WARM = 500, WAIT_MS = 10000 };

static int cpu_answer = 1;     /* the asker is on 0 */
static struct cule_hist *tail; /* where the times of single trips go besides; or NULL */

/* Runs `trip` WARM times and then TRIPS times: microseconds of the median one, which other work on the machine moves
 * less than the mean. */
static double run(void (*trip)(void *ctx), void *ctx)
{
    static double us[TRIPS];
    pin(0);
    for (int i = -WARM; i < TRIPS; i++) {
        uint64_t t = now_ns();
        trip(ctx);
        t = now_ns() - t;
        if (i >= 0) {
            us[i] = (double)t / 1000;
            if (tail) {
                cule_hist_add(tail, t);
            }
        }
    }
    return median(us, TRIPS);
}

/* --- raw --- */

static void raw_trip(void *ctx)
{
    char b[SIZE] = {0};
    int fd = *(int *)ctx;
    write_full(fd, b, sizeof b);
    read_full(fd, b, sizeof b);
}

static double raw(void)
{
    int sv[2];
    sockets(sv);
    pid_t p = child();
    if (p == 0) {
        char b[SIZE];
        pin(cpu_answer);
        for (;;) {
            read_full(sv[1], b, sizeof b);
            write_full(sv[1], b, sizeof b);
        }
    }
    double us = run(raw_trip, &sv[0]);
    reap(p);
    close(sv[0]);
    close(sv[1]);
    return us;
}

/* --- ours --- */

static void echo(int fd)
{
    const struct cule_link_opts o = {.name = "echo", .is_server = true};
    struct cule_link *l;
    struct cule_msg m;
    pin(cpu_answer);
    if (cule_link_open_fd(NULL, fd, fd, &o, &l, NULL)) {
        _exit(4);
    }
    while (cule_link_next(l, &m, WAIT_MS, NULL) > 0) {
        if (m.h.kind == CULE_REQUEST) {
            cule_link_reply(l, m.h.id, m.h.arg0, m.h.arg1, m.body, m.len);
        }
    }
    _exit(0);
}

static void our_trip(void *ctx)
{
    static const uint8_t body[SIZE];
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_CULE, CULE_OP_CULE_ECHO), answer;
    struct cule_err err;
    m.body = body;
    m.len = sizeof body;
    if (cule_link_ask(ctx, &m, WAIT_MS, &answer, &err) || answer.len != SIZE) {
        die(err.text);
    }
}

static double ours(void)
{
    const struct cule_link_opts o = {.name = "ask"};
    struct cule_link *l;
    struct cule_err err;
    int sv[2];
    sockets(sv);
    pid_t p = child();
    if (p == 0) {
        close(sv[0]);
        echo(sv[1]);
    }
    close(sv[1]);
    if (cule_link_open_fd(NULL, sv[0], sv[0], &o, &l, &err)) {
        die(err.text);
    }
    double us = run(our_trip, l);
    cule_link_free(l);
    reap(p);
    return us;
}

/* --- zmq --- */
#ifdef HAVE_ZMQ
static void zmq_trip(void *ctx)
{
    char b[SIZE] = {0};
    if (zmq_send(ctx, b, sizeof b, 0) < 0 || zmq_recv(ctx, b, sizeof b, 0) < 0) {
        die("zmq");
    }
}

static double zmq_rtt(void)
{
    char path[64];
    snprintf(path, sizeof path, "ipc:///tmp/cule-bench-zmq.%d", (int)getpid());
    pid_t p = child();
    if (p == 0) {
        char b[SIZE];
        pin(cpu_answer);
        void *c = zmq_ctx_new(), *s = zmq_socket(c, ZMQ_REP);
        if (zmq_bind(s, path)) {
            _exit(4);
        }
        while (zmq_recv(s, b, sizeof b, 0) >= 0 && zmq_send(s, b, sizeof b, 0) >= 0) {
        }
        _exit(0);
    }
    pin(0);
    void *c = zmq_ctx_new(), *s = zmq_socket(c, ZMQ_REQ);
    int limit = WAIT_MS, zero = 0;
    zmq_setsockopt(s, ZMQ_RCVTIMEO, &limit, sizeof limit);
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    if (zmq_connect(s, path)) {
        die("zmq_connect");
    }
    double us = run(zmq_trip, s);
    zmq_close(s);
    zmq_ctx_destroy(c);
    reap(p);
    unlink(path + strlen("ipc://"));
    return us;
}
#else
static double zmq_rtt(void)
{
    return NONE;
}
#endif

/* --- nng --- */
#ifdef HAVE_NNG
static void nng_trip(void *ctx)
{
    char b[SIZE] = {0};
    size_t n = sizeof b;
    if (nng_send(*(nng_socket *)ctx, b, sizeof b, 0) || nng_recv(*(nng_socket *)ctx, b, &n, 0)) {
        die("nng");
    }
}

static double nng_rtt(void)
{
    char path[64];
    snprintf(path, sizeof path, "ipc:///tmp/cule-bench-nng.%d", (int)getpid());
    pid_t p = child();
    if (p == 0) {
        char b[SIZE];
        size_t n = sizeof b;
        nng_socket s;
        pin(cpu_answer);
        if (nng_rep0_open(&s) || nng_listen(s, path, NULL, 0)) {
            _exit(4);
        }
        while (nng_recv(s, b, &n, 0) == 0 && nng_send(s, b, n, 0) == 0) {
            n = sizeof b;
        }
        _exit(0);
    }
    pin(0);
    nng_socket s;
    int rc = nng_req0_open(&s);
    for (int i = 0; rc == 0 && i < 1000 && (rc = nng_dial(s, path, NULL, 0)); i++) {
        usleep(5000);
        rc = i == 999 ? rc : 0;
    }
    if (rc) {
        die("nng_dial");
    }
    nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, WAIT_MS);
    double us = run(nng_trip, &s);
    nng_close(s);
    reap(p);
    unlink(path + strlen("ipc://"));
    return us;
}
#else
static double nng_rtt(void)
{
    return NONE;
}
#endif

/* --- NATS --- */
#ifdef HAVE_NATS
static void nats_answer(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)sub;
    (void)ctx;
    natsConnection_Publish(nc, natsMsg_GetReply(msg), natsMsg_GetData(msg), natsMsg_GetDataLength(msg));
    natsMsg_Destroy(msg);
}

static void nats_trip(void *ctx)
{
    static const char b[SIZE];
    natsMsg *answer = NULL;
    if (natsConnection_Request(&answer, ctx, "bench.echo", b, sizeof b, WAIT_MS) != NATS_OK) {
        die("natsConnection_Request");
    }
    natsMsg_Destroy(answer);
}

static natsConnection *nats_connection(const char *url)
{
    natsOptions *o = NULL;
    natsConnection *nc = NULL;
    natsOptions_Create(&o);
    natsOptions_SetURL(o, url);
    natsOptions_SetSendAsap(o, true); /* no wait for more to send: this is about latency */
    if (natsConnection_Connect(&nc, o) != NATS_OK) {
        nc = NULL;
    }
    natsOptions_Destroy(o);
    return nc;
}

static double nats_rtt(void)
{
    struct natsd d;
    if (natsd_start(&d)) {
        return NONE;
    }
    int ready[2];
    char c;
    if (pipe(ready)) {
        die("pipe");
    }
    pid_t p = child();
    if (p == 0) {
        natsSubscription *sub;
        pin(cpu_answer);
        natsConnection *nc = nats_connection(d.url);
        if (!nc || natsConnection_Subscribe(&sub, nc, "bench.echo", nats_answer, NULL) != NATS_OK ||
            natsConnection_Flush(nc) != NATS_OK || write(ready[1], "x", 1) != 1) {
            _exit(4);
        }
        for (;;) {
            pause();
        }
    }
    close(ready[1]);
    if (read(ready[0], &c, 1) != 1) {
        die("the NATS responder");
    }
    close(ready[0]);
    pin(0);
    natsConnection *nc = nats_connection(d.url);
    if (!nc) {
        die("natsConnection_Connect");
    }
    double us = run(nats_trip, nc);
    natsConnection_Destroy(nc);
    reap(p);
    natsd_stop(&d);
    return us;
}
#else
static double nats_rtt(void)
{
    return NONE;
}
#endif

/* Between two cores a trip is mostly two wake-ups of an idle core, which all pay alike; on one core it is the work. */
static void compare(const char *name)
{
    static struct cule_hist h;
    double v[5][ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        v[0][r] = apart(ours);
        v[1][r] = apart(raw);
        v[2][r] = apart(zmq_rtt);
        v[3][r] = apart(nng_rtt);
        v[4][r] = apart(nats_rtt);
    }
    cule_hist_init(&h);
    tail = &h;
    ours();
    tail = NULL;
    double us = median(v[0], ROUNDS);
    emit(name, us, "us", "raw socketpair", median(v[1], ROUNDS), true, 1 / 1.15);
    emit(name, us, "us", "zmq req/rep ipc", median(v[2], ROUNDS), true, 3);
    emit(name, us, "us", "nng req/rep ipc", median(v[3], ROUNDS), true, NONE);
    emit(name, us, "us", "nats request/reply", median(v[4], ROUNDS), true, 5);
    emit_tail(name, &h);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    compare("unix_rtt_64");
    cpu_answer = 0;
    compare("unix_rtt_64_one_core");
    return 0;
}

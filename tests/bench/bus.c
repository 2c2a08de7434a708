/*
 * One publisher, four subscribers, 128 bytes: deliveries a second through the bus and through nats-server. The same
 * processes on both sides, six and not pinned; deliveries are counted where they arrive, and all of them must.
 *
 * Ours publishes batches over one link to a topic that blocks when a subscriber is full. NATS is used as its
 * documentation has it for throughput: natsConnection_Publish, which buffers, and callbacks with no limit on what
 * waits.
 */
#include "broker.h"

#define NATS_H <nats/nats.h>
#if __has_include(<nats/nats.h>)
#include NATS_H
#include "natsd.h"
#define HAVE_NATS 1
#endif

enum { SUBSCRIBERS = 4, SIZE = 128, BATCH = 256, MESSAGES = 1600 * BATCH, WAIT_S = 60 };

static int ready_pipe[2], go_pipe[2], done_pipe[2];

static void pipes(void)
{
    if (pipe(ready_pipe) || pipe(go_pipe) || pipe(done_pipe)) {
        die("pipe");
    }
}

static void tell(int fd)
{
    if (write(fd, "x", 1) != 1) {
        _exit(4);
    }
}

static void hear(int fd, int n)
{
    char c;
    alarm(WAIT_S);
    for (int i = 0; i < n; i++) {
        if (read(fd, &c, 1) != 1) {
            die("a process of the measure ended");
        }
    }
    alarm(0);
}

/* Starts the processes and times them: deliveries a second. */
static double measure(void (*publisher)(const char *at), void (*subscriber)(const char *at), const char *at)
{
    pid_t p[SUBSCRIBERS + 1];
    pipes();
    for (int i = 0; i <= SUBSCRIBERS; i++) {
        p[i] = child();
        if (p[i] == 0) {
            (i == 0 ? publisher : subscriber)(at);
            _exit(0);
        }
    }
    hear(ready_pipe[0], SUBSCRIBERS + 1);
    uint64_t begin = now_ns();
    tell(go_pipe[1]);
    hear(done_pipe[0], SUBSCRIBERS);
    double s = (double)(now_ns() - begin) / 1e9;
    for (int i = 0; i <= SUBSCRIBERS; i++) {
        reap(p[i]);
    }
    for (int i = 0; i < 2; i++) {
        close(ready_pipe[i]);
        close(go_pipe[i]);
        close(done_pipe[i]);
    }
    return (double)SUBSCRIBERS * MESSAGES / s;
}

/* --- ours --- */

static uint8_t batch[BATCH * (CULE_HEADER_SIZE + 256)];
static size_t batch_bytes;
static int sent;

static void send_more(struct cule_link *l, void *ctx, uint64_t id)
{
    (void)ctx;
    (void)id;
    while (sent < MESSAGES && cule_link_send_raw(l, CULE_NORMAL, batch, batch_bytes, BATCH) == 0) {
        sent += BATCH;
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    (void)ctx;
    fprintf(stderr, "bus: the link ended: %s\n", why->text);
    _exit(4);
}

static void our_publisher(const char *at)
{
    static const struct cule_link_ops ops = {.writable = send_more, .closed = on_closed};
    static const char topic[] = "bench";
    struct joined j;
    uint8_t payload[sizeof topic - 1 + SIZE] = {0};
    memcpy(payload, topic, sizeof topic - 1);
    for (int i = 0; i < BATCH; i++) {
        struct cule_frame f;
        cule_frame_init(&f, CULE_EVENT);
        f.service = CULE_S_BUS;
        f.op = CULE_OP_BUS_PUBLISH;
        f.arg0 = sizeof topic - 1;
        f.length = sizeof payload;
        batch_bytes += cule_frame_write(&f, false, payload, batch + batch_bytes);
    }
    join(&j, at, &ops, NULL);
    tell(ready_pipe[1]);
    hear(go_pipe[0], 1);
    send_more(j.link, NULL, 0);
    cule_loop_run(j.loop);
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    static int got;
    (void)l;
    (void)ctx;
    if (m->h.op == CULE_OP_BUS_DELIVER && m->len == 5 + SIZE && ++got == MESSAGES) {
        tell(done_pipe[1]);
    }
}

static void our_subscriber(const char *at)
{
    static const struct cule_link_ops ops = {.message = on_message, .closed = on_closed};
    struct joined j;
    join(&j, at, &ops, NULL);
    joined_ask(&j, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE, "{\"pattern\":\"bench\"}");
    tell(ready_pipe[1]);
    cule_loop_run(j.loop);
}

static double ours(void)
{
    struct broker b;
    broker_start(&b, "bench:overflow=block");
    double v = measure(our_publisher, our_subscriber, b.endpoint);
    broker_stop(&b);
    return v;
}

/* --- NATS --- */
#ifdef HAVE_NATS
static void nats_publisher(const char *at)
{
    static const char body[SIZE];
    natsConnection *nc;
    if (natsConnection_ConnectTo(&nc, at) != NATS_OK) {
        _exit(4);
    }
    tell(ready_pipe[1]);
    hear(go_pipe[0], 1);
    for (int i = 0; i < MESSAGES; i++) {
        if (natsConnection_Publish(nc, "bench", body, sizeof body) != NATS_OK) {
            _exit(4);
        }
    }
    natsConnection_Flush(nc);
    for (;;) {
        pause();
    }
}

static void on_nats(natsConnection *nc, natsSubscription *sub, natsMsg *m, void *ctx)
{
    static int got;
    (void)nc;
    (void)sub;
    (void)ctx;
    if (natsMsg_GetDataLength(m) == SIZE && ++got == MESSAGES) {
        tell(done_pipe[1]);
    }
    natsMsg_Destroy(m);
}

static void nats_subscriber(const char *at)
{
    natsConnection *nc;
    natsSubscription *sub;
    if (natsConnection_ConnectTo(&nc, at) != NATS_OK ||
        natsConnection_Subscribe(&sub, nc, "bench", on_nats, NULL) != NATS_OK ||
        natsSubscription_SetPendingLimits(sub, -1, -1) != NATS_OK || natsConnection_Flush(nc) != NATS_OK) {
        _exit(4);
    }
    tell(ready_pipe[1]);
    for (;;) {
        pause();
    }
}

static double nats(void)
{
    struct natsd d;
    if (natsd_start(&d)) {
        return NONE;
    }
    double v = measure(nats_publisher, nats_subscriber, d.url);
    natsd_stop(&d);
    return v;
}
#else
static double nats(void)
{
    return NONE;
}
#endif

int main(void)
{
    double v[2][ROUNDS];
    signal(SIGPIPE, SIG_IGN);
    for (int r = 0; r < ROUNDS; r++) {
        v[0][r] = ours() / 1e6;
        v[1][r] = nats() / 1e6;
    }
    emit("bus_1_4_128", median(v[0], ROUNDS), "M deliveries/s", "nats-server", median(v[1], ROUNDS), false, 2);
    return 0;
}

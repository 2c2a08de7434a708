/* Round trips and throughput over our carriers and through the bus. */
#include "base/bytes.h"
#include "bench.h"
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THROUGHPUT_MS = 500, BATCH_BYTES = 64 * 1024, BATCH_FRAMES = 256 };

static const char topic[] = "bench"; /* on the bus */

/* What is measured: a process that answers, and how to get a link to it. */
struct subject {
    pid_t answerer, broker;
    char endpoint[CULE_ENDPOINT_MAX];
    int rfd, wfd;        /* pipe */
    bool pipe, bus, own; /* own: the process is ours */
};

/* --- the process that answers --- */

static void answer(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)ctx;
    if (m->h.kind == CULE_REQUEST) {
        cule_link_reply(l, m->h.id, 0, 0, m->body, m->len);
    }
}

static void closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    (void)ctx;
    (void)why;
}

static const struct cule_link_ops ops = {.message = answer, .closed = closed};

static void accepted(struct cule_listener *s, void *ctx, struct cule_link *l)
{
    (void)s;
    cule_link_set_ctx(l, &ops, ctx);
}

/* Tells the parent where: the endpoint as bound. */
static void answer_listening(const char *endpoint, int ready)
{
    const struct cule_link_opts o = {.name = "bench", .ops = &ops};
    struct cule_loop *loop;
    struct cule_listener *s;
    if (cule_loop_new(&loop, NULL) || cule_listen(loop, endpoint, &o, NULL, accepted, NULL, &s, NULL)) {
        _exit(4);
    }
    const char *bound = cule_listener_endpoint(s);
    if (write(ready, bound, strlen(bound)) < 0) {
        _exit(4);
    }
    close(ready);
    cule_loop_run(loop);
    _exit(0);
}

static void answer_pipe(int rfd, int wfd)
{
    const struct cule_link_opts o = {.name = "bench", .is_server = true};
    struct cule_link *l;
    struct cule_msg m;
    if (cule_link_open_fd(NULL, rfd, wfd, &o, &l, NULL)) {
        _exit(4);
    }
    while (cule_link_next(l, &m, BENCH_WAIT_MS, NULL) > 0) {
        answer(l, NULL, &m);
    }
    _exit(0);
}

/* A responder, and a subscriber to what the throughput is measured with. */
static void answer_bus(const char *endpoint, int ready)
{
    const struct cule_link_opts o = {.name = "bench responder"};
    static const char *const subs[] = {"{\"pattern\":\"bench\",\"respond\":true}",
                                       "{\"pattern\":\"bench\",\"overflow\":\"block\"}"};
    struct cule_link *l;
    struct cule_msg m;
    if (cule_link_open(NULL, endpoint, &o, &l, NULL)) {
        _exit(4);
    }
    for (int i = 0; i < 2; i++) {
        if (busclient_ask(l, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE, 0, subs[i], BENCH_WAIT_MS, &m, NULL)) {
            _exit(4);
        }
    }
    if (write(ready, endpoint, strlen(endpoint)) < 0) {
        _exit(4);
    }
    close(ready);
    while (cule_link_next(l, &m, BENCH_WAIT_MS, NULL) > 0) {
        answer(l, NULL, &m);
    }
    _exit(0);
}

/* --- set up --- */

static int hear(int fd, char *out, size_t size, struct cule_err *err)
{
    ssize_t n = read(fd, out, size - 1);
    close(fd);
    if (n <= 0) {
        return cule_err_set(err, CULE_EIO, "the process to measure against did not start");
    }
    out[n] = '\0';
    return 0;
}

static int start_pipe(struct subject *s, struct cule_err *err)
{
    int to[2], from[2];
    int rc = cule_pipe(to, err);
    rc = rc ? rc : cule_pipe(from, err);
    if (rc) {
        return rc;
    }
    s->answerer = bench_fork(err);
    if (s->answerer == 0) {
        close(to[1]);
        close(from[0]);
        answer_pipe(to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    s->rfd = from[0];
    s->wfd = to[1];
    return s->answerer < 0 ? (int)s->answerer : 0;
}

static int start_listening(struct subject *s, const char *endpoint, struct cule_err *err)
{
    int ready[2];
    int rc = cule_pipe(ready, err);
    if (rc) {
        return rc;
    }
    s->answerer = bench_fork(err);
    if (s->answerer == 0) {
        answer_listening(endpoint, ready[1]);
    }
    close(ready[1]);
    return s->answerer < 0 ? (int)s->answerer : hear(ready[0], s->endpoint, sizeof s->endpoint, err);
}

static int start_broker(struct subject *s, struct cule_err *err)
{
    char path[256];
    int ready[2];
    char c[2];
    int rc = cule_pipe(ready, err);
    if (rc) {
        return rc;
    }
    bench_path(path, sizeof path, "bus");
    snprintf(s->endpoint, sizeof s->endpoint, "unix:%s", path);
    s->broker = bench_fork(err);
    if (s->broker == 0) {
        char fd[16];
        int keep = dup(ready[1]); /* without CLOEXEC */
        snprintf(fd, sizeof fd, "%d", keep);
        setenv("CULE_READY_FD", fd, 1);
        execl("/proc/self/exe", "cule-ipc", "bus", "--listen", s->endpoint, "--topic", "bench:overflow=block",
              (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    return s->broker < 0 ? (int)s->broker : hear(ready[0], c, sizeof c, err);
}

static int start_bus(struct subject *s, struct cule_err *err)
{
    int ready[2];
    int rc = start_broker(s, err);
    rc = rc ? rc : cule_pipe(ready, err);
    if (rc) {
        return rc;
    }
    s->answerer = bench_fork(err);
    if (s->answerer == 0) {
        answer_bus(s->endpoint, ready[1]);
    }
    close(ready[1]);
    return s->answerer < 0 ? (int)s->answerer : hear(ready[0], s->endpoint, sizeof s->endpoint, err);
}

static int start(struct subject *s, const char *what, struct cule_err *err)
{
    char path[256], endpoint[300];
    *s = (struct subject){.rfd = -1, .wfd = -1, .own = true};
    if (strcmp(what, "pipe") == 0) {
        s->pipe = true;
        return start_pipe(s, err);
    }
    if (strcmp(what, "bus") == 0) {
        s->bus = true;
        return start_bus(s, err);
    }
    if (strcmp(what, "tcp") == 0) {
        return start_listening(s, "tcp:127.0.0.1:0", err);
    }
    if (strcmp(what, "unix") == 0 || strcmp(what, "ring") == 0) {
        bench_path(path, sizeof path, what);
        snprintf(endpoint, sizeof endpoint, "%s:%s", what, path);
        return start_listening(s, endpoint, err);
    }
    s->own = false;
    if (!ipc_is_endpoint(what)) {
        return cule_err_set(err, CULE_EUSAGE, "cannot measure '%s': pipe, unix, ring, tcp, bus, or an endpoint", what);
    }
    snprintf(s->endpoint, sizeof s->endpoint, "%s", what);
    return 0;
}

static void stop(struct subject *s)
{
    bench_reap(s->answerer);
    if (s->broker > 0) {
        bench_reap(s->broker);
    }
    const char *path = strchr(s->endpoint, ':');
    if (s->own && path && path[1] == '/') {
        unlink(path + 1);
    }
}

static int open_link(struct subject *s, struct cule_loop *loop, const struct cule_link_opts *o, struct cule_link **l,
                     struct cule_err *err)
{
    return s->pipe ? cule_link_open_fd(loop, s->rfd, s->wfd, o, l, err) : cule_link_open(loop, s->endpoint, o, l, err);
}

/* --- round trips --- */

static int round_trips(struct subject *s, const struct bench_opts *o, struct bench_result *r, struct cule_err *err)
{
    const struct cule_link_opts lo = {.name = "bench", .connect_timeout_ms = BENCH_WAIT_MS};
    struct cule_link *l;
    struct cule_msg answer_msg, m;
    uint8_t *body = calloc(1, o->size + sizeof topic);
    if (!body) {
        return cule_err_set(err, CULE_ENOMEM, "no memory for %llu bytes", (unsigned long long)o->size);
    }
    int rc = open_link(s, NULL, &lo, &l, err);
    if (rc) {
        free(body);
        return rc;
    }
    size_t head = s->bus ? sizeof topic - 1 : 0;
    memcpy(body, topic, head);
    uint64_t warm = CULE_MIN(o->count / 10 + 1, 1000u);
    for (uint64_t i = 0; rc == 0 && i < o->count + warm; i++) {
        m = cule_msg_make(CULE_REQUEST, s->bus ? CULE_S_BUS : CULE_S_CULE,
                          s->bus ? CULE_OP_BUS_REQUEST : CULE_OP_CULE_ECHO);
        m.h.arg0 = head;
        m.body = body;
        m.len = head + o->size;
        uint64_t t = cule_now_ns();
        rc = cule_link_ask(l, &m, BENCH_WAIT_MS, &answer_msg, err);
        if (i >= warm) {
            cule_hist_add(&r->rtt, cule_now_ns() - t);
        }
    }
    cule_link_free(l);
    free(body);
    return rc;
}

/* --- throughput --- */

struct flood {
    struct cule_loop *loop;
    struct cule_link *link;
    const struct bench_opts *o;
    struct cule_buf batch;
    unsigned batch_frames, batch_messages;
    uint64_t sent, begin_ns, end_ns;
    bool bus, started, asked;
    struct cule_err err;
};

static void more(struct flood *f);

static void on_end(struct cule_link *l, void *arg, struct cule_msg *m)
{
    (void)l;
    struct flood *f = arg;
    if (!f->started) { /* the first answer: credit is in */
        f->started = true;
        f->begin_ns = cule_now_ns();
        cule_msg_error(m, &f->err);
        f->err.code ? cule_loop_stop(f->loop) : more(f);
        return;
    }
    f->end_ns = cule_now_ns();
    cule_msg_error(m, &f->err);
    cule_loop_stop(f->loop);
}

/* On the bus the answer to a publication that comes behind all others; elsewhere an echo. */
static void ask(struct flood *f)
{
    bool last = f->bus && f->started;
    struct cule_msg m =
        cule_msg_make(CULE_REQUEST, last ? CULE_S_BUS : CULE_S_CULE, last ? CULE_OP_BUS_PUBLISH : CULE_OP_CULE_ECHO);
    if (last) {
        m.h.arg0 = sizeof topic - 1;
        m.body = (const uint8_t *)topic;
        m.len = sizeof topic - 1;
    }
    int rc = cule_link_call(f->link, &m, BENCH_WAIT_MS, on_end, f, NULL);
    f->asked = rc == 0;
    if (rc && rc != CULE_EAGAIN) {
        cule_err_set(&f->err, rc, "cannot ask: %s", cule_err_text(rc));
        cule_loop_stop(f->loop);
    }
}

static void more(struct flood *f)
{
    while (cule_now_ns() - f->begin_ns < THROUGHPUT_MS * UINT64_C(1000000)) {
        int rc = cule_link_send_raw(f->link, CULE_NORMAL, cule_buf_data(&f->batch), cule_buf_len(&f->batch),
                                    f->batch_frames);
        if (rc == CULE_EAGAIN) {
            return;
        }
        if (rc) {
            cule_err_set(&f->err, rc, "cannot send: %s", cule_err_text(rc));
            cule_loop_stop(f->loop);
            return;
        }
        f->sent += f->batch_messages;
    }
    if (!f->asked) {
        ask(f);
    }
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    (void)l;
    (void)id;
    struct flood *f = ctx;
    if (f->started) {
        more(f);
    }
}

static void on_ready(struct cule_link *l, void *ctx)
{
    (void)l;
    ask(ctx);
    ((struct flood *)ctx)->asked = false;
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    struct flood *f = ctx;
    f->link = NULL;
    if (f->end_ns == 0 && f->err.code == 0) {
        f->err = *why;
        if (why->code == 0) {
            cule_err_set(&f->err, CULE_ECLOSED, "the other side closed the link");
        }
    }
    cule_loop_stop(f->loop);
}

static int make_batch(struct flood *f)
{
    size_t head = f->bus ? sizeof topic - 1 : 0;
    uint8_t *body = calloc(1, head + f->o->size + 1);
    int rc = body ? 0 : CULE_ENOMEM;
    if (rc == 0) {
        memcpy(body, topic, head);
    }
    while (rc == 0 && f->batch_frames < BATCH_FRAMES &&
           (f->batch_frames == 0 || cule_buf_len(&f->batch) + f->o->size + CULE_HEADER_SIZE <= BATCH_BYTES)) {
        struct cule_msg m = cule_msg_make(CULE_EVENT, f->bus ? CULE_S_BUS : CULE_FOURCC('b', 0, 0, 0),
                                          f->bus ? CULE_OP_BUS_PUBLISH : 0x4000);
        m.h.arg0 = head;
        m.body = body;
        m.len = head + f->o->size;
        rc = cule_msg_add(&f->batch, &m);
        f->batch_frames += (unsigned)(m.len / CULE_PAYLOAD_MAX + (m.len % CULE_PAYLOAD_MAX != 0 || m.len == 0));
        f->batch_messages++;
    }
    free(body);
    return rc;
}

static int throughput(struct subject *s, const struct bench_opts *o, struct bench_result *r, struct cule_err *err)
{
    static const struct cule_link_ops flood_ops = {.writable = on_writable, .ready = on_ready, .closed = on_closed};
    struct flood f = {.o = o, .bus = s->bus};
    const struct cule_link_opts lo = {.name = "bench", .ops = &flood_ops, .ctx = &f};
    cule_buf_init(&f.batch, 0);
    int rc = make_batch(&f);
    rc = rc ? cule_err_set(err, rc, "no memory for a batch") : cule_loop_new(&f.loop, err);
    rc = rc ? rc : open_link(s, f.loop, &lo, &f.link, err);
    if (rc == 0) {
        cule_loop_run(f.loop);
        if (f.err.code) {
            *err = f.err;
            rc = f.err.code;
        } else {
            r->messages = f.sent;
            r->messages_per_s = (double)f.sent / ((double)(f.end_ns - f.begin_ns) / 1e9);
        }
    }
    if (f.link) {
        cule_link_free(f.link);
    }
    if (f.loop) {
        cule_loop_free(f.loop);
    }
    cule_buf_release(&f.batch);
    return rc;
}

int bench_ours(const struct bench_opts *o, struct bench_result *r, struct cule_err *err)
{
    struct subject s;
    int rc = 0;
    for (int part = 0; rc == 0 && part < 2; part++) { /* a process for each: a link over a pipe is its only one */
        if (part == 0 ? !o->round_trips : !o->throughput) {
            continue;
        }
        rc = start(&s, o->endpoint, err);
        if (rc == 0) {
            rc = part == 0 ? round_trips(&s, o, r, err) : throughput(&s, o, r, err);
        }
        stop(&s);
    }
    return rc;
}

/* Peers in the same run: their libraries are opened here, so that this program needs none of them. */
#include "bench.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct peer {
    const char *name;
    const char *library;
    /* In a process of its own each: never returns; one round trip, 0. lib is the library, at where to meet. */
    void (*answer)(void *lib, const char *at, size_t size, int ready);
    int (*open)(void *lib, const char *at, void **side);
    int (*trip)(void *side, size_t size);
};

static void *body; /* of either side */

/* A function of a library; ends the process where it has none of that name. */
static void *sym(void *lib, const char *name)
{
    void *f = dlsym(lib, name);
    if (!f) {
        _exit(3);
    }
    return f;
}

static void tell(int fd)
{
    if (write(fd, "x", 1) != 1) {
        _exit(4);
    }
    close(fd);
}

/* --- zmq 4: values from its manual --- */

enum { ZMQ_REQ_ = 3, ZMQ_REP_ = 4 };
typedef void *zmq_new_fn(void);
typedef void *zmq_socket_fn(void *ctx, int type);
typedef int zmq_at_fn(void *s, const char *at);
typedef int zmq_send_fn(void *s, const void *p, size_t n, int flags);
typedef int zmq_recv_fn(void *s, void *p, size_t n, int flags);

struct zmq_side {
    void *socket;
    zmq_send_fn *send;
    zmq_recv_fn *recv;
};

static void zmq_side(void *lib, int type, const char *attach, const char *at, struct zmq_side *s)
{
    void *ctx = ((zmq_new_fn *)sym(lib, "zmq_ctx_new"))();
    s->socket = ((zmq_socket_fn *)sym(lib, "zmq_socket"))(ctx, type);
    s->send = (zmq_send_fn *)sym(lib, "zmq_send");
    s->recv = (zmq_recv_fn *)sym(lib, "zmq_recv");
    if (!s->socket || ((zmq_at_fn *)sym(lib, attach))(s->socket, at)) {
        _exit(4);
    }
}

static void zmq_answer(void *lib, const char *at, size_t size, int ready)
{
    struct zmq_side s;
    zmq_side(lib, ZMQ_REP_, "zmq_bind", at, &s);
    tell(ready);
    while (s.recv(s.socket, body, size, 0) >= 0 && s.send(s.socket, body, size, 0) >= 0) {
    }
    _exit(0);
}

static int zmq_open(void *lib, const char *at, void **side)
{
    static struct zmq_side s;
    zmq_side(lib, ZMQ_REQ_, "zmq_connect", at, &s);
    *side = &s;
    return 0;
}

static int zmq_trip(void *side, size_t size)
{
    struct zmq_side *s = side;
    return s->send(s->socket, body, size, 0) < 0 || s->recv(s->socket, body, size, 0) < 0;
}

/* --- nng 1 --- */

typedef int nng_open_fn(uint32_t *s); /* nng_socket is a struct of one uint32_t */
typedef int nng_at_fn(uint32_t s, const char *at, void *out, int flags);
typedef int nng_send_fn(uint32_t s, void *p, size_t n, int flags);
typedef int nng_recv_fn(uint32_t s, void *p, size_t *n, int flags);

struct nng_side {
    uint32_t socket;
    nng_send_fn *send;
    nng_recv_fn *recv;
};

static void nng_side(void *lib, const char *open, const char *attach, const char *at, struct nng_side *s)
{
    s->send = (nng_send_fn *)sym(lib, "nng_send");
    s->recv = (nng_recv_fn *)sym(lib, "nng_recv");
    if (((nng_open_fn *)sym(lib, open))(&s->socket) || ((nng_at_fn *)sym(lib, attach))(s->socket, at, NULL, 0)) {
        _exit(4);
    }
}

static void nng_answer(void *lib, const char *at, size_t size, int ready)
{
    struct nng_side s;
    size_t n = size;
    nng_side(lib, "nng_rep0_open", "nng_listen", at, &s);
    tell(ready);
    while (s.recv(s.socket, body, &n, 0) == 0 && s.send(s.socket, body, n, 0) == 0) {
        n = size;
    }
    _exit(0);
}

static int nng_open(void *lib, const char *at, void **side)
{
    static struct nng_side s;
    nng_side(lib, "nng_req0_open", "nng_dial", at, &s);
    *side = &s;
    return 0;
}

static int nng_trip(void *side, size_t size)
{
    struct nng_side *s = side;
    size_t n = size;
    return s->send(s->socket, body, size, 0) || s->recv(s->socket, body, &n, 0);
}

/* --- NATS: the plain protocol by hand would flatter it; libnats as its examples have it --- */

typedef int nats_connect_fn(void **nc, const char *url);
typedef int nats_request_fn(void **answer, void *nc, const char *subject, const void *p, int n, int64_t timeout);
typedef void nats_handler_fn(void *nc, void *sub, void *msg, void *ctx);
typedef int nats_subscribe_fn(void **sub, void *nc, const char *subject, nats_handler_fn *fn, void *ctx);
typedef int nats_publish_fn(void *nc, const char *subject, const void *p, int n);
typedef const char *nats_text_fn(const void *msg);
typedef int nats_len_fn(const void *msg);
typedef void nats_destroy_fn(void *msg);
typedef int nats_flush_fn(void *nc);

static struct {
    nats_publish_fn *publish;
    nats_text_fn *reply, *data;
    nats_len_fn *len;
    nats_destroy_fn *destroy;
    nats_request_fn *request;
    nats_flush_fn *flush;
} nats;

static void *nats_connection(void *lib, const char *at)
{
    void *nc = NULL;
    nats.publish = (nats_publish_fn *)sym(lib, "natsConnection_Publish");
    nats.reply = (nats_text_fn *)sym(lib, "natsMsg_GetReply");
    nats.data = (nats_text_fn *)sym(lib, "natsMsg_GetData");
    nats.len = (nats_len_fn *)sym(lib, "natsMsg_GetDataLength");
    nats.destroy = (nats_destroy_fn *)sym(lib, "natsMsg_Destroy");
    nats.request = (nats_request_fn *)sym(lib, "natsConnection_Request");
    nats.flush = (nats_flush_fn *)sym(lib, "natsConnection_Flush");
    return ((nats_connect_fn *)sym(lib, "natsConnection_ConnectTo"))(&nc, at) ? NULL : nc;
}

static void nats_handle(void *nc, void *sub, void *msg, void *ctx)
{
    (void)sub;
    (void)ctx;
    nats.publish(nc, nats.reply(msg), nats.data(msg), nats.len(msg));
    nats.flush(nc);
    nats.destroy(msg);
}

static void nats_answer(void *lib, const char *at, size_t size, int ready)
{
    void *nc = nats_connection(lib, at), *sub;
    (void)size;
    if (!nc || ((nats_subscribe_fn *)sym(lib, "natsConnection_Subscribe"))(&sub, nc, "bench", nats_handle, NULL) ||
        nats.flush(nc)) {
        _exit(4);
    }
    tell(ready);
    for (;;) {
        pause();
    }
}

static int nats_open(void *lib, const char *at, void **side)
{
    *side = nats_connection(lib, at);
    return *side == NULL;
}

static int nats_trip(void *side, size_t size)
{
    void *msg = NULL;
    int rc = nats.request(&msg, side, "bench", body, (int)size, BENCH_WAIT_MS);
    if (rc == 0) {
        nats.destroy(msg);
    }
    return rc;
}

static bool listens(int port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok =
        fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0;
    close(fd);
    return ok ? ntohs(a.sin_port) : 0;
}

/* A nats-server of our own; at gets its URL. */
static int nats_server(pid_t *server, char *at, size_t n, struct cule_err *err)
{
    char port[16];
    int number = free_port();
    snprintf(port, sizeof port, "%d", number);
    snprintf(at, n, "nats://127.0.0.1:%d", number);
    *server = bench_fork(err);
    if (*server < 0) {
        return (int)*server;
    }
    if (*server == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, (char *)NULL);
        execl("/usr/sbin/nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) {
        if (listens(number)) {
            return 0;
        }
        if (waitpid(*server, NULL, WNOHANG) == *server) {
            *server = 0;
            break;
        }
        nanosleep(&(const struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return cule_err_set(err, CULE_ENOT_FOUND, "nats-server is not installed or does not start");
}

/* --- a run --- */

static const struct peer peers[] = {
    {"zmq", "libzmq.so.5", zmq_answer, zmq_open, zmq_trip},
    {"nng", "libnng.so.1", nng_answer, nng_open, nng_trip},
    {"nats", "libnats.so.3.4", nats_answer, nats_open, nats_trip},
};

/* Asks, in a process of its own, and writes the histogram to fd. */
static void ask(const struct peer *p, void *lib, const char *at, const struct bench_opts *o, int fd)
{
    static struct cule_hist h;
    void *side;
    cule_hist_init(&h);
    if (p->open(lib, at, &side)) {
        _exit(4);
    }
    uint64_t warm = o->count / 10 + 1;
    for (uint64_t i = 0; i < o->count + warm; i++) {
        uint64_t t = cule_now_ns();
        if (p->trip(side, o->size)) {
            _exit(4);
        }
        if (i >= warm) {
            cule_hist_add(&h, cule_now_ns() - t);
        }
    }
    const char *b = (const char *)&h;
    for (size_t done = 0; done < sizeof h;) {
        ssize_t n = write(fd, b + done, sizeof h - done);
        if (n <= 0) {
            _exit(4);
        }
        done += (size_t)n;
    }
    _exit(0);
}

static int take(int fd, struct cule_hist *h)
{
    char *b = (char *)h;
    size_t done = 0;
    ssize_t n;
    while (done < sizeof *h && (n = read(fd, b + done, sizeof *h - done)) > 0) {
        done += (size_t)n;
    }
    return done == sizeof *h ? 0 : CULE_EIO;
}

static int run(const struct peer *p, void *lib, const char *at, const struct bench_opts *o, struct bench_result *r,
               struct cule_err *err)
{
    int ready[2], result[2];
    char c;
    int rc = cule_pipe(ready, err);
    rc = rc ? rc : cule_pipe(result, err);
    if (rc) {
        return rc;
    }
    pid_t answerer = bench_fork(err);
    if (answerer == 0) {
        p->answer(lib, at, o->size, ready[1]);
        _exit(4);
    }
    close(ready[1]);
    if (answerer < 0 || read(ready[0], &c, 1) != 1) {
        rc = cule_err_set(err, CULE_EIO, "%s's answering side did not start", p->name);
    }
    pid_t asker = rc ? -1 : bench_fork(err);
    if (asker == 0) {
        ask(p, lib, at, o, result[1]);
    }
    close(result[1]);
    if (rc == 0 && (asker < 0 || take(result[0], &r->rtt))) {
        rc = cule_err_set(err, CULE_EIO, "the round trips with %s failed", p->name);
    }
    bench_reap(asker);
    bench_reap(answerer);
    close(ready[0]);
    close(result[0]);
    return rc;
}

int bench_peer(const char *name, const struct bench_opts *o, struct bench_result *r, struct cule_err *err)
{
    const struct peer *p = NULL;
    char path[256], at[300];
    pid_t server = 0;
    for (size_t i = 0; i < sizeof peers / sizeof peers[0]; i++) {
        p = strcmp(peers[i].name, name) == 0 ? &peers[i] : p;
    }
    if (!p) {
        return cule_err_set(err, CULE_EUSAGE, "peer '%s' is not known: zmq, nng and nats are", name);
    }
    void *lib = dlopen(p->library, RTLD_NOW);
    if (!lib) {
        return cule_err_set(err, CULE_ENOT_FOUND, "peer '%s' is not installed (%s)", name, p->library);
    }
    bench_path(path, sizeof path, name);
    snprintf(at, sizeof at, "ipc://%s", path);
    int rc = strcmp(name, "nats") == 0 ? nats_server(&server, at, sizeof at, err) : 0;
    body = rc ? NULL : calloc(1, o->size + 1);
    if (rc == 0) {
        rc = body ? run(p, lib, at, o, r, err) : cule_err_set(err, CULE_ENOMEM, "no memory for a message");
    }
    free(body);
    bench_reap(server);
    unlink(path);
    dlclose(lib);
    return rc;
}

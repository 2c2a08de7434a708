/* Two carriers joined, byte by byte: by splice where that can be, by recvmsg and sendmsg otherwise. */
#include "relay_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RELAY_CHUNK = 256 * 1024,
    RELAY_PIPE = 1024 * 1024, /* asked of the kernel for a splice's pipe; it may give less */
    RELAY_ROUNDS = 8,         /* chunks of one direction in one go, so that others get their turn */
    RELAY_FDS_MAX = 253,
};

/* One direction. */
struct pump {
    struct cule_carrier *from, *to;
    uint8_t *buf; /* head to tail wait to be written */
    size_t head, tail;
    struct cule_fdq fds;
    uint64_t bytes;
    int pipe[2]; /* splice: what was read waits in it; -1 otherwise */
    size_t in_pipe;
    bool splice;
    bool eof, finished; /* the end was read; and passed on */
    bool full;          /* waiting for `to` to be writable */
};

struct relay_pair {
    struct cule_loop *loop;
    struct relay_end end[2];
    struct pump pump[2];         /* [0] from a to b */
    struct cule_watch *watch[4]; /* read a, write a, read b, write b; one for both where it is one descriptor */
    struct cule_defer defer;
    const struct relay_pair_ops *ops;
    void *ctx;
    struct cule_err why;
    bool over;
};

/* --- moving bytes --- */

static int stop_splicing(struct pump *p, struct cule_err *err)
{
    p->splice = false;
    p->buf = malloc(RELAY_CHUNK);
    return p->buf ? 0 : cule_err_set(err, CULE_ENOMEM, "out of memory");
}

/* 1 moved, 0 nothing now, or an error. */
static int splice_some(struct pump *p, struct cule_err *err)
{
    int moved = 0;
    if (!p->eof && p->in_pipe == 0) {
        ssize_t n = splice(p->from->rfd, NULL, p->pipe[1], NULL, RELAY_PIPE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EINVAL) {
            int rc = stop_splicing(p, err); /* a kind of file that cannot */
            return rc ? rc : 1;
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot read from %s", p->from->peer.address);
        }
        p->eof = n == 0;
        p->in_pipe = n > 0 ? (size_t)n : 0;
        moved = n >= 0;
    }
    while (p->in_pipe) {
        ssize_t n = splice(p->pipe[0], NULL, p->to->wfd, NULL, p->in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            p->full = true;
            return moved;
        }
        if (n < 0 && errno == EINVAL) {
            int rc = stop_splicing(p, err);
            n = rc ? rc : read(p->pipe[0], p->buf, RELAY_CHUNK);
            p->in_pipe -= n > 0 ? (size_t)n : 0;
            p->tail = n > 0 ? (size_t)n : 0;
            return rc ? rc : 1;
        }
        if (n < 0) {
            return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot write to %s", p->to->peer.address);
        }
        p->in_pipe -= (size_t)n;
        p->bytes += (uint64_t)n;
        moved = 1;
    }
    return moved;
}

/* Writes what waits. The descriptors that came with a chunk go with its first byte; a frame's descriptors may so come
 * a little early, never late, and in order, which is all that their receiver relies on. */
static int write_some(struct pump *p, struct cule_err *err)
{
    while (p->head < p->tail) {
        struct iovec iov = {p->buf + p->head, p->tail - p->head};
        int fds[RELAY_FDS_MAX];
        unsigned n = 0;
        while (n < RELAY_FDS_MAX && n < p->fds.count) {
            fds[n] = p->fds.fd[(p->fds.head + n) % p->fds.cap];
            n++;
        }
        ssize_t w = p->to->ops->write(p->to, &iov, 1, fds, n, err);
        if (w == CULE_EAGAIN) {
            p->full = true;
            return 0;
        }
        if (w < 0) {
            return (int)w;
        }
        for (unsigned i = 0; w > 0 && i < n; i++) {
            close(cule_fdq_pop(&p->fds));
        }
        p->head += (size_t)w;
        p->bytes += (uint64_t)w;
    }
    p->head = p->tail = 0;
    return 0;
}

static int copy_some(struct relay_pair *r, struct pump *p, struct cule_err *err)
{
    if (p->head < p->tail) {
        return write_some(p, err);
    }
    if (p->in_pipe) { /* what was spliced in before splicing turned out not to work */
        ssize_t n = read(p->pipe[0], p->buf, RELAY_CHUNK);
        p->tail = n > 0 ? (size_t)n : 0;
        p->in_pipe -= p->tail;
        return n > 0 ? 1 : cule_err_sys(err, CULE_EIO, errno, "cannot read a pipe");
    }
    if (p->eof) {
        return 0;
    }
    ssize_t n = p->from->ops->read(p->from, p->buf, RELAY_CHUNK, &p->fds, err);
    if (n == CULE_EAGAIN) {
        return 0;
    }
    if (n < 0) {
        return (int)n;
    }
    p->eof = n == 0;
    p->tail = (size_t)n;
    int rc = n && r->ops->tap ? r->ops->tap(r->ctx, p == &r->pump[1], p->buf, (size_t)n, err) : 0;
    rc = rc ? rc : write_some(p, err);
    return rc ? rc : 1;
}

/* Runs one direction as far as it goes now. */
static int run_pump(struct relay_pair *r, struct pump *p, struct cule_err *err)
{
    int rc = 1;
    p->full = false;
    if (p->from->connecting || p->to->connecting) {
        return 0;
    }
    for (int round = 0; rc > 0 && round < RELAY_ROUNDS && !p->full; round++) {
        rc = p->splice ? splice_some(p, err) : copy_some(r, p, err);
    }
    if (rc == CULE_ECLOSED) { /* no reader any more; what that side said last still passes the other way */
        p->eof = true;
        p->head = p->tail = p->in_pipe = 0;
    } else if (rc < 0) {
        return rc;
    }
    if (p->eof && !p->finished && p->head == p->tail && p->in_pipe == 0) {
        p->finished = true;
        if (p->to->ops->finish) {
            p->to->ops->finish(p->to);
        }
    }
    return 0;
}

/* --- turns --- */

static void end_pair(struct relay_pair *r, int code, const struct cule_err *err)
{
    if (!r->over) {
        r->over = true;
        if (code) {
            r->why = *err;
            r->why.code = code;
        }
        cule_loop_defer(r->loop, &r->defer);
    }
}

static void on_event(void *ctx, int events);

static int set_watch(struct relay_pair *r, unsigned i, int fd, int events, struct cule_err *err)
{
    if (r->watch[i]) {
        return cule_watch_set(r->watch[i], events);
    }
    return events && fd >= 0 ? cule_watch_new(r->loop, &r->watch[i], fd, events, on_event, r, err) : 0;
}

static int set_watches(struct relay_pair *r, struct cule_err *err)
{
    int rc = 0;
    bool connecting = r->end[0].carrier->connecting || r->end[1].carrier->connecting;
    for (unsigned i = 0; i < 2 && !rc; i++) {
        const struct cule_carrier *c = r->end[i].carrier;
        const struct pump *in = &r->pump[i];
        const struct pump *out = &r->pump[1 - i];
        bool waits = in->head < in->tail || in->in_pipe;
        int reads = !connecting && !in->eof && !waits ? POLLIN : 0;
        int writes = c->connecting || (!connecting && out->full) ? POLLOUT : 0;
        if (c->rfd == c->wfd) {
            rc = set_watch(r, 2 * i, c->rfd, reads | writes, err);
        } else {
            rc = set_watch(r, 2 * i, c->rfd, reads, err);
            rc = rc ? rc : set_watch(r, 2 * i + 1, c->wfd, writes, err);
        }
    }
    return rc;
}

static int shake_hands(struct relay_pair *r, struct cule_err *err)
{
    for (unsigned i = 0; i < 2; i++) {
        struct cule_carrier *c = r->end[i].carrier;
        int rc = c->connecting && c->ops->handshake ? c->ops->handshake(c, err) : 1;
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* A side that has ended and takes nothing any more either: what the other one still sends has no reader, and to wait
 * for its end could be to wait for ever. */
static void drop_unread(struct relay_pair *r)
{
    for (unsigned i = 0; i < 2; i++) {
        struct pollfd p = {.fd = r->pump[i].from->wfd};
        if (r->pump[i].finished && p.fd >= 0 && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR))) {
            r->pump[1 - i].eof = r->pump[1 - i].finished = true;
        }
    }
}

static void turn(struct relay_pair *r)
{
    struct cule_err err = {0};
    int rc = shake_hands(r, &err);
    rc = rc ? rc : run_pump(r, &r->pump[0], &err);
    rc = rc ? rc : run_pump(r, &r->pump[1], &err);
    drop_unread(r);
    rc = rc ? rc : set_watches(r, &err);
    if (rc) {
        end_pair(r, rc, &err);
    } else if (r->pump[0].finished && r->pump[1].finished) {
        end_pair(r, 0, NULL);
    }
}

static void on_event(void *ctx, int events)
{
    struct relay_pair *r = ctx;
    (void)events;
    if (!r->over) {
        turn(r);
    }
}

static void on_defer(void *ctx)
{
    struct relay_pair *r = ctx;
    if (!r->over) {
        turn(r);
        return;
    }
    r->ops->over(r->ctx, r, &r->why);
    relay_pair_free(r);
}

/* --- making --- */

static bool is_unix(const struct cule_carrier *c)
{
    return strcmp(c->ops->name, "unix") == 0;
}

/* A splice waits on a socket unless the socket itself is non-blocking. Our own are made so; those that we were started
 * with are shared with others, who may rely on their mode. */
static bool splices(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) || S_ISCHR(st.st_mode)) {
        return false;
    }
    if (!S_ISSOCK(st.st_mode) || (flags & O_NONBLOCK)) {
        return true;
    }
    return fd > STDERR_FILENO && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static int start_pump(struct pump *p, struct cule_carrier *from, struct cule_carrier *to, bool tapped,
                      struct cule_err *err)
{
    p->from = from;
    p->to = to;
    p->pipe[0] = p->pipe[1] = -1;
    if (from->rfd < 0 || to->wfd < 0) {
        p->eof = true; /* a one-way end */
        p->finished = to->wfd < 0;
        return 0;
    }
    p->splice = !tapped && !(is_unix(from) && is_unix(to)) && splices(from->rfd) && splices(to->wfd) &&
                pipe2(p->pipe, O_CLOEXEC | O_NONBLOCK) == 0;
    if (!p->splice) {
        return stop_splicing(p, err);
    }
    if (fcntl(p->pipe[1], F_SETPIPE_SZ, RELAY_PIPE) < 0) {
        return 0; /* over the user's limit for pipes: the default size does too */
    }
    return 0;
}

int relay_pair_new(struct cule_loop *loop, const struct relay_end *a, const struct relay_end *b,
                   const struct relay_pair_ops *ops, void *ctx, struct relay_pair **out, struct cule_err *err)
{
    struct relay_pair *r = calloc(1, sizeof *r);
    if (!r) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    r->loop = loop;
    r->ops = ops;
    r->ctx = ctx;
    r->end[0] = *a;
    r->end[1] = *b;
    cule_defer_init(&r->defer, on_defer, r);
    int rc = start_pump(&r->pump[0], a->carrier, b->carrier, ops->tap, err);
    rc = rc ? rc : start_pump(&r->pump[1], b->carrier, a->carrier, ops->tap, err);
    if (rc) {
        r->end[0] = r->end[1] = (struct relay_end){0}; /* stay the caller's */
        relay_pair_free(r);
        return rc;
    }
    cule_loop_defer(loop, &r->defer);
    *out = r;
    return 0;
}

void relay_pair_free(struct relay_pair *r)
{
    cule_defer_cancel(&r->defer);
    for (unsigned i = 0; i < 4; i++) {
        cule_watch_free(r->watch[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct pump *p = &r->pump[i];
        free(p->buf);
        cule_fdq_release(&p->fds);
        if (p->from && p->pipe[0] >= 0) {
            close(p->pipe[0]);
            close(p->pipe[1]);
        }
        relay_end_close(&r->end[i]);
    }
    free(r);
}

void relay_pair_count(const struct relay_pair *p, uint64_t *asked, uint64_t *answered)
{
    *asked = p->pump[0].bytes;
    *answered = p->pump[1].bytes;
}

struct cule_proc *relay_pair_proc(const struct relay_pair *p)
{
    return p->end[1].proc;
}

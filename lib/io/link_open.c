/* Opening links: from an endpoint, from descriptors, over a carrier; the two ends of a ring. */
#include "io/link_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_MS = 10 };

/* One stream socket, also when it is both standard input and standard output. */
static bool is_socket(const struct cule_carrier *c)
{
    struct stat r;
    struct stat w;
    if (c->rfd < 0 || c->rfd == c->wfd) {
        return c->rfd >= 0;
    }
    return c->wfd >= 0 && fstat(c->rfd, &r) == 0 && fstat(c->wfd, &w) == 0 && S_ISSOCK(r.st_mode) &&
           r.st_dev == w.st_dev && r.st_ino == w.st_ino;
}

/* Makes the link over a carrier, which it owns on success. */
static int over_carrier(struct cule_loop *loop, struct cule_carrier *c, const struct cule_link_opts *o,
                        struct cule_link **out, struct cule_err *err)
{
    struct cule_link *l;
    struct link_shape shape = {.duplex = c->duplex, .socket = is_socket(c), .can_pass_fds = c->can_pass_fds};
    int rc = cule_link_alloc(loop, o, &shape, &l, err);
    if (!rc) {
        l->carrier = c;
        *out = l;
    }
    return rc;
}

/* Without a loop: connects, shakes hands and waits for the peer's HELLO. */
static int finish_opening(struct cule_link *l, struct cule_err *err)
{
    int rc = cule_link_start(l, err);
    if (rc == 0 && !l->loop) {
        rc = cule_link_wait_ready(l, err);
    }
    return rc;
}

int cule_link_open_carrier(struct cule_loop *loop, struct cule_carrier *c, const struct cule_link_opts *o,
                           struct cule_link **out, struct cule_err *err)
{
    struct cule_link *l;
    int rc = over_carrier(loop, c, o, &l, err);
    if (rc) {
        return rc;
    }
    rc = finish_opening(l, err);
    if (rc) {
        l->carrier = NULL; /* stays the caller's */
        cule_link_release(l);
        return rc;
    }
    *out = l;
    return 0;
}

int cule_link_open_fd(struct cule_loop *loop, int rfd, int wfd, const struct cule_link_opts *o, struct cule_link **out,
                      struct cule_err *err)
{
    struct cule_carrier *c;
    struct cule_link *l;
    int rc = cule_carrier_fd(&c, rfd, wfd, err);
    if (rc) {
        return rc;
    }
    rc = over_carrier(loop, c, o, &l, err);
    if (rc) {
        c->rfd = c->wfd = -1; /* they stay the caller's */
        c->ops->close(c);
        return rc;
    }
    rc = finish_opening(l, err);
    if (rc) {
        cule_link_disown(l);
        return rc;
    }
    *out = l;
    return 0;
}

/* A link whose ring is still to come over that socket, which it owns. */
static int over_ring(struct cule_loop *loop, int sock, bool trust, const struct cule_link_opts *o,
                     struct cule_link **out, struct cule_err *err)
{
    struct link_shape shape = {.duplex = true, .socket = true};
    struct cule_peer *peer = calloc(1, sizeof *peer);
    int rc = peer ? cule_link_alloc(loop, o, &shape, out, err) : cule_err_set(err, CULE_ENOMEM, "out of memory");
    if (rc) {
        free(peer);
        close(sock);
        return rc;
    }
    cule_peer_of_socket(sock, peer);
    (*out)->ring_peer = peer;
    (*out)->ring_trust = trust;
    (*out)->ring_sock = sock;
    return 0;
}

int cule_link_attach_ring(struct cule_loop *loop, int sock, bool trust, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err)
{
    struct cule_link *l;
    int rc = over_ring(loop, sock, trust, o, &l, err);
    if (rc) {
        return rc;
    }
    if (!loop) {
        struct cule_ring_opts ro = {.trust_same_uid = trust};
        uint64_t limit_ms = o->connect_timeout_ms ? o->connect_timeout_ms : CULE_LINK_CONNECT_MS;
        rc = cule_ring_attach(&l->ring, sock, &ro, (int)CULE_MIN(limit_ms, (uint64_t)INT_MAX), err);
        if (!rc) {
            l->ring_sock = -1;
            l->state = LINK_OPEN;
        }
    }
    rc = rc ? rc : finish_opening(l, err);
    if (rc) {
        cule_link_release(l);
        return rc;
    }
    *out = l;
    return 0;
}

int cule_link_create_ring(struct cule_loop *loop, int sock, bool trust, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err)
{
    struct cule_link *l;
    struct cule_ring_opts ro = {.trust_same_uid = trust};
    int rc = over_ring(loop, sock, trust, o, &l, err);
    if (rc) {
        return rc;
    }
    rc = cule_ring_create(&l->ring, &ro, err);
    rc = rc ? rc : cule_ring_handover(l->ring, sock, err);
    if (!rc) {
        l->ring_sock = -1; /* the ring owns it */
        l->state = LINK_OPEN;
        rc = cule_link_start(l, err); /* without a loop too: the first use waits for the attacher's HELLO */
    }
    if (rc) {
        cule_link_release(l);
        return rc;
    }
    *out = l;
    return 0;
}

/* --- endpoints --- */

static void on_exec_exit(void *ctx, struct cule_proc *p, const struct cule_exit *how)
{
    (void)ctx; /* the link learns of it by the end of the stream */
    (void)p;
    (void)how;
}

static int open_exec(struct cule_loop *loop, const struct cule_endpoint *ep, const struct cule_link_opts *o,
                     struct cule_link **out, struct cule_err *err)
{
    int sv[2];
    struct cule_proc *proc = NULL;
    struct cule_link *l = NULL;
    int rc = cule_socketpair(sv, err);
    if (rc) {
        return rc;
    }
    struct cule_spawn s = {.shell = ep->path, .in = sv[1], .out = sv[1], .err = -1, .group = true};
    rc = cule_spawn(loop, &s, &proc, on_exec_exit, NULL, err);
    close(sv[1]);
    if (rc) {
        close(sv[0]);
        return cule_err_context(err, rc, "cannot start '%s'", ep->path);
    }
    rc = cule_link_open_fd(loop, sv[0], sv[0], o, &l, err);
    if (rc) {
        close(sv[0]);
        cule_proc_free(proc);
        return cule_err_context(err, rc, "no link to '%s'", ep->path);
    }
    l->proc = proc;
    *out = l;
    return 0;
}

static int open_file(struct cule_loop *loop, const char *path, int flags, const struct cule_link_opts *o,
                     struct cule_link **out, struct cule_err *err)
{
    struct cule_link_opts one = *o;
    one.one_way = true;
    int fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd < 0) {
        int code = errno == ENOENT ? CULE_ENOT_FOUND : cule_err_from_errno(errno);
        return cule_err_sys(err, code, errno, "cannot open '%s'", path);
    }
    bool reads = (flags & O_ACCMODE) == O_RDONLY;
    int rc = cule_link_open_fd(loop, reads ? fd : -1, reads ? -1 : fd, &one, out, err);
    if (rc) {
        close(fd);
    }
    return rc;
}

/* Connects; where the caller has time, tries again while nobody listens there yet. */
static int connect_to(const struct cule_endpoint *ep, const struct cule_link_opts *o, bool blocks, int *fd,
                      struct cule_err *err)
{
    uint64_t limit_ms = o->connect_timeout_ms ? o->connect_timeout_ms : CULE_LINK_CONNECT_MS;
    uint64_t wait_until_ns = cule_now_ns() + o->wait_ms * 1000000u;
    struct timespec pause = {.tv_nsec = RETRY_MS * 1000000};
    bool done;
    for (;;) {
        struct cule_err why = {0}; /* what is got over in the end must not show */
        int rc = blocks || o->wait_ms ? cule_endpoint_connect_wait(ep, cule_now_ns() + limit_ms * 1000000u, fd, &why)
                                      : cule_endpoint_connect(ep, fd, &done, &why);
        if (rc != CULE_ENO_RESPONDER || cule_now_ns() >= wait_until_ns) {
            if (rc && err) {
                *err = why;
            }
            return rc;
        }
        nanosleep(&pause, NULL);
    }
}

static int open_socket(struct cule_loop *loop, const struct cule_endpoint *ep, const struct cule_link_opts *o,
                       struct cule_link **out, struct cule_err *err)
{
    int fd = -1;
    void *config = NULL;
    const struct cule_tls_hook *tls = NULL;
    struct cule_carrier *c = NULL;
    int rc = 0;
    if (ep->type == CULE_EP_TLS) {
        tls = cule_tls_hook_get(err);
        rc = tls ? tls->config_new(&config, ep, false, err) : CULE_EUNSUPPORTED;
    }
    if (!rc) {
        /* A ring's rendezvous is a Unix socket, whose connect does not wait for the other side. */
        rc = connect_to(ep, o, !loop || ep->type == CULE_EP_RING, &fd, err);
    }
    if (rc) {
        goto out;
    }
    if (ep->type == CULE_EP_RING) {
        rc = cule_link_attach_ring(loop, fd, ep->trust_same_uid, o, out, err);
        fd = -1;
        goto out;
    }
    if (!tls) {
        rc = cule_link_open_fd(loop, fd, fd, o, out, err);
        goto out;
    }
    rc = tls->carrier(&c, config, fd, false, err);
    if (rc) {
        goto out;
    }
    fd = -1;
    rc = cule_link_open_carrier(loop, c, o, out, err);
    if (rc) {
        c->ops->close(c);
    } else {
        (*out)->tls_config = config;
        config = NULL;
    }
out:
    if (rc && fd >= 0) {
        close(fd);
    }
    if (config) {
        tls->config_free(config);
    }
    return rc;
}

static int open_inherited(struct cule_loop *loop, const struct cule_endpoint *ep, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err)
{
    char *end;
    long n = strtol(ep->path, &end, 10);
    if (*end || n < 0 || n > 1000000) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is no descriptor number", ep->text);
    }
    int fl = fcntl((int)n, F_GETFL);
    if (fl < 0) {
        return cule_err_sys(err, CULE_EUSAGE, errno, "descriptor %ld is not open", n);
    }
    bool reads = (fl & O_ACCMODE) != O_WRONLY;
    bool writes = (fl & O_ACCMODE) != O_RDONLY;
    return cule_link_open_fd(loop, reads ? (int)n : -1, writes ? (int)n : -1, o, out, err);
}

int cule_link_open(struct cule_loop *loop, const char *endpoint, const struct cule_link_opts *o, struct cule_link **out,
                   struct cule_err *err)
{
    struct cule_endpoint ep;
    int rc = cule_endpoint_parse(&ep, endpoint, err);
    if (rc) {
        return rc;
    }
    switch (ep.type) {
    case CULE_EP_STDIO: return cule_link_open_fd(loop, 0, 1, o, out, err);
    case CULE_EP_FD: return open_inherited(loop, &ep, o, out, err);
    case CULE_EP_EXEC: return open_exec(loop, &ep, o, out, err);
    case CULE_EP_FILE: return open_file(loop, ep.path, O_RDONLY, o, out, err);
    default: return open_socket(loop, &ep, o, out, err);
    }
}

int cule_link_open_writer(struct cule_loop *loop, const char *endpoint, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err)
{
    struct cule_endpoint ep;
    int rc = cule_endpoint_parse(&ep, endpoint, err);
    if (rc) {
        return rc;
    }
    struct cule_link_opts one = *o;
    one.one_way = true;
    if (ep.type == CULE_EP_FILE) {
        return open_file(loop, ep.path, O_WRONLY | O_CREAT | O_TRUNC, o, out, err);
    }
    if (ep.type == CULE_EP_STDIO) {
        return cule_link_open_fd(loop, -1, 1, &one, out, err);
    }
    return cule_link_open(loop, endpoint, &one, out, err);
}

/* Carriers over sockets, pipes and files. */
#include "io/carrier.h"

#include "io/endpoint.h"
#include "wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

enum end_kind { END_NONE, END_UNIX, END_INET, END_PIPE, END_FILE, END_CHAR };

struct end {
    enum end_kind kind;
    bool by_flag;   /* a pipe whose kernel has no non-blocking call: O_NONBLOCK is set instead */
    bool flag_ours; /* and was not before, so close takes it back */
};

struct fd_carrier {
    struct cule_carrier c;
    struct end r, w;
    bool may_block;  /* O_NONBLOCK is off, for read_wait */
    int rcvtimeo_ms; /* SO_RCVTIMEO as set; 0 when never */
};

static struct fd_carrier *self(struct cule_carrier *c)
{
    return CULE_CONTAINER(c, struct fd_carrier, c);
}

/* --- reading ------------------------------------------------------------------------------------------ */

static void close_all(const int *fd, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        close(fd[i]);
    }
}

/* Queues the descriptors of one control message; after a failure the rest are closed. */
static int take_rights(const struct cmsghdr *m, struct cule_fdq *fds, int rc)
{
    size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(m) + i * sizeof fd, sizeof fd);
        if (m->cmsg_type == SCM_PIDFD || rc < 0 || !fds) {
            close_all(&fd, 1);
        } else {
            rc = cule_fdq_push(fds, fd);
        }
    }
    return rc;
}

static int take_control(struct msghdr *mh, struct cule_fdq *fds, struct cule_err *err)
{
    int rc = 0;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(mh); m; m = CMSG_NXTHDR(mh, m)) {
        if (m->cmsg_level == SOL_SOCKET && (m->cmsg_type == SCM_RIGHTS || m->cmsg_type == SCM_PIDFD)) {
            rc = take_rights(m, fds, rc);
        }
    }
    if (mh->msg_flags & MSG_CTRUNC) {
        /* Frames could no longer tell which descriptor is whose. */
        return cule_err_set(err, CULE_ENOFD, "descriptors sent by the peer were lost (the limit of open files is low)");
    }
    if (rc < 0) {
        return cule_err_set(err, rc, "the peer sent more than %d descriptors that no frame claimed", CULE_FDQ_MAX);
    }
    return 0;
}

static ssize_t recv_unix(int fd, void *buf, size_t n, struct cule_fdq *fds, int flags, struct cule_err *err, int *sys)
{
    /* Room beside the rights for what an inherited socket may have switched on: credentials, a pidfd, a label. */
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(CULE_FDS_MAX * sizeof(int)) + 512];
    } control;
    struct iovec iov = {buf, n};
    struct msghdr mh = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC | flags);
    *sys = errno;
    if (got >= 0 && (mh.msg_controllen > 0 || (mh.msg_flags & MSG_CTRUNC))) {
        int rc = take_control(&mh, fds, err);
        if (rc < 0) {
            *sys = 0;
            return rc;
        }
    }
    return got;
}

/* 1 ready, 0 not: for character devices, which know neither kind of non-blocking call reliably. */
static int ready(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, 0) > 0;
}

static int use_flag(struct end *e, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        return -1;
    }
    e->by_flag = true;
    e->flag_ours = !(flags & O_NONBLOCK);
    return 0;
}

static ssize_t pipe_io(struct end *e, int fd, const struct iovec *iov, int niov, bool out)
{
    if (!e->by_flag) {
        ssize_t n = out ? pwritev2(fd, iov, niov, -1, RWF_NOWAIT) : preadv2(fd, iov, niov, -1, RWF_NOWAIT);
        if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)) {
            return n;
        }
        if (use_flag(e, fd) < 0) {
            return -1;
        }
    }
    return out ? writev(fd, iov, niov) : readv(fd, iov, niov);
}

static ssize_t read_error(int sys, struct cule_err *err)
{
    if (sys == EAGAIN || sys == EINTR) {
        return CULE_EAGAIN;
    }
    if (sys == ECONNRESET) {
        return cule_err_sys(err, CULE_ECLOSED, sys, "the peer closed the link");
    }
    return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot read");
}

static ssize_t fd_read(struct cule_carrier *c, void *buf, size_t n, struct cule_fdq *fds, struct cule_err *err)
{
    struct fd_carrier *f = self(c);
    struct iovec iov = {buf, n};
    ssize_t got = -1;
    int sys = -1;
    assert(n > 0);
    switch (f->r.kind) {
    case END_UNIX:
        got = recv_unix(c->rfd, buf, n, fds, MSG_DONTWAIT, err, &sys);
        if (got < 0 && sys == 0) {
            return got;
        }
        break;
    case END_INET: got = recv(c->rfd, buf, n, MSG_DONTWAIT); break;
    case END_PIPE: got = pipe_io(&f->r, c->rfd, &iov, 1, false); break;
    case END_CHAR:
        if (!ready(c->rfd, POLLIN)) {
            return CULE_EAGAIN;
        }
        got = read(c->rfd, buf, n);
        break;
    case END_FILE: got = read(c->rfd, buf, n); break;
    case END_NONE: return cule_err_set(err, CULE_EUSAGE, "this link is for writing only");
    }
    return got >= 0 ? got : read_error(sys >= 0 ? sys : errno, err);
}

/* The socket's own timeout spares the poll; it is set only when it changes. Writes say MSG_DONTWAIT themselves, so
 * the socket may block. */
static int let_block(struct fd_carrier *f, int timeout_ms)
{
    int fd = f->c.rfd;
    if (!f->may_block) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || ((flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)) {
            return -1;
        }
        f->may_block = true;
    }
    if (timeout_ms != f->rcvtimeo_ms) {
        int ms = timeout_ms < 0 ? 0 : timeout_ms;
        struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0) {
            return -1;
        }
        f->rcvtimeo_ms = timeout_ms;
    }
    return 0;
}

static ssize_t fd_read_wait(struct cule_carrier *c, void *buf, size_t n, struct cule_fdq *fds, int timeout_ms,
                            struct cule_err *err)
{
    struct fd_carrier *f = self(c);
    if (timeout_ms == 0) {
        return fd_read(c, buf, n, fds, err);
    }
    if (f->r.kind != END_UNIX && f->r.kind != END_INET) {
        /* The writing end is a socket, and gave the carrier its operations, but this one is not. */
        struct pollfd p = {.fd = c->rfd, .events = POLLIN};
        return poll(&p, 1, timeout_ms) > 0 ? fd_read(c, buf, n, fds, err) : CULE_EAGAIN;
    }
    if (let_block(f, timeout_ms) < 0) {
        return read_error(errno, err);
    }
    int sys = -1;
    ssize_t got = f->r.kind == END_UNIX ? recv_unix(c->rfd, buf, n, fds, 0, err, &sys) : recv(c->rfd, buf, n, 0);
    if (got < 0 && sys == 0) {
        return got;
    }
    return got >= 0 ? got : read_error(sys >= 0 ? sys : errno, err);
}

/* --- writing ------------------------------------------------------------------------------------------ */

static ssize_t send_sock(int fd, const struct iovec *iov, int niov, const int *fds, unsigned nfds)
{
    if (niov == 1 && nfds == 0) {
        return send(fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(CULE_FDS_MAX * sizeof(int))];
    } control;
    struct msghdr mh = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)niov};
    if (nfds) {
        mh.msg_control = control.bytes;
        mh.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        memset(control.bytes, 0, mh.msg_controllen);
        struct cmsghdr *m = CMSG_FIRSTHDR(&mh);
        m->cmsg_level = SOL_SOCKET;
        m->cmsg_type = SCM_RIGHTS;
        m->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(m), fds, nfds * sizeof(int));
    }
    return sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t write_error(int sys, struct cule_err *err)
{
    switch (sys) {
    case EAGAIN:
    case EINTR: return CULE_EAGAIN;
    case EPIPE:
    case ECONNRESET: return cule_err_sys(err, CULE_ECLOSED, sys, "the peer closed the link");
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return cule_err_sys(err, CULE_EDISK, sys, "cannot write");
    case ETOOMANYREFS:
        return cule_err_sys(err, CULE_ELIMIT, sys, "too many descriptors are on their way through sockets");
    default: return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot write");
    }
}

static ssize_t fd_write(struct cule_carrier *c, const struct iovec *iov, int niov, const int *fds, unsigned nfds,
                        struct cule_err *err)
{
    struct fd_carrier *f = self(c);
    ssize_t put = -1;
    assert(nfds <= CULE_FDS_MAX);
    if (niov == 0) {
        return 0;
    }
    if (nfds && f->w.kind != END_UNIX) {
        return cule_err_set(err, CULE_EUNSUPPORTED, "a %s link cannot carry descriptors: use unix:", c->ops->name);
    }
    switch (f->w.kind) {
    case END_UNIX:
    case END_INET: put = send_sock(c->wfd, iov, niov, fds, nfds); break;
    case END_PIPE: put = pipe_io(&f->w, c->wfd, iov, niov, true); break;
    case END_CHAR:
        if (!ready(c->wfd, POLLOUT)) {
            return CULE_EAGAIN;
        }
        put = writev(c->wfd, iov, niov);
        break;
    case END_FILE: put = writev(c->wfd, iov, niov); break;
    case END_NONE: return cule_err_set(err, CULE_EUSAGE, "this link is for reading only");
    }
    return put >= 0 ? put : write_error(errno, err);
}

/* --- the rest ----------------------------------------------------------------------------------------- */

static int fd_handshake(struct cule_carrier *c, struct cule_err *err)
{
    return cule_carrier_connected(c, err);
}

static int fd_poll_events(struct cule_carrier *c, bool want_read, bool want_write)
{
    if (c->connecting) {
        return POLLOUT;
    }
    return (want_read ? POLLIN : 0) | (want_write ? POLLOUT : 0);
}

static void fd_finish(struct cule_carrier *c)
{
    enum end_kind k = self(c)->w.kind;
    if (k == END_UNIX || k == END_INET) {
        shutdown(c->wfd, SHUT_WR);
    }
}

static void end_close(struct end *e, int fd)
{
    if (e->flag_ours) {
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0) {
            fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
        }
    }
    close(fd);
}

static void fd_close(struct cule_carrier *c)
{
    struct fd_carrier *f = self(c);
    if (f->r.kind != END_NONE) {
        end_close(&f->r, c->rfd);
    }
    if (f->w.kind != END_NONE && c->wfd != c->rfd) {
        end_close(&f->w, c->wfd);
    }
    free(f);
}

#define SOCKET_OPS(label)                                                                                              \
    {                                                                                                                  \
        .name = (label), .read = fd_read, .read_wait = fd_read_wait, .write = fd_write, .handshake = fd_handshake,     \
        .poll_events = fd_poll_events, .finish = fd_finish, .close = fd_close                                          \
    }
#define FD_OPS(label)                                                                                                  \
    {                                                                                                                  \
        .name = (label), .read = fd_read, .write = fd_write, .handshake = fd_handshake, .poll_events = fd_poll_events, \
        .finish = fd_finish, .close = fd_close                                                                         \
    }
static const struct cule_carrier_ops ops_of[] = {
    [END_NONE] = FD_OPS("none"), [END_UNIX] = SOCKET_OPS("unix"), [END_INET] = SOCKET_OPS("tcp"),
    [END_PIPE] = FD_OPS("pipe"), [END_FILE] = FD_OPS("file"),     [END_CHAR] = FD_OPS("terminal"),
};

static int int_opt(int fd, int opt)
{
    int v = -1;
    socklen_t n = sizeof v;
    return getsockopt(fd, SOL_SOCKET, opt, &v, &n) == 0 ? v : -1;
}

static int classify_socket(struct end *e, int fd, struct cule_err *err)
{
    if (int_opt(fd, SO_ACCEPTCONN) == 1) {
        return cule_err_set(err, CULE_EUSAGE, "descriptor %d is a listening socket: serve it with --listen fd:%d", fd,
                            fd);
    }
    if (int_opt(fd, SO_TYPE) != SOCK_STREAM) {
        return cule_err_set(err, CULE_EUSAGE, "descriptor %d is not a stream socket", fd);
    }
    int domain = int_opt(fd, SO_DOMAIN);
    e->kind = domain == AF_UNIX ? END_UNIX : END_INET;
    return 0;
}

static int classify(struct end *e, int fd, int accmode, struct cule_err *err)
{
    struct stat st;
    if (fd < 0) {
        return 0;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0) {
        return cule_err_sys(err, CULE_EIO, errno, "descriptor %d cannot be used", fd);
    }
    if (S_ISSOCK(st.st_mode)) {
        return classify_socket(e, fd, err);
    }
    int mode = flags & O_ACCMODE;
    if ((flags & O_PATH) || (mode != O_RDWR && mode != accmode)) {
        return cule_err_set(err, CULE_EUSAGE, "descriptor %d is not open for %s", fd,
                            accmode == O_RDONLY ? "reading" : "writing");
    }
    if (S_ISDIR(st.st_mode)) {
        return cule_err_set(err, CULE_EUSAGE, "descriptor %d is a directory", fd);
    }
    e->kind = S_ISFIFO(st.st_mode) ? END_PIPE : S_ISCHR(st.st_mode) ? END_CHAR : END_FILE;
    return 0;
}

static void describe(struct fd_carrier *f)
{
    struct cule_carrier *c = &f->c;
    bool sock = f->w.kind == END_UNIX || f->w.kind == END_INET;
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    if (sock && getpeername(c->wfd, (struct sockaddr *)&sa, &n) < 0 && errno == ENOTCONN) {
        /* Before the connect has ended, or after it failed: the handshake tells which. */
        c->connecting = true;
        return;
    }
    if (sock) {
        cule_peer_of_socket(c->wfd, &c->peer);
    } else {
        enum end_kind k = f->r.kind != END_NONE ? f->r.kind : f->w.kind;
        snprintf(c->peer.address, sizeof c->peer.address, "%s", ops_of[k].name);
    }
}

int cule_carrier_fd(struct cule_carrier **out, int rfd, int wfd, struct cule_err *err)
{
    assert(rfd >= 0 || wfd >= 0);
    int rc = 0;
    struct fd_carrier *f = calloc(1, sizeof *f);
    if (!f) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    rc = classify(&f->r, rfd, O_RDONLY, err);
    if (rc == 0) {
        rc = classify(&f->w, wfd, O_WRONLY, err);
    }
    if (rc < 0) {
        goto out;
    }
    f->c.ops = &ops_of[wfd >= 0 ? f->w.kind : f->r.kind];
    f->c.rfd = rfd;
    f->c.wfd = wfd;
    f->c.duplex = rfd >= 0 && wfd >= 0;
    f->c.can_pass_fds = f->r.kind == END_UNIX && f->w.kind == END_UNIX;
    describe(f);
    *out = &f->c;
    f = NULL;
out:
    free(f);
    return rc;
}

/* Connecting to endpoints, at once or within a deadline. */
#include "io/endpoint_impl.h"

#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { NS_PER_US = 1000, NS_PER_MS = 1000000, US_PER_S = 1000000 };

static int cannot(const struct cule_endpoint *ep, int sys, struct cule_err *err)
{
    switch (sys) {
    case ENOENT:
    case ECONNREFUSED:
        return cule_err_sys(err, CULE_ENO_RESPONDER, sys, "cannot connect to '%.120s': nobody listens there", ep->text);
    case EAGAIN:
        return cule_err_set(err, CULE_EBUSY, "cannot connect to '%.120s': its queue of connections is full", ep->text);
    case EPROTOTYPE:
    case ENOTSOCK: return cule_err_sys(err, CULE_EIO, sys, "cannot connect to '%.120s': not a stream socket", ep->text);
    default: return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot connect to '%.120s'", ep->text);
    }
}

static int late(const struct cule_endpoint *ep, struct cule_err *err)
{
    return cule_err_set(err, CULE_ETIMEOUT, "cannot connect to '%.120s': no answer in time", ep->text);
}

static bool is_unix(const struct cule_endpoint *ep)
{
    return ep->type == CULE_EP_UNIX || ep->type == CULE_EP_RING;
}

static int check_type(const struct cule_endpoint *ep, struct cule_err *err)
{
    if (is_unix(ep) || ep->type == CULE_EP_TCP || ep->type == CULE_EP_TLS) {
        return 0;
    }
    return cule_err_set(err, CULE_EUSAGE, "endpoint '%.120s' is not one to connect to", ep->text);
}

/* --- unix --------------------------------------------------------------------------------------------- */

/* A full queue makes a blocking connect wait as long as the socket's send timeout says. */
static int limit_wait(int fd, uint64_t deadline_ns)
{
    struct timeval tv = {0, 0};
    if (deadline_ns) {
        uint64_t now = cule_now_ns();
        if (now >= deadline_ns) {
            return -1;
        }
        uint64_t us = (deadline_ns - now) / NS_PER_US + 1;
        tv.tv_sec = (time_t)(us / US_PER_S);
        tv.tv_usec = (suseconds_t)(us % US_PER_S);
    }
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

/* wait: block up to deadline_ns (0: for ever). */
static int connect_unix(const struct cule_endpoint *ep, bool wait, uint64_t deadline_ns, int *out, struct cule_err *err)
{
    struct cule_unix_addr a;
    int rc = cule_unix_addr_init(&a, ep->path, "", err);
    if (rc < 0) {
        return rc;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0) {
        rc = cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make a socket");
        goto out;
    }
    do {
        if (wait && limit_wait(fd, deadline_ns) < 0) {
            rc = late(ep, err);
            goto out;
        }
        rc = connect(fd, (struct sockaddr *)&a.sun, a.len);
    } while (wait && rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = wait && errno == EAGAIN ? late(ep, err) : cannot(ep, errno, err);
        goto out;
    }
    if (wait) {
        struct timeval none = {0, 0};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
        fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    }
    *out = fd;
    fd = -1;
out:
    if (fd >= 0) {
        close(fd);
    }
    cule_unix_addr_release(&a);
    return rc;
}

/* --- tcp ---------------------------------------------------------------------------------------------- */

/* A socket that connects to one address: its descriptor, or a negative errno. */
static int start_inet(const struct addrinfo *ai, bool *done)
{
    int one = 1;
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int rc = connect(fd, ai->ai_addr, ai->ai_addrlen);
    *done = rc == 0;
    if (rc < 0 && errno != EINPROGRESS && errno != EINTR) {
        int sys = errno;
        close(fd);
        return -sys;
    }
    return fd;
}

/* Waits for a connect to end: 0, or the errno of its failure (ETIMEDOUT past the deadline). */
static int await_inet(int fd, uint64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    for (;;) {
        int timeout_ms = -1;
        if (deadline_ns) {
            uint64_t now = cule_now_ns();
            uint64_t left = now < deadline_ns ? (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
            timeout_ms = left > INT32_MAX ? INT32_MAX : (int)left;
        }
        int rc = poll(&p, 1, timeout_ms);
        if (rc > 0) {
            int sys = 0;
            socklen_t n = sizeof sys;
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0 ? errno : sys;
        }
        if (rc == 0) {
            return ETIMEDOUT;
        }
        if (errno != EINTR) {
            return errno;
        }
    }
}

/* The share of what is left to the deadline that one of n addresses may take, as a deadline of its own. */
static uint64_t share(uint64_t deadline_ns, unsigned n)
{
    uint64_t now = cule_now_ns();
    if (deadline_ns == 0) {
        return 0;
    }
    return now >= deadline_ns ? deadline_ns : now + (deadline_ns - now) / n;
}

static int connect_inet_wait(const struct cule_endpoint *ep, uint64_t deadline_ns, int *out, struct cule_err *err)
{
    struct addrinfo *list;
    int rc = cule_endpoint_resolve(ep, false, &list, err);
    if (rc < 0) {
        return rc;
    }
    unsigned left = 0;
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        left++;
    }
    int sys = 0;
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next, left--) {
        bool done;
        int fd = start_inet(ai, &done);
        sys = fd < 0 ? -fd : done ? 0 : await_inet(fd, share(deadline_ns, left));
        if (fd >= 0 && sys == 0) {
            *out = fd;
            break;
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    freeaddrinfo(list);
    return sys == 0 ? 0 : sys == ETIMEDOUT ? late(ep, err) : cannot(ep, sys, err);
}

static int connect_inet(const struct cule_endpoint *ep, int *out, bool *done, struct cule_err *err)
{
    struct addrinfo *list;
    int rc = cule_endpoint_resolve(ep, false, &list, err);
    if (rc < 0) {
        return rc;
    }
    int fd = -ENOENT;
    for (const struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
        fd = start_inet(ai, done);
        /* A host of this machine has answered by now: where ::1 refuses, 127.0.0.1 may not. */
        int sys = fd >= 0 && !*done ? await_inet(fd, 1) : ETIMEDOUT;
        *done |= sys == 0;
        if (sys && sys != ETIMEDOUT) {
            close(fd);
            fd = -sys;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        return cannot(ep, -fd, err);
    }
    *out = fd;
    return 0;
}

int cule_endpoint_connect(const struct cule_endpoint *ep, int *fd, bool *done, struct cule_err *err)
{
    int rc = check_type(ep, err);
    *fd = -1;
    *done = false;
    if (rc < 0) {
        return rc;
    }
    if (!is_unix(ep)) {
        return connect_inet(ep, fd, done, err);
    }
    rc = connect_unix(ep, false, 0, fd, err);
    *done = rc == 0;
    return rc;
}

int cule_endpoint_connect_wait(const struct cule_endpoint *ep, uint64_t deadline_ns, int *fd, struct cule_err *err)
{
    int rc = check_type(ep, err);
    *fd = -1;
    if (rc < 0) {
        return rc;
    }
    return is_unix(ep) ? connect_unix(ep, true, deadline_ns, fd, err) : connect_inet_wait(ep, deadline_ns, fd, err);
}

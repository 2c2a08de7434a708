/* Listening on endpoints: TCP, inherited sockets, and Unix sockets that take over from a dead owner without a race. */
#include "io/endpoint_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    MODE = 0600,
    LOCK_WAIT_MS = 5000, /* for another starter in the same directory; it holds the lock for microseconds */
    LOCK_STEP_MS = 2,
    LISTEN_FDS_START = 3,
    NS_PER_MS = 1000000,
};
static const char new_suffix[] = ".new";

static int cannot(const struct cule_endpoint *ep, int sys, struct cule_err *err)
{
    int code = sys == EADDRINUSE ? CULE_EEXISTS : sys == ENOENT ? CULE_ENOT_FOUND : cule_err_from_errno(sys);
    return cule_err_sys(err, code, sys, "cannot listen on '%.120s'", ep->text);
}

/* --- unix ---------------------------------------------------------------------------------------------
 *
 * Two starters must not both believe that the old socket is dead and replace each other's. So the directory itself is
 * locked (flock needs no file of its own and leaves none) while one looks whether somebody answers at PATH, binds
 * PATH.new, listens, and renames it to PATH. Under the lock PATH.new can only be what a killed starter left.
 */
static int lock_directory(const char *path, int *out, struct cule_err *err)
{
    char dir[CULE_ENDPOINT_MAX];
    cule_path_split(path, dir, sizeof dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int code = errno == ENOENT ? CULE_ENOT_FOUND : cule_err_from_errno(errno);
        return cule_err_sys(err, code, errno, "cannot open directory '%.120s'", dir);
    }
    for (int waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) < 0;) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || waited_ms >= LOCK_WAIT_MS) {
            int code = errno == EWOULDBLOCK ? CULE_EBUSY : cule_err_from_errno(errno);
            int sys = errno;
            close(fd);
            return cule_err_sys(err, code, sys, "cannot lock directory '%.120s'", dir);
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_STEP_MS * NS_PER_MS}, NULL);
        waited_ms += LOCK_STEP_MS;
    }
    *out = fd;
    return 0;
}

/* The lock belongs to the open file, which a child being spawned may share until it execs: so unlock as well. */
static void unlock_directory(int fd)
{
    flock(fd, LOCK_UN);
    close(fd);
}

enum owner { OWNER_NONE, OWNER_DEAD, OWNER_ALIVE, OWNER_US, OWNER_FULL };

/* Who answers at a socket file, asked by connecting to it. */
static enum owner owner_of(const char *path)
{
    struct cule_unix_addr a;
    struct ucred cred;
    socklen_t n = sizeof cred;
    enum owner who = OWNER_ALIVE;
    if (cule_unix_addr_init(&a, path, "", NULL) < 0) {
        return OWNER_ALIVE;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        cule_unix_addr_release(&a);
        return OWNER_ALIVE;
    }
    if (connect(fd, (struct sockaddr *)&a.sun, a.len) < 0) {
        who = errno == ECONNREFUSED ? OWNER_DEAD
              : errno == ENOENT     ? OWNER_NONE
              : errno == EAGAIN     ? OWNER_FULL
                                    : OWNER_ALIVE;
    } else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 && cred.pid == getpid()) {
        who = OWNER_US;
    }
    close(fd);
    cule_unix_addr_release(&a);
    return who;
}

/* 0 if PATH is free or was left by the dead. */
static int check_free(const struct cule_endpoint *ep, struct cule_err *err)
{
    struct stat st;
    if (lstat(ep->path, &st) < 0) {
        return errno == ENOENT ? 0 : cannot(ep, errno, err);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return cule_err_set(err, CULE_EEXISTS, "cannot listen on '%.120s': the file exists and is not a socket",
                            ep->text);
    }
    enum owner who = owner_of(ep->path);
    if (who == OWNER_NONE || who == OWNER_DEAD) {
        return 0;
    }
    return cule_err_set(err, CULE_EEXISTS, "cannot listen on '%.120s': somebody listens there already", ep->text);
}

/* The mode is set before listen, so nobody whom it shuts out can slip in. */
static int bind_new(const struct cule_endpoint *ep, int fd, unsigned mode, int backlog, struct cule_err *err)
{
    struct cule_unix_addr a;
    int rc = cule_unix_addr_init(&a, ep->path, new_suffix, err);
    if (rc < 0) {
        return rc;
    }
    char to[CULE_ENDPOINT_MAX + 32];
    if (a.dirfd < 0) {
        snprintf(to, sizeof to, "%s", ep->path);
    } else {
        snprintf(to, sizeof to, "/proc/self/fd/%d/%s", a.dirfd, strrchr(ep->path, '/') + 1);
    }
    unlink(a.sun.sun_path);
    if (bind(fd, (struct sockaddr *)&a.sun, a.len) < 0) {
        rc = cannot(ep, errno, err);
        goto out;
    }
    if (chmod(a.sun.sun_path, mode) < 0 || listen(fd, backlog) < 0 || rename(a.sun.sun_path, to) < 0) {
        rc = cannot(ep, errno, err);
        unlink(a.sun.sun_path);
    }
out:
    cule_unix_addr_release(&a);
    return rc;
}

static int listen_unix(const struct cule_endpoint *ep, unsigned mode, int backlog, int *out, struct cule_err *err)
{
    int lock = -1;
    int rc = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return cannot(ep, errno, err);
    }
    if (ep->path[0] == '@') {
        struct cule_unix_addr a;
        rc = cule_unix_addr_init(&a, ep->path, "", err);
        if (rc == 0 && (bind(fd, (struct sockaddr *)&a.sun, a.len) < 0 || listen(fd, backlog) < 0)) {
            rc = cannot(ep, errno, err);
        }
        goto out;
    }
    rc = lock_directory(ep->path, &lock, err);
    if (rc < 0) {
        goto out;
    }
    rc = check_free(ep, err);
    if (rc == 0) {
        rc = bind_new(ep, fd, mode, backlog, err);
    }
    unlock_directory(lock);
out:
    if (rc < 0) {
        close(fd);
        return rc;
    }
    *out = fd;
    return 0;
}

void cule_endpoint_unlisten(const struct cule_endpoint *ep, int fd)
{
    int lock;
    if ((ep->type != CULE_EP_UNIX && ep->type != CULE_EP_RING) || ep->path[0] == '@' ||
        lock_directory(ep->path, &lock, NULL) < 0) {
        return;
    }
    enum owner who = owner_of(ep->path);
    while (who == OWNER_FULL) {
        /* If the full queue is ours, taking one of those we are leaving anyway makes room for the question. */
        int waiting = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (waiting < 0) {
            break;
        }
        close(waiting);
        who = owner_of(ep->path);
    }
    if (who == OWNER_US || who == OWNER_DEAD) {
        unlink(ep->path);
    }
    unlock_directory(lock);
}

/* --- tcp ---------------------------------------------------------------------------------------------- */

/* A listening socket on one address, or a negative errno. */
static int listen_addr(const struct sockaddr *sa, socklen_t len, int v6only, int backlog)
{
    int one = 1;
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (fd < 0) {
        return -errno;
    }
    /* Accepted sockets inherit TCP_NODELAY. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (sa->sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
    }
    if (bind(fd, sa, len) < 0 || listen(fd, backlog) < 0) {
        int sys = errno;
        close(fd);
        return -sys;
    }
    return fd;
}

static int listen_any(const struct cule_endpoint *ep, int backlog)
{
    uint16_t port = htons((uint16_t)strtoul(ep->port, NULL, 10));
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_ANY_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_ANY)};
    int fd = listen_addr((struct sockaddr *)&six, sizeof six, 0, backlog);
    if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) {
        fd = listen_addr((struct sockaddr *)&four, sizeof four, 0, backlog);
    }
    return fd;
}

static int listen_inet(const struct cule_endpoint *ep, int backlog, int *out, struct cule_err *err)
{
    int fd = -EADDRNOTAVAIL;
    if (*ep->host == '\0') {
        fd = listen_any(ep, backlog);
    } else {
        struct addrinfo *list;
        int rc = cule_endpoint_resolve(ep, true, &list, err);
        if (rc < 0) {
            return rc;
        }
        for (const struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
            fd = listen_addr(ai->ai_addr, ai->ai_addrlen, 1, backlog);
        }
        freeaddrinfo(list);
    }
    if (fd < 0) {
        return cannot(ep, -fd, err);
    }
    *out = fd;
    return 0;
}

/* --- inherited ---------------------------------------------------------------------------------------- */

/* The number of a name in LISTEN_FDNAMES, or -1. */
static int named_fd(const struct cule_listen_opts *o, const char *name)
{
    if (!o->listen_fds || !o->listen_fdnames || (o->listen_pid && strtol(o->listen_pid, NULL, 10) != (long)getpid())) {
        return -1;
    }
    int count = (int)strtol(o->listen_fds, NULL, 10);
    const char *at = o->listen_fdnames;
    for (int i = 0; i < count; i++) {
        size_t n = strcspn(at, ":");
        if (n == strlen(name) && strncmp(at, name, n) == 0) {
            return LISTEN_FDS_START + i;
        }
        if (at[n] == '\0') {
            break;
        }
        at += n + 1;
    }
    return -1;
}

static int listen_fd(const struct cule_endpoint *ep, const struct cule_listen_opts *o, int *out, struct cule_err *err)
{
    int on = 0;
    socklen_t n = sizeof on;
    bool number = ep->path[strspn(ep->path, "0123456789")] == '\0';
    int fd = number ? (int)strtol(ep->path, NULL, 10) : named_fd(o, ep->path);
    if (fd < 0) {
        return cule_err_set(err, CULE_ENOT_FOUND,
                            "cannot listen on '%.100s': no socket of that name was handed over (LISTEN_FDNAMES)",
                            ep->text);
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        return cule_err_sys(err, CULE_ENOT_FOUND, errno, "cannot listen on '%.120s'", ep->text);
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) < 0 || !on) {
        return cule_err_set(err, CULE_EUSAGE, "cannot listen on '%.120s': not a listening socket", ep->text);
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    *out = fd;
    return 0;
}

int cule_endpoint_listen(const struct cule_endpoint *ep, const struct cule_listen_opts *o, int *fd,
                         struct cule_err *err)
{
    static const struct cule_listen_opts none;
    o = o ? o : &none;
    int backlog = o->backlog ? o->backlog : BACKLOG;
    *fd = -1;
    switch (ep->type) {
    case CULE_EP_UNIX:
    case CULE_EP_RING: return listen_unix(ep, o->mode ? o->mode : MODE, backlog, fd, err);
    case CULE_EP_TCP:
    case CULE_EP_TLS: return listen_inet(ep, backlog, fd, err);
    case CULE_EP_FD: return listen_fd(ep, o, fd, err);
    default: return cule_err_set(err, CULE_EUSAGE, "endpoint '%.120s' is not one to listen on", ep->text);
    }
}

/* Socket addresses of endpoints, and addresses of sockets as text. */
#include "io/endpoint_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char *cule_path_split(const char *path, char *dir, size_t n)
{
    const char *slash = strrchr(path, '/');
    if (!slash) {
        snprintf(dir, n, ".");
        return path;
    }
    int len = slash == path ? 1 : (int)(slash - path);
    snprintf(dir, n, "%.*s", len, path);
    return slash + 1;
}

static int long_path(struct cule_unix_addr *a, const char *path, const char *suffix, struct cule_err *err)
{
    char dir[CULE_ENDPOINT_MAX];
    const char *base = cule_path_split(path, dir, sizeof dir);
    a->dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (a->dirfd < 0) {
        int code = errno == ENOENT ? CULE_ENOT_FOUND : cule_err_from_errno(errno);
        return cule_err_sys(err, code, errno, "cannot open directory '%.120s'", dir);
    }
    int n = snprintf(a->sun.sun_path, sizeof a->sun.sun_path, "/proc/self/fd/%d/%s%s", a->dirfd, base, suffix);
    if (n >= (int)sizeof a->sun.sun_path) {
        cule_unix_addr_release(a);
        return cule_err_set(err, CULE_EUSAGE, "the name of socket '%.120s' is too long: at most 80 characters", base);
    }
    return 0;
}

int cule_unix_addr_init(struct cule_unix_addr *a, const char *path, const char *suffix, struct cule_err *err)
{
    memset(a, 0, sizeof *a);
    a->dirfd = -1;
    a->sun.sun_family = AF_UNIX;
    size_t n = strlen(path), more = strlen(suffix);
    if (path[0] == '@') {
        if (n > sizeof a->sun.sun_path) {
            return cule_err_set(err, CULE_EUSAGE, "abstract name '%.120s' is longer than 107 characters", path);
        }
        memcpy(a->sun.sun_path + 1, path + 1, n - 1);
        a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        return 0;
    }
    a->len = sizeof a->sun;
    if (n + more >= sizeof a->sun.sun_path) {
        return long_path(a, path, suffix, err);
    }
    memcpy(a->sun.sun_path, path, n);
    memcpy(a->sun.sun_path + n, suffix, more);
    return 0;
}

void cule_unix_addr_release(struct cule_unix_addr *a)
{
    if (a->dirfd >= 0) {
        close(a->dirfd);
        a->dirfd = -1;
    }
}

int cule_endpoint_resolve(const struct cule_endpoint *ep, bool passive, struct addrinfo **out, struct cule_err *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
    int rc = getaddrinfo(*ep->host ? ep->host : NULL, ep->port, &hints, out);
    if (rc == 0) {
        return 0;
    }
    if (rc == EAI_SYSTEM) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot look up host '%.100s'", ep->host);
    }
    int code = rc == EAI_MEMORY ? CULE_ENOMEM : rc == EAI_AGAIN ? CULE_EIO : CULE_ENOT_FOUND;
    return cule_err_set(err, code, "cannot look up host '%.100s': %s", ep->host, gai_strerror(rc));
}

/* --- sockets as text ---------------------------------------------------------------------------------- */

static void inet_text(const struct sockaddr *sa, char *out, size_t n, unsigned *port)
{
    char ip[INET6_ADDRSTRLEN] = "";
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, ip, sizeof ip);
        *port = ntohs(in.sin_port);
        snprintf(out, n, "%s", ip);
        return;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, sa, sizeof in6);
    *port = ntohs(in6.sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        inet_ntop(AF_INET, in6.sin6_addr.s6_addr + 12, ip, sizeof ip);
        snprintf(out, n, "%s", ip);
    } else {
        inet_ntop(AF_INET6, &in6.sin6_addr, ip, sizeof ip);
        snprintf(out, n, "[%s]", ip);
    }
}

static bool is_inet(const struct sockaddr *sa)
{
    return sa->sa_family == AF_INET || sa->sa_family == AF_INET6;
}

void cule_peer_of_socket(int fd, struct cule_peer *peer)
{
    struct sockaddr_storage ss;
    const struct sockaddr *sa = (const struct sockaddr *)&ss;
    socklen_t n = sizeof ss;
    struct ucred cred;
    socklen_t ncred = sizeof cred;
    memset(peer, 0, sizeof *peer);
    memset(&ss, 0, sizeof ss);
    if (getpeername(fd, (struct sockaddr *)&ss, &n) == 0 && is_inet(sa)) {
        char ip[INET6_ADDRSTRLEN + 2];
        unsigned port;
        inet_text(sa, ip, sizeof ip, &port);
        snprintf(peer->address, sizeof peer->address, "%s:%u", ip, port);
        return;
    }
    /* The file name of a socket is not told: cule_endpoint_listen binds under another and renames. */
    snprintf(peer->address, sizeof peer->address, "%s", sa->sa_family == AF_UNIX ? "unix" : "socket");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &ncred) == 0 && cred.pid > 0) {
        peer->has_cred = true;
        peer->pid = cred.pid;
        peer->uid = cred.uid;
        peer->gid = cred.gid;
    }
}

void cule_endpoint_bound(const struct cule_endpoint *ep, int fd, char *out, size_t n)
{
    struct sockaddr_storage ss;
    const struct sockaddr *sa = (const struct sockaddr *)&ss;
    socklen_t len = sizeof ss;
    memset(&ss, 0, sizeof ss);
    if (ep->type == CULE_EP_UNIX || ep->type == CULE_EP_RING) {
        snprintf(out, n, "%s%s", ep->type == CULE_EP_UNIX ? "unix:" : "ring:", ep->path);
        return;
    }
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0 || !is_inet(sa)) {
        snprintf(out, n, "%s", ep->text);
        return;
    }
    char ip[INET6_ADDRSTRLEN + 2];
    unsigned port;
    inet_text(sa, ip, sizeof ip, &port);
    bool any = ep->type != CULE_EP_FD && *ep->host == '\0';
    snprintf(out, n, "%s%s:%u", ep->type == CULE_EP_TLS ? "tls:" : any ? "" : "tcp:", any ? "" : ip, port);
}

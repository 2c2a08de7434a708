/* The hand-over of a ring: the offer, its checks, and the answer. */
#include "io/futex.h"
#include "io/ring_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

enum { OFFER_FDS_MAX = 3, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static void message_write(const struct ring_message *m, uint8_t out[RING_MESSAGE])
{
    memset(out, 0, RING_MESSAGE);
    memcpy(out, "CURI", 4);
    cule_put16(out + 4, m->version);
    out[6] = m->kind;
    out[7] = m->doorbells;
    cule_put32(out + 8, m->slots);
    cule_put32(out + 12, m->area);
    cule_put64(out + 16, m->size);
    cule_put32(out + 24, m->code);
}

static int message_read(struct ring_message *m, const uint8_t in[RING_MESSAGE], struct cule_err *err)
{
    if (memcmp(in, "CURI", 4) != 0) {
        return cule_err_set(err, CULE_EMALFORMED, "the peer does not offer a ring (is it a unix: endpoint?)");
    }
    m->version = cule_get16(in + 4);
    m->kind = in[6];
    m->doorbells = in[7];
    m->slots = cule_get32(in + 8);
    m->area = cule_get32(in + 12);
    m->size = cule_get64(in + 16);
    m->code = cule_get32(in + 24);
    if (m->version != RING_VERSION) {
        return cule_err_set(err, CULE_EVERSION, "the ring's version is %u, this side knows %d", m->version,
                            RING_VERSION);
    }
    return 0;
}

static bool same_user(int sock)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == geteuid();
}

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

/* Sends the 32 bytes with descriptors on the first. A Unix socket takes so few at once or not at all. */
static int message_send(int sock, const struct ring_message *m, const int *fds, unsigned nfds, struct cule_err *err)
{
    uint8_t bytes[RING_MESSAGE];
    union {
        char buf[CMSG_SPACE(sizeof(int) * OFFER_FDS_MAX)];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    message_write(m, bytes);
    if (nfds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    ssize_t n;
    do {
        n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n == RING_MESSAGE) {
        return 0;
    }
    if (n < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot hand over the ring");
    }
    return cule_err_set(err, CULE_EIO, "cannot hand over the ring: the socket took %zd of %d bytes", n, RING_MESSAGE);
}

/* --- the creator ------------------------------------------------------------------------------------------- */

int cule_ring_handover(struct cule_ring *r, int sock, struct cule_err *err)
{
    if (r->memfd < 0) {
        return cule_err_set(err, CULE_EUSAGE, "the ring was handed over already");
    }
    int fds[OFFER_FDS_MAX] = {r->memfd, -1, -1};
    unsigned nfds = 1;
    struct ring_message m = {.version = RING_VERSION,
                             .kind = RING_OFFER,
                             .slots = r->slots,
                             .area = r->area,
                             .size = r->map->size,
                             .doorbells = (uint8_t)(r->doorbells & ~(unsigned)CULE_RING_EVENTFD)};
    if ((r->doorbells & CULE_RING_EVENTFD) && same_user(sock)) {
        fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fds[1] < 0 || fds[2] < 0) {
            int sys = errno;
            close_all(fds + 1, 2);
            return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot make a ring's eventfd");
        }
        m.doorbells |= CULE_RING_EVENTFD;
        nfds = 3;
    }
    int rc = message_send(sock, &m, fds, nfds, err);
    if (!rc) {
        r->sock = sock;
        rc = cule_ring_lend_set_up(r, err);
        if (rc) {
            r->sock = -1; /* the offer is out, but the caller will close the socket: the peer sees a hang-up */
        }
    }
    if (rc) {
        close_all(fds + 1, 2);
        return rc;
    }
    r->bell = fds[1];
    r->peer_bell = fds[2];
    close(r->memfd);
    r->memfd = -1;
    return 0;
}

static void answer_whole(struct cule_ring *r)
{
    struct ring_message m;
    struct cule_err err = {0};
    if (message_read(&m, r->answer, &err)) {
        cule_ring_fail(r, CULE_EMALFORMED, "bad answer to the offer of a ring: %s", err.text);
    } else if (m.kind == RING_REFUSE) {
        cule_ring_fail(r, CULE_EREFUSED, "the peer refused the ring: %s", cule_err_text((int)(m.code & 0x7fffffff)));
    } else if (m.kind != RING_ACCEPT || m.slots != r->slots || m.area != r->area || m.size != r->map->size) {
        cule_ring_fail(r, CULE_EMALFORMED, "bad answer to the offer of a ring: kind %u, %u slots, area %u", m.kind,
                       m.slots, m.area);
    } else {
        r->accepted = true;
        r->peer_bell_usable = (m.doorbells & CULE_RING_EVENTFD) && r->peer_bell >= 0;
    }
}

void cule_ring_answer(struct cule_ring *r, const uint8_t *bytes, size_t n)
{
    if (r->accepted) {
        return;
    }
    size_t take = CULE_MIN(n, (size_t)RING_MESSAGE - r->answer_len);
    memcpy(r->answer + r->answer_len, bytes, take);
    r->answer_len += (unsigned)take;
    if (r->answer_len == RING_MESSAGE) {
        answer_whole(r);
    }
}

/* --- the attacher ------------------------------------------------------------------------------------------ */

struct offer {
    uint8_t bytes[RING_MESSAGE];
    unsigned len;
    int fds[OFFER_FDS_MAX];
    unsigned nfds;
    bool too_many;
};

static void take_fds(struct offer *o, struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (o->nfds < OFFER_FDS_MAX) {
                o->fds[o->nfds++] = fd;
            } else {
                close(fd);
                o->too_many = true;
            }
        }
    }
    o->too_many |= (msg->msg_flags & MSG_CTRUNC) != 0;
}

static int offer_read(struct offer *o, int sock, struct cule_err *err)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * (OFFER_FDS_MAX + 1))];
        struct cmsghdr align;
    } control;
    /* Not a byte more than the offer: what follows are doorbells. */
    struct iovec iov = {.iov_base = o->bytes + o->len, .iov_len = RING_MESSAGE - o->len};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf};
    ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            return 0;
        }
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot receive a ring");
    }
    if (n == 0) {
        return cule_err_set(err, CULE_ECLOSED, "the peer hung up before it offered a ring");
    }
    o->len += (unsigned)n;
    take_fds(o, &msg);
    return 0;
}

static int offer_wait(struct offer *o, int sock, int timeout_ms, struct cule_err *err)
{
    uint64_t deadline_ns = cule_deadline_ns(timeout_ms);
    for (;;) {
        int rc = offer_read(o, sock, err);
        if (rc || o->len == RING_MESSAGE) {
            return rc;
        }
        uint64_t now = cule_mono_ns();
        if (now >= deadline_ns) {
            return o->len ? cule_err_set(err, CULE_ETRUNCATED, "the offer of a ring is cut short at %u bytes", o->len)
                          : cule_err_set(err, CULE_ETIMEOUT, "the peer offered no ring within %d ms", timeout_ms);
        }
        uint64_t left_ms = deadline_ns == CULE_NEVER ? 0 : (deadline_ns - now) / 1000000 + 1;
        struct pollfd p = {.fd = sock, .events = POLLIN};
        poll(&p, 1, deadline_ns == CULE_NEVER ? -1 : (int)CULE_MIN(left_ms, (uint64_t)INT_MAX));
    }
}

/* The memory is what was said, and nobody can take pages of it away while we read. */
static int check_memory(int fd, uint64_t size, struct cule_err *err)
{
    struct stat st;
    struct statfs fs;
    int seals = fcntl(fd, F_GET_SEALS);
    int mode = fcntl(fd, F_GETFL);
    if (seals < 0 || (seals & SEALS) != SEALS) {
        return cule_err_set(err, CULE_EMALFORMED, "the memory of the ring is not sealed against shrinking");
    }
    if (seals & ~(SEALS | 0x20 /* F_SEAL_EXEC */) || mode < 0 || (mode & O_ACCMODE) != O_RDWR) {
        return cule_err_set(err, CULE_EMALFORMED, "the memory of the ring cannot be written");
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size != size) {
        return cule_err_set(err, CULE_EMALFORMED, "the memory of the ring is not the %llu bytes that it should be",
                            (unsigned long long)size);
    }
    /* Huge pages may run out at any access, which kills whoever touches them. */
    if (fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC) {
        return cule_err_set(err, CULE_EMALFORMED, "the memory of the ring is not ordinary shared memory");
    }
    return 0;
}

static int check_offer(const struct offer *o, struct ring_message *m, struct cule_err *err)
{
    int rc = message_read(m, o->bytes, err);
    if (rc) {
        return rc;
    }
    unsigned nfds = m->doorbells & CULE_RING_EVENTFD ? 3 : 1;
    if (m->kind != RING_OFFER || o->too_many || o->nfds != nfds) {
        return cule_err_set(err, CULE_EMALFORMED, "bad offer of a ring: kind %u with %u descriptors%s", m->kind,
                            o->nfds, o->too_many ? " and more" : "");
    }
    struct cule_err why;
    if (cule_ring_geometry_check(m->slots, m->area, &why)) {
        return cule_err_set(err, CULE_EMALFORMED, "bad offer of a ring: %s", why.text);
    }
    if (m->size != cule_ring_map_size(m->slots, m->area)) {
        return cule_err_set(err, CULE_EMALFORMED, "bad offer of a ring: %llu bytes do not hold %u slots and area %u",
                            (unsigned long long)m->size, m->slots, m->area);
    }
    return check_memory(o->fds[0], m->size, err);
}

static int attach(struct cule_ring **out, int sock, const struct offer *o, struct ring_message *m,
                  const struct cule_ring_opts *opts, struct cule_err *err)
{
    struct ring_map *map = NULL;
    struct cule_ring *r = NULL;
    int rc = cule_ring_map_fd(&map, o->fds[0], m->size, err);
    if (rc) {
        return rc;
    }
    rc = cule_ring_make(&r, map, m->slots, m->area, false, opts, err);
    if (rc) {
        cule_ring_map_release(map);
        return rc;
    }
    r->sock = sock;
    r->accepted = true;
    rc = cule_ring_lend_set_up(r, err);
    if (!rc) {
        bool eventfds = o->nfds == 3 && same_user(sock);
        struct ring_message answer = *m;
        answer.kind = RING_ACCEPT;
        answer.doorbells = (uint8_t)(r->doorbells & ~(unsigned)CULE_RING_EVENTFD);
        if (eventfds && (r->doorbells & CULE_RING_EVENTFD)) {
            answer.doorbells |= CULE_RING_EVENTFD;
            r->bell = o->fds[2];
        }
        if (eventfds) {
            r->peer_bell = o->fds[1];
            r->peer_bell_usable = true;
        }
        rc = message_send(sock, &answer, NULL, 0, err);
    }
    if (rc) {
        r->sock = r->bell = r->peer_bell = -1; /* these stay the caller's */
        cule_ring_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

int cule_ring_attach(struct cule_ring **out, int sock, const struct cule_ring_opts *opts, int timeout_ms,
                     struct cule_err *err)
{
    struct offer o = {.fds = {-1, -1, -1}};
    struct ring_message m = {0};
    struct cule_ring *r = NULL;
    int rc = offer_wait(&o, sock, timeout_ms, err);
    if (rc) {
        goto out;
    }
    rc = check_offer(&o, &m, err);
    rc = rc ? rc : attach(&r, sock, &o, &m, opts, err);
    if (rc) {
        struct ring_message no = {.version = RING_VERSION, .kind = RING_REFUSE, .code = (uint32_t)-rc};
        message_send(sock, &no, NULL, 0, NULL);
        goto out;
    }
    *out = r;
out:
    for (unsigned i = 0; i < o.nfds; i++) {
        if (!r || (o.fds[i] != r->bell && o.fds[i] != r->peer_bell)) {
            close(o.fds[i]);
        }
    }
    return rc;
}

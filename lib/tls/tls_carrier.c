/* TLS sessions as carriers: handshake, records in both directions, a clean end. */
#include "tls/tls_impl.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECORD_MAX = 16384, DRAIN_BYTES = 65536 };

struct tls_carrier {
    struct cule_carrier c;
    struct cule_tls_config *config;
    gnutls_session_t s;
    bool server;
    bool open;                  /* the handshake is done */
    bool broken;                /* an error ended the session */
    bool said_bye;              /* our close_notify has left */
    bool want_bye;              /* it is still to be sent */
    bool read_blocked_on_write; /* the last read could not go on before the socket takes more */
    bool held; /* a record is encrypted but not all of it has left; its last byte is not reported yet */
    uint8_t held_byte;
    gnutls_typed_vdata_st expected[2]; /* what the peer's certificate must be for; GnuTLS keeps the address */
};

static struct tls_carrier *self(struct cule_carrier *c)
{
    return CULE_CONTAINER(c, struct tls_carrier, c);
}

/* --- the socket below --------------------------------------------------------------------------------- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *buf, size_t n)
{
    const struct tls_carrier *t = ptr;
    ssize_t got = recv(t->c.rfd, buf, n, MSG_DONTWAIT);
    if (got < 0) {
        gnutls_transport_set_errno(t->s, errno);
    }
    return got;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int niov)
{
    const struct tls_carrier *t = ptr;
    struct msghdr mh = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)niov};
    ssize_t put = sendmsg(t->c.wfd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0) {
        gnutls_transport_set_errno(t->s, errno);
    }
    return put;
}

static bool again(int rc)
{
    return rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED;
}

static int fail(struct tls_carrier *t, int rc, const char *what, struct cule_err *err)
{
    t->broken = true;
    return cule_tls_error(t->s, rc, what, t->config->name, err);
}

/* --- handshake ---------------------------------------------------------------------------------------- */

static int check_alpn(struct tls_carrier *t, struct cule_err *err)
{
    gnutls_datum_t got = {0};
    if (gnutls_alpn_get_selected_protocol(t->s, &got) == 0) {
        return 1;
    }
    t->broken = true;
    gnutls_alert_send(t->s, GNUTLS_AL_FATAL, GNUTLS_A_NO_APPLICATION_PROTOCOL);
    return cule_err_set(err, CULE_EUNSUPPORTED, "tls: the peer does not speak cule/1 (ALPN)");
}

static int tls_handshake(struct cule_carrier *c, struct cule_err *err)
{
    struct tls_carrier *t = self(c);
    int rc = cule_carrier_connected(c, err);
    if (rc <= 0 || t->open) {
        return rc;
    }
    do {
        rc = gnutls_handshake(t->s);
    } while (rc < 0 && rc != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(rc));
    if (rc == GNUTLS_E_AGAIN) {
        return 0;
    }
    if (rc < 0) {
        gnutls_alert_send_appropriate(t->s, rc);
        return fail(t, rc, "handshake", err);
    }
    t->open = true;
    rc = check_alpn(t, err);
    if (rc > 0) {
        cule_tls_identify(t->s, t->config->verify, &c->peer);
    }
    return rc;
}

/* --- reading ------------------------------------------------------------------------------------------ */

static ssize_t tls_read(struct cule_carrier *c, void *buf, size_t n, struct cule_fdq *fds, struct cule_err *err)
{
    struct tls_carrier *t = self(c);
    ssize_t got;
    (void)fds;
    if (!t->open || t->broken) {
        return cule_err_set(err, CULE_ECLOSED, "tls: the session is not open");
    }
    t->read_blocked_on_write = false;
    do {
        got = gnutls_record_recv(t->s, buf, n);
        /* A record without data, such as a new ticket or a warning, is no reason to wait. */
    } while (got == GNUTLS_E_INTERRUPTED || (got < 0 && got != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)got)));
    if (got == GNUTLS_E_AGAIN) {
        t->read_blocked_on_write = !t->held && gnutls_record_get_direction(t->s) == 1;
        return CULE_EAGAIN;
    }
    return got >= 0 ? got : fail(t, (int)got, "read", err);
}

static bool tls_pending(struct cule_carrier *c)
{
    const struct tls_carrier *t = self(c);
    return t->open && !t->broken && gnutls_record_check_pending(t->s) > 0;
}

/* --- writing ------------------------------------------------------------------------------------------
 *
 * Once GnuTLS has encrypted a record, its bytes are committed: on EAGAIN it keeps the record, and expects to be called
 * again for the rest of that. The caller, though, may have something more urgent by then. So such a record counts as
 * written but for its last byte. The caller, in the middle of a frame as far as it can see, has to come back with that
 * byte first, and by then the record is flushed and the byte merely ticked off.
 */

/* 1 nothing is held any more, CULE_EAGAIN, or failed. */
static int flush_held(struct tls_carrier *t, struct cule_err *err)
{
    if (!t->held) {
        return 1;
    }
    ssize_t rc = gnutls_record_send(t->s, NULL, 0);
    if (again((int)rc)) {
        return CULE_EAGAIN;
    }
    if (rc < 0) {
        return fail(t, (int)rc, "write", err);
    }
    t->held = false;
    return 1;
}

struct cursor {
    const struct iovec *iov;
    int n;
    size_t at; /* bytes of the first that are done */
};

static void cursor_skip(struct cursor *k, size_t n)
{
    while (k->n > 0 && n >= k->iov->iov_len - k->at) {
        n -= k->iov->iov_len - k->at;
        k->iov++;
        k->n--;
        k->at = 0;
    }
    k->at += n;
}

/* Up to a record's worth of bytes, in place where one piece has as much, else gathered in buf. */
static const uint8_t *cursor_record(const struct cursor *k, uint8_t *buf, size_t *size)
{
    size_t first = k->iov->iov_len - k->at;
    const uint8_t *p = (const uint8_t *)k->iov->iov_base + k->at;
    if (k->n == 1 || first >= RECORD_MAX) {
        *size = CULE_MIN(first, (size_t)RECORD_MAX);
        return p;
    }
    size_t n = 0;
    for (int i = 0; i < k->n && n < RECORD_MAX; i++) {
        size_t skip = i == 0 ? k->at : 0;
        size_t part = CULE_MIN(k->iov[i].iov_len - skip, RECORD_MAX - n);
        memcpy(buf + n, (const uint8_t *)k->iov[i].iov_base + skip, part);
        n += part;
    }
    *size = n;
    return buf;
}

static ssize_t tls_write(struct cule_carrier *c, const struct iovec *iov, int niov, const int *fds, unsigned nfds,
                         struct cule_err *err)
{
    struct tls_carrier *t = self(c);
    struct cursor k = {iov, niov, 0};
    uint8_t gathered[RECORD_MAX];
    size_t total = 0;
    (void)fds;
    if (nfds) {
        return cule_err_set(err, CULE_EUNSUPPORTED, "a tls link cannot carry descriptors: use unix:");
    }
    if (!t->open || t->broken || t->said_bye) {
        return cule_err_set(err, CULE_ECLOSED, "tls: the session is not open");
    }
    bool was_held = t->held;
    int rc = flush_held(t, err);
    if (rc < 0) {
        return rc;
    }
    cursor_skip(&k, 0); /* empty pieces at the front */
    if (was_held && k.n > 0) {
        assert(*((const uint8_t *)k.iov->iov_base + k.at) == t->held_byte);
        cursor_skip(&k, 1);
        total = 1;
    }
    while (k.n > 0) {
        size_t size;
        const uint8_t *p = cursor_record(&k, gathered, &size);
        ssize_t put = gnutls_record_send(t->s, p, size);
        if (again((int)put)) {
            t->held = true;
            t->held_byte = p[size - 1];
            total += size - 1;
            break;
        }
        if (put < 0) {
            return fail(t, (int)put, "write", err);
        }
        total += (size_t)put;
        cursor_skip(&k, (size_t)put);
    }
    return total || !t->held ? (ssize_t)total : CULE_EAGAIN;
}

/* --- the rest ----------------------------------------------------------------------------------------- */

static int tls_poll_events(struct cule_carrier *c, bool want_read, bool want_write)
{
    const struct tls_carrier *t = self(c);
    if (c->connecting) {
        return POLLOUT;
    }
    if (!t->open) {
        return gnutls_record_get_direction(t->s) ? POLLOUT : POLLIN;
    }
    bool out = want_write || t->held || (want_read && t->read_blocked_on_write);
    return (want_read ? POLLIN : 0) | (out ? POLLOUT : 0);
}

static void try_bye(struct tls_carrier *t)
{
    if (!t->want_bye || t->said_bye || t->broken || flush_held(t, NULL) < 0) {
        return;
    }
    int rc = gnutls_bye(t->s, GNUTLS_SHUT_WR);
    t->said_bye = rc == 0;
    if (rc == 0) {
        shutdown(t->c.wfd, SHUT_WR);
    }
}

static void tls_finish(struct cule_carrier *c)
{
    struct tls_carrier *t = self(c);
    if (t->open) {
        t->want_bye = true;
        try_bye(t);
    }
}

/* Closing a socket with unread bytes resets the connection, and the peer may lose our last words with it. */
static void drain(int fd)
{
    char buf[4096];
    shutdown(fd, SHUT_WR);
    for (size_t n = 0; n < DRAIN_BYTES;) {
        ssize_t got = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (got <= 0) {
            return;
        }
        n += (size_t)got;
    }
}

static void tls_close(struct cule_carrier *c)
{
    struct tls_carrier *t = self(c);
    try_bye(t);
    gnutls_deinit(t->s);
    if (!c->connecting) {
        drain(c->rfd);
    }
    close(c->rfd);
    cule_tls_config_free(t->config);
    free(t);
}

static const struct cule_carrier_ops tls_ops = {
    .name = "tls",
    .read = tls_read,
    .write = tls_write,
    .handshake = tls_handshake,
    .poll_events = tls_poll_events,
    .pending = tls_pending,
    .finish = tls_finish,
    .close = tls_close,
};

static bool is_address(const char *name)
{
    unsigned char buf[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, buf) == 1 || inet_pton(AF_INET6, name, buf) == 1;
}

static unsigned char *bytes_of(const char *text)
{
    return (unsigned char *)(uintptr_t)text;
}

static void expect_peer(struct tls_carrier *t)
{
    unsigned n = 0;
    const char *purpose = t->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
    t->expected[n++] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = bytes_of(purpose)};
    if (!t->server) {
        t->expected[n++] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME, .data = bytes_of(t->config->name)};
    }
    gnutls_session_set_verify_cert2(t->s, t->expected, n, 0);
}

/* Policy of one session. 0 or a GnuTLS error. */
static int set_up(struct tls_carrier *t)
{
    static unsigned char alpn[] = "cule/1";
    const gnutls_datum_t protocol = {alpn, sizeof alpn - 1};
    const char *name = t->config->name;
    int rc = gnutls_priority_set(t->s, t->config->priority);
    if (rc == 0) {
        rc = gnutls_credentials_set(t->s, GNUTLS_CRD_CERTIFICATE, t->config->cred);
    }
    if (rc == 0) {
        rc = gnutls_alpn_set_protocols(t->s, &protocol, 1, GNUTLS_ALPN_MANDATORY);
    }
    if (rc == 0 && !t->server && !is_address(name)) {
        rc = gnutls_server_name_set(t->s, GNUTLS_NAME_DNS, name, strlen(name));
    }
    if (t->config->verify) {
        expect_peer(t);
    }
    if (t->server) {
        /* Without a list of authorities a client always shows what it has, and hears why that will not do. */
        gnutls_certificate_send_x509_rdn_sequence(t->s, 1);
        gnutls_certificate_server_set_request(t->s, t->config->verify ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
    }
    gnutls_transport_set_ptr(t->s, t);
    gnutls_transport_set_pull_function(t->s, pull);
    gnutls_transport_set_vec_push_function(t->s, push);
    return rc;
}

int cule_carrier_tls(struct cule_carrier **out, struct cule_tls_config *config, int fd, bool server,
                     struct cule_err *err)
{
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    struct tls_carrier *t = calloc(1, sizeof *t);
    if (!t) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    t->c.ops = &tls_ops;
    t->c.rfd = t->c.wfd = fd;
    t->c.duplex = true;
    t->server = server;
    t->config = config;
    t->c.connecting = getpeername(fd, (struct sockaddr *)&sa, &n) < 0 && errno == ENOTCONN;
    if (!t->c.connecting) {
        cule_peer_of_socket(fd, &t->c.peer);
    }
    /* Tickets would only be for resuming, which links do not do. */
    unsigned flags = (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
    int rc = gnutls_init(&t->s, flags);
    if (rc == 0) {
        rc = set_up(t);
        if (rc < 0) {
            gnutls_deinit(t->s);
        }
    }
    if (rc < 0) {
        free(t);
        return cule_err_set(err, rc == GNUTLS_E_MEMORY_ERROR ? CULE_ENOMEM : CULE_EIO, "tls: cannot begin: %s",
                            gnutls_strerror(rc));
    }
    cule_tls_config_ref(config);
    *out = &t->c;
    return 0;
}

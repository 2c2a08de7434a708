/* TLS carriers over a pair of sockets in one thread, with certificates made on the spot. */
#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tls_ids.h"

enum { ROUNDS = 2000, STREAM_BYTES = 3 * 1024 * 1024 };

/* --- a pair of carriers ------------------------------------------------------------------------------- */

/* "%" in options stands for the directory of the files. */
static int config(struct cule_tls_config **out, const char *options, bool server, struct cule_err *err)
{
    char text[1024];
    size_t n = (size_t)snprintf(text, sizeof text, "tls:bus.example:1");
    for (const char *p = options; *p; p++) {
        n += (size_t)(*p == '%' ? snprintf(text + n, sizeof text - n, "%s/", dir)
                                : snprintf(text + n, sizeof text - n, "%c", *p));
    }
    struct cule_endpoint ep;
    int rc = cule_endpoint_parse(&ep, text, err);
    return rc < 0 ? rc : cule_tls_config_new(out, &ep, server, err);
}

struct pair {
    struct cule_carrier *s, *c;
    int rs, rc; /* of the handshakes: 1 done, negative failed */
    struct cule_err es, ec;
};

static struct cule_carrier *carrier(const char *options, bool server, int fd)
{
    struct cule_tls_config *cfg = NULL;
    struct cule_carrier *c = NULL;
    struct cule_err err = {0};
    if (config(&cfg, options, server, &err) < 0 || cule_carrier_tls(&c, cfg, fd, server, &err) < 0) {
        fail_msg("%s", err.text);
    }
    cule_tls_config_free(cfg);
    return c;
}

static void shake(struct pair *p)
{
    for (int i = 0; i < ROUNDS && (p->rs == 0 || p->rc == 0); i++) {
        if (p->rc == 0) {
            p->rc = p->c->ops->handshake(p->c, &p->ec);
        }
        if (p->rs == 0) {
            p->rs = p->s->ops->handshake(p->s, &p->es);
        }
    }
}

static void sockets(int sv[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
}

static void meet(struct pair *p, const char *server, const char *client)
{
    int sv[2];
    sockets(sv);
    memset(p, 0, sizeof *p);
    p->s = carrier(server, true, sv[0]);
    p->c = carrier(client, false, sv[1]);
    shake(p);
}

static void part(struct pair *p)
{
    p->s->ops->close(p->s);
    p->c->ops->close(p->c);
}

static void assert_says(const struct cule_err *err, const char *text)
{
    if (!strstr(err->text, text)) {
        fail_msg("'%s' does not say '%s'", err->text, text);
    }
}

static ssize_t put(struct cule_carrier *c, const char *text, struct cule_err *err)
{
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    return c->ops->write(c, &iov, 1, NULL, 0, err);
}

static const char plain_server[] = ",cert=%server.crt,key=%server.key";
static const char mutual_server[] = ",cert=%server.crt,key=%server.key,ca=%ca.crt";
static const char plain_client[] = ",ca=%ca.crt";
static const char mutual_client[] = ",ca=%ca.crt,cert=%alice.crt,key=%alice.key";

/* --- sessions that hold ------------------------------------------------------------------------------- */

static void test_mutual(void **state)
{
    (void)state;
    struct pair p;
    char buf[64];
    meet(&p, mutual_server, mutual_client);
    assert_int_equal(p.rs, 1);
    assert_int_equal(p.rc, 1);
    assert_string_equal(p.s->peer.identity, "alice");
    assert_string_equal(p.c->peer.identity, "server");
    unsigned char sum[32];
    size_t n = sizeof sum;
    char hex[65];
    ok(gnutls_x509_crt_get_fingerprint(client_id.crt, GNUTLS_DIG_SHA256, sum, &n));
    for (size_t i = 0; i < n; i++) {
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    }
    assert_string_equal(p.s->peer.fingerprint, hex);
    assert_int_equal(strlen(p.c->peer.fingerprint), 64);
    assert_string_equal(p.c->ops->name, "tls");
    assert_int_equal(put(p.c, "hello", NULL), 5);
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, NULL), 5);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, NULL), CULE_EAGAIN);
    part(&p);
}

static void test_server_takes_anybody(void **state)
{
    (void)state;
    struct pair p;
    meet(&p, plain_server, plain_client);
    assert_int_equal(p.rs, 1);
    assert_int_equal(p.rc, 1);
    assert_string_equal(p.s->peer.identity, "");
    assert_string_equal(p.s->peer.fingerprint, "");
    part(&p);
}

static void test_name_option(void **state)
{
    (void)state;
    struct pair p;
    meet(&p, plain_server, ",ca=%ca.crt,name=other.example");
    assert_int_equal(p.rc, CULE_EAUTH);
    assert_says(&p.ec, "not for 'other.example'");
    assert_says(&p.ec, "'server'");
    part(&p);
    meet(&p, plain_server, ",ca=%ca.crt,name=bus.example");
    assert_int_equal(p.rc, 1);
    part(&p);
}

/* Decrypted bytes that no poll would tell of. */
static void test_pending(void **state)
{
    (void)state;
    struct pair p;
    char buf[4];
    meet(&p, plain_server, plain_client);
    assert_false(p.s->ops->pending(p.s));
    assert_int_equal(put(p.c, "12345678", NULL), 8);
    assert_int_equal(p.s->ops->read(p.s, buf, 4, NULL, NULL), 4);
    assert_true(p.s->ops->pending(p.s));
    assert_int_equal(p.s->ops->read(p.s, buf, 4, NULL, NULL), 4);
    assert_memory_equal(buf, "5678", 4);
    assert_false(p.s->ops->pending(p.s));
    part(&p);
}

/* Writes a piece of the stream as up to three pieces of odd sizes; returns what was taken. *stuck: not all was. */
static size_t pour(struct cule_carrier *c, const uint8_t *data, size_t left, unsigned *seed, bool *stuck)
{
    size_t offered = 0;
    struct iovec iov[3];
    int n = 0;
    for (size_t at = 0; n < 3 && at < left; n++) {
        size_t size = (size_t)rand_r(seed) % 40000;
        size = size < left - at ? size : left - at;
        iov[n] = (struct iovec){(void *)(uintptr_t)(data + at), size};
        at += size;
        offered = at;
    }
    struct cule_err err = {0};
    ssize_t w = c->ops->write(c, iov, n, NULL, 0, &err);
    if (w < 0 && w != CULE_EAGAIN) {
        fail_msg("%s", err.text);
    }
    size_t took = w < 0 ? 0 : (size_t)w;
    *stuck |= took < offered;
    return took;
}

/* Both directions at once through full socket buffers; the poll events must always lead on. */
static void test_stream(void **state)
{
    (void)state;
    struct pair p;
    unsigned seed = 7;
    uint8_t *data = malloc(STREAM_BYTES), *got[2] = {malloc(STREAM_BYTES), malloc(STREAM_BYTES)};
    size_t sent[2] = {0}, received[2] = {0};
    assert_non_null(data);
    assert_true(got[0] && got[1]);
    ok(gnutls_rnd(GNUTLS_RND_NONCE, data, STREAM_BYTES));
    meet(&p, mutual_server, mutual_client);
    struct cule_carrier *end[2] = {p.s, p.c};
    int small = 8192;
    setsockopt(p.s->wfd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(p.c->wfd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    bool blocked = false;
    while (received[0] < STREAM_BYTES || received[1] < STREAM_BYTES) {
        struct pollfd fds[2];
        for (int i = 0; i < 2; i++) {
            int ev = end[i]->ops->poll_events(end[i], received[i] < STREAM_BYTES, sent[i] < STREAM_BYTES);
            fds[i] = (struct pollfd){.fd = end[i]->rfd, .events = (short)ev};
        }
        if (poll(fds, 2, 10000) <= 0) {
            fail_msg("stalled");
        }
        for (int i = 0; i < 2; i++) {
            if (fds[i].revents & POLLOUT) {
                sent[i] += pour(end[i], data + sent[i], STREAM_BYTES - sent[i], &seed, &blocked);
            }
            if ((fds[i].revents & POLLIN) && (rand_r(&seed) & 3) == 0) {
                ssize_t n = end[i]->ops->read(end[i], got[i] + received[i], STREAM_BYTES - received[i], NULL, NULL);
                assert_true(n > 0 || n == CULE_EAGAIN);
                received[i] += n > 0 ? (size_t)n : 0;
            }
        }
    }
    assert_true(sent[0] == STREAM_BYTES && sent[1] == STREAM_BYTES);
    assert_true(blocked);
    assert_memory_equal(got[0], data, STREAM_BYTES);
    assert_memory_equal(got[1], data, STREAM_BYTES);
    part(&p);
    free(data);
    free(got[0]);
    free(got[1]);
}

/* What was refused may be replaced by something else: only the byte after what was taken must follow it. */
static void test_blocked_write_may_change(void **state)
{
    (void)state;
    struct pair p;
    static uint8_t a[120000], sink[200000];
    uint8_t other[101];
    size_t total = 0, off = 0, got = 0;
    bool stuck = false;
    struct cule_err err = {0};
    meet(&p, plain_server, plain_client);
    memset(a, 'a', sizeof a);
    memset(other, 'b', sizeof other);
    unsigned seed = 3;
    while (!stuck) {
        total += pour(p.c, a, sizeof a, &seed, &stuck);
    }
    /* The byte that is owed, then another stream of bytes altogether. */
    other[0] = 'a';
    while (off < sizeof other || got < total + off) {
        ssize_t n = p.s->ops->read(p.s, sink, sizeof sink, NULL, &err);
        assert_true(n > 0 || n == CULE_EAGAIN);
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(sink[i], got + (size_t)i < total + 1 ? 'a' : 'b');
        }
        got += n > 0 ? (size_t)n : 0;
        struct iovec iov = {other + off, sizeof other - off};
        ssize_t k = off < sizeof other ? p.c->ops->write(p.c, &iov, 1, NULL, 0, &err) : 0;
        assert_true(k >= 0 || k == CULE_EAGAIN);
        off += k > 0 ? (size_t)k : 0;
    }
    assert_int_equal(got, total + sizeof other);
    part(&p);
}

static void test_clean_end(void **state)
{
    (void)state;
    struct pair p;
    struct cule_err err = {0};
    char buf[16];
    meet(&p, plain_server, plain_client);
    assert_int_equal(put(p.c, "last", NULL), 4);
    p.c->ops->finish(p.c);
    assert_int_equal(put(p.c, "too late", &err), CULE_ECLOSED);
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, &err), 4);
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, &err), 0);
    /* The other direction goes on. */
    assert_int_equal(put(p.s, "answer", NULL), 6);
    assert_int_equal(p.c->ops->read(p.c, buf, sizeof buf, NULL, &err), 6);
    part(&p);
}

static void test_cut_off(void **state)
{
    (void)state;
    struct pair p;
    struct cule_err err = {0};
    char buf[16];
    meet(&p, plain_server, plain_client);
    assert_int_equal(put(p.c, "last", NULL), 4);
    shutdown(p.c->rfd, SHUT_RDWR);
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, &err), 4);
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, &err), CULE_ETRUNCATED);
    assert_says(&err, "cut off");
    assert_int_equal(p.s->ops->read(p.s, buf, sizeof buf, NULL, &err), CULE_ECLOSED);
    part(&p);
}

static void test_no_descriptors(void **state)
{
    (void)state;
    struct pair p;
    int fd = 0;
    struct iovec iov = {(void *)(uintptr_t) "x", 1};
    meet(&p, plain_server, plain_client);
    assert_false(p.c->can_pass_fds);
    assert_int_equal(p.c->ops->write(p.c, &iov, 1, &fd, 1, NULL), CULE_EUNSUPPORTED);
    part(&p);
}

/* --- sessions that are refused ------------------------------------------------------------------------ */

static void refused_by_client(const char *server, const char *client, const char *text)
{
    struct pair p;
    meet(&p, server, client);
    assert_int_equal(p.rc, CULE_EAUTH);
    assert_says(&p.ec, text);
    assert_int_equal(p.rs, CULE_EAUTH);
    assert_says(&p.es, "the peer refused our certificate");
    part(&p);
}

static void test_bad_server_certificates(void **state)
{
    (void)state;
    refused_by_client(",cert=%expired.crt,key=%expired.key", plain_client, "has expired");
    refused_by_client(",cert=%future.crt,key=%future.key", plain_client, "not valid yet");
    refused_by_client(",cert=%stranger.crt,key=%stranger.key", plain_client, "issuer is not known");
    refused_by_client(",cert=%wrong-use.crt,key=%wrong-use.key", plain_client, "another purpose");
    refused_by_client(",cert=%revoked.crt,key=%revoked.key", ",ca=%ca.crt,crl=%revoked.crl", "has been revoked");
}

/* In TLS 1.3 the client is done before the server has seen its certificate: it learns of the refusal when it reads. */
static void refused_by_server(const char *server, const char *client, const char *text, const char *told)
{
    struct pair p;
    char buf[16];
    struct cule_err err = {0};
    meet(&p, server, client);
    assert_int_equal(p.rs, CULE_EAUTH);
    assert_says(&p.es, text);
    assert_int_equal(p.rc, 1);
    p.s->ops->close(p.s);
    assert_int_equal(p.c->ops->read(p.c, buf, sizeof buf, NULL, &err), CULE_EAUTH);
    assert_says(&err, told);
    p.c->ops->close(p.c);
}

static void test_bad_client_certificates(void **state)
{
    (void)state;
    refused_by_server(mutual_server, plain_client, "showed no certificate", "demands a certificate");
    refused_by_server(mutual_server, ",ca=%ca.crt,cert=%stranger.crt,key=%stranger.key", "issuer is not known",
                      "refused our certificate");
    refused_by_server(mutual_server, ",ca=%ca.crt,cert=%expired.crt,key=%expired.key", "has expired",
                      "refused our certificate");
    refused_by_server(",cert=%server.crt,key=%server.key,ca=%ca.crt,crl=%revoked.crl",
                      ",ca=%ca.crt,cert=%revoked.crt,key=%revoked.key", "has been revoked", "refused our certificate");
}

/* --- peers that are not ours -------------------------------------------------------------------------- */

/* A bare GnuTLS session on fd; alpn NULL: none offered. */
static gnutls_session_t bare(gnutls_certificate_credentials_t cred, int fd, bool server, const char *priority,
                             const char *alpn)
{
    gnutls_session_t s;
    ok(gnutls_init(&s, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL));
    ok(gnutls_priority_set_direct(s, priority, NULL));
    ok(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred));
    if (alpn) {
        gnutls_datum_t d = {(unsigned char *)(uintptr_t)alpn, (unsigned)strlen(alpn)};
        ok(gnutls_alpn_set_protocols(s, &d, 1, 0));
    }
    gnutls_transport_set_int(s, fd);
    return s;
}

static void stranger_meets(bool we_serve, const char *priority, const char *alpn, int code, const char *text)
{
    int sv[2], rc = 0, theirs = GNUTLS_E_AGAIN;
    gnutls_certificate_credentials_t cred;
    struct cule_err err = {0};
    sockets(sv);
    ok(gnutls_certificate_allocate_credentials(&cred));
    ok(gnutls_certificate_set_x509_key_file(cred, path_of("server.crt"), path_of("server.key"), GNUTLS_X509_FMT_PEM));
    struct cule_carrier *c = carrier(we_serve ? plain_server : plain_client, we_serve, sv[0]);
    gnutls_session_t s = bare(cred, sv[1], !we_serve, priority, alpn);
    for (int i = 0; i < ROUNDS && rc == 0; i++) {
        if (theirs == GNUTLS_E_AGAIN) {
            theirs = gnutls_handshake(s);
        }
        if (theirs < 0 && gnutls_error_is_fatal(theirs)) {
            gnutls_alert_send_appropriate(s, theirs);
        }
        rc = c->ops->handshake(c, &err);
    }
    if (rc != code) {
        fail_msg("%d '%s', not %d", rc, err.text, code);
    }
    if (text) {
        assert_says(&err, text);
    }
    gnutls_deinit(s);
    close(sv[1]);
    c->ops->close(c);
    gnutls_certificate_free_credentials(cred);
}

static void test_alpn_is_required(void **state)
{
    (void)state;
    stranger_meets(true, "NORMAL", "cule/1", 1, NULL);
    stranger_meets(true, "NORMAL", NULL, CULE_EUNSUPPORTED, "cule/1");
    stranger_meets(true, "NORMAL", "h2", CULE_EUNSUPPORTED, "cule/1");
    stranger_meets(false, "NORMAL", "cule/1", 1, NULL);
    stranger_meets(false, "NORMAL", NULL, CULE_EUNSUPPORTED, "cule/1");
}

static void test_old_versions(void **state)
{
    (void)state;
    stranger_meets(true, "NORMAL:-VERS-ALL:+VERS-TLS1.2", "cule/1", CULE_EUNSUPPORTED, "TLS 1.3");
    stranger_meets(false, "NORMAL:-VERS-ALL:+VERS-TLS1.2", "cule/1", CULE_EUNSUPPORTED, "version");
}

static void test_not_tls(void **state)
{
    (void)state;
    int sv[2];
    struct cule_err err = {0};
    sockets(sv);
    struct cule_carrier *c = carrier(plain_server, true, sv[0]);
    assert_int_equal(c->ops->handshake(c, &err), 0);
    assert_int_equal(c->ops->poll_events(c, true, true), POLLIN);
    assert_int_equal(write(sv[1], "CU\1\1 plain frames here, not TLS", 30), 30);
    assert_int_equal(c->ops->handshake(c, &err), CULE_EMALFORMED);
    assert_says(&err, "not TLS");
    c->ops->close(c);
    close(sv[1]);
    sockets(sv);
    c = carrier(plain_client, false, sv[0]);
    close(sv[1]);
    assert_true(c->ops->handshake(c, &err) < 0);
    assert_says(&err, "tls: ");
    c->ops->close(c);
}

/* --- configurations ----------------------------------------------------------------------------------- */

static void bad_config(const char *options, bool server, int code, const char *text)
{
    struct cule_tls_config *c = NULL;
    struct cule_err err = {0};
    assert_int_equal(config(&c, options, server, &err), code);
    assert_null(c);
    assert_says(&err, text);
}

static void test_bad_configs(void **state)
{
    (void)state;
    bad_config("", true, CULE_EUSAGE, "needs cert=");
    bad_config(",cert=%server.crt,key=%server.key,name=x", true, CULE_EUSAGE, "name= is for a client");
    bad_config(",cert=%missing.crt,key=%server.key", true, CULE_ENOT_FOUND, "missing.crt");
    bad_config(",cert=%server.crt,key=%missing.key", true, CULE_ENOT_FOUND, "missing.key");
    bad_config(",cert=%garbage,key=%server.key", true, CULE_EMALFORMED, "garbage");
    bad_config(",cert=%server.crt,key=%garbage", true, CULE_EMALFORMED, "garbage' holds no usable private key");
    bad_config(",cert=%server.crt", true, CULE_EMALFORMED, "server.crt' holds no usable private key");
    bad_config(",cert=%server.crt,key=%alice.key", true, CULE_EMALFORMED, "alice.key' is not that of");
    bad_config(",ca=%garbage", false, CULE_EMALFORMED, "garbage");
    bad_config(",ca=%missing.crt", false, CULE_ENOT_FOUND, "missing.crt");
    bad_config(",ca=%ca.crt,crl=%garbage", false, CULE_EMALFORMED, "garbage");
    bad_config(",ca=/", false, CULE_EMALFORMED, "not a file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutual),
        cmocka_unit_test(test_server_takes_anybody),
        cmocka_unit_test(test_name_option),
        cmocka_unit_test(test_pending),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_blocked_write_may_change),
        cmocka_unit_test(test_clean_end),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_bad_server_certificates),
        cmocka_unit_test(test_bad_client_certificates),
        cmocka_unit_test(test_alpn_is_required),
        cmocka_unit_test(test_old_versions),
        cmocka_unit_test(test_not_tls),
        cmocka_unit_test(test_bad_configs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

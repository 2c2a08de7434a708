/* What a TLS session says of its peer: who it is, and why it was refused. */
#include "tls/tls_impl.h"

#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>

/* --- identity ----------------------------------------------------------------------------------------- */

static int first_cert(gnutls_session_t s, gnutls_x509_crt_t *out, const gnutls_datum_t **raw)
{
    unsigned n = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s, &n);
    if (!list || n == 0 || gnutls_x509_crt_init(out) < 0) {
        return -1;
    }
    if (gnutls_x509_crt_import(*out, &list[0], GNUTLS_X509_FMT_DER) < 0) {
        gnutls_x509_crt_deinit(*out);
        return -1;
    }
    *raw = &list[0];
    return 0;
}

/* Access lists compare identities, so one with odd bytes in it counts as none, as does one too long to keep whole. */
static bool plain(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
            return false;
        }
    }
    return n > 0;
}

static void common_name(gnutls_x509_crt_t crt, char *out, size_t size)
{
    char buf[CULE_PEER_TEXT_MAX];
    size_t n = sizeof buf;
    unsigned type;
    out[0] = '\0';
    if (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, buf, &n) == 0) {
        /* A subject name that is there but not usable is not replaced by another. */
        if (plain(buf, n) && n < size) {
            memcpy(out, buf, n);
            out[n] = '\0';
        }
        return;
    }
    for (unsigned i = 0;; i++) {
        n = sizeof buf;
        int rc = gnutls_x509_crt_get_subject_alt_name2(crt, i, buf, &n, &type, NULL);
        if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            return;
        }
        if (rc == GNUTLS_SAN_DNSNAME && plain(buf, n) && n < size) {
            memcpy(out, buf, n);
            out[n] = '\0';
            return;
        }
    }
}

void cule_tls_identify(gnutls_session_t s, bool verified, struct cule_peer *peer)
{
    gnutls_x509_crt_t crt;
    const gnutls_datum_t *raw;
    unsigned char sum[32];
    size_t n = sizeof sum;
    if (first_cert(s, &crt, &raw) < 0) {
        return;
    }
    if (gnutls_fingerprint(GNUTLS_DIG_SHA256, raw, sum, &n) == 0) {
        for (size_t i = 0; i < n; i++) {
            snprintf(peer->fingerprint + 2 * i, 3, "%02x", sum[i]);
        }
    }
    if (verified) {
        common_name(crt, peer->identity, sizeof peer->identity);
    }
    gnutls_x509_crt_deinit(crt);
}

/* --- refusals ----------------------------------------------------------------------------------------- */

static const struct {
    unsigned bit;
    const char *text;
} verdicts[] = {
    {GNUTLS_CERT_REVOKED, "it has been revoked"},
    {GNUTLS_CERT_EXPIRED, "it has expired"},
    {GNUTLS_CERT_NOT_ACTIVATED, "it is not valid yet"},
    {GNUTLS_CERT_SIGNER_NOT_FOUND, "its issuer is not known (see ca=)"},
    {GNUTLS_CERT_SIGNER_NOT_CA, "its issuer is not an authority"},
    {GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE, "its issuer may not sign it"},
    {GNUTLS_CERT_INSECURE_ALGORITHM, "its algorithm is not secure"},
    {GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED, "the list of revoked certificates is old (see crl=)"},
    {GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE, "the list of revoked certificates is from the future"},
    {GNUTLS_CERT_PURPOSE_MISMATCH, "it is for another purpose"},
    {GNUTLS_CERT_SIGNATURE_FAILURE, "its signature is wrong"},
};

static int verdict(gnutls_session_t s, const char *expected_name, struct cule_err *err)
{
    unsigned status = gnutls_session_get_verify_cert_status(s);
    gnutls_x509_crt_t crt;
    const gnutls_datum_t *raw;
    char who[CULE_PEER_TEXT_MAX] = "";
    if (first_cert(s, &crt, &raw) == 0) {
        common_name(crt, who, sizeof who);
        gnutls_x509_crt_deinit(crt);
    }
    for (size_t i = 0; i < CULE_COUNT(verdicts); i++) {
        if (status & verdicts[i].bit) {
            return cule_err_set(err, CULE_EAUTH, "tls: the peer's certificate '%s' is refused: %s", who,
                                verdicts[i].text);
        }
    }
    if (status & GNUTLS_CERT_UNEXPECTED_OWNER) {
        return cule_err_set(err, CULE_EAUTH,
                            "tls: the peer's certificate '%s' is refused: it is not for '%.80s' (see name=)", who,
                            expected_name);
    }
    return cule_err_set(err, CULE_EAUTH, "tls: the peer's certificate '%s' is refused: it is not valid", who);
}

static int alert(gnutls_session_t s, struct cule_err *err)
{
    gnutls_alert_description_t a = gnutls_alert_get(s);
    const char *name = gnutls_alert_get_name(a);
    switch (a) {
    case GNUTLS_A_CERTIFICATE_REQUIRED:
        return cule_err_set(err, CULE_EAUTH, "tls: the peer demands a certificate: give cert= and key=");
    case GNUTLS_A_BAD_CERTIFICATE:
    case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
    case GNUTLS_A_CERTIFICATE_REVOKED:
    case GNUTLS_A_CERTIFICATE_EXPIRED:
    case GNUTLS_A_CERTIFICATE_UNKNOWN:
    case GNUTLS_A_UNKNOWN_CA:
    case GNUTLS_A_ACCESS_DENIED:
        return cule_err_set(err, CULE_EAUTH, "tls: the peer refused our certificate: %s", name ? name : "unknown");
    case GNUTLS_A_NO_APPLICATION_PROTOCOL:
        return cule_err_set(err, CULE_EUNSUPPORTED, "tls: the peer does not speak cule/1 (ALPN)");
    case GNUTLS_A_HANDSHAKE_FAILURE:
        return cule_err_set(err, CULE_EUNSUPPORTED, "tls: the peer finds no version or cipher in common with us");
    case GNUTLS_A_PROTOCOL_VERSION: return cule_err_set(err, CULE_EUNSUPPORTED, "tls: the peer does not speak TLS 1.3");
    default: return cule_err_set(err, CULE_EIO, "tls: the peer gave up: %s", name ? name : "unknown");
    }
}

int cule_tls_error(gnutls_session_t s, int rc, const char *what, const char *expected_name, struct cule_err *err)
{
    switch (rc) {
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR: return verdict(s, expected_name, err);
    case GNUTLS_E_FATAL_ALERT_RECEIVED: return alert(s, err);
    case GNUTLS_E_PREMATURE_TERMINATION:
        return cule_err_set(err, CULE_ETRUNCATED, "tls: the stream was cut off without a goodbye");
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR: return cule_err_set(err, CULE_ECLOSED, "tls: the peer closed the link");
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND: return cule_err_set(err, CULE_EAUTH, "tls: the peer showed no certificate");
    case GNUTLS_E_NO_APPLICATION_PROTOCOL:
        return cule_err_set(err, CULE_EUNSUPPORTED, "tls: the peer does not speak cule/1 (ALPN)");
    case GNUTLS_E_NO_CIPHER_SUITES:
        return cule_err_set(err, CULE_EUNSUPPORTED,
                            "tls: no cipher in common with the peer: it should speak TLS 1.3 with usual ciphers");
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
        return cule_err_set(err, CULE_EUNSUPPORTED, "tls: the peer does not speak TLS 1.3");
    case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
    case GNUTLS_E_UNEXPECTED_PACKET:
        return cule_err_set(err, CULE_EMALFORMED, "tls: %s: what the peer sends is not TLS", what);
    case GNUTLS_E_MEMORY_ERROR: return cule_err_set(err, CULE_ENOMEM, "out of memory");
    default: return cule_err_set(err, CULE_EIO, "tls: %s: %s", what, gnutls_strerror(rc));
    }
}

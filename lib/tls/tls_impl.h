/* What the files of the TLS module share; nobody else includes this. */
#ifndef CULE_TLS_TLS_IMPL_H
#define CULE_TLS_TLS_IMPL_H

#include "base/bytes.h"
#include "tls/tls.h"

#include <gnutls/gnutls.h>

struct cule_tls_config {
    unsigned refs; /* the owner and each session */
    bool verify;   /* the peer's certificate is demanded and checked */
    gnutls_certificate_credentials_t cred;
    gnutls_priority_t priority;
    char name[256]; /* client: what the server's certificate must be for */
};

void cule_tls_config_ref(struct cule_tls_config *c);

/* A handshake or record that failed: the code and a text for a user. */
int cule_tls_error(gnutls_session_t s, int rc, const char *what, const char *expected_name, struct cule_err *err);
/* Fills identity (if verified) and fingerprint from the peer's certificate, if it showed one. */
void cule_tls_identify(gnutls_session_t s, bool verified, struct cule_peer *peer);

#endif

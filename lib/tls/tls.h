/*
 * TLS 1.3 as a carrier on a stream socket, by GnuTLS; the only place that knows it.
 *
 * Both sides must speak the protocol "cule/1" (ALPN). A server shows cert= and key=; with ca= it demands a client's
 * certificate that this authority has signed, without it takes anybody. A client checks the server's certificate
 * against ca= or the system's store, and the name in it against name= or the host; cert= and key= are its own. crl= is
 * a list of revoked certificates for either side. key= may be left out where the key stands in the file of cert=.
 */
#ifndef CULE_TLS_TLS_H
#define CULE_TLS_TLS_H

#include "io/carrier.h"
#include "io/endpoint.h"

struct cule_tls_config;

/* Reads the files that the endpoint names; errors say which and why. For many sessions, of one thread. The sessions
 * made with it keep what they need: it may be freed before them. */
int cule_tls_config_new(struct cule_tls_config **out, const struct cule_endpoint *ep, bool server,
                        struct cule_err *err);
void cule_tls_config_free(struct cule_tls_config *c); /* NULL is fine */

/*
 * A carrier over a socket, which it owns from success on and which may still be connecting. Its handshake must be done
 * before it reads or writes; peer.identity and peer.fingerprint are set by then. Reading gives CULE_ETRUNCATED where
 * the stream ends without the peer's close_notify. A failed check of a certificate is CULE_EAUTH on either side: a
 * server that refuses a client's certificate is seen by the client in its first read, since TLS 1.3 lets the client go
 * first.
 */
int cule_carrier_tls(struct cule_carrier **out, struct cule_tls_config *c, int fd, bool server, struct cule_err *err);

/* Makes tls: endpoints work for links and listeners of this program (io/tls_hook.h). */
void cule_tls_enable(void);

#endif

/*
 * How tls: endpoints reach the TLS adapter without lib/io standing on it: a program that wants them calls
 * cule_tls_enable (lib/tls) once at its start; one that does not is not linked with it.
 */
#ifndef CULE_IO_TLS_HOOK_H
#define CULE_IO_TLS_HOOK_H

#include "io/carrier.h"
#include "io/endpoint.h"

struct cule_tls_hook {
    int (*config_new)(void **out, const struct cule_endpoint *ep, bool server, struct cule_err *err);
    void (*config_free)(void *config);
    /* Owns fd from success on; a connect may still be under way. */
    int (*carrier)(struct cule_carrier **out, void *config, int fd, bool server, struct cule_err *err);
};

void cule_tls_hook_set(const struct cule_tls_hook *hook);
/* The adapter, or NULL with CULE_EUNSUPPORTED in *err. */
const struct cule_tls_hook *cule_tls_hook_get(struct cule_err *err);

#endif

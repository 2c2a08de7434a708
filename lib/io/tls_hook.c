/* The place where the TLS adapter is found. */
#include "io/tls_hook.h"

static const struct cule_tls_hook *the_hook;

void cule_tls_hook_set(const struct cule_tls_hook *hook)
{
    the_hook = hook;
}

const struct cule_tls_hook *cule_tls_hook_get(struct cule_err *err)
{
    if (!the_hook) {
        cule_err_set(err, CULE_EUNSUPPORTED, "this program speaks no tls: use tcp: or unix:");
    }
    return the_hook;
}

/* Certificates, keys and policy of TLS endpoints, read once. */
#include "tls/tls_impl.h"

#include "io/tls_hook.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PEM_MAX_BYTES = 16 * 1024 * 1024 };

/* NORMAL without everything older than TLS 1.3. */
static const char priority_text[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3";

static int no_memory(struct cule_err *err)
{
    return cule_err_set(err, CULE_ENOMEM, "out of memory");
}

/* --- files -------------------------------------------------------------------------------------------- */

/* The whole file; gnutls_free(d->data) it. */
static int slurp(const char *path, gnutls_datum_t *d, struct cule_err *err)
{
    struct stat st;
    int rc = 0;
    d->data = NULL;
    d->size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int code = errno == ENOENT ? CULE_ENOT_FOUND : cule_err_from_errno(errno);
        rc = cule_err_sys(err, code, errno, "tls: cannot open '%.150s'", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > PEM_MAX_BYTES) {
        rc = cule_err_set(err, CULE_EMALFORMED, "tls: '%.150s' is not a file of certificates", path);
        goto out;
    }
    d->data = gnutls_malloc((size_t)st.st_size + 1);
    if (!d->data) {
        rc = no_memory(err);
        goto out;
    }
    while (d->size < (size_t)st.st_size) {
        ssize_t n = read(fd, d->data + d->size, (size_t)st.st_size - d->size);
        if (n <= 0) {
            rc = cule_err_sys(err, CULE_EIO, n < 0 ? errno : EIO, "tls: cannot read '%.150s'", path);
            goto out;
        }
        d->size += (unsigned)n;
    }
    d->data[d->size] = '\0';
out:
    if (fd >= 0) {
        close(fd);
    }
    if (rc < 0) {
        gnutls_free(d->data);
        d->data = NULL;
    }
    return rc;
}

static void wipe(gnutls_datum_t *d)
{
    if (d->data) {
        gnutls_memset(d->data, 0, d->size);
    }
    gnutls_free(d->data);
    d->data = NULL;
}

static int pem_error(const char *path, const char *what, int rc, struct cule_err *err)
{
    if (rc == GNUTLS_E_MEMORY_ERROR) {
        return no_memory(err);
    }
    return cule_err_set(err, CULE_EMALFORMED, "tls: '%.120s' holds no usable %s: %s", path, what, gnutls_strerror(rc));
}

/* Checks each file by itself first, so that the error can name it. */
static int check_cert(const char *path, const gnutls_datum_t *pem, struct cule_err *err)
{
    gnutls_x509_crt_t *list;
    unsigned n = 0;
    int rc = gnutls_x509_crt_list_import2(&list, &n, pem, GNUTLS_X509_FMT_PEM, 0);
    if (rc < 0) {
        return pem_error(path, "certificate", rc, err);
    }
    for (unsigned i = 0; i < n; i++) {
        gnutls_x509_crt_deinit(list[i]);
    }
    gnutls_free(list);
    return 0;
}

static int check_key(const char *path, const gnutls_datum_t *pem, struct cule_err *err)
{
    gnutls_privkey_t key;
    int rc = gnutls_privkey_init(&key);
    if (rc < 0) {
        return no_memory(err);
    }
    rc = gnutls_privkey_import_x509_raw(key, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_privkey_deinit(key);
    if (rc == GNUTLS_E_DECRYPTION_FAILED) {
        return cule_err_set(err, CULE_EUNSUPPORTED,
                            "tls: the key in '%.120s' is encrypted: store it without a password", path);
    }
    return rc < 0 ? pem_error(path, "private key", rc, err) : 0;
}

static int load_own(struct cule_tls_config *c, const struct cule_endpoint *ep, struct cule_err *err)
{
    const char *key_path = ep->key ? ep->key : ep->cert;
    gnutls_datum_t cert = {0}, key = {0};
    int rc = slurp(ep->cert, &cert, err);
    if (rc == 0) {
        rc = check_cert(ep->cert, &cert, err);
    }
    if (rc == 0) {
        rc = slurp(key_path, &key, err);
    }
    if (rc == 0) {
        rc = check_key(key_path, &key, err);
    }
    if (rc == 0) {
        int g = gnutls_certificate_set_x509_key_mem(c->cred, &cert, &key, GNUTLS_X509_FMT_PEM);
        if (g == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) {
            rc = cule_err_set(err, CULE_EMALFORMED, "tls: the key in '%.100s' is not that of '%.100s'", key_path,
                              ep->cert);
        } else if (g < 0) {
            rc = pem_error(ep->cert, "certificate and key", g, err);
        }
    }
    wipe(&cert);
    wipe(&key);
    return rc;
}

static int load_trust(struct cule_tls_config *c, const struct cule_endpoint *ep, struct cule_err *err)
{
    gnutls_datum_t pem = {0};
    if (!ep->ca) {
        if (gnutls_certificate_set_x509_system_trust(c->cred) <= 0) {
            return cule_err_set(err, CULE_ENOT_FOUND,
                                "tls: this system has no store of certificates: name an authority with ca=FILE");
        }
        return 0;
    }
    int rc = slurp(ep->ca, &pem, err);
    if (rc == 0) {
        rc = check_cert(ep->ca, &pem, err);
    }
    if (rc == 0) {
        int g = gnutls_certificate_set_x509_trust_mem(c->cred, &pem, GNUTLS_X509_FMT_PEM);
        rc = g <= 0 ? pem_error(ep->ca, "certificate", g, err) : 0;
    }
    wipe(&pem);
    return rc;
}

static int load_crl(struct cule_tls_config *c, const struct cule_endpoint *ep, struct cule_err *err)
{
    gnutls_datum_t pem = {0};
    int rc = slurp(ep->crl, &pem, err);
    if (rc == 0) {
        int g = gnutls_certificate_set_x509_crl_mem(c->cred, &pem, GNUTLS_X509_FMT_PEM);
        rc = g <= 0 ? pem_error(ep->crl, "list of revoked certificates", g, err) : 0;
    }
    wipe(&pem);
    return rc;
}

/* --- the configuration -------------------------------------------------------------------------------- */

static int check_endpoint(const struct cule_endpoint *ep, bool server, struct cule_err *err)
{
    assert(ep->type == CULE_EP_TLS);
    if (server && !ep->cert) {
        return cule_err_set(err, CULE_EUSAGE, "endpoint '%.90s': a server needs cert=FILE (and key=FILE)", ep->text);
    }
    if (server && ep->name) {
        return cule_err_set(err, CULE_EUSAGE, "endpoint '%.90s': name= is for a client", ep->text);
    }
    if (server && ep->crl && !ep->ca) {
        return cule_err_set(err, CULE_EUSAGE, "endpoint '%.90s': crl= needs ca=", ep->text);
    }
    return 0;
}

int cule_tls_config_new(struct cule_tls_config **out, const struct cule_endpoint *ep, bool server, struct cule_err *err)
{
    int rc = check_endpoint(ep, server, err);
    if (rc < 0) {
        return rc;
    }
    struct cule_tls_config *c = calloc(1, sizeof *c);
    if (!c) {
        return no_memory(err);
    }
    c->refs = 1;
    c->verify = !server || ep->ca;
    const char *name = ep->name ? ep->name : *ep->host ? ep->host : "localhost";
    if (strlen(name) >= sizeof c->name) {
        rc = cule_err_set(err, CULE_EUSAGE, "endpoint '%.90s': the name is too long", ep->text);
        goto out;
    }
    memcpy(c->name, name, strlen(name) + 1);
    if (gnutls_certificate_allocate_credentials(&c->cred) < 0) {
        rc = no_memory(err);
        goto out;
    }
    int g = gnutls_priority_init(&c->priority, priority_text, NULL);
    if (g < 0) {
        rc =
            cule_err_set(err, CULE_EUNSUPPORTED, "tls: this system's policy allows no TLS 1.3: %s", gnutls_strerror(g));
        goto out;
    }
    if (ep->cert) {
        rc = load_own(c, ep, err);
    }
    if (rc == 0 && c->verify) {
        rc = load_trust(c, ep, err);
    }
    if (rc == 0 && ep->crl) {
        rc = load_crl(c, ep, err);
    }
    if (rc == 0) {
        *out = c;
        c = NULL;
    }
out:
    cule_tls_config_free(c);
    return rc;
}

void cule_tls_config_ref(struct cule_tls_config *c)
{
    c->refs++;
}

void cule_tls_config_free(struct cule_tls_config *c)
{
    if (!c || --c->refs > 0) {
        return;
    }
    if (c->cred) {
        gnutls_certificate_free_credentials(c->cred);
    }
    if (c->priority) {
        gnutls_priority_deinit(c->priority);
    }
    free(c);
}

/* --- for lib/io --------------------------------------------------------------------------------------- */

static int hook_new(void **out, const struct cule_endpoint *ep, bool server, struct cule_err *err)
{
    struct cule_tls_config *c = NULL;
    int rc = cule_tls_config_new(&c, ep, server, err);
    *out = c;
    return rc;
}

static void hook_free(void *config)
{
    cule_tls_config_free(config);
}

static int hook_carrier(struct cule_carrier **out, void *config, int fd, bool server, struct cule_err *err)
{
    return cule_carrier_tls(out, config, fd, server, err);
}

void cule_tls_enable(void)
{
    static const struct cule_tls_hook hook = {hook_new, hook_free, hook_carrier};
    cule_tls_hook_set(&hook);
}

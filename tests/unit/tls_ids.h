/* Certificates for tls_carrier.c, made on the spot in a directory of their own. */
#ifndef CULE_TESTS_TLS_IDS_H
#define CULE_TESTS_TLS_IDS_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { DAY = 86400 };

static char dir[] = "/tmp/cule-tls-XXXXXX";

/* --- certificates ------------------------------------------------------------------------------------- */

struct id {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
};

static void ok(int rc)
{
    if (rc < 0) {
        fail_msg("%s", gnutls_strerror(rc));
    }
}

static const char *path_of(const char *file)
{
    static char path[8][128];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, file);
    return path[next];
}

static void write_file(const char *file, const void *data, size_t n)
{
    FILE *f = fopen(path_of(file), "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* from and to in days from now; signer NULL: an authority that signs itself. Writes NAME.crt and NAME.key. */
static void make_id(struct id *id, const char *name, const char *dns, const struct id *signer, int from, int to,
                    const char *purpose)
{
    static unsigned char serial = 1;
    time_t now = time(NULL);
    gnutls_datum_t pem;
    char file[64];
    ok(gnutls_x509_privkey_init(&id->key));
    ok(gnutls_x509_privkey_generate(id->key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    ok(gnutls_x509_crt_init(&id->crt));
    ok(gnutls_x509_crt_set_version(id->crt, 3));
    ok(gnutls_x509_crt_set_key(id->crt, id->key));
    ok(gnutls_x509_crt_set_dn_by_oid(id->crt, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name)));
    ok(gnutls_x509_crt_set_serial(id->crt, &serial, 1));
    serial++;
    ok(gnutls_x509_crt_set_activation_time(id->crt, now + (time_t)from * DAY));
    ok(gnutls_x509_crt_set_expiration_time(id->crt, now + (time_t)to * DAY));
    ok(gnutls_x509_crt_set_basic_constraints(id->crt, signer == NULL, -1));
    if (signer == NULL) {
        ok(gnutls_x509_crt_set_key_usage(id->crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
    }
    if (dns) {
        ok(gnutls_x509_crt_set_subject_alt_name(id->crt, GNUTLS_SAN_DNSNAME, dns, (unsigned)strlen(dns), 0));
    }
    if (purpose) {
        ok(gnutls_x509_crt_set_key_purpose_oid(id->crt, purpose, 0));
    }
    ok(gnutls_x509_crt_sign2(id->crt, signer ? signer->crt : id->crt, signer ? signer->key : id->key, GNUTLS_DIG_SHA256,
                             0));
    snprintf(file, sizeof file, "%s.crt", name);
    ok(gnutls_x509_crt_export2(id->crt, GNUTLS_X509_FMT_PEM, &pem));
    write_file(file, pem.data, pem.size);
    gnutls_free(pem.data);
    snprintf(file, sizeof file, "%s.key", name);
    ok(gnutls_x509_privkey_export2(id->key, GNUTLS_X509_FMT_PEM, &pem));
    write_file(file, pem.data, pem.size);
    gnutls_free(pem.data);
}

static struct id ca, rogue, server_id, client_id, expired, future, stranger, wrong_use, revoked;

static void make_crl(void)
{
    gnutls_x509_crl_t crl;
    gnutls_datum_t pem;
    ok(gnutls_x509_crl_init(&crl));
    ok(gnutls_x509_crl_set_version(crl, 2));
    ok(gnutls_x509_crl_set_this_update(crl, time(NULL) - DAY));
    ok(gnutls_x509_crl_set_next_update(crl, time(NULL) + DAY));
    ok(gnutls_x509_crl_set_crt(crl, revoked.crt, time(NULL) - DAY));
    ok(gnutls_x509_crl_set_number(crl, "\1", 1));
    ok(gnutls_x509_crl_sign2(crl, ca.crt, ca.key, GNUTLS_DIG_SHA256, 0));
    ok(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
    write_file("revoked.crl", pem.data, pem.size);
    gnutls_free(pem.data);
    gnutls_x509_crl_deinit(crl);
}

static struct id *const all_ids[] = {&ca,     &rogue,    &server_id, &client_id, &expired,
                                     &future, &stranger, &wrong_use, &revoked};
static const char *const all_names[] = {"ca",     "rogue",    "server",    "alice",  "expired",
                                        "future", "stranger", "wrong-use", "revoked"};

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    make_id(&ca, "ca", NULL, NULL, -2, 30, NULL);
    make_id(&rogue, "rogue", NULL, NULL, -2, 30, NULL);
    make_id(&server_id, "server", "bus.example", &ca, -1, 30, NULL);
    make_id(&client_id, "alice", NULL, &ca, -1, 30, GNUTLS_KP_TLS_WWW_CLIENT);
    make_id(&expired, "expired", "bus.example", &ca, -2, -1, NULL);
    make_id(&future, "future", "bus.example", &ca, 1, 30, NULL);
    make_id(&stranger, "stranger", "bus.example", &rogue, -1, 30, NULL);
    make_id(&wrong_use, "wrong-use", "bus.example", &ca, -1, 30, GNUTLS_KP_TLS_WWW_CLIENT);
    make_id(&revoked, "revoked", "bus.example", &ca, -1, 30, NULL);
    make_crl();
    write_file("garbage", "not a certificate\n", 18);
    return 0;
}

static int tear_down(void **state)
{
    char file[64];
    (void)state;
    for (size_t i = 0; i < sizeof all_ids / sizeof all_ids[0]; i++) {
        gnutls_x509_crt_deinit(all_ids[i]->crt);
        gnutls_x509_privkey_deinit(all_ids[i]->key);
        snprintf(file, sizeof file, "%s.crt", all_names[i]);
        unlink(path_of(file));
        snprintf(file, sizeof file, "%s.key", all_names[i]);
        unlink(path_of(file));
    }
    unlink(path_of("revoked.crl"));
    unlink(path_of("garbage"));
    return rmdir(dir);
}

#endif

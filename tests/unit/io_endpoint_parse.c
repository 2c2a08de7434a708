/* Endpoints: the syntax of addresses and the run directory. */
#include "io/endpoint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/cule-epx-XXXXXX";

/* A struct with pointers into itself must not be copied: parse where it stays. */
static void parse(struct cule_endpoint *ep, const char *text)
{
    struct cule_err err = {0};
    if (cule_endpoint_parse(ep, text, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void assert_says(const struct cule_err *err, const char *text)
{
    if (!strstr(err->text, text)) {
        fail_msg("'%s' does not say '%s'", err->text, text);
    }
}

static void bad(const char *text, int code, const char *says)
{
    struct cule_endpoint ep;
    struct cule_err err = {0};
    assert_int_equal(cule_endpoint_parse(&ep, text, &err), code);
    assert_says(&err, says);
}

/* --- syntax ------------------------------------------------------------------------------------------- */

static void test_parse(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    parse(&ep, "-");
    assert_int_equal(ep.type, CULE_EP_STDIO);
    parse(&ep, "unix:/run/a,b:c");
    assert_int_equal(ep.type, CULE_EP_UNIX);
    assert_string_equal(ep.path, "/run/a,b:c");
    parse(&ep, "unix:@name");
    assert_string_equal(ep.path, "@name");
    parse(&ep, "ring:/r");
    assert_int_equal(ep.type, CULE_EP_RING);
    assert_false(ep.trust_same_uid);
    parse(&ep, "ring:/r,trust=same-uid");
    assert_string_equal(ep.path, "/r");
    assert_true(ep.trust_same_uid);
    parse(&ep, "tcp:host.example:80");
    assert_int_equal(ep.type, CULE_EP_TCP);
    assert_string_equal(ep.host, "host.example");
    assert_string_equal(ep.port, "80");
    parse(&ep, "tcp:[fe80::1%eth0]:65535");
    assert_string_equal(ep.host, "fe80::1%eth0");
    assert_string_equal(ep.port, "65535");
    parse(&ep, ":0");
    assert_int_equal(ep.type, CULE_EP_TCP);
    assert_string_equal(ep.host, "");
    assert_string_equal(ep.port, "0");
    parse(&ep, "tls:h:1,cert=/a,key=/b,ca=/c,name=n,crl=/d");
    assert_int_equal(ep.type, CULE_EP_TLS);
    assert_string_equal(ep.host, "h");
    assert_string_equal(ep.port, "1");
    assert_string_equal(ep.cert, "/a");
    assert_string_equal(ep.key, "/b");
    assert_string_equal(ep.ca, "/c");
    assert_string_equal(ep.name, "n");
    assert_string_equal(ep.crl, "/d");
    parse(&ep, "fd:7");
    assert_int_equal(ep.type, CULE_EP_FD);
    assert_string_equal(ep.path, "7");
    parse(&ep, "exec:sort -n | uniq, -c");
    assert_int_equal(ep.type, CULE_EP_EXEC);
    assert_string_equal(ep.path, "sort -n | uniq, -c");
    parse(&ep, "file:a,b");
    assert_int_equal(ep.type, CULE_EP_FILE);
    assert_string_equal(ep.path, "a,b");
    assert_string_equal(ep.text, "file:a,b");
}

static void test_parse_errors(void **state)
{
    (void)state;
    bad("", CULE_EUSAGE, "known are - unix:");
    bad("nonsense", CULE_EUSAGE, "known are - unix:");
    bad("udp:host:1", CULE_EUSAGE, "known are - unix:");
    bad("/run/bus", CULE_EUSAGE, "write 'unix:/run/bus'");
    bad("./bus:1", CULE_EUSAGE, "write 'unix:./bus:1'");
    bad("localhost:80", CULE_EUSAGE, "'tcp:localhost:80'");
    bad("quic:h:1", CULE_EUNSUPPORTED, "no QUIC");
    bad("unix:", CULE_EUSAGE, "no path");
    bad("unix:@", CULE_EUSAGE, "no name after @");
    bad("unix:/run/", CULE_EUSAGE, "does not end in /");
    bad("ring:/r,trust=all", CULE_EUSAGE, "same-uid only");
    bad("ring:/r,size=1", CULE_EUSAGE, "only option of ring:");
    bad("ring:/r,trust", CULE_EUSAGE, ",KEY=VALUE");
    bad("tcp:host", CULE_EUSAGE, "no port");
    bad("tcp:host:", CULE_EUSAGE, "0 to 65535");
    bad("tcp:host:65536", CULE_EUSAGE, "0 to 65535");
    bad("tcp:host:99999999999", CULE_EUSAGE, "0 to 65535");
    bad("tcp:host:http", CULE_EUSAGE, "0 to 65535");
    bad("tcp:::1:80", CULE_EUSAGE, "in brackets");
    bad("tcp:[::1]80", CULE_EUSAGE, "[ADDRESS]:PORT");
    bad("tcp:[::1", CULE_EUSAGE, "[ADDRESS]:PORT");
    bad("tcp:[]:1", CULE_EUSAGE, "between the brackets");
    bad("tls:h:1,cert=", CULE_EUSAGE, "no value");
    bad("tls:h:1,ca=a,ca=b", CULE_EUSAGE, "given twice");
    bad("tls:h:1,bogus=b", CULE_EUSAGE, "the options of tls:");
    bad("tls:h:1,key=b", CULE_EUSAGE, "key= needs cert=");
    bad("fd:", CULE_EUSAGE, "no number or name");
    bad("fd:99999999999999", CULE_EUSAGE, "no such descriptor");
    bad("exec:", CULE_EUSAGE, "no command");
    bad("file:", CULE_EUSAGE, "no path");
    char *big = malloc(CULE_ENDPOINT_MAX + 10);
    memset(big, 'a', CULE_ENDPOINT_MAX + 9);
    big[CULE_ENDPOINT_MAX + 9] = '\0';
    memcpy(big, "unix:", 5);
    bad(big, CULE_EUSAGE, "longer than");
    big[5] = '@';
    big[5 + 109] = '\0';
    bad(big, CULE_EUSAGE, "at most 107");
    big[5 + 108] = '\0';
    static struct cule_endpoint longest;
    parse(&longest, big);
    free(big);
}

/* --- the run directory -------------------------------------------------------------------------------- */

static void test_run_dir(void **state)
{
    (void)state;
    char out[128], want[128], xdg[128];
    struct cule_err err = {0};
    struct stat st;
    snprintf(want, sizeof want, "%s/run", dir);
    assert_int_equal(cule_run_dir(want, "/ignored", false, out, sizeof out, &err), 0);
    assert_string_equal(out, want);
    assert_int_equal(access(out, F_OK), -1);
    assert_int_equal(cule_run_dir(want, NULL, true, out, sizeof out, &err), 0);
    assert_int_equal(stat(out, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(cule_run_dir(want, NULL, true, out, sizeof out, &err), 0); /* again */
    assert_int_equal(chmod(out, 0755), 0);
    assert_int_equal(cule_run_dir(want, NULL, false, out, sizeof out, &err), CULE_EREFUSED);
    assert_says(&err, "open to others");
    assert_int_equal(rmdir(out), 0);
    assert_int_equal(symlink("/tmp", want), 0);
    assert_int_equal(cule_run_dir(want, NULL, true, out, sizeof out, &err), CULE_EREFUSED);
    assert_says(&err, "not a directory");
    assert_int_equal(unlink(want), 0);
    snprintf(xdg, sizeof xdg, "%s", dir);
    snprintf(want, sizeof want, "%s/cule", dir);
    assert_int_equal(cule_run_dir("", xdg, true, out, sizeof out, &err), 0);
    assert_string_equal(out, want);
    assert_int_equal(rmdir(out), 0);
    assert_int_equal(cule_run_dir(NULL, "", false, out, sizeof out, NULL) <= 0, 1);
    snprintf(want, sizeof want, getuid() ? "/tmp/cule-%u" : "/run/cule", (unsigned)getuid());
    assert_string_equal(out, want);
    assert_int_equal(cule_run_dir("relative", NULL, true, out, sizeof out, &err), CULE_EUSAGE);
    assert_int_equal(cule_run_dir("/far/too/long", NULL, true, out, 5, &err), CULE_EUSAGE);
    if (getuid() == 0) {
        snprintf(want, sizeof want, "%s/run", dir);
        assert_int_equal(mkdir(want, 0700), 0);
        assert_int_equal(chown(want, 12345, 0), 0);
        assert_int_equal(cule_run_dir(want, NULL, true, out, sizeof out, &err), CULE_EREFUSED);
        assert_says(&err, "belongs to uid 12345");
        assert_int_equal(rmdir(want), 0);
    }
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir); /* fails if a test left a file */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_parse_errors),
        cmocka_unit_test(test_run_dir),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

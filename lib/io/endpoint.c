/* The address syntax of cule-endpoint(7), parsed, and the run directory. */
#include "io/endpoint.h"

#include "base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char known[] = "known are - unix: ring: tcp: :PORT tls: fd: exec: file:";

static int bad(struct cule_err *err, const struct cule_endpoint *ep, const char *why)
{
    return cule_err_set(err, CULE_EUSAGE, "endpoint '%.90s': %s", ep->text, why);
}

/* --- the parts of an address -------------------------------------------------------------------------- */

/* [V6]:PORT, HOST:PORT or :PORT; cuts s in place. */
static int parse_host_port(struct cule_endpoint *ep, char *s, struct cule_err *err)
{
    char *colon;
    if (*s == '[') {
        char *end = strchr(s, ']');
        if (!end || end[1] != ':') {
            return bad(err, ep, "an IPv6 address is written [ADDRESS]:PORT");
        }
        *end = '\0';
        s++;
        colon = end + 1;
        if (*s == '\0') {
            return bad(err, ep, "no address between the brackets");
        }
    } else {
        colon = strrchr(s, ':');
        if (!colon) {
            return bad(err, ep, "no port: write HOST:PORT");
        }
        if (memchr(s, ':', (size_t)(colon - s))) {
            return bad(err, ep, "an IPv6 address stands in brackets: [ADDRESS]:PORT");
        }
    }
    *colon = '\0';
    ep->host = s;
    ep->port = colon + 1;
    size_t digits = strspn(ep->port, "0123456789");
    if (digits == 0 || ep->port[digits] || digits > 5 || strtol(ep->port, NULL, 10) > 65535) {
        return bad(err, ep, "the port is a number from 0 to 65535");
    }
    return 0;
}

static int set_option(struct cule_endpoint *ep, const char *key, const char *value, struct cule_err *err)
{
    static const char *const tls_keys[] = {"cert", "key", "ca", "name", "crl"};
    const char **const tls_slots[] = {&ep->cert, &ep->key, &ep->ca, &ep->name, &ep->crl};
    if (ep->type == CULE_EP_RING) {
        if (strcmp(key, "trust") != 0) {
            return bad(err, ep, "the only option of ring: is trust=same-uid (and its path holds no comma)");
        }
        if (strcmp(value, "same-uid") != 0) {
            return bad(err, ep, "trust= takes same-uid only");
        }
        ep->trust_same_uid = true;
        return 0;
    }
    for (size_t i = 0; i < CULE_COUNT(tls_keys); i++) {
        if (strcmp(key, tls_keys[i]) != 0) {
            continue;
        }
        if (*tls_slots[i]) {
            return bad(err, ep, "an option is given twice");
        }
        if (*value == '\0') {
            return bad(err, ep, "an option has no value");
        }
        *tls_slots[i] = value;
        return 0;
    }
    return bad(err, ep, "the options of tls: are cert= key= ca= crl= name= (and their values hold no comma)");
}

/* ,KEY=VALUE... from s on, which is cut in place; the part before the first comma is left. */
static int parse_options(struct cule_endpoint *ep, char *s, struct cule_err *err)
{
    char *at = strchr(s, ',');
    while (at) {
        *at = '\0';
        char *key = at + 1;
        at = strchr(key, ',');
        if (at) {
            *at = '\0';
        }
        char *eq = strchr(key, '=');
        if (!eq) {
            return bad(err, ep, "an option is written ,KEY=VALUE");
        }
        *eq = '\0';
        int rc = set_option(ep, key, eq + 1, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* --- one function for each type ----------------------------------------------------------------------- */

static int parse_path(struct cule_endpoint *ep, char *rest, struct cule_err *err)
{
    ep->path = rest;
    if (*rest == '\0') {
        return bad(err, ep, ep->type == CULE_EP_EXEC ? "no command" : "no path");
    }
    bool sock = ep->type == CULE_EP_UNIX || ep->type == CULE_EP_RING;
    if (sock && rest[0] == '@') {
        struct sockaddr_un sun;
        if (rest[1] == '\0') {
            return bad(err, ep, "no name after @");
        }
        if (strlen(rest) > sizeof sun.sun_path) {
            return bad(err, ep, "an abstract name has at most 107 characters");
        }
    } else if (sock && rest[strlen(rest) - 1] == '/') {
        return bad(err, ep, "the path of a socket does not end in /");
    }
    return 0;
}

static int parse_ring(struct cule_endpoint *ep, char *rest, struct cule_err *err)
{
    int rc = parse_options(ep, rest, err);
    return rc < 0 ? rc : parse_path(ep, rest, err);
}

static int parse_tls(struct cule_endpoint *ep, char *rest, struct cule_err *err)
{
    int rc = parse_options(ep, rest, err);
    if (rc == 0 && ep->key && !ep->cert) {
        rc = bad(err, ep, "key= needs cert=");
    }
    return rc < 0 ? rc : parse_host_port(ep, rest, err);
}

static int parse_fd(struct cule_endpoint *ep, char *rest, struct cule_err *err)
{
    ep->path = rest;
    size_t digits = strspn(rest, "0123456789");
    if (*rest == '\0') {
        return bad(err, ep, "no number or name");
    }
    if (rest[digits] == '\0' && digits > 9) {
        return bad(err, ep, "no such descriptor");
    }
    return 0;
}

static int parse_quic(struct cule_endpoint *ep, char *rest, struct cule_err *err)
{
    (void)rest;
    return cule_err_set(err, CULE_EUNSUPPORTED, "endpoint '%.90s': this build has no QUIC: use tls:", ep->text);
}

static int parse_tcp(struct cule_endpoint *ep, char *rest, struct cule_err *err)
{
    return parse_host_port(ep, rest, err);
}

static const struct {
    const char *prefix;
    enum cule_endpoint_type type;
    int (*parse)(struct cule_endpoint *ep, char *rest, struct cule_err *err);
} types[] = {
    {"unix:", CULE_EP_UNIX, parse_path}, {"ring:", CULE_EP_RING, parse_ring}, {"tcp:", CULE_EP_TCP, parse_tcp},
    {"tls:", CULE_EP_TLS, parse_tls},    {"quic:", CULE_EP_QUIC, parse_quic}, {"fd:", CULE_EP_FD, parse_fd},
    {"exec:", CULE_EP_EXEC, parse_path}, {"file:", CULE_EP_FILE, parse_path},
};

/* Nothing fits: say what was probably meant. */
static int unknown(const struct cule_endpoint *ep, struct cule_err *err)
{
    const char *t = ep->text;
    const char *colon = strchr(t, ':');
    const char *slash = strchr(t, '/');
    if (*t == '\0') {
        return cule_err_set(err, CULE_EUSAGE, "an endpoint is empty: %s", known);
    }
    if (slash && (!colon || slash < colon)) {
        return cule_err_set(err, CULE_EUSAGE, "endpoint '%.80s' does not say what it is: write 'unix:%.80s'", t, t);
    }
    if (colon && colon[1] && colon[1 + strspn(colon + 1, "0123456789")] == '\0') {
        return cule_err_set(err, CULE_EUSAGE, "endpoint '%.60s' has no known type: for a host write 'tcp:%.60s' (%s)",
                            t, t, known);
    }
    return cule_err_set(err, CULE_EUSAGE, "endpoint '%.80s' has no known type: %s", t, known);
}

int cule_endpoint_parse(struct cule_endpoint *ep, const char *text, struct cule_err *err)
{
    size_t n = strlen(text);
    memset(ep, 0, sizeof *ep);
    if (n >= sizeof ep->text) {
        return cule_err_set(err, CULE_EUSAGE, "endpoint '%.40s...' is longer than %d bytes", text,
                            CULE_ENDPOINT_MAX - 1);
    }
    memcpy(ep->text, text, n + 1);
    memcpy(ep->store, text, n + 1);
    if (strcmp(text, "-") == 0) {
        ep->type = CULE_EP_STDIO;
        return 0;
    }
    if (text[0] == ':') {
        ep->type = CULE_EP_TCP;
        return parse_host_port(ep, ep->store, err);
    }
    for (size_t i = 0; i < CULE_COUNT(types); i++) {
        size_t len = strlen(types[i].prefix);
        if (strncmp(text, types[i].prefix, len) == 0) {
            ep->type = types[i].type;
            return types[i].parse(ep, ep->store + len, err);
        }
    }
    return unknown(ep, err);
}

/* --- the run directory -------------------------------------------------------------------------------- */

static int check_run_dir(const char *dir, struct cule_err *err)
{
    struct stat st;
    int rc = 0;
    int fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        bool odd = errno == ENOTDIR || errno == ELOOP;
        return odd ? cule_err_set(err, CULE_EREFUSED, "run directory '%.150s' is not a directory", dir)
                   : cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot use run directory '%.150s'", dir);
    }
    if (fstat(fd, &st) < 0) {
        rc = cule_err_sys(err, CULE_EIO, errno, "cannot use run directory '%.150s'", dir);
    } else if (st.st_uid != geteuid()) {
        rc = cule_err_set(err, CULE_EREFUSED, "run directory '%.120s' belongs to uid %u: set CULE_RUN to another", dir,
                          (unsigned)st.st_uid);
    } else if (st.st_mode & 077) {
        rc = cule_err_set(err, CULE_EREFUSED, "run directory '%.120s' is open to others (mode %04o): chmod it to 0700",
                          dir, (unsigned)st.st_mode & 07777);
    }
    close(fd);
    return rc;
}

int cule_run_dir(const char *cule_run, const char *xdg_runtime_dir, bool make, char *out, size_t n,
                 struct cule_err *err)
{
    int len;
    if (cule_run && *cule_run) {
        len = snprintf(out, n, "%s", cule_run);
    } else if (xdg_runtime_dir && *xdg_runtime_dir) {
        len = snprintf(out, n, "%s/cule", xdg_runtime_dir);
    } else if (geteuid() == 0) {
        len = snprintf(out, n, "/run/cule");
    } else {
        len = snprintf(out, n, "/tmp/cule-%u", (unsigned)geteuid());
    }
    if (len < 0 || (size_t)len >= n) {
        return cule_err_set(err, CULE_EUSAGE, "the path of the run directory is too long");
    }
    if (out[0] != '/') {
        return cule_err_set(err, CULE_EUSAGE, "run directory '%.150s' is not an absolute path", out);
    }
    if (make && mkdir(out, 0700) < 0 && errno != EEXIST) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make run directory '%.150s'", out);
    }
    struct stat st;
    if (!make && lstat(out, &st) < 0 && errno == ENOENT) {
        return 0;
    }
    return check_run_dir(out, err);
}

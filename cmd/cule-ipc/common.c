/* What several subcommands share: words of the command line, bytes out, messages kept. */
#include "common.h"

#include "base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

bool ipc_is_endpoint(const char *word)
{
    static const char *const types[] = {"unix:", "ring:", "tcp:", "tls:", "quic:", "fd:", "exec:", "file:"};
    if (strcmp(word, "-") == 0 || word[0] == ':') {
        return true;
    }
    for (size_t i = 0; i < CULE_COUNT(types); i++) {
        if (strncmp(word, types[i], strlen(types[i])) == 0) {
            return true;
        }
    }
    return false;
}

int ipc_make_run_dir(const char *endpoint, struct cule_err *err)
{
    char dir[CULE_ENDPOINT_MAX - 16];
    const char *path = strchr(endpoint, ':');
    struct cule_err none;
    if (!path || cule_run_dir(getenv("CULE_RUN"), getenv("XDG_RUNTIME_DIR"), false, dir, sizeof dir, &none)) {
        return 0;
    }
    size_t n = strlen(dir);
    if (strncmp(path + 1, dir, n) != 0 || path[1 + n] != '/') {
        return 0; /* elsewhere: that directory is the user's affair */
    }
    return cule_run_dir(getenv("CULE_RUN"), getenv("XDG_RUNTIME_DIR"), true, dir, sizeof dir, err);
}

int ipc_endpoint(const char *given, char out[CULE_ENDPOINT_MAX], struct cule_err *err)
{
    struct cule_endpoint ep;
    char dir[CULE_ENDPOINT_MAX - 16];
    const char *bus = getenv("CULE_BUS");
    int n;
    if (given || (bus && *bus)) {
        n = snprintf(out, CULE_ENDPOINT_MAX, "%s", given ? given : bus);
    } else {
        int rc = cule_run_dir(getenv("CULE_RUN"), getenv("XDG_RUNTIME_DIR"), false, dir, sizeof dir, err);
        if (rc) {
            return rc;
        }
        n = snprintf(out, CULE_ENDPOINT_MAX, "unix:%s/bus", dir);
    }
    if (n >= CULE_ENDPOINT_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "an endpoint of %d bytes is longer than %d", n, CULE_ENDPOINT_MAX - 1);
    }
    int rc = cule_endpoint_parse(&ep, out, err);
    return rc && !given ? cule_err_context(err, rc, "the bus in CULE_BUS") : rc;
}

int ipc_op(const char *service, const char *op, uint32_t *s, uint32_t *o, struct cule_err *err)
{
    char name[CULE_SERVICE_TEXT];
    if (!*service || cule_service_parse(service, s)) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is no service: a name like stor, or one to four characters",
                            service);
    }
    if (cule_op_parse(*s, op, o)) {
        return cule_err_set(err, CULE_EUSAGE, "service '%s' has no op '%s': give a number (0x4000 to 0x7fff are yours)",
                            cule_service_text(*s, name), op);
    }
    return 0;
}

int ipc_cap(const char *text, uint64_t *cap, struct cule_err *err)
{
    if (cule_parse_u64(text, cap)) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is no capability handle: a number such as 0x0001000100000003",
                            text);
    }
    return 0;
}

ssize_t ipc_read(int fd, void *p, size_t n, const char *name, struct cule_err *err)
{
    for (;;) {
        ssize_t got = read(fd, p, n);
        if (got >= 0) {
            return got;
        }
        if (errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLIN};
            poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return cule_err_sys(err, CULE_EIO, errno, "cannot read '%s'", name);
        }
    }
}

/* Reads a descriptor to its end. */
static int read_all(struct cule_buf *out, int fd, size_t max, const char *name, struct cule_err *err)
{
    size_t before = cule_buf_len(out);
    for (;;) {
        uint8_t *at;
        int rc = cule_buf_reserve(out, 65536, &at);
        if (rc) {
            return cule_err_set(err, rc, "cannot hold what '%s' says: %s", name, cule_err_text(rc));
        }
        ssize_t n = ipc_read(fd, at, 65536, name, err);
        if (n <= 0) {
            return (int)n;
        }
        cule_buf_commit(out, (size_t)n);
        if (cule_buf_len(out) - before > max) {
            return cule_err_set(err, CULE_ETOO_BIG, "'%s' has more than the %zu bytes that one message may have", name,
                                max);
        }
    }
}

int ipc_payload(struct cule_buf *out, const char *spec, size_t max, struct cule_err *err)
{
    if (!spec) {
        return 0;
    }
    if (strcmp(spec, "-") == 0) {
        return read_all(out, STDIN_FILENO, max, "standard input", err);
    }
    if (spec[0] == '@' && spec[1] != '@') {
        int fd = open(spec + 1, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return cule_err_sys(err, errno == ENOENT ? CULE_ENOT_FOUND : CULE_EIO, errno, "cannot read '%s'", spec + 1);
        }
        int rc = read_all(out, fd, max, spec + 1, err);
        close(fd);
        return rc;
    }
    const char *text = spec[0] == '@' || strcmp(spec, "\\-") == 0 ? spec + 1 : spec;
    int rc = cule_buf_add(out, text, strlen(text));
    return rc ? cule_err_set(err, rc, "%s", cule_err_text(rc)) : 0;
}

int ipc_open_fds(const struct cule_words *paths, int **fds, unsigned *n, struct cule_err *err)
{
    *fds = NULL;
    *n = 0;
    if (paths->n == 0) {
        return 0;
    }
    if (paths->n > CULE_FDS_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "%zu descriptors are more than the %d of one frame", paths->n,
                            CULE_FDS_MAX);
    }
    int *out = calloc(paths->n, sizeof *out);
    if (!out) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < paths->n; i++) {
        uint64_t number;
        const char *p = paths->v[i];
        bool inherited = strncmp(p, "fd:", 3) == 0 && cule_parse_u64(p + 3, &number) == 0 && number < INT32_MAX;
        out[i] = inherited ? fcntl((int)number, F_DUPFD_CLOEXEC, 3) : open(p, O_RDONLY | O_CLOEXEC);
        if (out[i] < 0) {
            int rc = cule_err_sys(err, errno == ENOENT ? CULE_ENOT_FOUND : CULE_EIO, errno, "cannot open '%s'", p);
            ipc_close_fds(out, (unsigned)i);
            return rc;
        }
    }
    *fds = out;
    *n = (unsigned)paths->n;
    return 0;
}

void ipc_close_fds(int *fds, unsigned n)
{
    for (unsigned i = 0; fds && i < n; i++) {
        close(fds[i]);
    }
    free(fds);
}

void ipc_random(void *p, size_t n)
{
    uint8_t *at = p;
    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got > 0) {
            at += got;
            n -= (size_t)got;
        }
    }
}

int ipc_write_all(int fd, const void *p, size_t n, struct cule_err *err)
{
    const uint8_t *at = p;
    while (n) {
        ssize_t w = write(fd, at, n);
        if (w >= 0) {
            at += w;
            n -= (size_t)w;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            int rc = errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? CULE_EDISK : cule_err_from_errno(errno);
            return cule_err_sys(err, rc, errno, "cannot write");
        }
    }
    return 0;
}

struct ipc_msg *ipc_msg_keep(struct cule_msg *m)
{
    size_t fds_at = cule_pad8(m->len);
    struct ipc_msg *k = calloc(1, sizeof *k + fds_at + m->nfds * sizeof(int));
    if (!k) {
        return NULL;
    }
    cule_list_init(&k->node);
    k->m.h = m->h;
    k->m.body = k->bytes;
    k->m.len = m->len;
    if (m->len) {
        memcpy(k->bytes, m->body, m->len);
    }
    if (m->trace) {
        memcpy(k->trace, m->trace, CULE_TRACE_SIZE);
        k->m.trace = k->trace;
    }
    if (m->nfds) {
        k->m.fds = (int *)(void *)(k->bytes + fds_at);
        for (unsigned i = 0; i < m->nfds; i++) {
            k->m.fds[i] = cule_msg_take_fd(m, i);
        }
        k->m.nfds = m->nfds;
    }
    return k;
}

void ipc_msg_free(struct ipc_msg *k)
{
    if (!k) {
        return;
    }
    for (unsigned i = 0; i < k->m.nfds; i++) {
        if (k->m.fds[i] >= 0) {
            close(k->m.fds[i]);
        }
    }
    free(k);
}

void ipc_msg_consumed(struct cule_link *l, const struct cule_msg *m)
{
    bool charged = m->h.kind == CULE_REQUEST || m->h.kind == CULE_EVENT || m->h.kind == CULE_DATA;
    size_t n = m->len + (m->trace ? CULE_TRACE_SIZE : 0);
    if (charged) {
        cule_link_consumed(l, m->h.priority, n > CULE_PAYLOAD_MAX ? (uint32_t)((n - 1) / CULE_PAYLOAD_MAX + 1) : 1, n);
    }
}

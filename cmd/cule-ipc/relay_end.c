/* Endpoints opened as plain carriers. */
#include "relay_bytes.h"

#include "base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int relay_end_fd(int rfd, int wfd, struct relay_end *out, struct cule_err *err)
{
    *out = (struct relay_end){0};
    return cule_carrier_fd(&out->carrier, rfd, wfd, err);
}

static int open_exec(struct cule_loop *loop, const struct cule_spawn *how, struct relay_end *out, struct cule_err *err)
{
    int sv[2];
    int rc = cule_socketpair(sv, err);
    if (rc) {
        return rc;
    }
    struct cule_spawn s = *how;
    s.in = s.out = sv[1];
    s.err = -1;
    s.group = true;
    rc = relay_end_fd(sv[0], sv[0], out, err);
    if (rc) {
        close(sv[0]);
    } else if ((rc = cule_spawn(loop, &s, &out->proc, NULL, NULL, err))) {
        relay_end_close(out);
    }
    close(sv[1]);
    return rc;
}

int relay_end_command(struct cule_loop *loop, const char *const *argv, struct relay_end *out, struct cule_err *err)
{
    const struct cule_spawn s = {.argv = argv};
    int rc = open_exec(loop, &s, out, err);
    return rc;
}

static int open_number(const char *text, struct relay_end *out, struct cule_err *err)
{
    uint64_t n;
    int flags = cule_parse_u64(text, &n) || n > INT32_MAX ? -1 : fcntl((int)n, F_GETFL);
    if (flags < 0) {
        return cule_err_set(err, CULE_EUSAGE, "'fd:%s' is no open descriptor", text);
    }
    bool reads = (flags & O_ACCMODE) != O_WRONLY;
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    return relay_end_fd(reads ? (int)n : -1, writes ? (int)n : -1, out, err);
}

int relay_end_open(struct cule_loop *loop, const char *endpoint, struct relay_end *out, struct cule_err *err)
{
    struct cule_endpoint ep;
    int fd = -1;
    bool done;
    *out = (struct relay_end){0};
    int rc = cule_endpoint_parse(&ep, endpoint, err);
    if (rc) {
        return rc;
    }
    switch (ep.type) {
    case CULE_EP_STDIO: return relay_end_fd(STDIN_FILENO, STDOUT_FILENO, out, err);
    case CULE_EP_FD: return open_number(ep.path, out, err);
    case CULE_EP_EXEC: {
        const struct cule_spawn s = {.shell = ep.path};
        return open_exec(loop, &s, out, err);
    }
    case CULE_EP_FILE:
        fd = open(ep.path, O_RDONLY | O_CLOEXEC);
        rc = fd < 0 ? cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot open '%s'", ep.path) : 0;
        rc = rc ? rc : relay_end_fd(fd, -1, out, err);
        break;
    case CULE_EP_UNIX:
    case CULE_EP_TCP:
        rc = cule_endpoint_connect(&ep, &fd, &done, err);
        rc = rc ? rc : relay_end_fd(fd, fd, out, err);
        break;
    default: return cule_err_set(err, CULE_EUNSUPPORTED, "'%s' does not carry plain bytes", endpoint);
    }
    if (rc && fd >= 0) {
        close(fd);
    }
    return rc;
}

void relay_end_close(struct relay_end *e)
{
    if (e->carrier) {
        e->carrier->ops->close(e->carrier);
    }
    cule_proc_free(e->proc);
    *e = (struct relay_end){0};
}

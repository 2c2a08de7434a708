/* Where the bus is, whether a topic is one, and questions that are asked once. */
#include "base/bytes.h"
#include "busclient.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int token_from_file(const char *path, char *out, size_t size, struct cule_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot open token file '%s'", path);
    }
    size_t have = 0;
    ssize_t n;
    while (have < size && (n = read(fd, out + have, size - have)) > 0) {
        have += (size_t)n;
    }
    close(fd);
    while (have > 0 && (out[have - 1] == '\n' || out[have - 1] == '\r')) {
        have--;
    }
    if (have == 0 || have >= size || memchr(out, '\0', have)) {
        return cule_err_set(err, CULE_EMALFORMED, "token file '%s' holds no token: 1 to %zu bytes of text are one",
                            path, size - 1);
    }
    out[have] = '\0';
    return 0;
}

int busclient_where(struct busclient_where *w, const struct busclient_at *at, struct cule_err *err)
{
    memset(w, 0, sizeof *w);
    int rc = ipc_endpoint(at->bus, w->endpoint, err);
    if (rc) {
        return rc;
    }
    w->wait_ms = at->wait_ms;
    if (at->token_file) {
        return token_from_file(at->token_file, w->token, sizeof w->token, err);
    }
    const char *token = getenv("CULE_TOKEN");
    if (token && (size_t)snprintf(w->token, sizeof w->token, "%s", token) >= sizeof w->token) {
        return cule_err_set(err, CULE_EUSAGE, "CULE_TOKEN is longer than %zu bytes", sizeof w->token - 1);
    }
    return 0;
}

int busclient_dial(const struct busclient_where *w, uint64_t timeout_ms, struct cule_link **out, struct cule_err *err)
{
    const struct cule_link_opts o = {.name = "cule-ipc", .connect_timeout_ms = timeout_ms, .wait_ms = w->wait_ms};
    int rc = cule_link_open(NULL, w->endpoint, &o, out, err);
    if (rc) {
        return cule_err_context(err, rc, "cannot reach the bus at '%s'", w->endpoint);
    }
    if (w->token[0]) {
        struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_CULE, CULE_OP_CULE_AUTH);
        struct cule_msg answer;
        m.body = (const uint8_t *)w->token;
        m.len = strlen(w->token);
        rc = cule_link_ask(*out, &m, timeout_ms, &answer, err);
        if (rc) {
            cule_link_free(*out);
            *out = NULL;
            return cule_err_context(err, rc, "the bus did not take the token");
        }
    }
    return 0;
}

int busclient_ask(struct cule_link *l, uint32_t service, uint32_t op, uint64_t arg0, const char *json,
                  uint64_t timeout_ms, struct cule_msg *answer, struct cule_err *err)
{
    struct cule_msg m = cule_msg_make(CULE_REQUEST, service, op);
    m.h.arg0 = arg0;
    m.body = (const uint8_t *)json;
    m.len = json ? strlen(json) : 0;
    return cule_link_ask(l, &m, timeout_ms, answer, err);
}

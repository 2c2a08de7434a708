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

static int check_name(const char *name, bool pattern, struct cule_err *err)
{
    const char *what = pattern ? "pattern" : "topic";
    size_t n = strlen(name);
    if (n == 0 || n > BUSCLIENT_TOPIC_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "%s '%.40s%s' has %zu bytes: 1 to %d are allowed", what, name,
                            n > 40 ? "…" : "", n, BUSCLIENT_TOPIC_MAX);
    }
    for (const char *p = name;;) {
        const char *end = strchrnul(p, '/');
        size_t len = (size_t)(end - p);
        if (len == 0) {
            return cule_err_set(err, CULE_EUSAGE, "%s '%s' has an empty level: no '/' may stand at an end or twice",
                                what, name);
        }
        bool wild = memchr(p, '+', len) || memchr(p, '#', len);
        if (wild && !pattern) {
            return cule_err_set(err, CULE_EUSAGE, "topic '%s' has a wildcard: '+' and '#' are for patterns", name);
        }
        if (wild && (len != 1 || (*p == '#' && *end))) {
            return cule_err_set(err, CULE_EUSAGE,
                                "pattern '%s': '+' must be a whole level, '#' a whole level and the last one", name);
        }
        for (size_t i = 0; i < len; i++) {
            if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f) {
                return cule_err_set(err, CULE_EUSAGE, "%s has a control character (0x%02x)", what, (unsigned char)p[i]);
            }
        }
        if (!*end) {
            return 0;
        }
        p = end + 1;
    }
}

int busclient_check_topic(const char *topic, struct cule_err *err)
{
    return check_name(topic, false, err);
}

int busclient_check_pattern(const char *pattern, struct cule_err *err)
{
    return check_name(pattern, true, err);
}

bool busclient_has_wildcard(const char *pattern)
{
    return strpbrk(pattern, "+#") != NULL;
}

bool busclient_split(struct cule_msg *m, struct busclient_delivery *d)
{
    size_t n = (uint32_t)m->h.arg0;
    if (n == 0 || n > BUSCLIENT_TOPIC_MAX || n > m->len) {
        return false;
    }
    *d = (struct busclient_delivery){
        .topic = (const char *)m->body,
        .topic_len = n,
        .body = m->body + n,
        .len = m->len - n,
        .seq = m->h.arg1,
        .number = (m->h.flags & CULE_ACK_WANTED) ? m->h.id : 0,
        .subscription = m->h.arg0 >> 32,
        .source = m->h.source,
        .priority = m->h.priority,
        .retained = (m->h.flags & CULE_RETAIN) != 0,
        .redelivered = (m->h.flags & CULE_REDELIVERED) != 0,
        .msg = m,
    };
    return true;
}

int busclient_join(struct cule_buf *out, const char *topic, size_t topic_len, const void *body, size_t n)
{
    cule_buf_clear(out);
    int rc = cule_buf_add(out, topic, topic_len);
    if (rc == 0 && n > 0) {
        rc = cule_buf_add(out, body, n);
    }
    return rc;
}

/* Topics and patterns: which are ones, which match, and how they stand in a payload. */
#include "base/bytes.h"
#include "busclient.h"

#include <string.h>

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

bool busclient_matches(const char *pattern, const char *topic, size_t n)
{
    const char *end = topic + n;
    if (n > 0 && topic[0] == '$' && pattern[0] != '$') {
        return false; /* the broker's own topics are for those who ask for them */
    }
    for (;;) {
        const char *plevel = strchrnul(pattern, '/');
        size_t plen = (size_t)(plevel - pattern);
        if (plen == 1 && *pattern == '#') {
            return true;
        }
        const char *tlevel = memchr(topic, '/', (size_t)(end - topic));
        size_t tlen = (size_t)((tlevel ? tlevel : end) - topic);
        bool same = (plen == 1 && *pattern == '+') || (plen == tlen && memcmp(pattern, topic, plen) == 0);
        if (!same) {
            return false;
        }
        if (!tlevel) { /* "a/#" matches "a" too */
            return *plevel == '\0' || strcmp(plevel, "/#") == 0;
        }
        if (*plevel == '\0') {
            return false;
        }
        pattern = plevel + 1;
        topic = tlevel + 1;
    }
}

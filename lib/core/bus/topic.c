/* Topics and patterns: validation and matching. */
#include "core/bus/topic.h"

#include "base/bytes.h"
#include "base/utf8.h"

static int check(const char *s, size_t n, bool pattern, struct cule_err *err)
{
    const char *what = pattern ? "pattern" : "topic";
    size_t max = n && s[0] == '$' ? CULE_TOPIC_OWN_MAX : CULE_TOPIC_MAX;
    if (n == 0 || n > max) {
        return cule_err_set(err, CULE_EMALFORMED, "%s of %zu bytes: it takes 1 to %zu", what, n, max);
    }
    size_t level = 0; /* where the level began */
    for (size_t i = 0; i < n;) {
        uint8_t c = (uint8_t)s[i];
        uint32_t point;
        size_t len = cule_utf8_next(s + i, n - i, &point);
        if (len == 0 || c < 0x20 || c == 0x7f) {
            return cule_err_set(err, CULE_EMALFORMED, "%s: byte %zu is no printable UTF-8", what, i);
        }
        if (c == '/') {
            if (i == level || i == n - 1) {
                return cule_err_set(err, CULE_EMALFORMED, "%s '%.*s': a level is empty", what, (int)n, s);
            }
            level = i + 1;
        } else if (c == '+' || c == '#') {
            bool alone = i == level && (i + 1 == n || (c == '+' && s[i + 1] == '/'));
            if (!pattern || !alone) {
                return cule_err_set(err, CULE_EMALFORMED, "%s '%.*s': '%c' %s", what, (int)n, s, c,
                                    !pattern   ? "belongs in a pattern"
                                    : c == '+' ? "must be a whole level"
                                               : "must be the whole last level");
            }
        }
        i += len;
    }
    return 0;
}

int cule_topic_check(const char *topic, size_t n, struct cule_err *err)
{
    return check(topic, n, false, err);
}

int cule_pattern_check(const char *pattern, size_t n, struct cule_err *err)
{
    return check(pattern, n, true, err);
}

bool cule_pattern_is_topic(const char *pattern, size_t n)
{
    return !memchr(pattern, '+', n) && !memchr(pattern, '#', n);
}

static size_t level_len(const char *s, size_t n)
{
    const char *slash = memchr(s, '/', n);
    return slash ? (size_t)(slash - s) : n;
}

/* Walks both level by level. With `cover`, the second is a pattern too, whose wildcards only wildcards take. */
static bool walk(const char *p, size_t pn, const char *t, size_t tn, bool cover)
{
    if ((t[0] == '$') != (p[0] == '$')) {
        return false;
    }
    for (;;) {
        if (pn == 1 && p[0] == '#') {
            return true;
        }
        if (tn == 0 || pn == 0) {
            return tn == pn;
        }
        size_t pl = level_len(p, pn);
        size_t tl = level_len(t, tn);
        bool plus = pl == 1 && p[0] == '+';
        if (cover && tl == 1 && t[0] == '#') {
            return false;
        }
        if (!plus && (pl != tl || memcmp(p, t, pl) != 0)) {
            return false;
        }
        p += CULE_MIN(pl + 1, pn);
        pn -= CULE_MIN(pl + 1, pn);
        t += CULE_MIN(tl + 1, tn);
        tn -= CULE_MIN(tl + 1, tn);
    }
}

bool cule_pattern_match(const char *pattern, size_t pn, const char *topic, size_t tn)
{
    return walk(pattern, pn, topic, tn, false);
}

bool cule_pattern_covers(const char *outer, size_t on, const char *inner, size_t in)
{
    return walk(outer, on, inner, in, true);
}

bool cule_pattern_overlap(const char *a, size_t an, const char *b, size_t bn)
{
    if ((a[0] == '$') != (b[0] == '$')) {
        return false;
    }
    for (;;) {
        if ((an == 1 && a[0] == '#') || (bn == 1 && b[0] == '#')) {
            return true;
        }
        if (an == 0 || bn == 0) {
            return an == bn;
        }
        size_t al = level_len(a, an);
        size_t bl = level_len(b, bn);
        bool any = (al == 1 && a[0] == '+') || (bl == 1 && b[0] == '+');
        if (!any && (al != bl || memcmp(a, b, al) != 0)) {
            return false;
        }
        a += CULE_MIN(al + 1, an);
        an -= CULE_MIN(al + 1, an);
        b += CULE_MIN(bl + 1, bn);
        bn -= CULE_MIN(bl + 1, bn);
    }
}

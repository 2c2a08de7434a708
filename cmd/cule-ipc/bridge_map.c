/* Topics to subjects and back. */
#include "bridge_map.h"

#include "busclient.h"

#include <stdio.h>
#include <string.h>

enum { CAPTURES_MAX = 64 };

struct span {
    const char *p;
    size_t n;
};

/* The part up to the separator; moves *p behind it, or to NULL at the end. */
static struct span level(const char **p, char separator)
{
    const char *end = strchrnul(*p, separator);
    struct span s = {*p, (size_t)(end - *p)};
    *p = *end ? end + 1 : NULL;
    return s;
}

static bool is(struct span s, char c)
{
    return s.n == 1 && *s.p == c;
}

static int check_subject(const char *s, struct cule_err *err)
{
    if (*s == '\0' || strlen(s) >= BRIDGE_SUBJECT_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "subject '%.40s' has %zu bytes: 1 to %d are allowed", s, strlen(s),
                            BRIDGE_SUBJECT_MAX - 1);
    }
    for (const char *p = s; p;) {
        struct span t = level(&p, '.');
        bool wild = memchr(t.p, '*', t.n) || memchr(t.p, '>', t.n);
        if (t.n == 0 || memchr(t.p, ' ', t.n) || memchr(t.p, '\t', t.n) || (wild && t.n != 1) || (is(t, '>') && p)) {
            return cule_err_set(err, CULE_EUSAGE,
                                "'%s' is no NATS subject: tokens between dots, none empty, '*' a whole token, '>' the "
                                "last one",
                                s);
        }
    }
    return 0;
}

/* The wildcards of either side as a string of '+' and '#'. */
static void wildcards(const char *s, char separator, char one, char rest, char out[CAPTURES_MAX])
{
    size_t n = 0;
    for (const char *p = s; p && n < CAPTURES_MAX - 1;) {
        struct span t = level(&p, separator);
        if (is(t, one) || is(t, rest)) {
            out[n++] = is(t, one) ? '+' : '#';
        }
    }
    out[n] = '\0';
}

int bridge_map_parse(struct bridge_map *m, const char *text, struct cule_err *err)
{
    char a[CAPTURES_MAX], b[CAPTURES_MAX];
    size_t n = strcspn(text, "=<>");
    if (!text[n] || n > BRIDGE_NAME_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "map '%.80s' is no PATTERN=SUBJECT, as in 'a/#=site.a.>'", text);
    }
    memcpy(m->pattern, text, n);
    m->pattern[n] = '\0';
    m->to_nats = text[n] != '<';
    m->to_bus = text[n] != '>';
    int rc = busclient_check_pattern(m->pattern, err);
    if (rc == 0) {
        rc = check_subject(text + n + 1, err);
    }
    if (rc) {
        return cule_err_context(err, rc, "map '%.80s'", text);
    }
    snprintf(m->subject, sizeof m->subject, "%s", text + n + 1);
    wildcards(m->pattern, '/', '+', '#', a);
    wildcards(m->subject, '.', '*', '>', b);
    if (strcmp(a, b) != 0) {
        return cule_err_set(err, CULE_EUSAGE,
                            "map '%s': both sides must have the same wildcards in the same order, '+' against '*', '#' "
                            "against '>'",
                            text);
    }
    return 0;
}

/* --- captures --- */

/* What the wildcards of `pattern` match in name: the count, or -1 where it does not match. The last capture of a
 * trailing wildcard for many may be empty (n 0, p NULL). */
static int capture(const char *pattern, char separator, char one, char rest, const char *name, struct span *out)
{
    int n = 0;
    const char *p = pattern, *s = name;
    while (p) {
        struct span want = level(&p, separator);
        if (is(want, rest)) {
            out[n++] = (struct span){s, s ? strlen(s) : 0};
            return n;
        }
        if (!s) {
            return -1;
        }
        struct span have = level(&s, separator);
        if (is(want, one)) {
            out[n++] = have;
        } else if (want.n != have.n || memcmp(want.p, have.p, want.n) != 0) {
            return -1;
        }
    }
    return s ? -1 : n;
}

struct text {
    char *p;
    size_t n, size;
    bool full;
};

static void put(struct text *t, const char *p, size_t n)
{
    if (t->n + n >= t->size) {
        t->full = true;
        return;
    }
    memcpy(t->p + t->n, p, n);
    t->n += n;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One captured part: `from` becomes `to` (separators), characters of `encode` become %XX, a %XX that stands for one of
 * `decode` that character. */
static void carry(struct text *t, struct span s, char from, char to, const char *encode, const char *decode)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i], code[4];
        if (c == from) {
            put(t, &to, 1);
            continue;
        }
        if (c == '%' && i + 2 < s.n && hex(s.p[i + 1]) >= 0 && hex(s.p[i + 2]) >= 0) {
            char d = (char)(hex(s.p[i + 1]) * 16 + hex(s.p[i + 2]));
            if (d && strchr(decode, d)) {
                put(t, &d, 1);
                i += 2;
                continue;
            }
        }
        if (strchr(encode, c)) {
            snprintf(code, sizeof code, "%%%02X", (unsigned char)c);
            put(t, code, 3);
        } else {
            put(t, &c, 1);
        }
    }
}

static const char in_subjects[] = ".*>% ", in_topics[] = "/+#";

bool bridge_map_subject(const struct bridge_map *m, const char *topic, size_t n, char out[BRIDGE_SUBJECT_MAX])
{
    char name[BRIDGE_NAME_MAX + 1];
    struct span c[CAPTURES_MAX];
    struct text t = {out, 0, BRIDGE_SUBJECT_MAX, false};
    if (n > BRIDGE_NAME_MAX) {
        return false;
    }
    memcpy(name, topic, n);
    name[n] = '\0';
    int k = 0;
    if (capture(m->pattern, '/', '+', '#', name, c) < 0) {
        return false;
    }
    for (const char *p = m->subject; p;) {
        struct span w = level(&p, '.');
        bool wild = is(w, '*') || is(w, '>');
        if (wild && !c[k].p) { /* "#" matched nothing: the subject ends before it */
            break;
        }
        if (t.n > 0) {
            put(&t, ".", 1);
        }
        if (wild) {
            carry(&t, c[k++], '/', '.', in_subjects, in_topics);
        } else {
            put(&t, w.p, w.n);
        }
    }
    out[t.n] = '\0';
    return !t.full && t.n > 0;
}

bool bridge_map_topic(const struct bridge_map *m, const char *subject, char out[BRIDGE_NAME_MAX + 1])
{
    struct span c[CAPTURES_MAX];
    struct text t = {out, 0, BRIDGE_NAME_MAX + 1, false};
    int k = 0;
    if (capture(m->subject, '.', '*', '>', subject, c) < 0) {
        return false;
    }
    for (const char *p = m->pattern; p;) {
        struct span w = level(&p, '/');
        bool wild = is(w, '+') || is(w, '#');
        if (wild && !c[k].p) {
            break;
        }
        if (t.n > 0) {
            put(&t, "/", 1);
        }
        if (wild) {
            carry(&t, c[k++], '.', '/', in_topics, in_subjects);
        } else {
            put(&t, w.p, w.n);
        }
    }
    out[t.n] = '\0';
    return !t.full && busclient_check_topic(out, NULL) == 0;
}

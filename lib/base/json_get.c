/* Finding values among a document's tokens, and taking them out. */
#include "base/bytes.h"
#include "base/json.h"
#include "base/parse.h"
#include "base/utf8.h"

#include <stdlib.h>

enum { NO_PARENT = UINT32_MAX };

/* --- looking around ----------------------------------------------------------------------------------------- */

static const struct cule_json_token *at(const struct cule_json *doc, int i)
{
    return i >= 0 && (uint32_t)i < doc->count ? &doc->token[i] : NULL;
}

enum cule_json_type cule_json_type(const struct cule_json *doc, int i)
{
    const struct cule_json_token *t = at(doc, i);
    return t ? t->type : CULE_JSON_NONE;
}

const char *cule_json_type_text(enum cule_json_type type)
{
    static const char *const text[] = {"nothing",  "an object", "an array", "a string",
                                       "a number", "true",      "false",    "null"};
    return text[type];
}

int cule_json_first(const struct cule_json *doc, int i)
{
    const struct cule_json_token *t = at(doc, i);
    return t && t->count ? i + 1 : -1;
}

int cule_json_next(const struct cule_json *doc, int i)
{
    const struct cule_json_token *t = at(doc, i);
    if (!t || t->parent == NO_PARENT) {
        return -1;
    }
    uint32_t next = t->key ? doc->token[i + 1].after : t->after;
    return next < doc->token[t->parent].after ? (int)next : -1;
}

bool cule_json_equal(const struct cule_json *doc, int i, const char *text)
{
    const struct cule_json_token *t = at(doc, i);
    size_t n = strlen(text);
    if (!t || t->type != CULE_JSON_STRING) {
        return false;
    }
    if (!t->escaped) {
        return t->len == n && memcmp(doc->text + t->at, text, n) == 0;
    }
    const char *p = doc->text + t->at;
    const char *end = p + t->len;
    const char *want = text;
    while (p < end) {
        char c[4];
        unsigned size = 1;
        uint32_t code;
        if (*p == '\\') {
            p += 1 + cule_json_escape(p + 1, end, &code);
            size = cule_utf8_put(code, c);
        } else {
            c[0] = *p++;
        }
        if ((size_t)(text + n - want) < size || memcmp(want, c, size) != 0) {
            return false;
        }
        want += size;
    }
    return want == text + n;
}

int cule_json_find(const struct cule_json *doc, int i, const char *key)
{
    int found = -1;
    if (cule_json_type(doc, i) == CULE_JSON_OBJECT) {
        for (int k = cule_json_first(doc, i); k >= 0; k = cule_json_next(doc, k)) {
            found = cule_json_equal(doc, k, key) ? k + 1 : found;
        }
    }
    return found;
}

/* --- values ------------------------------------------------------------------------------------------------- */

const char *cule_json_raw(const struct cule_json *doc, int i, size_t *n)
{
    const struct cule_json_token *t = at(doc, i);
    if (!t) {
        *n = 0;
        return "";
    }
    size_t quote = t->type == CULE_JSON_STRING;
    *n = t->len + 2 * quote;
    return doc->text + t->at - quote;
}

/* Decodes the string of *t into out, which has room for t->len bytes; returns how many it took. */
static size_t decode(const struct cule_json *doc, const struct cule_json_token *t, char *out)
{
    const char *p = doc->text + t->at;
    const char *end = p + t->len;
    char *o = out;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);
        memcpy(o, p, n);
        o += n;
        p += n;
        if (slash) {
            uint32_t c;
            p += 1 + cule_json_escape(p + 1, end, &c);
            o += cule_utf8_put(c, o);
        }
    }
    return (size_t)(o - out);
}

int cule_json_str(const struct cule_json *doc, int i, char *out, size_t size)
{
    const struct cule_json_token *t = at(doc, i);
    if (!t || t->type != CULE_JSON_STRING) {
        return CULE_EMALFORMED;
    }
    /* Decoding only shrinks, to a sixth at most: a text that may fit all the same is decoded elsewhere first. */
    struct cule_buf b;
    size_t n = t->len;
    if (n < size) {
        n = decode(doc, t, out);
    } else if (!t->escaped || n / 6 >= size) {
        return CULE_ETOO_BIG;
    } else {
        cule_buf_init(&b, 0);
        int rc = cule_json_str_add(doc, i, &b);
        n = cule_buf_len(&b);
        if (rc == 0 && n < size && n) {
            memcpy(out, cule_buf_data(&b), n);
        }
        cule_buf_release(&b);
        if (rc || n >= size) {
            return rc ? rc : CULE_ETOO_BIG;
        }
    }
    out[n] = '\0';
    return memchr(out, 0, n) ? CULE_EMALFORMED : (int)n;
}

int cule_json_str_add(const struct cule_json *doc, int i, struct cule_buf *b)
{
    const struct cule_json_token *t = at(doc, i);
    uint8_t *to;
    if (!t || t->type != CULE_JSON_STRING) {
        return CULE_EMALFORMED;
    }
    if (t->len == 0) {
        return 0;
    }
    int rc = cule_buf_reserve(b, t->len, &to);
    if (rc == 0) {
        cule_buf_commit(b, decode(doc, t, (char *)to));
    }
    return rc;
}

int cule_json_u64(const struct cule_json *doc, int i, uint64_t *out)
{
    const struct cule_json_token *t = at(doc, i);
    if (!t || (t->type != CULE_JSON_NUMBER && t->type != CULE_JSON_STRING)) {
        return CULE_EMALFORMED;
    }
    return cule_parse_u64_n(doc->text + t->at, t->len, out);
}

int cule_json_bool(const struct cule_json *doc, int i, bool *out)
{
    enum cule_json_type type = cule_json_type(doc, i);
    if (type != CULE_JSON_TRUE && type != CULE_JSON_FALSE) {
        return CULE_EMALFORMED;
    }
    *out = type == CULE_JSON_TRUE;
    return 0;
}

int cule_json_double(const struct cule_json *doc, int i, double *out)
{
    const struct cule_json_token *t = at(doc, i);
    char text[64];
    if (!t || t->type != CULE_JSON_NUMBER || t->len >= sizeof text) {
        return CULE_EMALFORMED;
    }
    memcpy(text, doc->text + t->at, t->len);
    text[t->len] = '\0';
    *out = strtod(text, NULL);
    return 0;
}

static int member_error(const struct cule_json *doc, int i, const char *key, int rc, const char *needed,
                        struct cule_err *err)
{
    if (rc == CULE_ELIMIT || rc == CULE_ETOO_BIG) {
        return cule_err_set(err, rc, "the value of '%s' is too large", key);
    }
    return cule_err_set(err, rc, "'%s' must be %s, not %s", key, needed, cule_json_type_text(cule_json_type(doc, i)));
}

static bool absent(const struct cule_json *doc, int i)
{
    return i < 0 || cule_json_type(doc, i) == CULE_JSON_NULL;
}

int cule_json_get_str(const struct cule_json *doc, int obj, const char *key, char *out, size_t size,
                      struct cule_err *err)
{
    int i = cule_json_find(doc, obj, key);
    int rc = absent(doc, i) ? CULE_ENEGATIVE : cule_json_str(doc, i, out, size);
    return rc == CULE_ENEGATIVE ? 0 : rc < 0 ? member_error(doc, i, key, rc, "a string without NUL", err) : 1;
}

int cule_json_get_u64(const struct cule_json *doc, int obj, const char *key, uint64_t *out, struct cule_err *err)
{
    int i = cule_json_find(doc, obj, key);
    int rc = absent(doc, i) ? CULE_ENEGATIVE : cule_json_u64(doc, i, out);
    return rc == CULE_ENEGATIVE ? 0 : rc < 0 ? member_error(doc, i, key, rc, "a whole number", err) : 1;
}

int cule_json_get_bool(const struct cule_json *doc, int obj, const char *key, bool *out, struct cule_err *err)
{
    int i = cule_json_find(doc, obj, key);
    int rc = absent(doc, i) ? CULE_ENEGATIVE : cule_json_bool(doc, i, out);
    return rc == CULE_ENEGATIVE ? 0 : rc < 0 ? member_error(doc, i, key, rc, "true or false", err) : 1;
}

int cule_json_only(const struct cule_json *doc, int obj, const char *const *keys, struct cule_err *err)
{
    for (int k = cule_json_first(doc, obj); k >= 0; k = cule_json_next(doc, k)) {
        const char *const *known = keys;
        while (*known && !cule_json_equal(doc, k, *known)) {
            known++;
        }
        if (!*known) {
            return cule_err_set(err, CULE_EMALFORMED, "unknown key '%.*s'", (int)CULE_MIN(doc->token[k].len, 64u),
                                doc->text + doc->token[k].at);
        }
    }
    return 0;
}

/* The JSON reader: one pass, a flat array of tokens, no recursion. */
#include "base/json.h"

#include "base/bytes.h"
#include "base/pool.h"
#include "base/utf8.h"

enum { NO_PARENT = UINT32_MAX };

void cule_json_init(struct cule_json *doc)
{
    doc->text = "";
    doc->token = doc->first;
    doc->room = CULE_JSON_INLINE;
    doc->block_size = 0;
    doc->count = doc->spaces = 0;
    doc->depth_max = CULE_JSON_DEPTH_MAX;
    doc->token_max = CULE_JSON_TOKEN_MAX;
}

void cule_json_release(struct cule_json *doc)
{
    if (doc->token != doc->first) {
        cule_pool_put(doc->token, doc->block_size);
    }
    cule_json_init(doc);
}

struct reader {
    struct cule_json *doc;
    const char *p; /* where it reads */
    const char *end;
    struct cule_err *err;
    uint32_t parent;
    uint32_t depth;
};

static int fail(struct reader *r, const char *at, const char *what)
{
    unsigned line = 1;
    const char *start = r->doc->text;
    for (const char *p = start; p < at; p++) {
        if (*p == '\n') {
            line++;
            start = p + 1;
        }
    }
    if (line > 1) {
        return cule_err_set(r->err, CULE_EMALFORMED, "line %u, column %zu: %s", line, (size_t)(at - start) + 1, what);
    }
    return cule_err_set(r->err, CULE_EMALFORMED, "column %zu: %s", (size_t)(at - start) + 1, what);
}

static int grow(struct reader *r)
{
    struct cule_json *doc = r->doc;
    if (doc->room >= doc->token_max) {
        return cule_err_set(r->err, CULE_ELIMIT, "more than %u JSON tokens", doc->token_max);
    }
    size_t size;
    struct cule_json_token *t = cule_pool_get((size_t)doc->room * 4 * sizeof *t, &size);
    if (!t) {
        return cule_err_set(r->err, CULE_ENOMEM, "no memory for %u JSON tokens", doc->room * 4);
    }
    memcpy(t, doc->token, doc->count * sizeof *t);
    if (doc->token != doc->first) {
        cule_pool_put(doc->token, doc->block_size);
    }
    doc->token = t;
    doc->block_size = size;
    doc->room = (uint32_t)CULE_MIN(size / sizeof *t, doc->token_max);
    return 0;
}

static int add(struct reader *r, enum cule_json_type type, const char *at, const char *end)
{
    struct cule_json *doc = r->doc;
    if (doc->count == doc->room) {
        int rc = grow(r);
        if (rc) {
            return rc;
        }
    }
    struct cule_json_token *t = &doc->token[doc->count++];
    t->at = (uint32_t)(at - doc->text);
    t->len = (uint32_t)(end - at);
    t->after = doc->count;
    t->count = 0;
    t->parent = r->parent;
    t->type = (uint8_t)type;
    t->escaped = t->key = false;
    return 0;
}

static void skip_space(struct reader *r)
{
    const char *p = r->p;
    while (p < r->end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) {
        p++;
    }
    r->doc->spaces += (uint32_t)(p - r->p);
    r->p = p;
}

/* --- strings ------------------------------------------------------------------------------------------------ */

static int hex4(const char *p, const char *end, uint32_t *out)
{
    uint32_t v = 0;
    if (end - p < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 16;
        if (d > 15) {
            return -1;
        }
        v = v << 4 | d;
    }
    *out = v;
    return 0;
}

unsigned cule_json_escape(const char *p, const char *end, uint32_t *c)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    if (p == end) {
        return 0;
    }
    if (*p != 'u') {
        const char *at = *p ? strchr(from, *p) : NULL;
        *c = at ? (uint8_t)to[at - from] : 0;
        return at ? 1 : 0;
    }
    uint32_t low;
    if (hex4(p + 1, end, c) || (*c >= 0xdc00 && *c < 0xe000)) {
        return 0;
    }
    if (*c < 0xd800 || *c >= 0xe000) {
        return 5;
    }
    if (end - p < 11 || p[5] != '\\' || p[6] != 'u' || hex4(p + 7, end, &low) || low < 0xdc00 || low >= 0xe000) {
        return 0;
    }
    *c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
    return 11;
}

/* Bytes from p on that a string may hold as they are and that are ASCII. */
static const char *plain(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101;
    while (end - p >= 8) {
        uint64_t v = cule_get64(p);
        uint64_t quote = v ^ ones * '"';
        uint64_t slash = v ^ ones * '\\';
        uint64_t stop = ((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | v;
        stop &= ones << 7;
        if (stop) {
            return p + __builtin_ctzll(stop) / 8;
        }
        p += 8;
    }
    while (p < end && (uint8_t)*p >= 0x20 && (uint8_t)*p < 0x80 && *p != '"' && *p != '\\') {
        p++;
    }
    return p;
}

/* A string; r->p is behind the opening quote and goes behind the closing one. */
static int read_string(struct reader *r)
{
    const char *start = r->p;
    const char *p = start;
    bool escaped = false;
    for (;;) {
        uint32_t c;
        p = plain(p, r->end);
        if (p == r->end) {
            return fail(r, start - 1, "this string does not end");
        }
        if (*p == '"') {
            break;
        }
        unsigned size;
        if (*p == '\\') {
            escaped = true;
            size = cule_json_escape(p + 1, r->end, &c);
            if (size == 0) {
                return fail(r, p, "not an escape, or a lone surrogate");
            }
            size++;
        } else {
            size = cule_utf8_next(p, (size_t)(r->end - p), &c);
            if (size <= 1) {
                return fail(r, p, size ? "a control character in a string must be escaped" : "not UTF-8");
            }
        }
        p += size;
    }
    int rc = add(r, CULE_JSON_STRING, start, p);
    if (rc == 0) {
        r->doc->token[r->doc->count - 1].escaped = escaped;
    }
    r->p = p + 1;
    return rc;
}

/* --- the other values --------------------------------------------------------------------------------------- */

static const char *digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }
    return p;
}

static int read_number(struct reader *r)
{
    const char *start = r->p;
    const char *end = r->end;
    const char *p = start + (*start == '-');
    const char *q = digits(p, end);
    if (q == p || (*p == '0' && q - p > 1)) {
        return fail(r, start, q == p ? "not a value" : "a number must not begin with 0");
    }
    p = q;
    if (p < end && *p == '.') {
        q = digits(p + 1, end);
        if (q == p + 1) {
            return fail(r, p, "digits must follow the point");
        }
        p = q;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        q = digits(p, end);
        if (q == p) {
            return fail(r, p, "digits must follow the exponent");
        }
        p = q;
    }
    r->p = p;
    return add(r, CULE_JSON_NUMBER, start, p);
}

static int read_word(struct reader *r, const char *word, enum cule_json_type type)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0) {
        return fail(r, r->p, "not a value");
    }
    r->p += n;
    return add(r, type, r->p - n, r->p);
}

/* Opens an object or array: what follows is inside it. */
static int read_open(struct reader *r)
{
    if (r->depth == r->doc->depth_max) {
        return cule_err_set(r->err, CULE_ELIMIT, "JSON nested deeper than %u", r->doc->depth_max);
    }
    int rc = add(r, *r->p == '{' ? CULE_JSON_OBJECT : CULE_JSON_ARRAY, r->p, r->p + 1);
    if (rc == 0) {
        r->parent = r->doc->count - 1;
        r->depth++;
        r->p++;
    }
    return rc;
}

static void read_close(struct reader *r)
{
    struct cule_json_token *t = &r->doc->token[r->parent];
    r->p++;
    t->len = (uint32_t)(r->p - r->doc->text) - t->at;
    t->after = r->doc->count;
    r->parent = t->parent;
    r->depth--;
}

static int read_value(struct reader *r)
{
    if (r->p == r->end) {
        return fail(r, r->p, "a value is missing at the end");
    }
    switch (*r->p) {
    case '{':
    case '[': return read_open(r);
    case '"': r->p++; return read_string(r);
    case 't': return read_word(r, "true", CULE_JSON_TRUE);
    case 'f': return read_word(r, "false", CULE_JSON_FALSE);
    case 'n': return read_word(r, "null", CULE_JSON_NULL);
    default: return read_number(r);
    }
}

/* A key and its colon. */
static int read_key(struct reader *r)
{
    if (r->p == r->end || *r->p != '"') {
        return fail(r, r->p, "a key in quotes is missing");
    }
    r->p++;
    int rc = read_string(r);
    if (rc) {
        return rc;
    }
    r->doc->token[r->doc->count - 1].key = true;
    skip_space(r);
    if (r->p == r->end || *r->p != ':') {
        return fail(r, r->p, "':' is missing behind a key");
    }
    r->p++;
    skip_space(r);
    return 0;
}

/* Behind a value: closes what ends here, up to the next value's place. 1 when that is there, 0 when all is closed. */
static int read_between(struct reader *r)
{
    for (;;) {
        skip_space(r);
        if (r->parent == NO_PARENT) {
            return 0;
        }
        struct cule_json_token *t = &r->doc->token[r->parent];
        bool object = t->type == CULE_JSON_OBJECT;
        bool fresh = r->parent == r->doc->count - 1;
        if (r->p < r->end && *r->p == (object ? '}' : ']')) {
            read_close(r);
            continue;
        }
        if (!fresh) {
            if (r->p == r->end || *r->p != ',') {
                return fail(r, r->p, object ? "',' or '}' is missing" : "',' or ']' is missing");
            }
            r->p++;
            skip_space(r);
        }
        t->count++;
        int rc = object ? read_key(r) : 0;
        return rc ? rc : 1;
    }
}

int cule_json_parse(struct cule_json *doc, const char *text, size_t n, struct cule_err *err)
{
    text = n ? text : "";
    struct reader r = {.doc = doc, .p = text, .end = text + n, .err = err, .parent = NO_PARENT};
    int rc;
    doc->text = text;
    doc->count = doc->spaces = 0;
    if (n >= UINT32_MAX) {
        return cule_err_set(err, CULE_ELIMIT, "%zu bytes of JSON are too many", n);
    }
    skip_space(&r);
    do {
        rc = read_value(&r);
        rc = rc ? rc : read_between(&r);
    } while (rc > 0);
    if (rc == 0 && r.p != r.end) {
        rc = fail(&r, r.p, "something stands behind the value");
    }
    if (rc) {
        doc->count = 0;
    }
    return rc;
}

/* The JSON writer: values into a buffer, commas and colons where they belong. */
#include "base/bytes.h"
#include "base/json.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>

void cule_json_begin(struct cule_json_writer *w, struct cule_buf *out)
{
    *w = (struct cule_json_writer){.out = out};
}

int cule_json_end(struct cule_json_writer *w)
{
    return w->rc;
}

static void put(struct cule_json_writer *w, const void *p, size_t n)
{
    if (w->rc == 0) {
        w->rc = cule_buf_add(w->out, p, n);
    }
}

/* Before a value: the comma behind the one before. */
static void separate(struct cule_json_writer *w)
{
    if (w->comma) {
        put(w, ",", 1);
    }
    w->comma = true;
}

void cule_json_open(struct cule_json_writer *w, char bracket)
{
    separate(w);
    put(w, &bracket, 1);
    w->depth++;
    w->comma = false;
}

void cule_json_close(struct cule_json_writer *w, char bracket)
{
    put(w, &bracket, 1);
    w->depth--;
    /* Behind a whole document the next one begins afresh: one writer may write many lines. */
    w->comma = w->depth > 0;
}

void cule_json_key(struct cule_json_writer *w, const char *key)
{
    cule_json_put_str(w, key);
    put(w, ":", 1);
    w->comma = false;
}

/* --- strings ------------------------------------------------------------------------------------------------ */

/* Whether a byte must be escaped. */
static bool special(uint8_t c)
{
    return c < 0x20 || c == '"' || c == '\\' || c == 0x7f;
}

/* How many bytes from p on need no escape. */
static size_t clean(const uint8_t *p, size_t n)
{
    const uint64_t ones = 0x0101010101010101;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t v = cule_get64(p + i);
        uint64_t quote = v ^ ones * '"';
        uint64_t slash = v ^ ones * '\\';
        uint64_t del = v ^ ones * 0x7f;
        uint64_t stop =
            ((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((del - ones) & ~del);
        stop &= ones << 7;
        if (stop) {
            return i + (size_t)__builtin_ctzll(stop) / 8;
        }
    }
    while (i < n && !special(p[i])) {
        i++;
    }
    return i;
}

static size_t escaped(uint8_t c, char out[6])
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t";
    static const char to[] = "\"\\bfnrt";
    const char *at = c ? strchr(from, c) : NULL;
    out[0] = '\\';
    if (at) {
        out[1] = to[at - from];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

/* The inside of a string: whole escapes' worth of room at a time, so that large texts are not reserved sixfold. */
static int add_escaped(struct cule_buf *b, const uint8_t *p, size_t n)
{
    while (n) {
        size_t run = clean(p, n);
        int rc = cule_buf_add(b, p, run);
        if (rc) {
            return rc;
        }
        p += run;
        n -= run;
        char text[256];
        size_t len = 0;
        while (n && special(*p) && len <= sizeof text - 6) {
            len += escaped(*p++, text + len);
            n--;
        }
        rc = cule_buf_add(b, text, len);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

int cule_json_quote(struct cule_buf *b, const void *p, size_t n)
{
    uint8_t *at;
    if (n <= 64 && clean(p, n) == n) {
        int rc = cule_buf_reserve(b, n + 2, &at);
        if (rc == 0) {
            at[0] = '"';
            memcpy(at + 1, p, n);
            at[n + 1] = '"';
            cule_buf_commit(b, n + 2);
        }
        return rc;
    }
    int rc = cule_buf_addc(b, '"');
    rc = rc ? rc : add_escaped(b, p, n);
    return rc ? rc : cule_buf_addc(b, '"');
}

void cule_json_put_bytes(struct cule_json_writer *w, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    separate(w);
    if (w->rc) {
        return;
    }
    if (cule_utf8_valid(p, n)) {
        w->rc = cule_json_quote(w->out, n ? p : (const uint8_t *)"", n);
        return;
    }
    put(w, "\"", 1);
    while (n && w->rc == 0) {
        uint32_t c;
        size_t good = 0;
        unsigned size;
        while ((size = cule_utf8_next(p + good, n - good, &c)) != 0) {
            good += size;
        }
        w->rc = add_escaped(w->out, p, good);
        p += good;
        n -= good;
        if (n) {
            put(w, "\xef\xbf\xbd", 3);
            p++;
            n--;
        }
    }
    put(w, "\"", 1);
}

void cule_json_put_str(struct cule_json_writer *w, const char *s)
{
    if (s) {
        cule_json_put_bytes(w, s, strlen(s));
    } else {
        cule_json_put_null(w);
    }
}

/* --- the other values --------------------------------------------------------------------------------------- */

unsigned cule_json_digits(uint64_t v, char out[20])
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char text[20];
    unsigned at = sizeof text;
    while (v >= 10) {
        at -= 2;
        memcpy(text + at, pairs + 2 * (v % 100), 2);
        v /= 100;
    }
    if (v || at == sizeof text) {
        text[--at] = (char)('0' + v);
    }
    memcpy(out, text + at, sizeof text - at);
    return (unsigned)sizeof text - at;
}

void cule_json_put_u64(struct cule_json_writer *w, uint64_t v)
{
    char text[20];
    separate(w);
    put(w, text, cule_json_digits(v, text));
}

void cule_json_put_u64_str(struct cule_json_writer *w, uint64_t v)
{
    char text[22];
    unsigned n = cule_json_digits(v, text + 1);
    text[0] = text[n + 1] = '"';
    separate(w);
    put(w, text, n + 2);
}

void cule_json_put_i64(struct cule_json_writer *w, int64_t v)
{
    char text[21] = "-";
    unsigned n = v < 0;
    separate(w);
    n += cule_json_digits(v < 0 ? 0 - (uint64_t)v : (uint64_t)v, text + n);
    put(w, text, n);
}

void cule_json_put_double(struct cule_json_writer *w, double v)
{
    char text[40];
    if (!isfinite(v)) {
        cule_json_put_null(w);
        return;
    }
    separate(w);
    int n = snprintf(text, sizeof text, "%.15g", v);
    put(w, text, (size_t)n);
}

void cule_json_put_raw(struct cule_json_writer *w, const void *json, size_t n)
{
    separate(w);
    put(w, json, n);
}

void cule_json_put_bool(struct cule_json_writer *w, bool v)
{
    cule_json_put_raw(w, v ? "true" : "false", v ? 4 : 5);
}

void cule_json_put_null(struct cule_json_writer *w)
{
    cule_json_put_raw(w, "null", 4);
}

void cule_json_member_str(struct cule_json_writer *w, const char *key, const char *s)
{
    cule_json_key(w, key);
    cule_json_put_str(w, s);
}

void cule_json_member_u64(struct cule_json_writer *w, const char *key, uint64_t v)
{
    cule_json_key(w, key);
    cule_json_put_u64(w, v);
}

void cule_json_member_i64(struct cule_json_writer *w, const char *key, int64_t v)
{
    cule_json_key(w, key);
    cule_json_put_i64(w, v);
}

void cule_json_member_double(struct cule_json_writer *w, const char *key, double v)
{
    cule_json_key(w, key);
    cule_json_put_double(w, v);
}

void cule_json_member_bool(struct cule_json_writer *w, const char *key, bool v)
{
    cule_json_key(w, key);
    cule_json_put_bool(w, v);
}

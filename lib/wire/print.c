/* One line for people about a frame. */
#include "wire/print.h"

#include "base/utf8.h"
#include "wire/mirror.h"
#include "wire/ops.h"

/* --- text that a terminal takes as text --------------------------------------------------------------------- */

static bool harmless(uint32_t c)
{
    return c >= 0x20 && (c < 0x7f || c >= 0xa0) && c != 0xad && c != 0x61c && !(c >= 0x200b && c <= 0x200f) &&
           !(c >= 0x2028 && c <= 0x202e) && !(c >= 0x2060 && c <= 0x206f) && c != 0xfeff &&
           !(c >= 0xfff9 && c <= 0xfffb) && !(c >= 0xe0000 && c <= 0xe007f);
}

static int add_escape(uint32_t c, unsigned size, const uint8_t *p, struct cule_buf *out)
{
    static const char from[] = "\n\r\t\\";
    static const char to[] = "nrt\\";
    const char *at = c && c < 0x80 && size ? strchr(from, (int)c) : NULL;
    if (at) {
        return cule_buf_addf(out, "\\%c", to[at - from]);
    }
    return size > 1 ? cule_buf_addf(out, "\\u{%x}", c) : cule_buf_addf(out, "\\x%02x", *p);
}

int cule_print_safe(const void *bytes, size_t n, struct cule_buf *out)
{
    const uint8_t *p = bytes;
    int rc = 0;
    while (n && rc == 0) {
        size_t good = 0;
        unsigned size = 0;
        uint32_t c = 0;
        while (good < n) {
            size = cule_utf8_next(p + good, n - good, &c);
            if (size == 0 || !harmless(c) || c == '\\') {
                break;
            }
            good += size;
        }
        rc = cule_buf_add(out, p, good);
        p += good;
        n -= good;
        if (n && rc == 0) {
            rc = add_escape(c, size, p, out);
            size = size ? size : 1;
            p += size;
            n -= size;
        }
    }
    return rc;
}

/* --- the parts of the line ---------------------------------------------------------------------------------- */

static int add_names(const struct cule_frame *f, struct cule_buf *out)
{
    char text[CULE_SERVICE_TEXT];
    const char *kind = cule_kind_name(f->kind);
    int rc = cule_buf_addf(out, "%s", kind ? kind : "?");
    if (rc == 0 && f->service) {
        rc = cule_buf_addf(out, " %s", cule_service_text(f->service, text));
    }
    /* The op of every REPLY and ERROR is the same. */
    bool answer = (f->kind == CULE_REPLY && f->op == CULE_OP_ANY_OK) ||
                  (f->kind == CULE_ERROR_FRAME && f->op == CULE_OP_ANY_ERROR);
    if (rc == 0 && f->op && !answer) {
        const char *name = cule_op_name(f->service, f->op);
        rc = name ? cule_buf_addf(out, " %s", name) : cule_buf_addf(out, " 0x%x", f->op);
    }
    if (rc == 0 && f->id) {
        rc = cule_buf_addf(out, " id %llu", (unsigned long long)f->id);
    }
    if (rc == 0 && f->priority != CULE_NORMAL) {
        const char *priority = cule_priority_name(f->priority);
        rc = cule_buf_addf(out, " %s", priority ? priority : "?");
    }
    return rc;
}

static int add_flags(const struct cule_frame *f, struct cule_buf *out)
{
    int rc = 0;
    char before = '[';
    if (!f->flags) {
        return 0;
    }
    rc = cule_buf_addc(out, ' ');
    for (unsigned bit = 1; bit <= CULE_PHASE && rc == 0; bit <<= 1) {
        if (f->flags & bit) {
            const char *name = cule_flag_name((uint16_t)bit);
            rc = name ? cule_buf_addf(out, "%c%s", before, name) : cule_buf_addf(out, "%c0x%x", before, bit);
            before = ' ';
        }
    }
    return rc ? rc : cule_buf_addc(out, ']');
}

/* The two arguments, by what they mean for that kind. */
static int add_arguments(const struct cule_frame *f, bool topic, struct cule_buf *out)
{
    unsigned long long a = f->arg0;
    unsigned long long b = f->arg1;
    switch (f->kind) {
    case CULE_ERROR_FRAME:
        return b ? cule_buf_addf(out, " %s (%llu)", a < 65536 ? cule_err_name((int)a) : "unknown", b)
                 : cule_buf_addf(out, " %s", a < 65536 ? cule_err_name((int)a) : "unknown");
    case CULE_CREDIT:
        return f->id ? cule_buf_addf(out, " %llu bytes", b) : cule_buf_addf(out, " %llu frames %llu bytes", a, b);
    case CULE_MARK: return cule_buf_addf(out, " at %llu.%09llu link %llu", a / 1000000000, a % 1000000000, b);
    case CULE_HELLO: return cule_buf_addf(out, " features 0x%llx largest message %llu", a, b);
    default: break;
    }
    int rc = a && !topic ? cule_buf_addf(out, " arg0 %llu", a) : 0;
    return rc || !b ? rc : cule_buf_addf(out, " arg1 %llu", b);
}

static int add_rest(const struct cule_frame *f, struct cule_buf *out)
{
    int rc = 0;
    if (f->source) {
        rc = cule_buf_addf(out, " from %u", f->source);
    }
    if (rc == 0 && f->deadline_ms) {
        rc = cule_buf_addf(out, " within %u ms", f->deadline_ms);
    }
    if (rc == 0 && f->cap) {
        rc = cule_buf_addf(out, " cap %u.%u rights 0x%x", (unsigned)f->cap, (unsigned)(f->cap >> 32 & 0xffff),
                           (unsigned)(f->cap >> 48));
    }
    if (rc == 0 && f->nfds) {
        rc = cule_buf_addf(out, " %u descriptors", f->nfds);
    }
    return rc;
}

/* Text where at most the last character shown is cut. */
static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t c;
        unsigned size = cule_utf8_next(p + at, n - at, &c);
        if (size == 0) {
            return at > 0 && n - at < 4;
        }
        if (c < 0x20 && c != '\n' && c != '\r' && c != '\t') {
            return false;
        }
        at += size;
    }
    return true;
}

static int add_payload(const uint8_t *p, size_t n, size_t show, struct cule_buf *out)
{
    size_t shown = CULE_MIN(n, show);
    int rc = cule_buf_addf(out, n == 1 ? " %zu byte" : " %zu bytes", n);
    if (!p || shown == 0) {
        return rc;
    }
    if (is_text(p, shown)) {
        /* A character that the limit cuts is left out whole. */
        uint32_t c;
        size_t cut = shown;
        while (shown < n && cut > 0 && shown - cut < 4 && (p[cut - 1] & 0xc0) == 0x80) {
            cut--;
        }
        if (shown < n && cut > 0 && p[cut - 1] >= 0xc0 && !cule_utf8_next(p + cut - 1, shown - cut + 1, &c)) {
            shown = cut - 1;
        }
        rc = rc ? rc : cule_buf_add(out, " '", 2);
        rc = rc ? rc : cule_print_safe(p, shown, out);
        rc = rc ? rc : cule_buf_addc(out, '\'');
    } else {
        rc = rc ? rc : cule_buf_addc(out, ' ');
        for (size_t i = 0; i < shown && rc == 0; i++) {
            rc = cule_buf_addf(out, "%02x", p[i]);
        }
    }
    return rc || shown == n ? rc : cule_buf_add(out, " ...", 4);
}

int cule_print_frame(const struct cule_frame *f, const uint8_t *payload, size_t show, struct cule_buf *out)
{
    size_t n = f->length;
    const uint8_t *trace = NULL;
    if (payload && (f->flags & CULE_TRACE) && n >= CULE_TRACE_SIZE) {
        trace = payload;
        payload += CULE_TRACE_SIZE;
        n -= CULE_TRACE_SIZE;
    }
    bool topic = payload && f->arg0 && f->arg0 <= n && cule_op_has_topic(f->service, f->op);
    int rc = add_names(f, out);
    rc = rc ? rc : add_flags(f, out);
    rc = rc ? rc : add_arguments(f, topic, out);
    rc = rc ? rc : add_rest(f, out);
    if (rc == 0 && trace) {
        rc = cule_buf_add(out, " trace ", 7);
        for (int i = 0; i < 16 && rc == 0; i++) {
            rc = cule_buf_addf(out, "%02x", trace[i]);
        }
    }
    if (rc == 0 && topic) {
        rc = cule_buf_add(out, " topic '", 8);
        rc = rc ? rc : cule_print_safe(payload, f->arg0, out);
        rc = rc ? rc : cule_buf_addc(out, '\'');
        payload += f->arg0;
        n -= f->arg0;
    }
    return rc || n == 0 ? rc : add_payload(payload, n, show, out);
}

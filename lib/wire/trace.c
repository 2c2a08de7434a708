/* Trace identifiers in frames and as W3C text, and spans as JSON lines. */
#include "wire/trace.h"

#include "base/json.h"
#include "wire/ops.h"

#include <stdio.h>
#include <string.h>

static bool all_zero(const uint8_t *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++) {
        any |= p[i];
    }
    return any == 0;
}

void cule_trace_put(const struct cule_trace *t, uint8_t out[CULE_TRACE_SIZE])
{
    memcpy(out, t->id, 16);
    memcpy(out + 16, t->span, 8);
    cule_put64(out + 24, t->flags);
}

int cule_trace_get(struct cule_trace *t, const uint8_t in[CULE_TRACE_SIZE])
{
    memcpy(t->id, in, 16);
    memcpy(t->span, in + 16, 8);
    t->flags = cule_get64(in + 24);
    return all_zero(t->id, 16) || all_zero(t->span, 8) ? CULE_EMALFORMED : 0;
}

const char *cule_trace_hex(const uint8_t *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = '\0';
    return out;
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n bytes from 2n lower-case hex digits. */
static bool unhex(uint8_t *out, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        int hi = nibble(text[2 * i]);
        int lo = hi < 0 ? -1 : nibble(text[2 * i + 1]);
        if (lo < 0) {
            return false;
        }
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

int cule_traceparent_parse(struct cule_trace *t, const char *text, struct cule_err *err)
{
    uint8_t version;
    uint8_t flags;
    size_t n = strnlen(text, CULE_TRACEPARENT_SIZE);
    bool ok = n >= 55 && text[2] == '-' && text[35] == '-' && text[52] == '-' && unhex(&version, 1, text) &&
              unhex(t->id, 16, text + 3) && unhex(t->span, 8, text + 36) && unhex(&flags, 1, text + 53);
    ok = ok && version != 0xff && (text[55] == '\0' || (version > 0 && text[55] == '-'));
    if (!ok || all_zero(t->id, 16) || all_zero(t->span, 8)) {
        return cule_err_set(err, CULE_EMALFORMED,
                            "'%.60s' is no traceparent (00-, 32 hex digits, -, 16 hex digits, -, 2 hex digits)", text);
    }
    t->flags = flags;
    return 0;
}

const char *cule_traceparent_format(const struct cule_trace *t, char out[CULE_TRACEPARENT_SIZE])
{
    char id[33];
    char span[17];
    snprintf(out, CULE_TRACEPARENT_SIZE, "00-%s-%s-%02x", cule_trace_hex(t->id, 16, id),
             cule_trace_hex(t->span, 8, span), (unsigned)(t->flags & 0xff));
    return out;
}

/* All zero is no id; the odds are 1 in 2^64, and still. */
static void take_random(uint8_t *id, size_t n, const uint8_t *random)
{
    memcpy(id, random, n);
    if (all_zero(id, n)) {
        id[n - 1] = 1;
    }
}

void cule_trace_root(struct cule_trace *t, const uint8_t random[24])
{
    take_random(t->id, 16, random);
    take_random(t->span, 8, random + 16);
    t->flags = CULE_TRACE_SAMPLED;
}

void cule_trace_child(struct cule_trace *child, const struct cule_trace *parent, const uint8_t random[8])
{
    memcpy(child->id, parent->id, 16);
    take_random(child->span, 8, random);
    child->flags = parent->flags;
}

/* --- spans --- */

const char *cule_span_name(const struct cule_span *s, char out[CULE_SPAN_NAME_MAX])
{
    char service[CULE_SERVICE_TEXT];
    const char *op = cule_op_name(s->service, s->op);
    cule_service_text(s->service, service);
    if (op) {
        snprintf(out, CULE_SPAN_NAME_MAX, "%s/%s", service, op);
    } else {
        snprintf(out, CULE_SPAN_NAME_MAX, "%s/0x%04x", service, s->op);
    }
    return out;
}

static void put_hex(struct cule_json_writer *w, const char *key, const uint8_t *p, size_t n)
{
    char hex[33];
    if (!all_zero(p, n)) {
        cule_json_member_str(w, key, cule_trace_hex(p, n, hex));
    }
}

int cule_span_line(const struct cule_span *s, struct cule_buf *out)
{
    struct cule_json_writer w;
    char name[CULE_SPAN_NAME_MAX];
    char service[CULE_SERVICE_TEXT];
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    put_hex(&w, "trace", s->trace.id, 16);
    put_hex(&w, "span", s->trace.span, 8);
    put_hex(&w, "parent", s->parent, 8);
    cule_json_member_str(&w, "name", cule_span_name(s, name));
    cule_json_member_str(&w, "service", cule_service_text(s->service, service));
    cule_json_member_u64(&w, "op", s->op);
    cule_json_member_str(&w, "side", s->client ? "client" : "server");
    cule_json_member_str(&w, "program", s->program);
    cule_json_member_u64(&w, "pid", s->pid);
    cule_json_member_u64(&w, "track", s->track);
    cule_json_key(&w, "start_ns");
    cule_json_put_u64_str(&w, s->start_ns);
    cule_json_key(&w, "end_ns");
    cule_json_put_u64_str(&w, s->end_ns);
    cule_json_member_str(&w, "status", s->code ? cule_err_name(s->code) : "ok");
    cule_json_close(&w, '}');
    int rc = cule_json_end(&w);
    return rc ? rc : cule_buf_addc(out, '\n');
}

static int get_hex(const struct cule_json *doc, const char *key, uint8_t *out, size_t n, struct cule_err *err)
{
    char hex[40];
    int rc = cule_json_get_str(doc, 0, key, hex, sizeof hex, err);
    if (rc > 0 && (strlen(hex) != 2 * n || !unhex(out, n, hex))) {
        return cule_err_set(err, CULE_EMALFORMED, "'%s' is not %zu hex digits", key, 2 * n);
    }
    return rc < 0 ? rc : 0;
}

static int get_number(const struct cule_json *doc, const char *key, uint64_t *out, struct cule_err *err)
{
    int rc = cule_json_get_u64(doc, 0, key, out, err);
    return rc < 0 ? rc : 0;
}

static int read_span(const struct cule_json *doc, struct cule_span *s, struct cule_err *err)
{
    char text[64] = "";
    uint64_t op = 0;
    int rc = get_hex(doc, "trace", s->trace.id, 16, err);
    rc = rc ? rc : get_hex(doc, "span", s->trace.span, 8, err);
    rc = rc ? rc : get_hex(doc, "parent", s->parent, 8, err);
    rc = rc ? rc : get_number(doc, "op", &op, err);
    rc = rc ? rc : get_number(doc, "pid", &s->pid, err);
    rc = rc ? rc : get_number(doc, "track", &s->track, err);
    rc = rc ? rc : get_number(doc, "start_ns", &s->start_ns, err);
    rc = rc ? rc : get_number(doc, "end_ns", &s->end_ns, err);
    if (rc) {
        return rc;
    }
    s->op = (uint32_t)op;
    if ((rc = cule_json_get_str(doc, 0, "service", text, sizeof text, err)) < 0) {
        return rc;
    }
    if (rc == 0 || cule_service_parse(text, &s->service)) {
        return cule_err_set(err, CULE_EMALFORMED, "a span names no service");
    }
    rc = cule_json_get_str(doc, 0, "program", s->program, sizeof s->program, err);
    if (rc < 0 || (rc = cule_json_get_str(doc, 0, "status", text, sizeof text, err)) < 0) {
        return rc;
    }
    s->code = rc == 0 || strcmp(text, "ok") == 0 ? 0 : cule_err_by_name(text);
    s->client = cule_json_equal(doc, cule_json_find(doc, 0, "side"), "client");
    if (s->start_ns == 0 || s->end_ns < s->start_ns) {
        return cule_err_set(err, CULE_EMALFORMED, "a span ends before it starts");
    }
    return 0;
}

int cule_span_parse(struct cule_span *s, const char *line, size_t n, struct cule_err *err)
{
    struct cule_json doc;
    *s = (struct cule_span){0};
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, line, n, err);
    rc = rc ? rc : read_span(&doc, s, err);
    cule_json_release(&doc);
    return rc;
}

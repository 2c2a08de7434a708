/* Frames to JSON lines. */
#include "base/base64.h"
#include "base/utf8.h"
#include "wire/decode.h"
#include "wire/mirror.h"
#include "wire/ops.h"

enum { KEYS_MAX = 512, DIGITS_MAX = 15, HEAD_MAX = 1024 };

void cule_mirror_init(struct cule_mirror *m)
{
    m->message_max = CULE_MESSAGE_MAX;
    m->service = m->op = 0;
    m->names_len = 0;
    cule_json_init(&m->doc);
    m->doc.depth_max = CULE_MIRROR_LINE_DEPTH_MAX;
    cule_buf_init(&m->body, 0);
}

void cule_mirror_release(struct cule_mirror *m)
{
    cule_json_release(&m->doc);
    cule_buf_release(&m->body);
}

static const struct {
    uint16_t bit;
    uint8_t len;
    const char *name;
} flags[] = {
    {CULE_RETAIN, 6, "retain"},
    {CULE_REDELIVERED, 11, "redelivered"},
    {CULE_ACK_WANTED, 10, "ack_wanted"},
    {CULE_MORE, 4, "more"},
    {CULE_OPEN, 4, "open"},
    {CULE_TRACE, 5, "trace"},
    {CULE_CRC, 3, "crc"},
    {CULE_DELEGATE, 8, "delegate"},
    {CULE_NESTED, 6, "nested"},
};

const char *cule_flag_name(uint16_t bit)
{
    for (size_t i = 0; i < CULE_COUNT(flags); i++) {
        if (flags[i].bit == bit) {
            return flags[i].name;
        }
    }
    return NULL;
}

uint16_t cule_flag_parse(const char *name, size_t n)
{
    for (size_t i = 0; i < CULE_COUNT(flags); i++) {
        if (flags[i].len == n && memcmp(flags[i].name, name, n) == 0) {
            return flags[i].bit;
        }
    }
    return 0;
}

bool cule_op_has_topic(uint32_t service, uint32_t op)
{
    return service == (uint32_t)CULE_S_BUS &&
           (op == CULE_OP_BUS_PUBLISH || op == CULE_OP_BUS_DELIVER || op == CULE_OP_BUS_REQUEST);
}

/* --- whether a payload may stand as JSON -------------------------------------------------------------------- */

static bool canonical_number(const char *p, size_t n)
{
    const char *end = p + n;
    bool minus = *p == '-';
    p += minus;
    const char *point = memchr(p, '.', (size_t)(end - p));
    const char *whole_end = point ? point : end;
    if (memchr(p, 'e', (size_t)(end - p)) || memchr(p, 'E', (size_t)(end - p))) {
        return false;
    }
    if (end - p - (point != NULL) > DIGITS_MAX || (minus && *p == '0' && !point)) {
        return false;
    }
    if (!point) {
        return true;
    }
    if (end[-1] == '0') {
        return false;
    }
    /* 0.0001 is the least that everybody writes so. */
    return whole_end - p > 1 || *p != '0' || end - point <= 4 || memcmp(point, ".0000", 5) != 0;
}

static bool canonical_string(const char *p, size_t n, bool escaped)
{
    const char *end = p + n;
    if (memchr(p, 0x7f, n)) {
        return false;
    }
    if (!escaped) {
        return true;
    }
    while ((p = memchr(p, '\\', (size_t)(end - p))) != NULL) {
        if (p[1] != 'u') {
            if (p[1] == '/') {
                return false;
            }
            p += 2;
            continue;
        }
        /* The reader made sure of four hex digits. */
        uint32_t c;
        cule_json_escape(p + 1, end, &c);
        if (memcmp(p + 2, "00", 2) != 0 || c >= 0x20 || (p[5] >= 'A' && p[5] <= 'F') ||
            (c >= '\b' && c <= '\r' && c != '\v')) {
            return false;
        }
        p += 6;
    }
    return true;
}

static bool keys_differ(const struct cule_json *doc, uint32_t object)
{
    const char *text = doc->text;
    if (doc->token[object].count > KEYS_MAX) {
        return false;
    }
    for (int a = cule_json_first(doc, (int)object); a >= 0; a = cule_json_next(doc, a)) {
        const struct cule_json_token *ta = &doc->token[a];
        for (int b = cule_json_next(doc, a); b >= 0; b = cule_json_next(doc, b)) {
            const struct cule_json_token *tb = &doc->token[b];
            if (ta->len == tb->len && memcmp(text + ta->at, text + tb->at, ta->len) == 0) {
                return false;
            }
        }
    }
    return true;
}

static bool canonical(struct cule_json *doc, const uint8_t *p, size_t n)
{
    doc->depth_max = CULE_MIRROR_JSON_DEPTH_MAX;
    int rc = cule_json_parse(doc, (const char *)p, n, NULL);
    doc->depth_max = CULE_MIRROR_LINE_DEPTH_MAX;
    if (rc || doc->spaces) {
        return false;
    }
    for (uint32_t i = 0; i < doc->count; i++) {
        const struct cule_json_token *t = &doc->token[i];
        const char *at = doc->text + t->at;
        bool holds = t->type == CULE_JSON_STRING   ? canonical_string(at, t->len, t->escaped)
                     : t->type == CULE_JSON_NUMBER ? canonical_number(at, t->len)
                     : t->type == CULE_JSON_OBJECT ? keys_differ(doc, i)
                                                   : true;
        if (!holds) {
            return false;
        }
    }
    return true;
}

/* --- the header --------------------------------------------------------------------------------------------- */

static char *put(char *p, const char *text, size_t n)
{
    memcpy(p, text, n);
    return p + n;
}
#define PUT(p, literal) put(p, literal, sizeof(literal) - 1)

static char *put_number(char *p, const char *key, size_t n, uint64_t v, bool quoted)
{
    if (v) {
        p = put(p, key, n);
        p += cule_json_digits(v, p);
        if (quoted) {
            *p++ = '"';
        }
    }
    return p;
}
#define NUMBER(p, key, v) put_number(p, ",\"" key "\":", sizeof(",\"" key "\":") - 1, v, false)
#define STRING64(p, key, v) put_number(p, ",\"" key "\":\"", sizeof(",\"" key "\":\"") - 1, v, true)

static char *put_flags(char *p, uint16_t set)
{
    p = PUT(p, ",\"flags\":[");
    for (size_t i = 0; i < CULE_COUNT(flags); i++) {
        if (set & flags[i].bit) {
            *p++ = '"';
            p = put(p, flags[i].name, flags[i].len);
            p = PUT(p, "\",");
            set &= (uint16_t)~flags[i].bit;
        }
    }
    if (set) {
        p += cule_json_digits(set, p);
        *p++ = ',';
    }
    p[-1] = ']';
    return p;
}

/* Service, op and the op's name as they stand in the line; kept for the next frame. */
static void name_service(struct cule_mirror *m, uint32_t service, uint32_t op)
{
    char text[CULE_SERVICE_TEXT];
    char *p = m->names;
    m->service = service;
    m->op = op;
    if (service) {
        p = PUT(p, ",\"service\":\"");
        for (const char *s = cule_service_text(service, text); *s; s++) {
            if (*s == '"' || *s == '\\') {
                *p++ = '\\';
            }
            *p++ = *s;
        }
        *p++ = '"';
    }
    p = NUMBER(p, "op", op);
    const char *name = op ? cule_op_name(service, op) : NULL;
    if (name) {
        p = PUT(p, ",\"op_name\":\"");
        p = put(p, name, strlen(name));
        *p++ = '"';
    }
    m->names_len = (unsigned)(p - m->names);
}

static char *put_hex(char *p, const uint8_t *from, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *p++ = hex[from[i] >> 4];
        *p++ = hex[from[i] & 15];
    }
    return p;
}

static char *put_header(struct cule_mirror *m, char *p, const struct cule_frame *f, const uint8_t *trace, bool topic)
{
    p = PUT(p, "{\"kind\":\"");
    const char *kind = cule_kind_name(f->kind);
    p = put(p, kind, strlen(kind));
    *p++ = '"';
    if (f->priority != CULE_NORMAL) {
        const char *priority = cule_priority_name(f->priority);
        p = PUT(p, ",\"priority\":\"");
        p = put(p, priority, strlen(priority));
        *p++ = '"';
    }
    uint16_t set = (uint16_t)((f->flags & ~CULE_TRACE) | (trace ? CULE_TRACE : 0));
    if (set) {
        p = put_flags(p, set);
    }
    if (f->service | f->op) {
        if (m->service != f->service || m->op != f->op) {
            name_service(m, f->service, f->op);
        }
        p = put(p, m->names, m->names_len);
    }
    p = STRING64(p, "id", f->id);
    p = NUMBER(p, "source", f->source);
    p = NUMBER(p, "deadline_ms", f->deadline_ms);
    if (!topic) {
        p = STRING64(p, "arg0", f->arg0);
    }
    p = STRING64(p, "arg1", f->arg1);
    p = STRING64(p, "cap", f->cap);
    p = NUMBER(p, "nfds", f->nfds);
    if (trace) {
        p = PUT(p, ",\"trace\":\"");
        p = put_hex(p, trace, 16);
        *p++ = '-';
        p = put_hex(p, trace + 16, 8);
        *p++ = '-';
        p = put_hex(p, trace + 24, 8);
        *p++ = '"';
    }
    return p;
}

/* --- the payload -------------------------------------------------------------------------------------------- */

static bool printable(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f) {
            return false;
        }
    }
    return cule_utf8_valid(p, n);
}

static int add_quoted(struct cule_buf *out, const char *key, const uint8_t *p, size_t n)
{
    int rc = cule_buf_add(out, key, strlen(key));
    return rc ? rc : cule_json_quote(out, p, n);
}

static int add_b64(struct cule_buf *out, const uint8_t *p, size_t n)
{
    static const char key[] = ",\"payload_b64\":\"";
    uint8_t *at;
    size_t size = cule_base64_size(n) + sizeof key;
    int rc = cule_buf_reserve(out, size, &at);
    if (rc == 0) {
        memcpy(at, key, sizeof key - 1);
        cule_base64_encode((char *)at + sizeof key - 1, p, n);
        at[size - 1] = '"';
        cule_buf_commit(out, size);
    }
    return rc;
}

static bool whole_frames(const uint8_t *p, size_t n)
{
    struct cule_frame f;
    const uint8_t *payload;
    size_t used;
    int rc;
    while ((rc = cule_frame_nested(p, n, &f, &payload, &used, NULL)) > 0) {
        p += used;
        n -= used;
    }
    return rc == 0;
}

static int write_object(struct cule_mirror *m, const struct cule_msg *msg, unsigned depth, struct cule_buf *out);

static int frame_to_msg(const struct cule_frame *f, const uint8_t *payload, struct cule_msg *msg)
{
    bool traced = f->flags & CULE_TRACE;
    if (traced && f->length < CULE_TRACE_SIZE) {
        return CULE_EMALFORMED;
    }
    msg->h = *f;
    msg->trace = traced ? payload : NULL;
    msg->body = traced ? payload + CULE_TRACE_SIZE : payload;
    msg->len = f->length - (traced ? CULE_TRACE_SIZE : 0);
    msg->fds = NULL;
    msg->nfds = 0;
    return 0;
}

static int add_frames(struct cule_mirror *m, const uint8_t *p, size_t n, unsigned depth, struct cule_buf *out)
{
    static const char key[] = ",\"payload_frames\":[";
    struct cule_msg inner;
    struct cule_frame f;
    const uint8_t *payload;
    size_t used = 0;
    int rc = cule_buf_add(out, key, sizeof key - 1);
    for (bool first = true; rc == 0 && n; first = false) {
        cule_frame_nested(p, n, &f, &payload, &used, NULL);
        frame_to_msg(&f, payload, &inner);
        rc = first ? 0 : cule_buf_addc(out, ',');
        rc = rc ? rc : write_object(m, &inner, depth + 1, out);
        p += used;
        n -= used;
    }
    return rc ? rc : cule_buf_addc(out, ']');
}

static int add_body(struct cule_mirror *m, bool nested, const uint8_t *p, size_t n, unsigned depth,
                    struct cule_buf *out)
{
    static const char json[] = ",\"payload_json\":";
    if (n == 0) {
        return 0;
    }
    if (nested && depth < CULE_MIRROR_NEST_MAX && whole_frames(p, n)) {
        return add_frames(m, p, n, depth, out);
    }
    if ((p[0] == '{' || p[0] == '[') && canonical(&m->doc, p, n)) {
        int rc = cule_buf_add(out, json, sizeof json - 1);
        return rc ? rc : cule_buf_add(out, p, n);
    }
    return cule_utf8_valid(p, n) ? add_quoted(out, ",\"payload_text\":", p, n) : add_b64(out, p, n);
}

static int write_object(struct cule_mirror *m, const struct cule_msg *msg, unsigned depth, struct cule_buf *out)
{
    const struct cule_frame *f = &msg->h;
    const uint8_t *body = msg->body;
    size_t n = msg->len;
    bool topic = f->arg0 && f->arg0 <= n && cule_op_has_topic(f->service, f->op) && printable(body, f->arg0);
    uint8_t *at;
    int rc = cule_buf_reserve(out, HEAD_MAX, &at);
    if (rc) {
        return rc;
    }
    cule_buf_commit(out, (size_t)(put_header(m, (char *)at, f, msg->trace, topic) - (char *)at));
    if (topic) {
        rc = add_quoted(out, ",\"topic\":", body, f->arg0);
        body += f->arg0;
        n -= f->arg0;
    }
    rc = rc ? rc : add_body(m, f->flags & CULE_NESTED, body, n, depth, out);
    return rc ? rc : cule_buf_addc(out, '}');
}

int cule_mirror_write_msg(struct cule_mirror *m, const struct cule_msg *msg, struct cule_buf *out, struct cule_err *err)
{
    size_t before = cule_buf_len(out);
    int rc = write_object(m, msg, 0, out);
    rc = rc ? rc : cule_buf_addc(out, '\n');
    if (rc) {
        out->tail = out->head + before;
        if (before == 0) {
            cule_buf_clear(out);
        }
        return cule_err_set(err, rc, "no room for the frame as JSON: %s", cule_err_text(rc));
    }
    return 0;
}

int cule_mirror_write(struct cule_mirror *m, const struct cule_frame *f, const uint8_t *payload, struct cule_buf *out,
                      struct cule_err *err)
{
    struct cule_msg msg;
    int rc = frame_to_msg(f, payload, &msg);
    if (rc) {
        return cule_err_set(err, rc, "a payload of %u bytes has no room for the trace prefix", f->length);
    }
    return cule_mirror_write_msg(m, &msg, out, err);
}

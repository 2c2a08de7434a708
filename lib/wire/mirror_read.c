/* JSON lines to frames. */
#include "base/base64.h"
#include "base/utf8.h"
#include "wire/mirror.h"
#include "wire/ops.h"

#include <stdio.h>

enum { KEEP_MAX = 1024 * 1024 };

/* The keys, in the order of their names' table below. */
enum key {
    KIND,
    PRIORITY,
    FLAGS,
    SERVICE,
    OP,
    OP_NAME,
    ID,
    SOURCE,
    DEADLINE_MS,
    ARG0,
    ARG1,
    CAP,
    NFDS,
    TRACE,
    TOPIC,
    PAYLOAD_FRAMES,
    PAYLOAD_JSON,
    PAYLOAD_TEXT,
    PAYLOAD_B64,
    MAGIC,
    VERSION,
    LENGTH,
    CHECK,
    KEYS,
};

static const struct {
    const char *name;
    uint8_t len;
} names[KEYS] = {
#define NAME(text)                                                                                                     \
    {                                                                                                                  \
        text, sizeof(text) - 1                                                                                         \
    }
    NAME("kind"),           NAME("priority"),     NAME("flags"),        NAME("service"),     NAME("op"),
    NAME("op_name"),        NAME("id"),           NAME("source"),       NAME("deadline_ms"), NAME("arg0"),
    NAME("arg1"),           NAME("cap"),          NAME("nfds"),         NAME("trace"),       NAME("topic"),
    NAME("payload_frames"), NAME("payload_json"), NAME("payload_text"), NAME("payload_b64"), NAME("magic"),
    NAME("version"),        NAME("length"),       NAME("check"),
#undef NAME
};

/* One object on its way to a frame. */
struct object {
    struct cule_mirror *m;
    struct cule_err *err;
    int value[KEYS]; /* the value's token, -1 where the key is missing */
    unsigned depth;
};

static int build(struct cule_mirror *m, int token, unsigned depth, struct cule_frame *f, struct cule_err *err);

/* "column N: 'key' ..." */
static int wrong(const struct object *o, enum key key, int code, const char *what)
{
    const struct cule_json_token *t = &o->m->doc.token[o->value[key]];
    return cule_err_set(o->err, code, "column %u: '%s' %s", t->at + (t->type != CULE_JSON_STRING), names[key].name,
                        what);
}

/* --- keys --------------------------------------------------------------------------------------------------- */

static int key_of(const char *p, size_t n)
{
    for (int k = 0; k < KEYS; k++) {
        if (names[k].len == n && memcmp(names[k].name, p, n) == 0) {
            return k;
        }
    }
    return -1;
}

static int collect(struct object *o, int token)
{
    const struct cule_json *doc = &o->m->doc;
    if (cule_json_type(doc, token) != CULE_JSON_OBJECT) {
        return cule_err_set(o->err, CULE_EMALFORMED, "column %u: a frame must be an object, not %s",
                            doc->token[token].at + 1, cule_json_type_text(cule_json_type(doc, token)));
    }
    memset(o->value, -1, sizeof o->value);
    for (int k = cule_json_first(doc, token); k >= 0; k = cule_json_next(doc, k)) {
        const struct cule_json_token *t = &doc->token[k];
        char plain[16];
        const char *text = doc->text + t->at;
        size_t n = t->len;
        if (t->escaped) {
            int len = cule_json_str(doc, k, plain, sizeof plain);
            text = len < 0 ? text : plain;
            n = len < 0 ? n : (size_t)len;
        }
        int key = key_of(text, n);
        if (key < 0 || o->value[key] >= 0) {
            return cule_err_set(o->err, CULE_EMALFORMED, "column %u: %s key '%.*s'", t->at,
                                key < 0 ? "unknown" : "repeated", (int)CULE_MIN(n, (size_t)40), text);
        }
        o->value[key] = k + 1;
    }
    return 0;
}

/* --- the header --------------------------------------------------------------------------------------------- */

/* A number of at most `max`; *out stays where the key is missing. */
static int number(const struct object *o, enum key key, uint64_t max, uint64_t *out)
{
    uint64_t v;
    if (o->value[key] < 0) {
        return 0;
    }
    int rc = cule_json_u64(&o->m->doc, o->value[key], &v);
    if (rc || v > max) {
        char what[80];
        snprintf(what, sizeof what, "must be a whole number of at most %llu", (unsigned long long)max);
        return wrong(o, key, CULE_EMALFORMED, what);
    }
    *out = v;
    return 0;
}

/* A name that `parse` knows, or a number of at most max. */
static int name_or_number(const struct object *o, enum key key, int (*parse)(const char *), uint64_t max, uint8_t *out)
{
    const struct cule_json *doc = &o->m->doc;
    uint64_t v = *out;
    int i = o->value[key];
    if (cule_json_type(doc, i) == CULE_JSON_STRING) {
        char text[16];
        int known = cule_json_str(doc, i, text, sizeof text) < 0 ? CULE_EMALFORMED : parse(text);
        if (known < 0) {
            return wrong(o, key, CULE_EMALFORMED, "has no such name");
        }
        v = (uint64_t)known;
    } else {
        int rc = number(o, key, max, &v);
        if (rc) {
            return rc;
        }
    }
    *out = (uint8_t)v;
    return 0;
}

static int read_flags(const struct object *o, uint16_t *out)
{
    const struct cule_json *doc = &o->m->doc;
    int list = o->value[FLAGS];
    uint64_t all = 0;
    if (list < 0) {
        return 0;
    }
    if (cule_json_type(doc, list) == CULE_JSON_NUMBER) {
        int rc = number(o, FLAGS, UINT16_MAX, &all);
        if (rc) {
            return rc;
        }
    } else if (cule_json_type(doc, list) != CULE_JSON_ARRAY) {
        return wrong(o, FLAGS, CULE_EMALFORMED, "must be an array of names and numbers");
    }
    for (int i = cule_json_first(doc, list); i >= 0; i = cule_json_next(doc, i)) {
        const struct cule_json_token *t = &doc->token[i];
        uint64_t bits = 0;
        if (t->type == CULE_JSON_STRING) {
            bits = cule_flag_parse(doc->text + t->at, t->len);
        } else if (t->type != CULE_JSON_NUMBER || cule_json_u64(doc, i, &bits) || bits > UINT16_MAX) {
            bits = 0;
        }
        if (bits == 0 && !(t->type == CULE_JSON_NUMBER && t->len == 1 && doc->text[t->at] == '0')) {
            return cule_err_set(o->err, CULE_EMALFORMED, "column %u: 'flags' has no such flag",
                                t->at + (t->type != CULE_JSON_STRING));
        }
        all |= bits;
    }
    if (all & 0xff00 & ~(unsigned)CULE_FLAGS_KNOWN_HIGH) {
        return wrong(o, FLAGS, CULE_EMALFORMED, "has a bit in its high byte that means nothing");
    }
    *out = (uint16_t)all;
    return 0;
}

static int read_service(const struct object *o, struct cule_frame *f)
{
    const struct cule_json *doc = &o->m->doc;
    char text[64];
    if (o->value[SERVICE] >= 0) {
        const struct cule_json_token *t = &doc->token[o->value[SERVICE]];
        const char *at = doc->text + t->at;
        /* The plain four characters are worth a short cut; a lower-case name is looked up. */
        if (t->type == CULE_JSON_STRING && t->len == 4 && !t->escaped && at[0] >= 'A' && at[0] <= 'Z' &&
            (uint8_t)(at[1] | at[2] | at[3]) < 0x7f) {
            f->service = CULE_FOURCC(at[0], at[1], at[2], at[3]);
        } else if (cule_json_str(doc, o->value[SERVICE], text, sizeof text) < 0 ||
                   cule_service_parse(text, &f->service)) {
            return wrong(o, SERVICE, CULE_EMALFORMED, "must be a service's name or four characters");
        }
    }
    enum key key = o->value[OP] >= 0 ? OP : OP_NAME;
    int i = o->value[key];
    uint64_t v = 0;
    if (cule_json_type(doc, i) == CULE_JSON_STRING) {
        if (cule_json_str(doc, i, text, sizeof text) < 0 || cule_op_parse(f->service, text, &f->op)) {
            return wrong(o, key, CULE_EMALFORMED, "is no operation of that service");
        }
        return 0;
    }
    int rc = number(o, key, UINT32_MAX, &v);
    f->op = (uint32_t)v;
    return rc;
}

static int read_header(const struct object *o, struct cule_frame *f)
{
    uint64_t source = 0;
    uint64_t deadline = 0;
    uint64_t nfds = 0;
    int rc;
    cule_frame_init(f, 0);
    if (o->value[KIND] < 0) {
        return cule_err_set(o->err, CULE_EMALFORMED, "the key 'kind' is missing");
    }
    if ((rc = name_or_number(o, KIND, cule_kind_parse, CULE_KIND_LAST, &f->kind)) ||
        (rc = name_or_number(o, PRIORITY, cule_priority_parse, CULE_PRIORITIES - 1, &f->priority)) ||
        (rc = read_flags(o, &f->flags)) || (rc = read_service(o, f)) || (rc = number(o, ID, UINT64_MAX, &f->id)) ||
        (rc = number(o, SOURCE, UINT32_MAX, &source)) || (rc = number(o, DEADLINE_MS, UINT32_MAX, &deadline)) ||
        (rc = number(o, ARG0, UINT64_MAX, &f->arg0)) || (rc = number(o, ARG1, UINT64_MAX, &f->arg1)) ||
        (rc = number(o, CAP, UINT64_MAX, &f->cap)) || (rc = number(o, NFDS, CULE_FDS_MAX, &nfds))) {
        return rc;
    }
    if (f->kind == 0) {
        return wrong(o, KIND, CULE_EMALFORMED, "has no such number");
    }
    f->source = (uint32_t)source;
    f->deadline_ms = (uint32_t)deadline;
    f->nfds = (uint8_t)nfds;
    return 0;
}

/* What follows from the rest may be said, but then it must be right. */
static int check_said(const struct object *o, const struct cule_frame *f, size_t length)
{
    uint64_t version = CULE_VERSION_1;
    uint64_t said = length;
    int rc = number(o, VERSION, UINT8_MAX, &version);
    rc = rc ? rc : number(o, LENGTH, UINT32_MAX, &said);
    if (rc) {
        return rc;
    }
    if (version != f->version) {
        return wrong(o, VERSION, CULE_EVERSION, "must be 1");
    }
    if (said != length) {
        char what[80];
        snprintf(what, sizeof what, "is not what the payload has, %zu bytes", length);
        return wrong(o, LENGTH, CULE_EMALFORMED, what);
    }
    if (o->value[MAGIC] >= 0 && !cule_json_equal(&o->m->doc, o->value[MAGIC], o->depth ? "cu" : "CU")) {
        return wrong(o, MAGIC, CULE_EMALFORMED, o->depth ? "must be \"cu\"" : "must be \"CU\"");
    }
    return 0;
}

/* --- the payload -------------------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int add_trace(const struct object *o, struct cule_frame *f)
{
    const struct cule_json *doc = &o->m->doc;
    uint8_t bytes[CULE_TRACE_SIZE];
    size_t n = 0;
    int i = o->value[TRACE];
    if (i < 0) {
        return f->flags & CULE_TRACE ? wrong(o, FLAGS, CULE_EMALFORMED, "has trace, but the key 'trace' is missing")
                                     : 0;
    }
    const struct cule_json_token *t = &doc->token[i];
    const char *p = doc->text + t->at;
    if (t->type == CULE_JSON_STRING && t->len == 2 * CULE_TRACE_SIZE + 2) {
        for (; n < CULE_TRACE_SIZE; n++, p += 2) {
            if ((n == 16 || n == 24) && *p++ != '-') {
                break;
            }
            int high = hex_value(p[0]);
            int low = hex_value(p[1]);
            if (high < 0 || low < 0) {
                break;
            }
            bytes[n] = (uint8_t)(high << 4 | low);
        }
    }
    if (n != CULE_TRACE_SIZE) {
        return wrong(o, TRACE, CULE_EMALFORMED, "must be 32, 16 and 16 hex digits with '-' between");
    }
    f->flags |= CULE_TRACE;
    return cule_buf_add(&o->m->body, bytes, sizeof bytes);
}

static int add_topic(const struct object *o, struct cule_frame *f)
{
    struct cule_buf *body = &o->m->body;
    size_t before = cule_buf_len(body);
    if (o->value[TOPIC] < 0) {
        return 0;
    }
    if (!cule_op_has_topic(f->service, f->op)) {
        return wrong(o, TOPIC, CULE_EMALFORMED, "belongs to publish, deliver and request of the bus alone");
    }
    int rc = cule_json_str_add(&o->m->doc, o->value[TOPIC], body);
    if (rc) {
        return wrong(o, TOPIC, rc, rc == CULE_EMALFORMED ? "must be a string" : "does not fit into memory");
    }
    size_t n = cule_buf_len(body) - before;
    if (o->value[ARG0] >= 0 && f->arg0 != n) {
        return wrong(o, ARG0, CULE_EMALFORMED, "must be the topic's length, or be left out");
    }
    f->arg0 = n;
    return 0;
}

static int add_b64(const struct object *o)
{
    const struct cule_json *doc = &o->m->doc;
    const struct cule_json_token *t = &doc->token[o->value[PAYLOAD_B64]];
    uint8_t *at;
    if (t->type != CULE_JSON_STRING) {
        return wrong(o, PAYLOAD_B64, CULE_EMALFORMED, "must be a string");
    }
    /* Some writers escape the slash: then the text is decoded in place first, which only shrinks it. */
    int rc = cule_buf_reserve(&o->m->body, (size_t)t->len + 4, &at);
    if (rc) {
        return wrong(o, PAYLOAD_B64, rc, "does not fit into memory");
    }
    const char *text = doc->text + t->at;
    size_t len = t->len;
    if (t->escaped) {
        int n = cule_json_str(doc, o->value[PAYLOAD_B64], (char *)at, (size_t)t->len + 4);
        text = (const char *)at;
        len = n < 0 ? 1 : (size_t)n;
    }
    ssize_t n = cule_base64_decode(at, text, len);
    if (n < 0) {
        return wrong(o, PAYLOAD_B64, CULE_EMALFORMED, "is not base64 (RFC 4648, with padding)");
    }
    cule_buf_commit(&o->m->body, (size_t)n);
    return 0;
}

/* The value in this library's form: no white space, strings escaped in one way. */
static int add_json(const struct object *o)
{
    const struct cule_json *doc = &o->m->doc;
    struct cule_buf *body = &o->m->body;
    struct cule_buf one;
    int top = o->value[PAYLOAD_JSON];
    uint32_t end = doc->token[top].after;
    bool as_is = doc->spaces == 0;
    size_t n;
    for (uint32_t i = (uint32_t)top; i < end && as_is; i++) {
        as_is = !doc->token[i].escaped;
    }
    if (as_is) {
        const char *raw = cule_json_raw(doc, top, &n);
        return cule_buf_add(body, raw, n);
    }
    /* Token by token: what closes and what parts them follows from where each one ends. */
    uint32_t open[CULE_MIRROR_LINE_DEPTH_MAX];
    unsigned depth = 0;
    bool first = true;
    int rc = 0;
    cule_buf_init(&one, 0);
    for (uint32_t i = (uint32_t)top; i < end && rc == 0; i++) {
        const struct cule_json_token *t = &doc->token[i];
        for (; rc == 0 && depth && doc->token[open[depth - 1]].after == i; depth--, first = false) {
            rc = cule_buf_addc(body, doc->token[open[depth - 1]].type == CULE_JSON_OBJECT ? '}' : ']');
        }
        bool value_of_key = i > (uint32_t)top && doc->token[i - 1].key;
        if (rc == 0 && i > (uint32_t)top && (value_of_key || !first)) {
            rc = cule_buf_addc(body, value_of_key ? ':' : ',');
        }
        first = false;
        if (rc) {
            break;
        }
        if (t->type == CULE_JSON_OBJECT || t->type == CULE_JSON_ARRAY) {
            rc = cule_buf_addc(body, t->type == CULE_JSON_OBJECT ? '{' : '[');
            open[depth++] = i;
            first = true;
        } else if (t->type == CULE_JSON_STRING && t->escaped) {
            rc = cule_json_str_add(doc, (int)i, &one);
            n = cule_buf_len(&one);
            rc = rc ? rc : cule_json_quote(body, n ? cule_buf_data(&one) : (const uint8_t *)"", n);
            cule_buf_clear(&one);
        } else {
            const char *raw = cule_json_raw(doc, (int)i, &n);
            rc = cule_buf_add(body, raw, n);
        }
    }
    for (; rc == 0 && depth; depth--) {
        rc = cule_buf_addc(body, doc->token[open[depth - 1]].type == CULE_JSON_OBJECT ? '}' : ']');
    }
    cule_buf_release(&one);
    return rc;
}

/* Each inner frame: room for its header, its payload, then the header over it. */
static int add_frames(const struct object *o, struct cule_frame *outer)
{
    const struct cule_json *doc = &o->m->doc;
    struct cule_buf *body = &o->m->body;
    int list = o->value[PAYLOAD_FRAMES];
    if (cule_json_type(doc, list) != CULE_JSON_ARRAY) {
        return wrong(o, PAYLOAD_FRAMES, CULE_EMALFORMED, "must be an array of frames");
    }
    if (o->depth == CULE_MIRROR_NEST_MAX) {
        return wrong(o, PAYLOAD_FRAMES, CULE_ELIMIT, "is nested too deep");
    }
    outer->flags |= CULE_NESTED;
    for (int i = cule_json_first(doc, list); i >= 0; i = cule_json_next(doc, i)) {
        static const uint8_t zero[CULE_HEADER_SIZE];
        struct cule_frame f;
        size_t at = cule_buf_len(body);
        int rc = cule_buf_add(body, zero, sizeof zero);
        rc = rc ? rc : build(o->m, i, o->depth + 1, &f, o->err);
        if (rc) {
            return rc;
        }
        if (f.length > CULE_PAYLOAD_MAX) {
            return wrong(o, PAYLOAD_FRAMES, CULE_ETOO_BIG, "holds a frame with more than 65536 bytes of payload");
        }
        rc = cule_buf_add(body, zero, cule_frame_tail(&f) - f.length);
        if (rc) {
            return rc;
        }
        cule_frame_seal(&f, true, cule_buf_data(body) + at);
    }
    return 0;
}

static int add_payload(const struct object *o, struct cule_frame *f)
{
    int given = -1;
    for (int k = PAYLOAD_FRAMES; k <= PAYLOAD_B64; k++) {
        if (o->value[k] >= 0) {
            if (given >= 0) {
                return wrong(o, (enum key)k, CULE_EMALFORMED, "is a second payload");
            }
            given = k;
        }
    }
    int rc = 0;
    switch (given) {
    case PAYLOAD_FRAMES: return add_frames(o, f);
    case PAYLOAD_JSON: return add_json(o);
    case PAYLOAD_B64: return add_b64(o);
    case PAYLOAD_TEXT:
        rc = cule_json_str_add(&o->m->doc, o->value[PAYLOAD_TEXT], &o->m->body);
        return rc == CULE_EMALFORMED ? wrong(o, PAYLOAD_TEXT, rc, "must be a string") : rc;
    default: return 0;
    }
}

/* One object: its header to *f, its payload behind what m->body holds. */
static int build(struct cule_mirror *m, int token, unsigned depth, struct cule_frame *f, struct cule_err *err)
{
    struct object o = {.m = m, .err = err, .depth = depth};
    size_t before = cule_buf_len(&m->body);
    int rc;
    if ((rc = collect(&o, token)) || (rc = read_header(&o, f)) || (rc = add_trace(&o, f)) || (rc = add_topic(&o, f)) ||
        (rc = add_payload(&o, f))) {
        return rc;
    }
    size_t length = cule_buf_len(&m->body) - before;
    if (length > m->message_max || length > UINT32_MAX) {
        return cule_err_set(err, CULE_ETOO_BIG, "the payload has %zu bytes, at most %zu are taken", length,
                            m->message_max);
    }
    f->length = (uint32_t)length;
    return check_said(&o, f, length);
}

int cule_mirror_read(struct cule_mirror *m, const char *line, size_t n, struct cule_msg *msg, struct cule_err *err)
{
    /* The memory is kept from line to line, unless one was very long. */
    m->body.head = m->body.tail = 0;
    if (m->body.cap > KEEP_MAX) {
        cule_buf_clear(&m->body);
    }
    int rc = cule_json_parse(&m->doc, line, n, err);
    if (rc) {
        return rc;
    }
    rc = build(m, 0, 0, &msg->h, err);
    if (rc == CULE_ENOMEM) {
        return cule_err_set(err, rc, "no memory for the payload of a line of %zu bytes", n);
    }
    if (rc) {
        return rc;
    }
    bool traced = msg->h.flags & CULE_TRACE;
    const uint8_t *payload = msg->h.length ? cule_buf_data(&m->body) : (const uint8_t *)"";
    msg->trace = traced ? payload : NULL;
    msg->body = traced ? payload + CULE_TRACE_SIZE : payload;
    msg->len = msg->h.length - (traced ? CULE_TRACE_SIZE : 0);
    msg->fds = NULL;
    msg->nfds = 0;
    return 0;
}

int cule_mirror_encode(struct cule_mirror *m, const char *line, size_t n, struct cule_buf *out, struct cule_err *err)
{
    struct cule_msg msg;
    int rc = cule_mirror_read(m, line, n, &msg, err);
    if (rc) {
        return rc;
    }
    if (msg.h.length <= CULE_PAYLOAD_MAX) {
        rc = cule_frame_add(out, &msg.h, false, msg.trace ? msg.trace : msg.body);
    } else if (msg.h.flags & CULE_MORE) {
        return cule_err_set(err, CULE_ETOO_BIG, "more than %d bytes of payload in a frame with the flag 'more'",
                            CULE_PAYLOAD_MAX);
    } else {
        msg.nfds = msg.h.nfds;
        rc = cule_msg_add(out, &msg);
    }
    return rc ? cule_err_set(err, rc, "no room for the frame: %s", cule_err_text(rc)) : 0;
}

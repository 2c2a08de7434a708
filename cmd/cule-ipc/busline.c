/* Bodies and messages of the bus as lines of text or JSON, and JSON lines as publications. */
#include "busline.h"

#include "base/base64.h"
#include "base/json.h"
#include "base/utf8.h"
#include "wire/ops.h"

#include <string.h>

int busline_body(struct cule_buf *out, const uint8_t *body, size_t n, char end)
{
    const uint8_t *nl;
    int rc = 0;
    while (rc == 0 && end == '\n' && n > 0 && (nl = memchr(body, '\n', n))) {
        size_t before = (size_t)(nl - body);
        if ((rc = cule_buf_add(out, body, before)) == 0) {
            rc = cule_buf_add(out, "\\n", 2);
        }
        body += before + 1;
        n -= before + 1;
    }
    uint8_t *at;
    if (rc == 0 && (rc = cule_buf_reserve(out, n + 1, &at)) == 0) {
        memcpy(at, body, n);
        at[n] = (uint8_t)end;
        cule_buf_commit(out, n + 1);
    }
    return rc;
}

void busline_release(struct busline_in *in)
{
    cule_buf_release(&in->body);
}

static int payload_of(struct busline_in *in, const struct cule_json *doc, struct cule_err *err)
{
    int i = cule_json_find(doc, 0, "payload_text");
    if (i >= 0) {
        int rc = cule_json_str_add(doc, i, &in->body);
        return rc ? cule_err_set(err, rc, "\"payload_text\" is not a string") : 0;
    }
    if ((i = cule_json_find(doc, 0, "payload_json")) >= 0) {
        size_t n;
        const char *raw = cule_json_raw(doc, i, &n);
        return cule_buf_add(&in->body, raw, n);
    }
    if ((i = cule_json_find(doc, 0, "payload_b64")) >= 0) {
        struct cule_buf text;
        uint8_t *at;
        cule_buf_init(&text, 0);
        int rc = cule_json_str_add(doc, i, &text);
        size_t n = cule_buf_len(&text);
        if (rc == 0 && n > 0 && (rc = cule_buf_reserve(&in->body, n, &at)) == 0) {
            ssize_t got = cule_base64_decode(at, (const char *)cule_buf_data(&text), n);
            rc = got < 0 ? (int)got : 0;
            cule_buf_commit(&in->body, got < 0 ? 0 : (size_t)got);
        }
        cule_buf_release(&text);
        return rc ? cule_err_set(err, rc, "\"payload_b64\" is not base64") : 0;
    }
    return 0;
}

/* flags: an array of names, as the mirror writes them. */
static bool flagged(const struct cule_json *doc, int i, const char *name)
{
    for (int k = cule_json_first(doc, i); k >= 0; k = cule_json_next(doc, k)) {
        if (cule_json_equal(doc, k, name)) {
            return true;
        }
    }
    return false;
}

int busline_parse(struct busline_in *in, const char *line, size_t n, char topic[256], struct cule_err *err)
{
    struct cule_json doc;
    char name[16];
    *in = (struct busline_in){0};
    cule_buf_init(&in->body, 0);
    topic[0] = '\0';
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, line, n, err);
    if (rc == 0 && cule_json_type(&doc, 0) != CULE_JSON_OBJECT) {
        rc = cule_err_set(err, CULE_EMALFORMED, "a line is %s, not an object",
                          cule_json_type_text(cule_json_type(&doc, 0)));
    }
    if (rc == 0 && (rc = cule_json_get_str(&doc, 0, "topic", topic, 256, err)) >= 0) {
        rc = payload_of(in, &doc, err);
    }
    int p = cule_json_find(&doc, 0, "priority");
    if (rc == 0 && p >= 0) {
        uint64_t number;
        int known = cule_json_str(&doc, p, name, sizeof name) >= 0                     ? cule_priority_parse(name)
                    : cule_json_u64(&doc, p, &number) == 0 && number < CULE_PRIORITIES ? (int)number
                                                                                       : -1;
        if (known < 0) {
            rc = cule_err_set(err, CULE_EMALFORMED, "\"priority\" is none: critical, high, normal, low are");
        } else {
            in->priority = (uint8_t)known;
            in->has_priority = true;
        }
    }
    if (rc == 0 && (rc = cule_json_get_bool(&doc, 0, "retain", &in->retain, err)) >= 0) {
        in->retain = in->retain || flagged(&doc, cule_json_find(&doc, 0, "flags"), "retain");
        rc = 0;
    }
    cule_json_release(&doc);
    return rc;
}

/* Re-encoding by a reader gives the same bytes when the text is one value without white space between its tokens. */
static bool is_compact_json(const uint8_t *p, size_t n, struct cule_json *doc)
{
    if (n == 0 || (p[0] != '{' && p[0] != '[' && p[0] != '"' && p[0] != '-' && (p[0] < '0' || p[0] > '9') &&
                   p[0] != 't' && p[0] != 'f' && p[0] != 'n')) {
        return false;
    }
    return cule_json_parse(doc, (const char *)p, n, NULL) == 0 && doc->spaces == 0;
}

static void put_payload(struct cule_json_writer *w, const uint8_t *p, size_t n)
{
    struct cule_json doc;
    cule_json_init(&doc);
    if (is_compact_json(p, n, &doc)) {
        cule_json_key(w, "payload_json");
        cule_json_put_raw(w, p, n);
    } else if (cule_utf8_valid(p, n)) {
        cule_json_key(w, "payload_text");
        cule_json_put_bytes(w, p, n);
    } else {
        struct cule_buf text;
        uint8_t *at;
        cule_buf_init(&text, 0);
        cule_json_key(w, "payload_b64");
        if (cule_buf_reserve(&text, cule_base64_size(n), &at) == 0) {
            cule_buf_commit(&text, cule_base64_encode((char *)at, p, n));
            cule_json_put_bytes(w, cule_buf_data(&text), cule_buf_len(&text));
        }
        cule_buf_release(&text);
    }
    cule_json_release(&doc);
}

int busline_json(struct cule_buf *out, const struct cule_msg *m)
{
    struct cule_json_writer w;
    size_t topic = (uint32_t)m->h.arg0 <= m->len ? (uint32_t)m->h.arg0 : 0;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_key(&w, "topic");
    cule_json_put_bytes(&w, m->body, topic);
    cule_json_key(&w, "seq");
    cule_json_put_u64_str(&w, m->h.arg1);
    cule_json_member_str(&w, "kind", cule_kind_name(m->h.kind));
    cule_json_member_str(&w, "priority", cule_priority_name(m->h.priority));
    cule_json_member_u64(&w, "source", m->h.source);
    if (m->h.flags & (CULE_RETAIN | CULE_REDELIVERED)) {
        cule_json_key(&w, "flags");
        cule_json_open(&w, '[');
        if (m->h.flags & CULE_RETAIN) {
            cule_json_put_str(&w, "retain");
        }
        if (m->h.flags & CULE_REDELIVERED) {
            cule_json_put_str(&w, "redelivered");
        }
        cule_json_close(&w, ']');
    }
    put_payload(&w, m->body + topic, m->len - topic);
    cule_json_close(&w, '}');
    int rc = cule_json_end(&w);
    return rc ? rc : cule_buf_addc(out, '\n');
}

/* Bodies of the bus as lines of text, and JSON lines as publications. */
#include "busline.h"

#include "base/base64.h"
#include "base/json.h"
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
        if (n > 0) {
            memcpy(at, body, n);
        }
        at[n] = (uint8_t)end;
        cule_buf_commit(out, n + 1);
    }
    return rc;
}

void busline_init(struct busline_in *in)
{
    memset(in, 0, sizeof *in);
    cule_mirror_init(&in->mirror);
    cule_json_init(&in->doc);
    cule_buf_init(&in->body_buf, CULE_MESSAGE_MAX);
}

void busline_release(struct busline_in *in)
{
    cule_mirror_release(&in->mirror);
    cule_json_release(&in->doc);
    cule_buf_release(&in->body_buf);
}

static int decode_b64(struct busline_in *in, int i)
{
    struct cule_buf text;
    uint8_t *at;
    cule_buf_init(&text, 0);
    int rc = cule_json_str_add(&in->doc, i, &text);
    size_t n = cule_buf_len(&text);
    if (rc == 0 && n > 0 && (rc = cule_buf_reserve(&in->body_buf, n, &at)) == 0) {
        ssize_t got = cule_base64_decode(at, (const char *)cule_buf_data(&text), n);
        rc = got < 0 ? (int)got : 0;
        cule_buf_commit(&in->body_buf, got < 0 ? 0 : (size_t)got);
    }
    cule_buf_release(&text);
    return rc;
}

static int payload_of(struct busline_in *in, struct cule_err *err)
{
    static const char *const names[] = {"payload_text", "payload_json", "payload_b64"};
    int at[3], given = 0, rc = 0;
    for (int k = 0; k < 3; k++) {
        at[k] = cule_json_find(&in->doc, 0, names[k]);
        given += at[k] >= 0;
    }
    if (given > 1) {
        return cule_err_set(err, CULE_EMALFORMED, "more than one payload");
    }
    cule_buf_clear(&in->body_buf);
    if (at[0] >= 0) {
        rc = cule_json_str_add(&in->doc, at[0], &in->body_buf);
    } else if (at[1] >= 0) {
        size_t n;
        const char *raw = cule_json_raw(&in->doc, at[1], &n);
        rc = cule_buf_add(&in->body_buf, raw, n);
    } else if (at[2] >= 0) {
        rc = decode_b64(in, at[2]);
    }
    in->body = cule_buf_data(&in->body_buf);
    in->len = cule_buf_len(&in->body_buf);
    return rc == CULE_ELIMIT       ? cule_err_set(err, CULE_ETOO_BIG, "the payload is larger than a message may be")
           : rc == CULE_EMALFORMED ? cule_err_set(err, rc, "\"%s\" holds none", names[at[0] >= 0 ? 0 : 2])
                                   : rc;
}

static int priority_of(struct busline_in *in, struct cule_err *err)
{
    char name[16];
    uint64_t number = CULE_PRIORITIES;
    int i = cule_json_find(&in->doc, 0, "priority");
    if (i < 0) {
        return 0;
    }
    int p = cule_json_str(&in->doc, i, name, sizeof name) >= 0 ? cule_priority_parse(name)
            : cule_json_u64(&in->doc, i, &number) == 0         ? (int)number
                                                               : -1;
    if (p < 0 || p >= CULE_PRIORITIES) {
        return cule_err_set(err, CULE_EMALFORMED, "\"priority\" is none: critical, high, normal and low are");
    }
    in->priority = (uint8_t)p;
    in->has_priority = true;
    return 0;
}

/* The mirror of a frame of the bus: a DELIVER that sub printed, a PUBLISH that tap saw. */
static int from_mirror(struct busline_in *in, const char *line, size_t n, struct cule_err *err)
{
    struct cule_msg m;
    int rc = cule_mirror_read(&in->mirror, line, n, &m, err);
    if (rc) {
        return rc;
    }
    size_t topic = cule_op_has_topic(m.h.service, m.h.op) ? (uint32_t)m.h.arg0 : 0;
    if (topic > m.len) {
        return cule_err_set(err, CULE_EMALFORMED, "a topic of %zu bytes in a payload of %zu", topic, m.len);
    }
    in->topic = topic ? (const char *)m.body : NULL;
    in->topic_len = topic;
    in->body = m.body + topic;
    in->len = m.len - topic;
    in->priority = m.h.priority;
    in->has_priority = true;
    in->retain = (m.h.flags & CULE_RETAIN) != 0;
    return 0;
}

int busline_parse(struct busline_in *in, const char *line, size_t n, struct cule_err *err)
{
    static const char *const keys[] = {"topic",        "priority",    "retain", "payload_text",
                                       "payload_json", "payload_b64", NULL};
    in->topic = NULL;
    in->has_priority = in->retain = false;
    int rc = cule_json_parse(&in->doc, line, n, err);
    if (rc == 0 && cule_json_type(&in->doc, 0) != CULE_JSON_OBJECT) {
        return cule_err_set(err, CULE_EMALFORMED, "a line is %s, not an object",
                            cule_json_type_text(cule_json_type(&in->doc, 0)));
    }
    if (rc) {
        return rc;
    }
    if (cule_json_find(&in->doc, 0, "kind") >= 0) {
        return from_mirror(in, line, n, err);
    }
    if ((rc = cule_json_only(&in->doc, 0, keys, err)) ||
        (rc = cule_json_get_str(&in->doc, 0, "topic", in->topic_buf, sizeof in->topic_buf, err)) < 0) {
        return rc;
    }
    if (rc > 0) {
        in->topic = in->topic_buf;
        in->topic_len = strlen(in->topic_buf);
    }
    rc = cule_json_get_bool(&in->doc, 0, "retain", &in->retain, err);
    if (rc < 0 || (rc = priority_of(in, err))) {
        return rc;
    }
    return payload_of(in, err);
}

/* serve --lines: what a worker's line says. */
#include "serve_lines.h"

#include "base/base64.h"

#include "wire/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* One line, read. */
struct answer {
    uint64_t id, arg0, arg1, detail;
    struct cule_buf body;
    bool more, failed;
    int code;
    char text[SERVE_TEXT_MAX];
};

static int read_b64(const struct cule_json *doc, int i, struct cule_buf *out, struct cule_err *err)
{
    struct cule_buf text;
    uint8_t *at;
    cule_buf_init(&text, 0);
    int rc = cule_json_str_add(doc, i, &text);
    size_t n = cule_buf_len(&text);
    rc = rc || n == 0 ? rc : cule_buf_reserve(out, n, &at);
    if (!rc && n) {
        ssize_t got = cule_base64_decode(at, (const char *)cule_buf_data(&text), n);
        if (got < 0) {
            rc = (int)got;
        } else {
            cule_buf_commit(out, (size_t)got);
        }
    }
    cule_buf_release(&text);
    return rc ? cule_err_set(err, rc, "key 'payload_b64' is no base64") : 0;
}

static int read_body(const struct cule_json *doc, struct answer *a, struct cule_err *err)
{
    int text = cule_json_find(doc, 0, "payload_text");
    int json = cule_json_find(doc, 0, "payload_json");
    int b64 = cule_json_find(doc, 0, "payload_b64");
    size_t n;
    int rc = 0;
    if ((text >= 0) + (json >= 0) + (b64 >= 0) > 1) {
        return cule_err_set(err, CULE_EMALFORMED, "more than one payload");
    }
    if (text >= 0) {
        rc = cule_json_str_add(doc, text, &a->body);
        return rc ? cule_err_set(err, rc, "key 'payload_text' is no string") : 0;
    }
    if (json >= 0) {
        const char *raw = cule_json_raw(doc, json, &n);
        rc = cule_buf_add(&a->body, raw, n);
        return rc ? cule_err_set(err, rc, "out of memory") : 0;
    }
    return b64 >= 0 ? read_b64(doc, b64, &a->body, err) : 0;
}

/* "code": a name of the table or its number. */
static int read_code(const struct cule_json *doc, struct answer *a, struct cule_err *err)
{
    uint64_t number;
    char name[32];
    int i = cule_json_find(doc, 0, "code");
    a->code = CULE_EHANDLER;
    if (i < 0) {
        return 0;
    }
    if (cule_json_u64(doc, i, &number) == 0 && number > 0 && number < 1000) {
        a->code = -(int)number;
        return 0;
    }
    int code = cule_json_str(doc, i, name, sizeof name) > 0 ? cule_err_by_name(name) : 0;
    if (!code) {
        return cule_err_set(err, CULE_EMALFORMED, "key 'code' names no error");
    }
    a->code = code;
    return 0;
}

static int read_error(const struct cule_json *doc, struct answer *a, struct cule_err *err)
{
    int i = cule_json_find(doc, 0, "error");
    if (i < 0) {
        return 0;
    }
    a->failed = true;
    struct cule_buf text;
    cule_buf_init(&text, 0);
    int rc = cule_json_str_add(doc, i, &text);
    if (rc) {
        rc = cule_err_set(err, rc, "key 'error' is no string");
    } else {
        snprintf(a->text, sizeof a->text, "%.*s", (int)CULE_MIN(cule_buf_len(&text), sizeof a->text - 1),
                 cule_buf_len(&text) ? (const char *)cule_buf_data(&text) : "");
    }
    cule_buf_release(&text);
    return rc ? rc : read_code(doc, a, err);
}

static int read_line(struct cule_json *doc, const char *line, size_t n, struct answer *a, struct cule_err *err)
{
    int rc = cule_json_parse(doc, line, n, err);
    if (rc) {
        return rc;
    }
    rc = cule_json_get_u64(doc, 0, "id", &a->id, err);
    if (rc <= 0) {
        return rc ? rc : cule_err_set(err, CULE_EMALFORMED, "no key 'id'");
    }
    if ((rc = cule_json_get_u64(doc, 0, "arg0", &a->arg0, err)) < 0 ||
        (rc = cule_json_get_u64(doc, 0, "arg1", &a->arg1, err)) < 0 ||
        (rc = cule_json_get_u64(doc, 0, "detail", &a->detail, err)) < 0 ||
        (rc = cule_json_get_bool(doc, 0, "more", &a->more, err)) < 0) {
        return rc;
    }
    rc = read_error(doc, a, err);
    return rc ? rc : read_body(doc, a, err);
}

/* --- acting on it --- */

void lines_flush(struct lines_task *t)
{
    struct lines_speech *x = t->x;
    while (cule_buf_len(&t->waits)) {
        size_t n = CULE_MIN(cule_buf_len(&t->waits), (size_t)CULE_PAYLOAD_MAX);
        if (serve_stream(t->q, 0, 0, cule_buf_data(&t->waits), n, false) == CULE_EAGAIN) {
            return;
        }
        cule_buf_take(&t->waits, n);
    }
    bool resume = x->paused == t;
    if (t->answered) {
        if (serve_stream(t->q, 0, 0, NULL, 0, true) == CULE_EAGAIN) {
            return;
        }
        lines_done(t, 0);
    }
    if (resume) {
        lines_resume(x);
    }
}

/* A part of a stream, or its end. What the asker does not take now waits; when much waits, the worker does. */
static void stream(struct lines_task *t, const struct answer *a)
{
    struct serve_req *q = t->q;
    const uint8_t *p = cule_buf_len(&a->body) ? cule_buf_data(&a->body) : NULL;
    size_t n = cule_buf_len(&a->body);
    t->answered = !a->more;
    /* More than the asker's credit is never taken whole, and credit comes only for what it was sent. */
    while (n > CULE_PAYLOAD_MAX && cule_buf_len(&t->waits) == 0 &&
           serve_stream(q, a->arg0, a->arg1, p, CULE_PAYLOAD_MAX, false) == 0) {
        p += CULE_PAYLOAD_MAX;
        n -= CULE_PAYLOAD_MAX;
    }
    if (n <= CULE_PAYLOAD_MAX && cule_buf_len(&t->waits) == 0 &&
        serve_stream(q, a->arg0, a->arg1, p, n, !a->more) == 0) {
        if (t->answered) {
            lines_done(t, 0);
        }
        return;
    }
    if (cule_buf_add(&t->waits, p, n)) {
        serve_error(q, CULE_ENOMEM, 0, "out of memory");
        lines_done(t, CULE_ENOMEM);
    } else if (t->x->last_words) {
        serve_error(q, CULE_EHANDLER, 0, "the worker ended, and its answer was not taken in time");
        lines_done(t, CULE_EHANDLER);
    } else if (cule_buf_len(&t->waits) > LINES_WAIT_BYTES) {
        t->x->paused = t;
        cule_watch_set(t->x->out_watch, 0);
    }
}

static void act(struct lines_task *t, const struct answer *a)
{
    struct serve_req *q = t->q;
    if (a->failed) {
        serve_error(q, a->code, a->detail, "%s", a->text[0] ? a->text : cule_err_text(a->code));
        lines_done(t, a->code);
    } else if (a->more || q->replied || cule_buf_len(&a->body) > CULE_MESSAGE_MAX) {
        stream(t, a);
    } else {
        size_t n = cule_buf_len(&a->body);
        serve_reply(q, a->arg0, a->arg1, n ? cule_buf_data(&a->body) : NULL, n);
        lines_done(t, 0);
    }
}

/* A line that makes no sense fails the request that it is about; where that cannot be told, the only one there is. */
static void nonsense(struct lines_speech *x, struct lines_task *t, const char *line, size_t n, const char *why)
{
    struct worker *w = x->w;
    struct cule_buf shown;
    size_t at = 0;
    cule_buf_init(&shown, 0);
    w->s->n.bad_lines++;
    if (cule_print_safe(line, CULE_MIN(n, 120u), &shown) == 0 && cule_buf_addc(&shown, '\0') == 0) {
        serve_say(w->s, 1, "worker %s[%d] wrote what is no answer: %s: '%s'", w->s->name, (int)w->log.pid, why,
                  (const char *)cule_buf_data(&shown));
    }
    cule_buf_release(&shown);
    if (!t && w->open == 1) {
        t = cule_map_next(&x->tasks, &at, NULL);
    }
    if (t) {
        serve_error(t->q, CULE_EHANDLER, 0, "the worker's answer makes no sense: %s", why);
        lines_done(t, CULE_EHANDLER);
    }
}

void lines_answer(struct lines_speech *x, const char *line, size_t n)
{
    struct answer a = {0};
    struct cule_err err = {0};
    struct cule_json *doc = &x->mirror.doc;
    cule_buf_init(&a.body, 0);
    int rc = read_line(doc, line, n, &a, &err);
    struct lines_task *t = cule_map_get(&x->tasks, a.id);
    if (rc) {
        nonsense(x, t, line, n, err.text);
    } else if (t && !t->answered) {
        act(t, &a);
    } else if (t || a.id == 0 || a.id > x->w->s->next_seq) {
        nonsense(x, NULL, line, n, "no request has that id");
    } /* else: the answer to an event, or to what was over already */
    cule_buf_release(&a.body);
}

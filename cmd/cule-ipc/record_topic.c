/* Recording what a bus passes on a topic: its tap's stream, each frame with the time that the bus saw it. */
#include "record.h"

#include "base/json.h"
#include "busclient.h"
#include "io/ready.h"

#include <signal.h>
#include <stdlib.h>

enum { TOPIC_POLL_MS = 200 };

static volatile sig_atomic_t stopped;

static void on_stop(int signum)
{
    (void)signum;
    stopped = 1;
}

/* The frames inside one DATA of the tap. */
static int take(struct record *r, const struct cule_msg *m)
{
    const uint8_t *p = m->body;
    size_t n = m->len;
    struct cule_frame mark = {0};
    bool marked = false;
    while (n) {
        struct cule_frame f;
        const uint8_t *payload;
        size_t used;
        struct cule_err err = {0};
        if (cule_frame_nested(p, n, &f, &payload, &used, &err) <= 0) {
            cule_cli_warn(r->cli, "the bus sent what is no frame: %s", err.text);
            r->status = 3;
            return 0;
        }
        p += used;
        n -= used;
        if (!marked && f.kind == CULE_MARK) {
            mark = f;
            marked = true;
            continue;
        }
        int rc = recorder_add(&r->out, marked ? mark.arg0 : cule_wall_ns(), marked ? mark.arg1 >> 1 : 0,
                              marked && (mark.arg1 & 1), &f, payload);
        marked = false;
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int ask(struct record *r, struct cule_link *l, struct cule_err *err)
{
    struct cule_buf json;
    struct cule_json_writer w;
    struct cule_msg answer;
    cule_buf_init(&json, 0);
    cule_json_begin(&w, &json);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "pattern", r->o->topic);
    cule_json_close(&w, '}');
    int rc = cule_json_end(&w);
    rc = rc ? rc : cule_buf_addc(&json, '\0');
    rc = rc ? cule_err_set(err, rc, "out of memory")
            : busclient_ask(l, (uint32_t)CULE_S_BUS, CULE_OP_BUS_TAP, 0, (const char *)cule_buf_data(&json),
                            BUSCLIENT_ASK_MS, &answer, err);
    cule_buf_release(&json);
    return rc ? cule_err_context(err, rc, "cannot tap '%s'", r->o->topic) : 0;
}

static int follow(struct record *r, struct cule_link *l, struct cule_err *err)
{
    while (!stopped) {
        struct cule_msg m;
        int rc = cule_link_next(l, &m, TOPIC_POLL_MS, err);
        if (rc == CULE_ETIMEOUT) {
            continue;
        }
        if (rc < 0) {
            return cule_err_context(err, rc, "the bus");
        }
        if (m.h.kind == CULE_ERROR_FRAME) {
            return cule_msg_error(&m, err);
        }
        if (m.h.kind == CULE_DATA && (rc = take(r, &m))) {
            return cule_err_set(err, rc, "cannot record: %s", cule_err_text(rc));
        }
        if (m.h.kind == CULE_DATA && record_flush(r)) {
            return 0;
        }
        if (m.h.kind == CULE_DATA && !(m.h.flags & CULE_OPEN)) {
            return 0;
        }
    }
    return 0;
}

int record_topic(struct record *r)
{
    struct busclient_where where;
    struct cule_link *l = NULL;
    struct cule_err err = {0};
    const struct sigaction sa = {.sa_handler = on_stop};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    int rc = busclient_check_pattern(r->o->topic, &err);
    rc = rc ? rc : busclient_where(&where, &r->o->at, &err);
    rc = rc ? rc : busclient_dial(&where, BUSCLIENT_ASK_MS, &l, &err);
    rc = rc ? rc : ask(r, l, &err);
    if (!rc && cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
        cule_cli_warn(r->cli, "%s", err.text);
    }
    rc = rc ? rc : follow(r, l, &err);
    cule_link_free(l);
    return rc ? cule_cli_fail(r->cli, &err) : r->status;
}

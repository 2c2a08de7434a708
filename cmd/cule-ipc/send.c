/* cule-ipc send and notify: one-way messages. */
#include "call.h"
#include "cli/tty.h"

#include <string.h>
#include <unistd.h>

struct send_opts {
    struct call_common r;
    uint64_t count;
};

enum { SEND_SLICE_MS = 50 };

static bool one_way(const char *endpoint)
{
    return strcmp(endpoint, "-") == 0 || strncmp(endpoint, "file:", 5) == 0;
}

/* Sends it; out of credit, waits for the peer to grant more, to the deadline. */
static int send_one(struct cule_link *l, const struct cule_msg *m, uint64_t deadline_ns, struct cule_err *err)
{
    for (;;) {
        int rc = cule_link_send(l, m);
        if (rc != CULE_EAGAIN) {
            return rc ? cule_err_set(err, rc, "cannot send: %s", cule_err_text(rc)) : 0;
        }
        if (deadline_ns && cule_now_ns() >= deadline_ns) {
            return cule_err_set(err, CULE_ETIMEOUT, "the receiver takes nothing: out of credit");
        }
        struct cule_msg seen;
        rc = cule_link_drain(l, SEND_SLICE_MS, err);
        rc = rc && rc != CULE_ETIMEOUT ? rc : cule_link_next(l, &seen, SEND_SLICE_MS, err);
        if (rc < 0 && rc != CULE_ETIMEOUT) {
            return rc;
        }
    }
}

static int deliver(const struct cule_cli *cli, struct call_request *q, const struct send_opts *o, struct cule_err *err)
{
    struct cule_link *l = NULL;
    const struct cule_link_opts lo = {
        .name = "cule-ipc send",
        .connect_timeout_ms = cli->timeout_ms,
        .wait_ms = o->r.wait_ms,
        .one_way = one_way(q->endpoint),
    };
    uint64_t deadline_ns = cli->timeout_ms ? cule_now_ns() + cli->timeout_ms * 1000000 : 0;
    int rc = lo.one_way ? cule_link_open_writer(NULL, q->endpoint, &lo, &l, err)
                        : cule_link_open(NULL, q->endpoint, &lo, &l, err);
    for (uint64_t i = 0; i < o->count && !rc; i++) {
        rc = send_one(l, &q->m, deadline_ns, err);
    }
    rc = rc ? rc : cule_link_drain(l, cli->timeout_ms, err);
    cule_link_free(l);
    return rc;
}

static int run(struct cule_cli *cli)
{
    const struct send_opts *o = cli->opts;
    struct call_request q;
    struct cule_err err = {0};
    int rc = call_request_make(&q, cli, &o->r, &err);
    if (!rc && strcmp(q.endpoint, "-") == 0) {
        rc = cule_tty_frames_out(cli, STDOUT_FILENO, &err);
    }
    q.m.h.kind = CULE_EVENT;
    rc = rc ? rc : deliver(cli, &q, o, &err);
    call_request_release(&q);
    return rc ? cule_cli_fail(cli, &err) : 0;
}

const struct cule_command cule_ipc_send = {
    .name = "send",
    .group = "calls",
    .summary = "send a one-way message",
    .about =
        "An EVENT: nobody answers it. With - as the ENDPOINT it goes to standard output, with file:PATH to a file.",
    .example = "cule-ipc send unix:/run/app.sock logs 0x4000 --payload 'it is done'",
    .opts_size = sizeof(struct send_opts),
    .options =
        (const struct cule_opt[]){
            CALL_REQUEST_ROWS(struct send_opts, r),
            CULE_OPT_U64(struct send_opts, count, 'n', "count", "N", "send it N times", .def = "1"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CALL_ARG_ROWS(struct send_opts, r), CULE_ARG_END},
    .timeout = "30s",
    .run = run,
};

const struct cule_command cule_ipc_notify = {
    .name = "notify",
    .group = "calls",
    .summary = "send a notification: an event without payload",
    .about = "Notifications may be coalesced on the way.",
    .example = "cule-ipc notify unix:/run/app.sock dev irq --arg0 3",
    .opts_size = sizeof(struct send_opts),
    .options =
        (const struct cule_opt[]){
            CALL_EVENT_ROWS(struct send_opts, r),
            CULE_OPT_U64(struct send_opts, count, 'n', "count", "N", "send it N times", .def = "1"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CALL_ARG_ROWS(struct send_opts, r), CULE_ARG_END},
    .timeout = "30s",
    .run = run,
};

/* cule-ipc call: one request, its answer on standard output. */
#include "call.h"

#include "cli/tty.h"
#include "wire/mirror.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum { CALL_CHUNK = 64 * 1024, CALL_LINE_MAX = 1024 * 1024 };

struct call {
    const struct cule_cli *cli;
    const struct call_opts *o;
    struct cule_loop *loop;
    struct cule_link *link;
    struct cule_mirror mirror;
    struct cule_buf out;
    struct cule_buf in; /* --stream: read and not sent yet */
    struct cule_watch *watch;
    uint64_t id;
    bool in_end, in_sent; /* standard input has ended; and that has been sent */
    bool done, broken;
    char last; /* byte written to standard output */
    int status;
};

static void finish(struct call *c, int status)
{
    if (!c->done) {
        c->done = true;
        c->status = c->status ? c->status : status;
        cule_watch_free(c->watch);
        c->watch = NULL;
        cule_link_close(c->link);
    }
}

/* --- the answer --- */

static int write_answer(struct call *c, const struct cule_msg *m, struct cule_err *err)
{
    if (!c->cli->json) {
        c->last = m->len ? (char)m->body[m->len - 1] : c->last;
        return ipc_write_all(STDOUT_FILENO, m->body, m->len, err);
    }
    int rc = cule_mirror_write_msg(&c->mirror, m, &c->out, err);
    rc = rc ? rc : ipc_write_all(STDOUT_FILENO, cule_buf_data(&c->out), cule_buf_len(&c->out), err);
    cule_buf_clear(&c->out);
    return rc;
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    (void)l;
    struct call *c = arg;
    struct cule_err err = {0};
    int code = cule_msg_error(m, &err);
    if (c->done) {
        return;
    }
    if (code && c->cli->json) {
        write_answer(c, m, NULL);
    }
    if (code) {
        finish(c, cule_cli_fail(c->cli, &err));
        return;
    }
    if (m->h.kind == CULE_REPLY && (m->h.arg0 || m->h.arg1)) {
        cule_cli_note(c->cli, 1, "arg0 %llu, arg1 %llu", (unsigned long long)m->h.arg0, (unsigned long long)m->h.arg1);
    }
    int rc = write_answer(c, m, &err);
    if (rc) {
        c->broken = true;
        finish(c, rc == CULE_ECLOSED ? cule_err_exit(rc) : cule_cli_fail(c->cli, &err));
        return;
    }
    if (!(m->h.flags & CULE_OPEN)) {
        finish(c, 0);
    }
}

/* --- the stream that goes out --- */

/* How much of what was read makes one DATA: all of it, or a line. 0: not yet. */
static size_t next_part(const struct call *c)
{
    size_t n = cule_buf_len(&c->in);
    if (n == 0 || !c->o->lines) {
        return CULE_MIN(n, (size_t)CALL_CHUNK);
    }
    const uint8_t *p = cule_buf_data(&c->in);
    const uint8_t *nl = memchr(p, '\n', n);
    return nl ? (size_t)(nl - p) + 1 : c->in_end || n >= CALL_LINE_MAX ? n : 0;
}

static void send_stream(struct call *c)
{
    bool full = false;
    size_t n;
    while (!c->done && !full && (n = next_part(c)) > 0) {
        full = cule_link_data(c->link, c->id, cule_buf_data(&c->in), n, false) == CULE_EAGAIN;
        if (!full) {
            cule_buf_take(&c->in, n);
        }
    }
    if (!c->done && !full && c->in_end && !c->in_sent) {
        full = cule_link_data(c->link, c->id, NULL, 0, true) == CULE_EAGAIN;
        c->in_sent = !full;
    }
    if (c->watch) {
        cule_watch_set(c->watch, full || c->in_end ? 0 : POLLIN);
    }
}

static void on_stdin(void *ctx, int events)
{
    (void)events;
    struct call *c = ctx;
    struct cule_err err = {0};
    uint8_t *at;
    if (cule_buf_reserve(&c->in, CALL_CHUNK, &at)) {
        finish(c, cule_cli_failf(c->cli, CULE_ENOMEM, "out of memory"));
        return;
    }
    ssize_t n = ipc_read(STDIN_FILENO, at, CALL_CHUNK, "standard input", &err);
    if (n < 0) {
        finish(c, cule_cli_fail(c->cli, &err));
        return;
    }
    cule_buf_commit(&c->in, (size_t)n);
    c->in_end = n == 0;
    send_stream(c);
}

/* --- the link --- */

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)ctx;
    if (m->h.kind == CULE_REQUEST) {
        cule_link_error(l, m->h.id, CULE_ENO_SERVICE, 0, "a caller answers no requests");
    }
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    (void)l;
    (void)id;
    struct call *c = ctx;
    if (c->o->stream && c->id && !c->done) {
        send_stream(c);
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    struct call *c = ctx;
    c->link = NULL;
    if (!c->done) { /* the request has been answered by the link itself otherwise */
        c->done = true;
        struct cule_err err = *why;
        if (err.code == 0) {
            cule_err_set(&err, CULE_ECLOSED, "closed by the peer");
        }
        c->status = cule_cli_fail(c->cli, &err);
    }
    cule_loop_stop(c->loop);
}

static const struct cule_link_ops ops = {.message = on_message, .writable = on_writable, .closed = on_closed};

/* On a link that is still connecting the request waits in its queue. */
static int start(struct call *c, const struct call_request *q, struct cule_err *err)
{
    struct cule_msg m = q->m;
    const struct cule_link_opts lo = {.name = "cule-ipc call",
                                      .ops = &ops,
                                      .ctx = c,
                                      .connect_timeout_ms = c->cli->timeout_ms,
                                      .wait_ms = c->o->r.wait_ms};
    int rc = cule_link_open(c->loop, q->endpoint, &lo, &c->link, err);
    if (rc) {
        return rc;
    }
    m.h.kind = CULE_REQUEST;
    m.h.flags |= c->o->stream ? CULE_OPEN : 0;
    rc = cule_link_call(c->link, &m, c->cli->timeout_ms, on_answer, c, &c->id);
    if (rc == CULE_EUNSUPPORTED) {
        return cule_err_set(err, rc, m.nfds ? "'%s' cannot carry descriptors: use unix:" : "'%s' has no way back",
                            q->endpoint);
    }
    if (rc) {
        return cule_err_set(err, rc, "cannot send the request: %s", cule_err_text(rc));
    }
    return c->o->stream ? cule_watch_new(c->loop, &c->watch, STDIN_FILENO, POLLIN, on_stdin, c, err) : 0;
}

static int run(struct cule_cli *cli)
{
    struct call c = {.cli = cli, .o = cli->opts, .last = '\n'};
    struct call_request q;
    struct cule_err err = {0};
    cule_buf_init(&c.out, 0);
    cule_buf_init(&c.in, 0);
    cule_mirror_init(&c.mirror);
    int rc = call_request_make(&q, cli, &c.o->r, &err);
    if (!rc && c.o->stream && c.o->r.payload && strcmp(c.o->r.payload, "-") == 0) {
        rc = cule_err_set(&err, CULE_EUSAGE, "--stream and --payload - both want standard input");
    }
    rc = rc ? rc : cule_loop_new(&c.loop, &err);
    rc = rc ? rc : start(&c, &q, &err);
    if (rc) {
        c.status = cule_cli_fail(cli, &err);
    } else {
        cule_loop_run(c.loop);
    }
    if (rc == 0 && c.last != '\n' && !c.broken && cule_tty_is(STDOUT_FILENO)) {
        ipc_write_all(STDOUT_FILENO, "\n", 1, NULL);
    }
    cule_watch_free(c.watch);
    cule_link_free(c.link);
    if (c.loop) {
        cule_loop_free(c.loop);
    }
    call_request_release(&q);
    cule_mirror_release(&c.mirror);
    cule_buf_release(&c.out);
    cule_buf_release(&c.in);
    return c.status;
}

const struct cule_command cule_ipc_call = {
    .name = "call",
    .group = "calls",
    .summary = "send a request and write its answer",
    .about =
        "The answer's payload goes to standard output as it comes, streaming answers too; with --json each message "
        "is an object on a line. An error is told on stderr, and its code is the exit status.",
    .example = "cule-ipc call unix:/run/app.sock cule health",
    .opts_size = sizeof(struct call_opts),
    .options =
        (const struct cule_opt[]){
            CALL_REQUEST_ROWS(struct call_opts, r),
            CULE_OPT_FLAG(struct call_opts, stream, 's', "stream",
                          "send standard input as the request's stream, as it comes"),
            CULE_OPT_FLAG(struct call_opts, lines, 'L', "lines", "with --stream: each line as one piece"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CALL_ARG_ROWS(struct call_opts, r), CULE_ARG_END},
    .timeout = "30s",
    .flags = CULE_CMD_JSON,
    .run = run,
};

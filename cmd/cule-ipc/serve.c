/* cule-ipc serve: listens, and has requests answered by programs; the links, the signals, the end. */
#include "serve.h"

#include "cli/tty.h"
#include "io/ready.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void serve_say(const struct serve *s, int level, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    if (level > s->level) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cule_cli_note(s->cli, 0, "%s", text);
}

/* --- links --- */

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    struct serve_client *c = ctx;
    (void)l;
    switch (m->h.kind) {
    case CULE_REQUEST:
    case CULE_EVENT:
        if (m->h.service == (uint32_t)CULE_S_CULE) {
            serve_self(c, m);
        } else {
            serve_take(c, m);
        }
        break;
    case CULE_DATA: serve_take_data(c, m); break;
    case CULE_CANCEL: serve_take_cancel(c, m); break;
    default: break;
    }
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    struct serve_client *c = ctx;
    (void)l;
    if (c->s->back->forwards) {
        forward_writable(&c->port, id);
        return;
    }
    struct serve_req *q = id ? cule_map_get(&c->reqs, id) : NULL;
    if (q && q->state == SERVE_ACTIVE) {
        c->s->back->writable(q);
    }
    if (id) {
        return;
    }
    CULE_LIST_EACH (n, &c->s->active) { /* the link's own room: whoever waited may go on */
        struct serve_req *a = CULE_LIST_ENTRY(n, struct serve_req, node);
        if (a->client == c && a->k->m.h.id) {
            c->s->back->writable(a);
        }
    }
}

static void on_skipped(struct cule_link *l, void *ctx, uint64_t bytes)
{
    struct serve_client *c = ctx;
    (void)l;
    serve_say(c->s, 1, "%" PRIu64 " bytes that are no frame were skipped", bytes);
    c->s->status = 3;
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    struct serve_client *c = ctx;
    struct serve *s = c->s;
    (void)l;
    serve_trace_forget(c, 0);
    serve_client_gone(c);
    forward_port_gone(&c->port, NULL, 0);
    forward_port_release(&c->port);
    cule_map_release(&c->reqs);
    cule_list_remove(&c->node);
    s->nclients--;
    if (why->code) {
        serve_say(s, s->stdio ? 0 : 2, "a link ended: %s", why->text);
        s->status = s->stdio ? cule_err_exit(why->code) : s->status;
    }
    free(c);
    if (s->stdio) {
        s->draining = true;
    }
    serve_pump(s);
}

static const struct cule_link_ops link_ops = {
    .message = on_message, .writable = on_writable, .skipped = on_skipped, .closed = on_closed};

static void on_accept(struct cule_listener *listener, void *ctx, struct cule_link *l)
{
    struct serve *s = ctx;
    struct cule_err err;
    struct serve_client *c = calloc(1, sizeof *c);
    (void)listener;
    if (!c) {
        cule_err_set(&err, CULE_ENOMEM, "out of memory");
        cule_link_abort(l, &err);
        return;
    }
    c->s = s;
    c->link = l;
    c->number = s->next_number++;
    cule_map_init(&c->reqs);
    forward_port_init(&c->port, l, false, c->number);
    c->port.credited = true;
    cule_list_push(&s->clients, &c->node);
    s->nclients++;
    cule_link_set_ctx(l, &link_ops, c);
}

/* --- the end --- */

/* Draining is over when nothing is under way; then links are flushed and closed, and when they are gone the loop ends.
 */
void serve_pump_done(struct serve *s)
{
    if (!s->draining || !serve_idle(s)) {
        return;
    }
    s->back->stop(s);
    if (s->nclients == 0) {
        cule_loop_stop(s->loop);
        return;
    }
    CULE_LIST_EACH (n, &s->clients) {
        cule_link_close(CULE_LIST_ENTRY(n, struct serve_client, node)->link);
    }
}

static void drop_listeners(struct serve *s)
{
    for (size_t i = 0; i < s->nlisteners; i++) {
        cule_listener_free(s->listeners[i]);
    }
    s->nlisteners = 0;
}

static void on_grace(void *ctx)
{
    struct serve *s = ctx;
    serve_say(s, 1, "%" PRIu64 " requests cut after the grace of SIGTERM (--grace)", s->nactive + s->nqueued);
    s->status = 5;
    serve_cancel_all(s);
    if (serve_idle(s)) {
        serve_pump(s);
    } else {
        cule_timer_start(s->grace, s->o->kill_grace_ms + 1000, 0);
    }
}

static void on_signal(void *ctx, int signum)
{
    struct serve *s = ctx;
    if (s->draining) {
        s->status = 128 + signum;
        cule_loop_stop(s->loop);
        return;
    }
    serve_say(s, 2, "stopping: %" PRIu64 " requests under way", s->nactive + s->nqueued);
    cule_ready_stopping(getenv("NOTIFY_SOCKET"), NULL);
    s->draining = true;
    drop_listeners(s);
    cule_timer_start(s->grace, s->o->grace_ms, 0);
    serve_pump(s);
}

/* --- the beginning --- */

static int choose(struct serve *s, struct cule_err *err)
{
    const struct serve_opts *o = s->o;
    const char *const given[] = {o->each, o->lines, o->frames};
    const struct serve_backend *const back[] = {&serve_each, &serve_lines, &serve_frames};
    int n = 0;
    for (int i = 0; i < 3; i++) {
        if (given[i]) {
            n++;
            s->command = given[i];
            s->back = back[i];
        }
    }
    if (n != 1) {
        return cule_err_set(err, CULE_EUSAGE, "give one of --each, --lines and --frames, not %s", n ? "two" : "none");
    }
    uint32_t service;
    for (size_t i = 0; i < o->services.n; i++) {
        if (cule_service_parse(o->services.v[i], &service)) {
            return cule_err_set(err, CULE_EUSAGE, "'%s' is no service: a name, or one to four characters",
                                o->services.v[i]);
        }
    }
    return 0;
}

/* The name, for prefixes and in HELLO: as given, else the last part of the command's first word. */
static void name_handler(struct serve *s)
{
    if (s->o->name) {
        snprintf(s->name, sizeof s->name, "%s", s->o->name);
        return;
    }
    const char *p = s->command + strspn(s->command, " ");
    if (strncmp(p, "exec ", 5) == 0) {
        p += 5 + strspn(p + 5, " ");
    }
    size_t n = strcspn(p, " \t;|&<>()");
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '/') {
            p += i + 1;
            n -= i + 1;
            i = (size_t)-1;
        }
    }
    snprintf(s->name, sizeof s->name, "%.*s", (int)CULE_MIN(n, sizeof s->name - 1), p);
}

static void set_limits(struct serve *s, struct serve_opts *o)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (o->workers == 0) {
        o->workers = cpus > 0 ? (uint64_t)cpus : 1;
    }
    uint64_t each = o->concurrency ? o->concurrency : s->back->concurrency;
    s->concurrency = s->back == &serve_each ? each : each * o->workers;
}

static int listen_all(struct serve *s, struct cule_err *err)
{
    static const char *const standard[] = {"-"};
    const char *const *endpoints = s->o->listen.n ? s->o->listen.v : standard;
    size_t n = s->o->listen.n ? s->o->listen.n : 1;
    const struct cule_link_opts lo = {.name = s->own_name, .ops = &link_ops, .manual_credit = true};
    const struct cule_listen_opts fds = {.listen_fds = getenv("LISTEN_FDS"),
                                         .listen_pid = getenv("LISTEN_PID"),
                                         .listen_fdnames = getenv("LISTEN_FDNAMES")};
    s->listeners = calloc(n, sizeof *s->listeners);
    if (!s->listeners) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(endpoints[i], "-") == 0) {
            int rc = cule_tty_frames_in(s->cli, STDIN_FILENO, err);
            if (rc) {
                return rc;
            }
            s->stdio = n == 1;
        }
        int rc = ipc_make_run_dir(endpoints[i], err);
        rc = rc ? rc : cule_listen(s->loop, endpoints[i], &lo, &fds, on_accept, s, &s->listeners[i], err);
        if (rc) {
            return rc;
        }
        s->nlisteners++;
        serve_say(s, 2, "listening on '%s'", cule_listener_endpoint(s->listeners[i]));
    }
    return 0;
}

static int set_up(struct serve *s, struct cule_sigwatch *sig[2], struct cule_err *err)
{
    int rc = choose(s, err);
    if (rc) {
        return rc;
    }
    name_handler(s);
    set_limits(s, s->cli->opts);
    s->own_name = s->name;
    s->level = s->o->level;
    rc = cule_loop_new(&s->loop, err);
    if (!rc) {
        serve_pump_init(s);
        rc = serve_env_base(s) ? cule_err_set(err, CULE_ENOMEM, "out of memory") : 0;
    }
    rc = rc ? rc : cule_sigwatch_new(s->loop, &sig[0], SIGTERM, on_signal, s, err);
    rc = rc ? rc : cule_sigwatch_new(s->loop, &sig[1], SIGINT, on_signal, s, err);
    rc = rc ? rc : cule_timer_new(s->loop, &s->grace, on_grace, s, err);
    rc = rc ? rc : s->back->start(s, err);
    return rc ? rc : listen_all(s, err);
}

static void tear_down(struct serve *s, struct cule_sigwatch *sig[2])
{
    drop_listeners(s);
    free(s->listeners);
    s->draining = true;
    if (s->loop) {
        serve_cancel_all(s);
    }
    CULE_LIST_EACH (n, &s->clients) {
        struct serve_client *c = CULE_LIST_ENTRY(n, struct serve_client, node);
        struct cule_link *l = c->link;
        const struct cule_err none = {0};
        on_closed(l, c, &none);
        cule_link_free(l);
    }
    if (s->back && s->loop) {
        s->back->release(s);
        cule_defer_cancel(&s->pump);
        serve_spans_release(s);
    }
    cule_sigwatch_free(sig[0]);
    cule_sigwatch_free(sig[1]);
    cule_timer_free(s->grace);
    serve_env_release(s);
    if (s->loop) {
        cule_loop_free(s->loop);
    }
}

static int run(struct cule_cli *cli)
{
    struct cule_err err = {0};
    struct cule_sigwatch *sig[2] = {NULL, NULL};
    struct serve *s = calloc(1, sizeof *s);
    if (!s) {
        return cule_cli_failf(cli, CULE_ENOMEM, "out of memory");
    }
    s->cli = cli;
    s->o = cli->opts;
    s->started_ns = cule_now_ns();
    s->next_number = 1;
    cule_list_init(&s->clients);
    cule_list_init(&s->active);
    cule_hist_init(&s->latency);
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        cule_list_init(&s->queue[p]);
    }
    int rc = set_up(s, sig, &err);
    if (!rc && cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
        cule_cli_warn(cli, "%s", err.text);
    }
    if (rc) {
        s->status = cule_cli_fail(cli, &err);
    } else {
        cule_loop_run(s->loop);
    }
    tear_down(s, sig);
    int status = s->status;
    free(s);
    return status;
}

const struct cule_command cule_ipc_serve = {
    .name = "serve",
    .group = "calls",
    .summary = "answer requests by running programs",
    .about = "--each starts a process for each request: payload on stdin, header in CULE_* variables, stdout is the "
             "answer, the exit status the verdict. --lines and --frames keep workers that speak JSON lines or frames.",
    .example = "cule-ipc serve --listen unix:/run/app.sock --each 'wc -c'",
    .opts_size = sizeof(struct serve_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_LIST(struct serve_opts, listen, 'l', "listen", "ENDPOINT",
                          "where askers come in (default: standard input and output)",
                          .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_STRING(struct serve_opts, each, 'e', "each", "CMD", "run CMD for each request",
                            .complete = CULE_COMPLETE_COMMAND),
            CULE_OPT_STRING(struct serve_opts, lines, 0, "lines", "CMD", "workers that speak JSON lines",
                            .complete = CULE_COMPLETE_COMMAND),
            CULE_OPT_STRING(struct serve_opts, frames, 0, "frames", "CMD", "workers that speak frames",
                            .complete = CULE_COMPLETE_COMMAND),
            CULE_OPT_LIST(struct serve_opts, services, 's', "service", "NAME", "answer for this service only",
                          .complete = CULE_COMPLETE_SERVICE),
            CULE_OPT_U64(struct serve_opts, concurrency, 'j', "concurrency", "N",
                         "requests at once: in all with --each (0: 16), of a worker with --lines (0: 1) and --frames "
                         "(0: 256)",
                         .def = "0"),
            CULE_OPT_U64(struct serve_opts, workers, 'w', "workers", "N", "workers (0: one for each processor)",
                         .def = "0"),
            CULE_OPT_U64(struct serve_opts, queue, 0, "queue", "N", "requests that may wait; more are told busy",
                         .def = "1024"),
            CULE_OPT_SIZE(struct serve_opts, queue_bytes, 0, "queue-bytes", "SIZE", "payload that may wait",
                          .def = "64M"),
            CULE_OPT_FLAG(struct serve_opts, stream, 0, "stream",
                          "with --each: send output as it comes, not only what is larger than 64 KiB"),
            CULE_OPT_FLAG(struct serve_opts, forward_cancel, 0, "forward-cancel",
                          "with --lines: tell workers of cancelled requests"),
            CULE_OPT_STRING(struct serve_opts, name, 0, "name", "NAME",
                            "what to be called (default: the command's name)"),
            CULE_OPT_CHOICE(struct serve_opts, level, 0, "log-level", "LEVEL", "error|warning|info|debug|trace",
                            "what to tell on stderr", .def = "warning"),
            CULE_OPT_DURATION(struct serve_opts, grace_ms, 0, "grace", "TIME",
                              "how long requests may go on after SIGTERM", .def = "10s"),
            CULE_OPT_DURATION(struct serve_opts, kill_grace_ms, 0, "kill-grace", "TIME",
                              "between SIGTERM and SIGKILL of a handler whose request was cancelled", .def = "1s"),
            CULE_OPT_END,
        },
    .timeout = "5m",
    .run = run,
};

/*
 * cule-ipc respond: answers requests that come over a bus. The work is that of serve: this file makes the connection to
 * the bus the one link whose requests it takes.
 */
#include "busrun.h"
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct respond_opts {
    BUS_OPTION_FIELDS
    const char *pattern, *group;
    struct serve_opts serve;
};

struct respond {
    struct busrun run;
    const struct respond_opts *o;
    struct serve s;
    struct serve_client *c; /* the connection, while it is there */
    char bus[CULE_ENDPOINT_MAX + 16];
    bool serving;
};

/* --- the connection as serve sees it --- */

static void drop_client(struct respond *r)
{
    struct serve_client *c = r->c;
    if (!c) {
        return;
    }
    r->c = NULL;
    serve_trace_forget(c, 0);
    serve_client_gone(c);
    forward_port_gone(&c->port, NULL, 0);
    forward_port_release(&c->port);
    cule_map_release(&c->reqs);
    cule_list_remove(&c->node);
    r->s.nclients--;
    free(c);
}

static struct serve_client *client(struct respond *r)
{
    struct cule_link *l = busclient_link(r->run.client);
    if (r->c && r->c->link == l) {
        return r->c;
    }
    drop_client(r);
    struct serve_client *c = calloc(1, sizeof *c);
    if (!c) {
        return NULL;
    }
    c->s = &r->s;
    c->link = l;
    c->number = r->s.next_number++;
    cule_map_init(&c->reqs);
    forward_port_init(&c->port, l, false, c->number);
    c->port.credited = true;
    cule_list_push(&r->s.clients, &c->node);
    r->s.nclients++;
    return r->c = c;
}

static void on_request(void *ctx, const struct busclient_delivery *d)
{
    struct respond *r = ctx;
    struct serve_client *c = client(r);
    if (c) {
        serve_take(c, d->msg);
    } else {
        cule_link_error(busclient_link(r->run.client), d->msg->h.id, CULE_ENOMEM, 0, "out of memory");
    }
}

static void on_other(void *ctx, struct cule_msg *m)
{
    struct respond *r = ctx;
    if (!r->c) {
        return;
    }
    if (m->h.kind == CULE_DATA) {
        serve_take_data(r->c, m);
    } else if (m->h.kind == CULE_CANCEL) {
        serve_take_cancel(r->c, m);
    }
}

static void on_writable(void *ctx, uint64_t id)
{
    struct respond *r = ctx;
    struct serve_client *c = r->c;
    if (!c) {
        return;
    }
    if (r->s.back->forwards) {
        forward_writable(&c->port, id);
        return;
    }
    struct serve_req *q = id ? cule_map_get(&c->reqs, id) : NULL;
    if (q && q->state == SERVE_ACTIVE) {
        r->s.back->writable(q);
    }
    if (id) {
        return;
    }
    CULE_LIST_EACH (n, &r->s.active) {
        struct serve_req *a = CULE_LIST_ENTRY(n, struct serve_req, node);
        if (a->client == c && a->k->m.h.id) {
            r->s.back->writable(a);
        }
    }
}

static void on_up(void *ctx)
{
    struct respond *r = ctx;
    busrun_ready(&r->run);
}

/* Nobody waits for what is under way: the broker has told the askers. */
static void on_down(void *ctx, const struct cule_err *why)
{
    struct respond *r = ctx;
    drop_client(r);
    serve_pump(&r->s);
    busrun_down(&r->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct respond *r = ctx;
    drop_client(r);
    if (why->code) {
        busrun_fail(&r->run, why);
    } else {
        busrun_done(&r->run, r->s.status);
    }
}

static const struct busclient_ops ops = {
    .up = on_up, .request = on_request, .other = on_other, .writable = on_writable, .down = on_down, .over = on_over};

/* SIGTERM: no more requests; serve closes the link when what is under way is done. */
static void on_stop(void *ctx)
{
    struct respond *r = ctx;
    cule_timer_start(r->run.grace, r->o->serve.grace_ms + BUSRUN_GRACE_MS, 0);
    busclient_unsubscribe(r->run.client);
    if (!client(r)) {
        busrun_done(&r->run, 0);
        return;
    }
    if (!busclient_link(r->run.client)) {
        busclient_close(r->run.client);
        return;
    }
    r->s.draining = true;
    cule_timer_start(r->s.grace, r->o->serve.grace_ms, 0);
    serve_pump(&r->s);
}

static void on_grace(void *ctx)
{
    struct respond *r = ctx;
    r->s.status = 5;
    serve_say(&r->s, 1, "requests cut after the grace of SIGTERM (--grace)");
    serve_cancel_all(&r->s);
    serve_pump(&r->s);
}

/* --- set up --- */

static int choose(struct respond *r)
{
    const struct serve_opts *o = &r->o->serve;
    const char *const given[] = {o->each, o->lines, o->frames};
    const struct serve_backend *const back[] = {&serve_each, &serve_lines, &serve_frames};
    int n = 0;
    for (int i = 0; i < 3; i++) {
        if (given[i]) {
            r->s.command = given[i];
            r->s.back = back[i];
            n++;
        }
    }
    return n == 1 ? 0
                  : cule_err_set(&r->run.err, CULE_EUSAGE, "give one of --each, --lines and --frames, not %s",
                                 n ? "two" : "none");
}

static int set_up(struct respond *r)
{
    struct serve *s = &r->s;
    struct serve_opts *o = &((struct respond_opts *)r->run.cli->opts)->serve;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int rc = choose(r);
    if (rc) {
        return rc;
    }
    o->workers = o->workers ? o->workers : cpus > 0 ? (uint64_t)cpus : 1;
    uint64_t each = o->concurrency ? o->concurrency : s->back->concurrency;
    s->concurrency = s->back == &serve_each ? each : each * o->workers;
    s->loop = r->run.loop;
    s->level = o->level;
    snprintf(s->name, sizeof s->name, "%s", o->name ? o->name : "respond");
    s->own_name = s->name;
    serve_pump_init(s);
    snprintf(r->bus, sizeof r->bus, "%s", r->run.where.endpoint);
    if (setenv("CULE_BUS", r->bus, 1) || serve_env_base(s)) { /* what a handler asks the bus goes to this one */
        return cule_err_set(&r->run.err, CULE_ENOMEM, "out of memory");
    }
    r->serving = true;
    rc = cule_timer_new(s->loop, &s->grace, on_grace, r, &r->run.err);
    return rc ? rc : s->back->start(s, &r->run.err);
}

static void tear_down(struct respond *r)
{
    struct serve *s = &r->s;
    if (!r->serving) {
        return;
    }
    s->draining = true;
    serve_cancel_all(s);
    drop_client(r);
    s->back->release(s);
    cule_defer_cancel(&s->pump);
    serve_spans_release(s);
    serve_env_release(s);
}

static int respond_run(struct cule_cli *cli)
{
    static struct respond r;
    r = (struct respond){.o = cli->opts};
    struct busclient_opts c = {
        .name = "cule-ipc respond", .ops = &ops, .ctx = &r, .reconnect = true, .manual_credit = true};
    const struct busclient_subscribe sub = {.pattern = r.o->pattern, .group = r.o->group, .respond = true};
    r.s.cli = cli;
    r.s.o = &r.o->serve;
    r.s.started_ns = cule_now_ns();
    r.s.next_number = 1;
    cule_list_init(&r.s.clients);
    cule_list_init(&r.s.active);
    cule_hist_init(&r.s.latency);
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        cule_list_init(&r.s.queue[p]);
    }
    if (busrun_begin(&r.run, cli, &r.o->at, on_stop, &r) == 0 && set_up(&r) == 0 && busrun_client(&r.run, &c) == 0 &&
        busclient_subscribe(r.run.client, &sub, &r.run.err) == 0) {
        busrun_run(&r.run);
    }
    tear_down(&r);
    return busrun_end(&r.run);
}

const struct cule_command cule_ipc_respond = {
    .name = "respond",
    .group = "bus",
    .summary = "answer requests on a pattern by running programs",
    .about =
        "--each starts a process for each request: the body on stdin, CULE_TOPIC and the header in CULE_* variables, "
        "stdout is the answer, the exit status the verdict. --lines and --frames keep workers that speak JSON lines "
        "or frames. When the asker gives up, the whole process tree that worked for it is ended. --timeout is for "
        "requests without a deadline of their own.",
    .example = "cule-ipc respond math/sum --each \"tr ' ' '\\n' | paste -sd+ | bc\"",
    .opts_size = sizeof(struct respond_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct respond_opts),
            CULE_OPT_STRING(struct respond_opts, serve.each, 'e', "each", "CMD", "run CMD for each request",
                            .complete = CULE_COMPLETE_COMMAND),
            CULE_OPT_STRING(struct respond_opts, serve.lines, 0, "lines", "CMD", "workers that speak JSON lines",
                            .complete = CULE_COMPLETE_COMMAND),
            CULE_OPT_STRING(struct respond_opts, serve.frames, 0, "frames", "CMD", "workers that speak frames",
                            .complete = CULE_COMPLETE_COMMAND),
            CULE_OPT_STRING(struct respond_opts, group, 'g', "group", "NAME",
                            "responders of one group share its requests"),
            CULE_OPT_U64(struct respond_opts, serve.concurrency, 'j', "concurrency", "N",
                         "requests at once: in all with --each (0: 16), of a worker with --lines (0: 1) and --frames "
                         "(0: 256)",
                         .def = "0"),
            CULE_OPT_U64(struct respond_opts, serve.workers, 'w', "workers", "N", "workers (0: one for each processor)",
                         .def = "0"),
            CULE_OPT_U64(struct respond_opts, serve.queue, 0, "queue", "N",
                         "requests that may wait; more are told busy", .def = "1024"),
            CULE_OPT_SIZE(struct respond_opts, serve.queue_bytes, 0, "queue-bytes", "SIZE", "payload that may wait",
                          .def = "64M"),
            CULE_OPT_FLAG(struct respond_opts, serve.stream, 0, "stream",
                          "with --each: send output as it comes, not only what is larger than 64 KiB"),
            CULE_OPT_FLAG(struct respond_opts, serve.forward_cancel, 0, "forward-cancel",
                          "with --lines: tell workers of cancelled requests"),
            CULE_OPT_STRING(struct respond_opts, serve.name, 0, "name", "NAME", "what to be called (default: respond)"),
            CULE_OPT_CHOICE(struct respond_opts, serve.level, 0, "log-level", "LEVEL", "error|warning|info|debug|trace",
                            "what to tell on stderr", .def = "warning"),
            CULE_OPT_DURATION(struct respond_opts, serve.grace_ms, 0, "grace", "TIME",
                              "how long requests may go on after SIGTERM", .def = "10s"),
            CULE_OPT_DURATION(struct respond_opts, serve.kill_grace_ms, 0, "kill-grace", "TIME",
                              "between SIGTERM and SIGKILL of a handler whose request was cancelled", .def = "1s"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CULE_ARG(struct respond_opts, pattern, "PATTERN", "topics; + is one level, # all",
                                               .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .timeout = "5m",
    .run = respond_run,
};

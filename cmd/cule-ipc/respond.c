/* cule-ipc respond: answers requests on a pattern by a command, one process for each. */
#include "base/bytes.h"
#include "busjob.h"
#include "busrun.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct respond_opts {
    BUS_OPTION_FIELDS
    const char *pattern, *group, *each;
    uint64_t concurrency, queue, count, out_max;
};

/* A request that waits or is being answered. */
struct respond_job {
    struct cule_list node;
    struct respond *r;
    struct busjob *job; /* NULL: waiting */
    uint64_t epoch, id, seq;
    uint64_t deadline_ns; /* 0: none */
    uint32_t source;
    uint8_t priority;
    bool cancelled;
    size_t len;
    char topic[BUSCLIENT_TOPIC_MAX + 1];
    uint8_t body[];
};

struct respond {
    struct busrun run;
    const struct respond_opts *o;
    struct cule_list running, waiting;
    uint64_t nrunning, nwaiting, done;
    bool draining;
};

static void next(struct respond *r);

static bool still_asked(const struct respond_job *j)
{
    return !j->cancelled && busclient_link(j->r->run.client) && busclient_epoch(j->r->run.client) == j->epoch;
}

static void end_if_idle(struct respond *r)
{
    if (r->draining && r->nrunning == 0 && r->nwaiting == 0) {
        busclient_close(r->run.client);
    }
}

static void on_stop(void *ctx)
{
    struct respond *r = ctx;
    r->draining = true;
    end_if_idle(r);
}

static void on_done(void *ctx, struct busjob *job, const struct busjob_end *end)
{
    (void)job;
    struct respond_job *j = ctx;
    struct respond *r = j->r;
    bool good = end->how.code == 0 && end->how.signum == 0 && !end->timed_out && !end->too_much;
    if (still_asked(j)) {
        struct cule_link *l = busclient_link(r->run.client);
        char text[64];
        if (good) {
            int rc = cule_link_reply(l, j->id, 0, 0, cule_buf_data(end->out), cule_buf_len(end->out));
            if (rc) {
                cule_link_error(l, j->id, rc, 0, "the answer of %zu bytes cannot be sent: %s", cule_buf_len(end->out),
                                cule_err_text(rc));
            }
        } else {
            int code = end->timed_out ? CULE_ETIMEOUT : end->too_much ? CULE_ETOO_BIG : CULE_EHANDLER;
            cule_link_error(l, j->id, code, (uint64_t)end->how.code, "the responder's command failed: %s",
                            busjob_text(end, text, sizeof text));
            cule_cli_warn(r->run.cli, "'%s' failed on a request on '%s': %s", r->o->each, j->topic, text);
        }
    }
    cule_list_remove(&j->node);
    free(j);
    r->nrunning--;
    r->done++;
    if (r->o->count && r->done == r->o->count) {
        r->draining = true;
    }
    next(r);
    end_if_idle(r);
}

static int start(struct respond_job *j, struct cule_err *err)
{
    struct respond *r = j->r;
    char topic[BUSCLIENT_TOPIC_MAX + 16], id[48], source[32], bus[CULE_ENDPOINT_MAX + 16], priority[32], deadline[48];
    uint64_t now = cule_now_ns(), left_ms = j->deadline_ns > now ? (j->deadline_ns - now) / 1000000u + 1 : 0;
    if (j->deadline_ns && left_ms == 0) {
        return cule_err_set(err, CULE_ETIMEOUT, "the request waited too long");
    }
    snprintf(topic, sizeof topic, "CULE_TOPIC=%s", j->topic);
    snprintf(id, sizeof id, "CULE_ID=%" PRIu64, j->id);
    snprintf(source, sizeof source, "CULE_SOURCE=%" PRIu32, j->source);
    snprintf(priority, sizeof priority, "CULE_PRIORITY=%s", cule_priority_name(j->priority));
    snprintf(bus, sizeof bus, "CULE_BUS=%s", r->run.where.endpoint);
    snprintf(deadline, sizeof deadline, "CULE_DEADLINE_MS=%" PRIu64, left_ms);
    uint64_t limit = r->run.cli->timeout_ms;
    const struct busjob_spec s = {
        .shell = r->o->each,
        .env = {topic, id, source, priority, bus, deadline, NULL},
        .payload = j->body,
        .len = j->len,
        .capture = true,
        .out_max = r->o->out_max,
        .timeout_ms = left_ms && (limit == 0 || left_ms < limit) ? left_ms : limit,
        .done = on_done,
        .ctx = j,
    };
    return busjob_start(r->run.loop, &s, &j->job, err);
}

/* Starts what waits while there is room. */
static void next(struct respond *r)
{
    while (r->nrunning < r->o->concurrency && r->nwaiting > 0) {
        struct cule_err err = {0};
        struct respond_job *j = CULE_LIST_ENTRY(cule_list_pop(&r->waiting), struct respond_job, node);
        r->nwaiting--;
        if (!still_asked(j)) {
            free(j);
            continue;
        }
        int rc = start(j, &err);
        if (rc) {
            cule_link_error(busclient_link(r->run.client), j->id, rc, 0, "%s", err.text);
            free(j);
            continue;
        }
        cule_list_push(&r->running, &j->node);
        r->nrunning++;
    }
}

static void on_request(void *ctx, const struct busclient_delivery *d)
{
    struct respond *r = ctx;
    struct cule_link *l = busclient_link(r->run.client);
    uint64_t id = d->msg->h.id;
    if (r->draining) {
        cule_link_error(l, id, CULE_ECLOSED, 0, "the responder is ending");
        return;
    }
    if (r->nrunning >= r->o->concurrency && r->nwaiting >= r->o->queue) {
        cule_link_error(l, id, CULE_EBUSY, r->o->queue, "%" PRIu64 " requests run and %" PRIu64 " wait already",
                        r->nrunning, r->nwaiting);
        return;
    }
    struct respond_job *j = calloc(1, sizeof *j + d->len);
    if (!j) {
        cule_link_error(l, id, CULE_ENOMEM, 0, "no memory for the request");
        return;
    }
    uint32_t left = cule_link_left_ms(l, id);
    *j = (struct respond_job){.r = r,
                              .epoch = busclient_epoch(r->run.client),
                              .id = id,
                              .seq = d->seq,
                              .deadline_ns = left == UINT32_MAX ? 0 : cule_now_ns() + left * UINT64_C(1000000),
                              .source = d->source,
                              .priority = d->priority,
                              .len = d->len};
    memcpy(j->topic, d->topic, d->topic_len);
    if (d->len) {
        memcpy(j->body, d->body, d->len);
    }
    cule_list_push(&r->waiting, &j->node);
    r->nwaiting++;
    next(r);
}

/* A CANCEL: what runs for nobody is ended, its whole tree. */
static void on_other(void *ctx, struct cule_msg *m)
{
    struct respond *r = ctx;
    if (m->h.kind != CULE_CANCEL) {
        return;
    }
    CULE_LIST_EACH (n, &r->running) {
        struct respond_job *j = CULE_LIST_ENTRY(n, struct respond_job, node);
        if (j->id == m->h.id && j->epoch == busclient_epoch(r->run.client)) {
            j->cancelled = true;
            busjob_kill(j->job, 0);
        }
    }
    CULE_LIST_EACH (n, &r->waiting) {
        struct respond_job *j = CULE_LIST_ENTRY(n, struct respond_job, node);
        if (j->id == m->h.id && j->epoch == busclient_epoch(r->run.client)) {
            cule_list_remove(n);
            r->nwaiting--;
            free(j);
        }
    }
}

static void on_up(void *ctx)
{
    struct respond *r = ctx;
    busrun_ready(&r->run);
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct respond *r = ctx;
    busrun_down(&r->run, why);
    CULE_LIST_EACH (n, &r->running) {
        busjob_kill(CULE_LIST_ENTRY(n, struct respond_job, node)->job, 0);
    }
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct respond *r = ctx;
    if (why->code) {
        busrun_fail(&r->run, why);
    } else {
        busrun_done(&r->run, 0);
    }
}

static const struct busclient_ops ops = {
    .up = on_up, .request = on_request, .other = on_other, .down = on_down, .over = on_over};

static int respond_run(struct cule_cli *cli)
{
    struct respond r = {.o = cli->opts};
    struct busclient_opts c = {.name = "cule-ipc respond", .ops = &ops, .ctx = &r, .reconnect = true};
    const struct busclient_subscribe s = {.pattern = r.o->pattern, .group = r.o->group, .respond = true};
    cule_list_init(&r.running);
    cule_list_init(&r.waiting);
    if (r.o->concurrency == 0) {
        return cule_cli_failf(cli, CULE_EUSAGE, "--concurrency must be above 0");
    }
    if (busrun_begin(&r.run, cli, r.o->bus, r.o->token_file, on_stop, &r) == 0 && busrun_client(&r.run, &c) == 0 &&
        busclient_subscribe(r.run.client, &s, &r.run.err) == 0) {
        busrun_run(&r.run);
    }
    CULE_LIST_EACH (n, &r.running) {
        struct respond_job *j = CULE_LIST_ENTRY(n, struct respond_job, node);
        busjob_drop(j->job);
        free(j);
    }
    CULE_LIST_EACH (n, &r.waiting) {
        free(CULE_LIST_ENTRY(n, struct respond_job, node));
    }
    return busrun_end(&r.run);
}

const struct cule_command cule_ipc_respond = {
    .name = "respond",
    .group = "bus",
    .summary = "answer requests on a pattern by a command",
    .about =
        "The request's body is on the command's standard input, CULE_TOPIC, CULE_ID, CULE_SOURCE, CULE_PRIORITY,\n"
        "CULE_DEADLINE_MS and CULE_BUS are in its environment; what it prints is the answer if it exits 0. When the\n"
        "asker gives up, the command's whole process tree is ended. --timeout is for one run.",
    .example = "cule-ipc respond 'math/sum' --each \"tr ' ' '\\n' | paste -sd+ | bc\"",
    .opts_size = sizeof(struct respond_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct respond_opts),
            CULE_OPT_STRING(struct respond_opts, each, 'e', "each", "CMD", "a shell command, started for each request",
                            .complete = CULE_COMPLETE_COMMAND, .flags = CULE_OPT_REQUIRED),
            CULE_OPT_STRING(struct respond_opts, group, 'g', "group", "NAME",
                            "responders of one group share its requests"),
            CULE_OPT_U64(struct respond_opts, concurrency, 'c', "concurrency", "N", "commands that run at once",
                         .def = "4"),
            CULE_OPT_U64(struct respond_opts, queue, 0, "queue", "N", "requests that may wait; more are refused",
                         .def = "64"),
            CULE_OPT_SIZE(struct respond_opts, out_max, 0, "max-answer", "SIZE", "largest answer", .def = "16M"),
            CULE_OPT_U64(struct respond_opts, count, 'n', "count", "N", "end after N requests (0: go on)", .def = "0"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CULE_ARG(struct respond_opts, pattern, "PATTERN", "topics; + is one level, # all",
                                               .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .timeout = "30s",
    .run = respond_run,
};

/* cule-ipc work: takes messages as a member of a queue group, runs a command for each, acknowledges by its exit. */
#include "base/bytes.h"
#include "base/json.h"
#include "busjob.h"
#include "busrun.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct work_opts {
    BUS_OPTION_FIELDS
    const char *pattern, *group, *durable;
    struct cule_words command;
    uint64_t concurrency, count, max_deliver, retry_ms, ack_wait_ms, dead_status;
};

enum { WORK_CONCURRENCY_MAX = 1024, WORK_ACK_WAIT_MS = 3600 * 1000, WORK_ACK_MARGIN_MS = 5000 };

struct work_job {
    struct cule_list node;
    struct work *w;
    struct busjob *job;
    uint64_t epoch, subscription, number, seq;
    int verdict; /* while draining: 1 ack, 2 nack, 3 dead */
    char topic[BUSCLIENT_TOPIC_MAX + 1];
    char why[96];
};

struct work {
    struct busrun run;
    const struct work_opts *o;
    struct cule_list jobs;    /* running */
    struct cule_list settled; /* while draining: verdicts that are told in the end, so that nothing new comes */
    uint64_t running, done, failed;
    bool draining;
};

static void tell(struct work *w, struct work_job *j)
{
    struct cule_buf b;
    struct cule_json_writer jw;
    if (j->verdict == 1) {
        busclient_ack(w->run.client, j->epoch, j->subscription, j->number);
        return;
    }
    cule_buf_init(&b, 0);
    cule_json_begin(&jw, &b);
    cule_json_open(&jw, '{');
    cule_json_member_str(&jw, "reason", j->why);
    if (j->verdict == 3) {
        cule_json_member_bool(&jw, "dead", true);
    } else if (w->o->retry_ms) {
        cule_json_member_u64(&jw, "delay_ms", w->o->retry_ms);
    }
    cule_json_close(&jw, '}');
    if (cule_json_end(&jw) == 0 && cule_buf_addc(&b, '\0') == 0) {
        busclient_nack(w->run.client, j->epoch, j->subscription, j->number, (const char *)cule_buf_data(&b));
    }
    cule_buf_release(&b);
}

static void end_if_idle(struct work *w)
{
    if (!w->draining || w->running > 0) {
        return;
    }
    CULE_LIST_EACH (n, &w->settled) {
        struct work_job *j = CULE_LIST_ENTRY(n, struct work_job, node);
        tell(w, j);
        cule_list_remove(n);
        free(j);
    }
    busclient_close(w->run.client);
}

static void on_stop(void *ctx)
{
    struct work *w = ctx;
    w->draining = true;
    cule_timer_stop(w->run.grace); /* jobs have their own limit; a second signal ends at once */
    end_if_idle(w);
}

static void on_done(void *ctx, struct busjob *job, const struct busjob_end *end)
{
    (void)job;
    struct work_job *j = ctx;
    struct work *w = j->w;
    bool good = end->how.code == 0 && end->how.signum == 0 && !end->timed_out;
    bool dead = !good && w->o->dead_status && end->how.signum == 0 && (uint64_t)end->how.code == w->o->dead_status;
    j->verdict = good ? 1 : dead ? 3 : 2;
    w->running--;
    w->done++;
    cule_list_remove(&j->node);
    if (!good) {
        w->failed++;
        char text[64];
        snprintf(j->why, sizeof j->why, "%s: %s", w->o->command.v[0], busjob_text(end, text, sizeof text));
        cule_cli_warn(w->run.cli, "'%s' failed on message %" PRIu64 " of '%s': %s", w->o->command.v[0], j->seq,
                      j->topic, text);
    }
    if (w->o->count && w->done >= w->o->count) {
        w->draining = true;
    }
    if (w->draining) {
        cule_list_push(&w->settled, &j->node);
        end_if_idle(w);
        return;
    }
    tell(w, j);
    free(j);
}

static int start(struct work *w, struct work_job *j, const struct busclient_delivery *d, struct cule_err *err)
{
    char topic[BUSCLIENT_TOPIC_MAX + 16], seq[48], again[32], source[32], bus[CULE_ENDPOINT_MAX + 16], priority[32];
    snprintf(topic, sizeof topic, "CULE_TOPIC=%s", j->topic);
    snprintf(seq, sizeof seq, "CULE_SEQ=%" PRIu64, d->seq);
    snprintf(again, sizeof again, "CULE_REDELIVERED=%d", d->redelivered);
    snprintf(source, sizeof source, "CULE_SOURCE=%" PRIu32, d->source);
    snprintf(priority, sizeof priority, "CULE_PRIORITY=%s", cule_priority_name(d->priority));
    snprintf(bus, sizeof bus, "CULE_BUS=%s", w->run.where.endpoint);
    const struct busjob_spec s = {
        .argv = w->o->command.v,
        .env = {topic, seq, again, source, priority, bus, NULL},
        .payload = d->body,
        .len = d->len,
        .timeout_ms = w->run.cli->timeout_ms,
        .done = on_done,
        .ctx = j,
    };
    return busjob_start(w->run.loop, &s, &j->job, err);
}

static void on_deliver(void *ctx, const struct busclient_delivery *d)
{
    struct work *w = ctx;
    struct cule_err err = {0};
    if (w->draining) {
        return; /* goes back to the group when we leave */
    }
    struct work_job *j = calloc(1, sizeof *j);
    if (!j) {
        busclient_nack(w->run.client, busclient_epoch(w->run.client), d->subscription, d->number, NULL);
        return;
    }
    *j = (struct work_job){.w = w,
                           .epoch = busclient_epoch(w->run.client),
                           .subscription = d->subscription,
                           .number = d->number,
                           .seq = d->seq};
    memcpy(j->topic, d->topic, d->topic_len);
    int rc = start(w, j, d, &err);
    if (rc) {
        free(j);
        busclient_nack(w->run.client, busclient_epoch(w->run.client), d->subscription, d->number, NULL);
        busrun_fail(&w->run, &err);
        return;
    }
    cule_list_push(&w->jobs, &j->node);
    w->running++;
}

static void on_up(void *ctx)
{
    struct work *w = ctx;
    busrun_ready(&w->run);
}

/* The broker gives what we had to somebody else, or to us again: what still runs is in vain. */
static void on_down(void *ctx, const struct cule_err *why)
{
    struct work *w = ctx;
    busrun_down(&w->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct work *w = ctx;
    if (why->code) {
        busrun_fail(&w->run, why);
    } else {
        busrun_done(&w->run, 0);
    }
}

static const struct busclient_ops ops = {.up = on_up, .deliver = on_deliver, .down = on_down, .over = on_over};

static int work_run(struct cule_cli *cli)
{
    struct work w = {.o = cli->opts};
    struct busclient_opts c = {.name = "cule-ipc work", .ops = &ops, .ctx = &w, .reconnect = true};
    cule_list_init(&w.jobs);
    cule_list_init(&w.settled);
    uint64_t wait_ms = cli->timeout_ms ? cli->timeout_ms + WORK_ACK_MARGIN_MS : WORK_ACK_WAIT_MS;
    const struct busclient_subscribe s = {
        .pattern = w.o->pattern,
        .group = w.o->group,
        .durable = w.o->durable,
        .ack = true,
        .no_retained = true,
        .ack_wait_ms = w.o->ack_wait_ms ? w.o->ack_wait_ms : wait_ms,
        .max_deliver = w.o->max_deliver,
        .max_inflight = w.o->concurrency,
    };
    if (busrun_begin(&w.run, cli, &w.o->at, on_stop, &w)) {
        goto out;
    }
    if (w.o->concurrency == 0 || w.o->concurrency > WORK_CONCURRENCY_MAX) {
        cule_err_set(&w.run.err, CULE_EUSAGE, "--concurrency is %" PRIu64 ": 1 to %d are allowed", w.o->concurrency,
                     WORK_CONCURRENCY_MAX);
        goto out;
    }
    if (busrun_client(&w.run, &c) == 0 && busclient_subscribe(w.run.client, &s, &w.run.err) == 0) {
        busrun_run(&w.run);
    }
out:
    CULE_LIST_EACH (n, &w.jobs) {
        struct work_job *j = CULE_LIST_ENTRY(n, struct work_job, node);
        busjob_drop(j->job);
        free(j);
    }
    CULE_LIST_EACH (n, &w.settled) {
        free(CULE_LIST_ENTRY(n, struct work_job, node));
    }
    cule_cli_note(cli, 1, "%" PRIu64 " done, %" PRIu64 " failed", w.done, w.failed);
    return busrun_end(&w.run);
}

const struct cule_command cule_ipc_work = {
    .name = "work",
    .group = "bus",
    .summary = "run a command for each message of a queue group",
    .about =
        "The body is on the command's standard input; CULE_TOPIC, CULE_SEQ, CULE_REDELIVERED, CULE_SOURCE,\n"
        "CULE_PRIORITY and CULE_BUS are in its environment. Exit status 0 acknowledges the message; anything else\n"
        "gives it back, and after --max-deliver attempts it goes to $bus/dead/TOPIC. --timeout is for one run: its\n"
        "whole process tree is ended then. SIGTERM finishes what runs and takes nothing new.",
    .example = "cule-ipc work 'jobs/#' --group resize --concurrency 4 -- ./resize.sh",
    .opts_size = sizeof(struct work_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct work_opts),
            CULE_OPT_STRING(struct work_opts, group, 'g', "group", "NAME", "the queue group", .def = "work"),
            CULE_OPT_STRING(struct work_opts, durable, 'd', "durable", "NAME",
                            "let the broker keep the group's position on disk under NAME"),
            CULE_OPT_U64(struct work_opts, concurrency, 'c', "concurrency", "N", "commands that run at once",
                         .def = "1"),
            CULE_OPT_U64(struct work_opts, count, 'n', "count", "N", "end after N messages (0: go on)", .def = "0"),
            CULE_OPT_U64(struct work_opts, max_deliver, 0, "max-deliver", "N",
                         "attempts before a message is dead (0: the broker's)", .def = "0"),
            CULE_OPT_DURATION(struct work_opts, retry_ms, 0, "retry-delay", "T", "wait before the next attempt",
                              .def = "0"),
            CULE_OPT_DURATION(struct work_opts, ack_wait_ms, 0, "ack-wait", "T",
                              "when the broker gives a message to another (0: 5 s after --timeout, or 1 h)",
                              .def = "0"),
            CULE_OPT_U64(struct work_opts, dead_status, 0, "dead-status", "N",
                         "an exit status that makes a message dead at once (0: none)", .def = "0"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CULE_ARG(struct work_opts, pattern, "PATTERN", "topics; + is one level, # all",
                                               .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_COMMAND(struct work_opts, command, "CMD", "what to run"), CULE_ARG_END},
    .timeout = "0",
    .run = work_run,
};

/* cule-ipc sub: what is published on patterns, as lines, JSON, frames or bare bodies on standard output. */
#include "base/bytes.h"
#include "busline.h"
#include "busout.h"
#include "busrun.h"
#include "cli/tty.h"

#include <string.h>
#include <unistd.h>

struct sub_opts {
    BUS_OPTION_FIELDS
    struct cule_words patterns;
    int format;
    uint64_t count;
    const char *group, *durable;
    int overflow;
    bool ack, no_retained, no_reconnect, topics, null_ended;
    uint64_t from_seq, last, since_ms, queue, ack_wait_ms;
};

enum sub_format { SUB_LINES, SUB_JSON, SUB_FRAMES, SUB_RAW };
static const char *const overflows[] = {"drop-oldest", "drop-newest", "disconnect", "block"};

/* A delivery to acknowledge once so many bytes have left. */
struct sub_ack {
    uint64_t offset, epoch, subscription, number;
};

struct sub {
    struct busrun run;
    const struct sub_opts *o;
    struct busout out;
    struct cule_timer *timeout;
    struct cule_mirror mirror;
    struct cule_buf acks; /* struct sub_ack, in order */
    uint64_t added;       /* bytes ever put into out */
    uint64_t printed;
    uint64_t owed_epoch; /* credit not granted yet, and on which connection */
    uint32_t owed_frames[CULE_PRIORITIES];
    uint64_t owed_bytes[CULE_PRIORITIES];
    bool owing, ending;
};

static void end_if_drained(struct sub *s)
{
    if (s->ending && busout_waiting(&s->out) == 0 && cule_buf_len(&s->acks) == 0) {
        busclient_close(s->run.client);
    }
}

static void begin_end(void *ctx)
{
    struct sub *s = ctx;
    s->ending = true;
    end_if_drained(s);
}

static void grant_owed(struct sub *s)
{
    struct cule_link *l = busclient_link(s->run.client);
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        if (l && s->owed_frames[p] && s->owed_epoch == busclient_epoch(s->run.client)) {
            cule_link_consumed(l, p, s->owed_frames[p], s->owed_bytes[p]);
        }
        s->owed_frames[p] = 0;
        s->owed_bytes[p] = 0;
    }
    s->owing = false;
}

/* Bytes left, or the reader did. */
static void on_moved(void *ctx)
{
    struct sub *s = ctx;
    if (s->out.broken) {
        if (s->out.err.code == CULE_ECLOSED) { /* head(1) has what it wanted */
            busrun_done(&s->run, 0);
        } else {
            busrun_fail(&s->run, &s->out.err);
        }
        return;
    }
    while (cule_buf_len(&s->acks) > 0) {
        struct sub_ack a;
        memcpy(&a, cule_buf_data(&s->acks), sizeof a);
        if (a.offset > s->out.taken) {
            break;
        }
        busclient_ack(s->run.client, a.epoch, a.subscription, a.number);
        cule_buf_take(&s->acks, sizeof a);
    }
    if (s->owing && busout_waiting(&s->out) < BUSOUT_FULL / 2) {
        grant_owed(s);
    }
    end_if_drained(s);
}

static void consume(struct sub *s, const struct busclient_delivery *d)
{
    if (!s->owing && busout_waiting(&s->out) < BUSOUT_FULL) {
        busclient_consumed(s->run.client, d);
        return;
    }
    uint64_t epoch = busclient_epoch(s->run.client);
    if (s->owed_epoch != epoch) {
        memset(s->owed_frames, 0, sizeof s->owed_frames);
        memset(s->owed_bytes, 0, sizeof s->owed_bytes);
        s->owed_epoch = epoch;
    }
    s->owed_frames[d->priority]++;
    s->owed_bytes[d->priority] += d->msg->len + (d->msg->trace ? CULE_TRACE_SIZE : 0);
    s->owing = true;
}

static int print(struct sub *s, const struct busclient_delivery *d)
{
    struct cule_buf *b = &s->out.buf;
    int rc = 0;
    switch (s->o->format) {
    case SUB_JSON: return cule_mirror_write_msg(&s->mirror, d->msg, b, NULL);
    case SUB_FRAMES: return cule_msg_add(b, d->msg);
    case SUB_RAW: return cule_buf_add(b, d->body, d->len);
    default:
        if (s->o->topics && (rc = cule_buf_add(b, d->topic, d->topic_len)) == 0) {
            rc = cule_buf_addc(b, '\t');
        }
        return rc ? rc : busline_body(b, d->body, d->len, s->o->null_ended ? '\0' : '\n');
    }
}

static void on_deliver(void *ctx, const struct busclient_delivery *d)
{
    struct sub *s = ctx;
    if (s->ending || s->out.broken) {
        return;
    }
    size_t before = cule_buf_len(&s->out.buf);
    int rc = print(s, d);
    if (rc) {
        struct cule_err err;
        cule_err_set(&err, rc, "cannot hold a message of %zu bytes: %s", d->len, cule_err_text(rc));
        busrun_fail(&s->run, &err);
        return;
    }
    s->added += cule_buf_len(&s->out.buf) - before;
    if (d->number) {
        struct sub_ack a = {s->added, busclient_epoch(s->run.client), d->subscription, d->number};
        cule_buf_add(&s->acks, &a, sizeof a);
    }
    consume(s, d);
    s->printed++;
    busout_kick(&s->out);
    if (s->o->count && s->printed == s->o->count) {
        begin_end(s);
    }
}

static void on_up(void *ctx)
{
    struct sub *s = ctx;
    busrun_ready(&s->run);
    if (busclient_stats(s->run.client).connects > 1) {
        cule_cli_note(s->run.cli, 0, "connected to the bus again");
    }
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct sub *s = ctx;
    busrun_down(&s->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct sub *s = ctx;
    if (why->code) {
        busrun_fail(&s->run, why);
    } else {
        busrun_done(&s->run, 0);
    }
}

/* With --count it is a failure not to have got so many; without, to have got none. */
static void on_timeout(void *ctx)
{
    struct sub *s = ctx;
    if (s->printed == 0 || s->o->count) {
        struct cule_err err;
        cule_err_set(&err, CULE_ETIMEOUT, "%llu of %llu messages came within %llu ms", (unsigned long long)s->printed,
                     (unsigned long long)CULE_MAX(s->o->count, 1u), (unsigned long long)s->run.cli->timeout_ms);
        busrun_fail(&s->run, &err);
        return;
    }
    begin_end(s);
}

static const struct busclient_ops ops = {.up = on_up, .deliver = on_deliver, .down = on_down, .over = on_over};

static int subscribe_all(struct sub *s, const struct cule_cli *cli)
{
    const struct sub_opts *o = s->o;
    int begins = cule_cli_given(cli, "from") + cule_cli_given(cli, "last") + cule_cli_given(cli, "since");
    if (begins > 1) {
        return cule_err_set(&s->run.err, CULE_EUSAGE, "--from, --last and --since exclude each other");
    }
    if (o->durable && !o->group) {
        return cule_err_set(&s->run.err, CULE_EUSAGE,
                            "--durable keeps a group's position: name the group with --group");
    }
    for (size_t i = 0; i < o->patterns.n; i++) {
        const struct busclient_subscribe b = {
            .pattern = o->patterns.v[i],
            .group = o->group,
            .durable = o->durable,
            .overflow = o->overflow >= 0 ? overflows[o->overflow] : NULL,
            .ack = o->ack || o->durable,
            .no_retained = o->no_retained,
            .queue = o->queue,
            .ack_wait_ms = o->ack_wait_ms,
            .has_from = cule_cli_given(cli, "from"),
            .has_last = cule_cli_given(cli, "last"),
            .has_since = cule_cli_given(cli, "since"),
            .from_seq = o->from_seq,
            .last = o->last,
            .since_ms = o->since_ms,
        };
        int rc = busclient_subscribe(s->run.client, &b, &s->run.err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int sub_run(struct cule_cli *cli)
{
    struct sub s = {.o = cli->opts};
    struct busclient_opts c = {
        .name = "cule-ipc sub", .ops = &ops, .ctx = &s, .reconnect = !s.o->no_reconnect, .manual_credit = true};
    cule_buf_init(&s.acks, 0);
    cule_mirror_init(&s.mirror);
    if (busrun_begin(&s.run, cli, &s.o->at, begin_end, &s) ||
        (s.o->format == SUB_FRAMES && cule_tty_frames_out(cli, STDOUT_FILENO, &s.run.err)) ||
        busrun_client(&s.run, &c) || subscribe_all(&s, cli) ||
        busout_init(&s.out, s.run.loop, STDOUT_FILENO, on_moved, &s, &s.run.err)) {
        goto out;
    }
    if (cli->timeout_ms) {
        if (cule_timer_new(s.run.loop, &s.timeout, on_timeout, &s, &s.run.err)) {
            goto out;
        }
        cule_timer_start(s.timeout, cli->timeout_ms, 0);
    }
    busrun_run(&s.run);
    if (!s.out.broken && busout_waiting(&s.out) > 0) { /* an end that came from elsewhere: print what we have */
        busout_drain(&s.out, BUSRUN_GRACE_MS, NULL);
    }
out:
    busout_release(&s.out);
    cule_buf_release(&s.acks);
    cule_mirror_release(&s.mirror);
    return busrun_end(&s.run);
}

const struct cule_command cule_ipc_sub = {
    .name = "sub",
    .group = "bus",
    .summary = "print what is published on patterns",
    .about =
        "A body is printed as it is, ended by a newline; a newline inside it as \\n (two characters), so that one\n"
        "line is one message. Where bodies must come back exactly use --format json, or --null.\n"
        "After a lost connection it goes on behind the last message it printed.",
    .example = "cule-ipc sub 'sensors/#' --format json | jq .payload_json",
    .opts_size = sizeof(struct sub_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct sub_opts),
            CULE_OPT_CHOICE(struct sub_opts, format, 'f', "format", "FORMAT", "lines|json|frames|raw",
                            "how a message is printed", .def = "lines"),
            CULE_OPT_FLAG(struct sub_opts, topics, 't', "topics", "print the topic and a tab before each line"),
            CULE_OPT_FLAG(struct sub_opts, null_ended, '0', "null", "end lines by NUL, and leave newlines alone"),
            CULE_OPT_U64(struct sub_opts, count, 'n', "count", "N", "end after N messages (0: go on)", .def = "0"),
            CULE_OPT_STRING(struct sub_opts, group, 'g', "group", "NAME",
                            "join a queue group: each message goes to one of its members"),
            CULE_OPT_FLAG(struct sub_opts, ack, 'a', "ack", "acknowledge each message once it is written"),
            CULE_OPT_DURATION(struct sub_opts, ack_wait_ms, 0, "ack-wait", "T",
                              "time until a message comes again (0: the broker's)", .def = "0"),
            CULE_OPT_STRING(struct sub_opts, durable, 'd', "durable", "NAME",
                            "let the broker keep the group's position under NAME; acknowledges"),
            CULE_OPT_U64(struct sub_opts, from_seq, 0, "from", "SEQ", "begin with sequence number SEQ of the history"),
            CULE_OPT_U64(struct sub_opts, last, 0, "last", "N", "begin with the last N messages of each topic"),
            CULE_OPT_DURATION(struct sub_opts, since_ms, 0, "since", "T", "begin with what is at most T old"),
            CULE_OPT_FLAG(struct sub_opts, no_retained, 0, "no-retained", "no retained messages"),
            CULE_OPT_U64(struct sub_opts, queue, 0, "queue", "N", "messages that may wait for us (0: the topic's)",
                         .def = "0"),
            CULE_OPT_CHOICE(struct sub_opts, overflow, 0, "overflow", "POLICY",
                            "drop-oldest|drop-newest|disconnect|block",
                            "what happens when they do not fit (default: the topic's)"),
            CULE_OPT_FLAG(struct sub_opts, no_reconnect, 0, "no-reconnect", "end when the connection is lost"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CULE_ARG_MANY(struct sub_opts, patterns, "PATTERN",
                                                    "topics; + is one level, # all", .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .timeout = "0",
    .run = sub_run,
};

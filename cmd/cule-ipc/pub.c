/* cule-ipc pub: one message from the command line, or a stream of them from standard input. */
#include "pub.h"

static void on_up(void *ctx)
{
    struct pub *p = ctx;
    busrun_ready(&p->run);
    pub_out_up(p);
    if (p->eof) {
        pub_out_finish(p);
    }
}

static void on_writable(void *ctx, uint64_t id)
{
    (void)id;
    struct pub *p = ctx;
    pub_out_up(p);
    if (p->eof) {
        pub_out_finish(p);
    }
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct pub *p = ctx;
    pub_out_down(p);
    busrun_down(&p->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct pub *p = ctx;
    if (why->code) {
        busrun_fail(&p->run, why);
    } else {
        busrun_done(&p->run, 0);
    }
}

/* SIGTERM: what is read is published, nothing more is read. */
static void on_stop(void *ctx)
{
    struct pub *p = ctx;
    p->stopped = true;
    if (!busclient_is_up(p->run.client)) {
        busclient_close(p->run.client);
        return;
    }
    pub_in_pump(p);
}

static const struct busclient_ops ops = {.up = on_up, .writable = on_writable, .down = on_down, .over = on_over};

static int check(struct pub *p)
{
    const struct pub_opts *o = p->o;
    if (o->topic) {
        return busclient_check_topic(o->topic, &p->run.err);
    }
    if (o->format == PUB_RAW || o->format == PUB_LINES) {
        return cule_err_set(&p->run.err, CULE_EUSAGE, "no topic: only --format json and frames bring their own");
    }
    return 0;
}

static int pub_run(struct cule_cli *cli)
{
    struct pub p = {.o = cli->opts};
    struct busclient_opts c = {.name = "cule-ipc pub", .ops = &ops, .ctx = &p, .connect_timeout_ms = cli->timeout_ms};
    if (busrun_begin(&p.run, cli, &p.o->at, on_stop, &p) || check(&p) || pub_out_begin(&p, &p.run.err) ||
        pub_in_begin(&p, &p.run.err)) {
        goto out;
    }
    c.reconnect = !p.o->no_reconnect && !p.one_shot;
    if (busrun_client(&p.run, &c) == 0) {
        busrun_run(&p.run);
    }
    cule_cli_note(cli, 1, "published %llu, acknowledged %llu", (unsigned long long)p.published,
                  (unsigned long long)p.acked);
out:
    pub_out_release(&p);
    pub_in_release(&p);
    return busrun_end(&p.run);
}

const struct cule_command cule_ipc_pub = {
    .name = "pub",
    .group = "bus",
    .summary = "publish a message, or each line of standard input",
    .about =
        "One message (TEXT, --payload or all of standard input) is published with the bus's word for it: the exit\n"
        "status tells whether it was taken. A stream (--format lines, json or frames) is published as fast as the\n"
        "bus takes it and no faster; with --ack each message is acknowledged, and sent again after a lost\n"
        "connection. --repeat 0 repeats for ever.",
    .example = "tail -f /var/log/syslog | cule-ipc pub logs/syslog --format lines",
    .opts_size = sizeof(struct pub_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct pub_opts),
            CULE_OPT_STRING(struct pub_opts, payload, 'p', "payload", "TEXT|-|@FILE",
                            "the body: a text, standard input, or a file", .complete = CULE_COMPLETE_FILE),
            CULE_OPT_CHOICE(struct pub_opts, format, 'f', "format", "FORMAT", "raw|lines|json|frames",
                            "what standard input holds", .def = "raw"),
            CULE_OPT_FLAG(struct pub_opts, retain, 'r', "retain",
                          "keep it for later subscribers; an empty body clears what is kept"),
            CULE_OPT_FLAG(struct pub_opts, ack, 'a', "ack", "wait for the bus to acknowledge each message"),
            CULE_OPT_CHOICE(struct pub_opts, priority, 'P', "priority", "PRIORITY", "critical|high|normal|low",
                            "which lane it takes", .def = "normal"),
            CULE_OPT_REAL(struct pub_opts, rate, 'R', "rate", "N", "at most N messages a second (0: no limit)",
                          .def = "0"),
            CULE_OPT_U64(struct pub_opts, repeat, 'n', "repeat", "N", "publish the one message N times", .def = "1"),
            CULE_OPT_FLAG(struct pub_opts, null_ended, '0', "null", "lines end by NUL"),
            CULE_OPT_FLAG(struct pub_opts, no_reconnect, 0, "no-reconnect", "end when the connection is lost"),
            CULE_OPT_END,
        },
    .args = (const struct cule_arg[]){CULE_ARG_OPTIONAL(struct pub_opts, topic, "TOPIC",
                                                        "where to; --format json and frames may bring it along",
                                                        .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_OPTIONAL(struct pub_opts, text, "TEXT", "the body"), CULE_ARG_END},
    .timeout = "10s",
    .run = pub_run,
};

/* cule-ipc record: both directions of a link, or a topic, to a file. */
#include "record.h"

#include "busclient.h"
#include "cli/tty.h"
#include "io/ready.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int record_flush(struct record *r)
{
    struct cule_err err = {0};
    if (r->failed) {
        return CULE_EDISK;
    }
    int rc = recorder_flush(&r->out, &err);
    if (rc) {
        r->failed = true;
        cule_err_context(&err, rc, "'%s'", r->o->to);
        r->status = cule_cli_fail(r->cli, &err);
        if (r->loop) {
            cule_loop_stop(r->loop);
        }
    }
    return rc;
}

static int check(const struct record_opts *o, struct cule_err *err)
{
    bool between = o->command.n || o->connect;
    if (o->topic && (between || o->listen)) {
        return cule_err_set(err, CULE_EUSAGE, "--topic records from a bus, not from a link: leave out %s",
                            o->listen    ? "--listen"
                            : o->connect ? "--connect"
                                         : "the command");
    }
    if (!o->topic && !between) {
        return cule_err_set(err, CULE_EUSAGE,
                            "nothing to record: give a command after --, or --connect ENDPOINT, or --topic PATTERN");
    }
    if (o->command.n && o->connect) {
        return cule_err_set(err, CULE_EUSAGE, "both --connect and a command: what comes in can go to one of them");
    }
    if (strcmp(o->to, "-") == 0 && !o->topic && !o->listen) {
        return cule_err_set(err, CULE_EUSAGE, "standard output carries the link: record --to a file");
    }
    return 0;
}

static void on_grace(void *ctx)
{
    struct record *r = ctx;
    cule_cli_warn(r->cli, "%" PRIu64 " links cut after the grace of SIGTERM", r->nconns);
    cule_loop_stop(r->loop);
}

static void on_signal(void *ctx, int signum)
{
    struct record *r = ctx;
    if (r->stopping || signum == SIGINT || r->frames || r->nconns == 0) {
        cule_loop_stop(r->loop);
        return;
    }
    r->stopping = true;
    record_link_stop_listening(r);
    cule_timer_start(r->grace, r->o->grace_ms, 0);
}

static int run_link(struct record *r)
{
    struct cule_sigwatch *term = NULL, *intr = NULL;
    struct cule_err err = {0};
    int rc = cule_loop_new(&r->loop, &err);
    rc = rc ? rc : cule_sigwatch_new(r->loop, &term, SIGTERM, on_signal, r, &err);
    rc = rc ? rc : cule_sigwatch_new(r->loop, &intr, SIGINT, on_signal, r, &err);
    rc = rc ? rc : cule_timer_new(r->loop, &r->grace, on_grace, r, &err);
    rc = rc ? rc : record_link_start(r, &err);
    if (!rc && r->o->listen && cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
        cule_cli_warn(r->cli, "%s", err.text);
    }
    if (rc) {
        r->status = cule_cli_fail(r->cli, &err);
    } else {
        cule_loop_run(r->loop);
    }
    record_link_release(r);
    cule_sigwatch_free(term);
    cule_sigwatch_free(intr);
    cule_timer_free(r->grace);
    cule_loop_free(r->loop);
    r->loop = NULL;
    return r->status;
}

static int run(struct cule_cli *cli)
{
    struct cule_err err = {0};
    struct record *r = calloc(1, sizeof *r);
    if (!r) {
        return cule_cli_failf(cli, CULE_ENOMEM, "out of memory");
    }
    r->cli = cli;
    r->o = cli->opts;
    r->fd = -1;
    r->out.fd = -1;
    cule_list_init(&r->conns);
    int rc = check(r->o, &err);
    rc = rc || strcmp(r->o->to, "-") != 0 ? rc : cule_tty_frames_out(cli, STDOUT_FILENO, &err);
    rc = rc ? rc : recorder_open(&r->out, r->o->to, r->o->append, "cule-ipc record", &err);
    int status = rc ? cule_cli_fail(cli, &err) : r->o->topic ? record_topic(r) : run_link(r);
    uint64_t frames = r->out.frames;
    if (r->failed) {
        cule_buf_clear(&r->out.buf); /* told already, and would fail again */
    }
    if (!rc && recorder_close(&r->out, &err) && !r->failed && status == 0) {
        status = cule_cli_fail(cli, &err);
    }
    cule_cli_note(cli, 1, "recorded %" PRIu64 " frames to '%s'", frames, r->o->to);
    free(r);
    return status;
}

const struct cule_command cule_ipc_record = {
    .name = "record",
    .group = "recording",
    .summary = "record both directions of a link, or a topic",
    .about = "Stands between standard input and output and a command, or between --listen and --connect, and writes "
             "each frame with its time before it passes on, so that a recording is whole up to a kill -9. With --topic "
             "records what a bus passes. The exit status is the command's.",
    .example = "cule-ipc record --to session.rec -- ./app",
    .opts_size = sizeof(struct record_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_STRING(struct record_opts, to, 'o', "to", "FILE", "where to record",
                            .complete = CULE_COMPLETE_FILE, .flags = CULE_OPT_REQUIRED),
            CULE_OPT_FLAG(struct record_opts, append, 'a', "append", "add to the file"),
            CULE_OPT_STRING(struct record_opts, listen, 'l', "listen", "ENDPOINT",
                            "where askers come in (default: standard input and output)",
                            .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_STRING(struct record_opts, connect, 'c', "connect", "ENDPOINT", "where to pass them on to",
                            .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_STRING(struct record_opts, topic, 't', "topic", "PATTERN", "record these topics of a bus instead",
                            .complete = CULE_COMPLETE_TOPIC),
            BUS_OPTION_ROWS(struct record_opts),
            CULE_OPT_U64(struct record_opts, max, 0, "max", "N", "at most N links at once", .def = "1024"),
            CULE_OPT_DURATION(struct record_opts, grace_ms, 0, "grace", "TIME",
                              "how long links may go on after SIGTERM", .def = "5s"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_COMMAND_OPTIONAL(struct record_opts, command, "COMMAND", "the program behind us",
                                      .complete = CULE_COMPLETE_COMMAND),
            CULE_ARG_END,
        },
    .run = run,
};

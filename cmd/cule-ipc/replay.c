/* cule-ipc replay: a recording asked again, or answering. */
#include "replay.h"

#include <string.h>

static int check(const struct replay_opts *o, struct cule_err *err)
{
    if (strcmp(o->file, "-") == 0) {
        return cule_err_set(err, CULE_EUSAGE, "a recording is read twice: give a file, not standard input");
    }
    if (o->serve && (o->endpoint || o->compare)) {
        return cule_err_set(err, CULE_EUSAGE, "--serve answers askers and asks nobody: leave out %s",
                            o->endpoint ? "ENDPOINT" : "--compare");
    }
    if (!o->serve && o->listen.n) {
        return cule_err_set(err, CULE_EUSAGE, "--listen goes with --serve");
    }
    if (!o->serve && !o->endpoint) {
        return cule_err_set(err, CULE_EUSAGE, "nobody to ask: give an ENDPOINT, or --serve to answer");
    }
    if (!(o->speed > 0)) {
        return cule_err_set(err, CULE_EUSAGE,
                            "--speed must be above 0; --as-fast-as-possible waits for no time at all");
    }
    return 0;
}

static int run(struct cule_cli *cli)
{
    const struct replay_opts *o = cli->opts;
    struct cule_err err = {0};
    if (check(o, &err)) {
        return cule_cli_fail(cli, &err);
    }
    return o->serve ? replay_serve(cli) : replay_ask(cli);
}

const struct cule_command cule_ipc_replay = {
    .name = "replay",
    .group = "recording",
    .summary = "send what was recorded again, and compare the answers",
    .about =
        "Sends the asking side of each recorded link to ENDPOINT, at its time and not before the answers that had "
        "come earlier. With --compare the answers are held against the recorded ones: REPLY, ERROR, EVENT and DATA "
        "must agree; the exit status is 1 if any differ. With --serve answers requests from the recording.",
    .example = "cule-ipc replay session.rec --compare exec:./app",
    .opts_size = sizeof(struct replay_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_REAL(struct replay_opts, speed, 0, "speed", "X", "X times as fast", .def = "1"),
            CULE_OPT_FLAG(struct replay_opts, fast, 'f', "as-fast-as-possible", "wait for answers, but for no time"),
            CULE_OPT_FLAG(struct replay_opts, compare, 'c', "compare",
                          "show how answers differ from the recorded ones"),
            CULE_OPT_FLAG(struct replay_opts, serve, 's', "serve", "answer requests with the recorded answers"),
            CULE_OPT_LIST(struct replay_opts, listen, 'l', "listen", "ENDPOINT",
                          "with --serve: where askers come in (default: standard input and output)",
                          .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG(struct replay_opts, file, "FILE", "a recording", .complete = CULE_COMPLETE_FILE),
            CULE_ARG_OPTIONAL(struct replay_opts, endpoint, "ENDPOINT", "whom to ask",
                              .complete = CULE_COMPLETE_ENDPOINT),
            CULE_ARG_END,
        },
    .timeout = "30s",
    .flags = CULE_CMD_JSON,
    .run = run,
};

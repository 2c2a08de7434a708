/* cule-ipc log-level: tells or sets how much a running program logs. */
#include "busask.h"
#include "cli/suggest.h"

#include <stdio.h>
#include <string.h>

struct log_level_opts {
    BUS_OPTION_FIELDS
    const char *level;
};

static const char *const levels[] = {"error", "warning", "info", "debug", "trace"};
enum { LEVELS = sizeof levels / sizeof levels[0] };

static int parse(const char *text, uint64_t *level, struct cule_err *err)
{
    struct cule_suggest s;
    cule_suggest_init(&s, text);
    for (unsigned i = 0; i < LEVELS; i++) {
        if (strcmp(text, levels[i]) == 0 || (text[0] == (char)('0' + i) && text[1] == '\0')) {
            *level = i;
            return 0;
        }
        cule_suggest_offer(&s, levels[i]);
    }
    return cule_err_set(err, CULE_EUSAGE, "'%s' is no log level: error, warning, info, debug and trace are%s%s%s", text,
                        s.best ? " (did you mean '" : "", s.best ? s.best : "", s.best ? "'?)" : "");
}

static int log_level_run(struct cule_cli *cli)
{
    const struct log_level_opts *o = cli->opts;
    struct busask a;
    uint64_t level = 0;
    struct cule_err err;
    if (o->level && parse(o->level, &level, &err)) {
        return cule_cli_fail(cli, &err);
    }
    if (busask_begin(&a, cli, &o->at) == 0 &&
        busask_put(&a, CULE_S_CULE, o->level ? CULE_OP_CULE_LOG_SET : CULE_OP_CULE_LOG_GET, level, NULL) == 0) {
        uint64_t got = a.answer.h.arg0;
        const char *name = got < LEVELS ? levels[got] : "unknown";
        if (cli->json) {
            printf("{\"%s\":\"%s\"}\n", o->level ? "before" : "level", name);
        } else if (o->level) {
            cule_cli_note(cli, 1, "the level was %s", name);
        } else {
            puts(name);
        }
    }
    return busask_end(&a);
}

const struct cule_command cule_ipc_log_level = {
    .name = "log-level",
    .group = "bus",
    .summary = "tell or set how much a running program logs",
    .example = "cule-ipc log-level debug",
    .opts_size = sizeof(struct log_level_opts),
    .options = (const struct cule_opt[]){BUS_OPTION_ROWS(struct log_level_opts), CULE_OPT_END},
    .args = (const struct cule_arg[]){CULE_ARG_OPTIONAL(struct log_level_opts, level, "LEVEL",
                                                        "error, warning, info, debug or trace"),
                                      CULE_ARG_END},
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .run = log_level_run,
};

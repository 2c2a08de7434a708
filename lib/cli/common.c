/* The options that every command shares, and the look-ups over a program's tables. */
#include "base/bytes.h"
#include "cli/opt.h"

#include <string.h>

const struct cule_opt cule_cli_common[] = {
    CULE_OPT_FLAG(struct cule_cli, json, 0, "json", "write JSON, and errors as one JSON object"),
    CULE_OPT_DURATION(struct cule_cli, timeout_ms, 0, "timeout", "TIME", "give up after TIME; 0 waits for ever"),
    CULE_OPT_COUNTER(struct cule_cli, verbose, 'v', "verbose", "say more on stderr; twice for still more"),
    {.type = CULE_TYPE_FLAG, .name = "help", .short_name = 'h', .help = "print this help"},
    {.type = CULE_TYPE_FLAG, .name = "version", .short_name = 'V', .help = "print the version"},
    {.type = CULE_TYPE_FLAG, .name = "dump-options", .help = "print the tables as TSV", .flags = CULE_OPT_HIDDEN},
    CULE_OPT_END,
};

/* Before a subcommand is named (c is NULL) all are taken, so that "cule-ipc --json call …" works. */
bool cule_cli_takes(const struct cule_command *c, const struct cule_opt *common)
{
    if (!c) {
        return true;
    }
    if (strcmp(common->name, "json") == 0) {
        return c->flags & CULE_CMD_JSON;
    }
    if (strcmp(common->name, "timeout") == 0) {
        return c->timeout != NULL;
    }
    return true;
}

bool cule_opt_takes_value(enum cule_opt_type type)
{
    return type != CULE_TYPE_FLAG && type != CULE_TYPE_COUNTER && type != CULE_TYPE_END;
}

bool cule_cli_given(const struct cule_cli *cli, const char *name)
{
    const struct cule_opt *o = cli->command ? cli->command->options : NULL;
    for (unsigned i = 0; o && o[i].type; i++) {
        if (strcmp(o[i].name, name) == 0) {
            return cli->given >> i & 1;
        }
    }
    return false;
}

const struct cule_command *cule_cli_find(const struct cule_program *p, const char *name)
{
    for (const struct cule_command *const *c = p->commands; c && *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            return *c;
        }
    }
    return NULL;
}

const char *cule_complete_name(enum cule_complete what)
{
    static const char *const names[] = {"none",  "file",    "dir", "command",   "endpoint",
                                        "topic", "service", "op",  "subcommand"};
    return (size_t)what < CULE_COUNT(names) ? names[what] : NULL;
}

/* cule-ipc list: clients, topics and subscriptions of a bus. */
#include "buslist.h"

#include "cli/tty.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct list_opts {
    BUS_OPTION_FIELDS
    const char *what, *pattern;
};

static int list_run(struct cule_cli *cli)
{
    const struct list_opts *o = cli->opts;
    struct busask a;
    struct cule_buf json;
    struct cule_json_writer w;
    const char *what = o->what ? o->what : "all";
    if (strcmp(what, "all") != 0 && strcmp(what, "clients") != 0 && strcmp(what, "topics") != 0 &&
        strcmp(what, "subscriptions") != 0) {
        return cule_cli_failf(cli, CULE_EUSAGE, "cannot list '%s': clients, topics, subscriptions or all", what);
    }
    struct cule_err err;
    if (o->pattern && busclient_check_pattern(o->pattern, &err)) {
        return cule_cli_fail(cli, &err);
    }
    if (o->pattern && strcmp(what, "clients") == 0) {
        return cule_cli_failf(cli, CULE_EUSAGE, "clients have no topic that '%s' could match: leave it out",
                              o->pattern);
    }
    cule_buf_init(&json, 0);
    cule_json_begin(&w, &json);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "what", what);
    if (o->pattern) {
        cule_json_member_str(&w, "pattern", o->pattern);
    }
    cule_json_close(&w, '}');
    cule_json_end(&w);
    cule_buf_addc(&json, '\0');
    const char *q = (const char *)cule_buf_data(&json);
    if (busask_begin(&a, cli, &o->at) == 0) {
        if (cli->json) {
            if (busask_put(&a, CULE_S_BUS, CULE_OP_BUS_LIST, 0, q) == 0) {
                busask_print(&a);
            }
        } else if (busask_json(&a, CULE_S_BUS, CULE_OP_BUS_LIST, 0, q) == 0) {
            bool all = strcmp(what, "all") == 0;
            static const char *const parts[] = {"clients", "topics", "subscriptions"};
            for (unsigned i = 0, shown = 0; i < CULE_COUNT(parts); i++) {
                if (all || strcmp(what, parts[i]) == 0) {
                    if (shown++) {
                        putchar('\n');
                    }
                    buslist_table(&a.doc, parts[i], NULL, stdout, STDOUT_FILENO);
                }
            }
        }
    }
    cule_buf_release(&json);
    return busask_end(&a);
}

const struct cule_command cule_ipc_list = {
    .name = "list",
    .group = "bus",
    .summary = "list clients, topics and subscriptions",
    .example = "cule-ipc list topics 'sensors/#' --json | jq -r '.topics[].topic'",
    .opts_size = sizeof(struct list_opts),
    .options = (const struct cule_opt[]){BUS_OPTION_ROWS(struct list_opts), CULE_OPT_END},
    .args = (const struct cule_arg[]){CULE_ARG_OPTIONAL(struct list_opts, what, "WHAT",
                                                        "clients, topics, subscriptions or all (all)"),
                                      CULE_ARG_OPTIONAL(struct list_opts, pattern, "PATTERN", "topics of interest",
                                                        .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .run = list_run,
};

/* cule-ipc stats: the broker's counters, as JSON, Prometheus text, or a list for people. */
#include "busask.h"

#include <stdio.h>

struct stats_opts {
    BUS_OPTION_FIELDS
    bool prometheus;
};

/* Every number with the path to it, one a line. */
static void walk(const struct cule_json *doc, int i, const char *path)
{
    char sub[512];
    enum cule_json_type type = cule_json_type(doc, i);
    if (type == CULE_JSON_OBJECT) {
        for (int k = cule_json_first(doc, i); k >= 0; k = cule_json_next(doc, k)) {
            char key[128];
            if (cule_json_str(doc, k, key, sizeof key) < 0) {
                continue;
            }
            snprintf(sub, sizeof sub, "%s%s%s", path, *path ? "." : "", key);
            walk(doc, cule_json_value(doc, k), sub);
        }
    } else if (type == CULE_JSON_ARRAY) {
        int n = 0;
        for (int k = cule_json_first(doc, i); k >= 0; k = cule_json_next(doc, k)) {
            snprintf(sub, sizeof sub, "%s[%d]", path, n++);
            walk(doc, k, sub);
        }
    } else {
        size_t n;
        const char *raw = cule_json_raw(doc, i, &n);
        printf("%s\t%.*s\n", path, (int)n, raw);
    }
}

static int stats_run(struct cule_cli *cli)
{
    const struct stats_opts *o = cli->opts;
    struct busask a;
    if (busask_begin(&a, cli, &o->at) == 0) {
        if (o->prometheus || cli->json) {
            if (busask_put(&a, CULE_S_CULE, CULE_OP_CULE_STATS, o->prometheus, NULL) == 0) {
                busask_print(&a);
            }
        } else if (busask_json(&a, CULE_S_CULE, CULE_OP_CULE_STATS, 0, NULL) == 0) {
            walk(&a.doc, 0, "");
        }
    }
    return busask_end(&a);
}

const struct cule_command cule_ipc_stats = {
    .name = "stats",
    .group = "bus",
    .summary = "print the counters of a bus, or of any program that serves",
    .example = "cule-ipc stats --prometheus > /var/lib/node_exporter/cule.prom",
    .opts_size = sizeof(struct stats_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct stats_opts),
            CULE_OPT_FLAG(struct stats_opts, prometheus, 0, "prometheus", "Prometheus text format"), CULE_OPT_END},
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .run = stats_run,
};

/* Live completions: services and ops from their table, endpoints from the run directory, topics from the bus. */
#include "busask.h"
#include "common.h"
#include "wire/ops.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TOPICS_WAIT_MS = 500 }; /* a shell waits for it at every Tab */

static void offer(const char *prefix, const char *word)
{
    if (strncmp(word, prefix, strlen(prefix)) == 0) {
        puts(word);
    }
}

static void services(const char *prefix)
{
    for (const struct cule_service *s = cule_services; s->name; s++) {
        offer(prefix, s->name);
    }
}

/* The ops of all services: which one is asked stands in another word. */
static void ops(const char *prefix)
{
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        bool seen = false;
        for (const struct cule_op *p = cule_ops; p < o && !seen; p++) {
            seen = strcmp(p->name, o->name) == 0;
        }
        if (!seen && o->op < 0x8000) {
            offer(prefix, o->name);
        }
    }
}

static void endpoints(const char *prefix)
{
    static const char *const types[] = {"unix:", "ring:", "tcp:", "tls:", "fd:", "exec:", "file:", "-"};
    char dir[CULE_ENDPOINT_MAX];
    DIR *d = NULL;

    if (cule_run_dir(getenv("CULE_RUN"), getenv("XDG_RUNTIME_DIR"), false, dir, sizeof dir, NULL) == 0) {
        d = opendir(dir);
    }
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        char word[CULE_ENDPOINT_MAX + sizeof e->d_name + 8];
        struct stat st;
        int n = snprintf(word, sizeof word, "unix:%s/%s", dir, e->d_name);
        if (n > 0 && (size_t)n < sizeof word && stat(word + strlen("unix:"), &st) == 0 && S_ISSOCK(st.st_mode)) {
            offer(prefix, word);
        }
    }
    if (d) {
        closedir(d);
    }
    for (size_t i = 0; i < CULE_COUNT(types); i++) {
        offer(prefix, types[i]);
    }
}

static int topics(const struct cule_cli *cli, const char *prefix)
{
    struct cule_cli quick = *cli;
    struct busask a;

    quick.timeout_ms = TOPICS_WAIT_MS;
    if (busask_begin(&a, &quick, &(const struct busclient_at){0}) == 0 &&
        busask_json(&a, CULE_S_BUS, CULE_OP_BUS_LIST, 0, "{\"what\":\"topics\"}") == 0) {
        int rows = cule_json_find(&a.doc, 0, "topics");
        for (int i = cule_json_first(&a.doc, rows); i >= 0; i = cule_json_next(&a.doc, i)) {
            char topic[CULE_ENDPOINT_MAX];
            if (cule_json_get_str(&a.doc, i, "topic", topic, sizeof topic, NULL) == 1) {
                offer(prefix, topic);
            }
        }
    }
    return busask_end(&a);
}

int cule_ipc_complete(struct cule_cli *cli, enum cule_complete what, const char *prefix)
{
    switch (what) {
    case CULE_COMPLETE_SERVICE: services(prefix); return 0;
    case CULE_COMPLETE_OP: ops(prefix); return 0;
    case CULE_COMPLETE_ENDPOINT: endpoints(prefix); return 0;
    case CULE_COMPLETE_TOPIC: return topics(cli, prefix);
    default: return 0;
    }
}

/*
 * bus_many ENDPOINT N: opens N links to a bus, each with a subscription, says so on stdout with one line, waits for a
 * line on stdin, publishes one message and waits until every link has it. For tests of how much a client costs.
 */
#include "io/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { WAIT_MS = 60000 };

static int fail(const char *what, size_t i, const struct cule_err *err)
{
    fprintf(stderr, "bus_many: %s (link %zu): %s\n", what, i, err->text);
    return 1;
}

static int subscribe(struct cule_link *l, size_t i, struct cule_err *err)
{
    char json[64];
    struct cule_msg answer;
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE);
    m.len = (size_t)snprintf(json, sizeof json, "{\"pattern\":\"many/%s\"}", i % 2 ? "+" : "all");
    m.body = (const uint8_t *)json;
    return cule_link_ask(l, &m, WAIT_MS, &answer, err);
}

int main(int argc, char **argv)
{
    struct rlimit r;
    struct cule_err err = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: bus_many ENDPOINT N\n");
        return 2;
    }
    size_t n = strtoul(argv[2], NULL, 10);
    struct cule_link **l = calloc(n, sizeof *l);
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    struct cule_link_opts o = {.name = "many", .connect_timeout_ms = WAIT_MS};
    for (size_t i = 0; i < n; i++) {
        if (cule_link_open(NULL, argv[1], &o, &l[i], &err)) {
            return fail("cannot connect", i, &err);
        }
        if (subscribe(l[i], i, &err)) {
            return fail("cannot subscribe", i, &err);
        }
    }
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF) {
        return 1;
    }
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_PUBLISH);
    struct cule_msg answer;
    m.h.arg0 = 8;
    m.body = (const uint8_t *)"many/allhello";
    m.len = 13;
    if (cule_link_ask(l[0], &m, WAIT_MS, &answer, &err)) {
        return fail("cannot publish", 0, &err);
    }
    printf("went to %llu\n", (unsigned long long)answer.h.arg0);
    for (size_t i = 0; i < n; i++) {
        struct cule_msg got;
        if (cule_link_next(l[i], &got, WAIT_MS, &err) != 1) {
            return fail("nothing came", i, &err);
        }
        if (got.len != 13 || memcmp(got.body, "many/allhello", 13) != 0) {
            fprintf(stderr, "bus_many: link %zu got something else\n", i);
            return 1;
        }
    }
    printf("%zu got it\n", n);
    for (size_t i = 0; i < n; i++) {
        cule_link_free(l[i]);
    }
    free(l);
    return 0;
}

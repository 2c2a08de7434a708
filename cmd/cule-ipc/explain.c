/* cule-ipc explain: why the bus dropped, denied or cut something, in sentences. */
#include "busask.h"
#include "busrun.h"
#include "common.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct explain_opts {
    BUS_OPTION_FIELDS
    const char *pattern;
    uint64_t client, last;
    bool follow;
};

struct explain {
    struct busrun run;
    const struct explain_opts *o;
    struct cule_buf partial; /* a line that came in two parts */
    uint64_t rows;
    bool first_done;
};

struct row {
    char what[24], client[128], topic[272], reason[512], limit[128], hint[512], when[48];
    uint64_t count;
};

static void read_row(const struct cule_json *doc, struct row *r)
{
    busask_text(doc, 0, "what", r->what, sizeof r->what);
    busask_text(doc, 0, "client", r->client, sizeof r->client);
    busask_text(doc, 0, "topic", r->topic, sizeof r->topic);
    busask_text(doc, 0, "reason", r->reason, sizeof r->reason);
    busask_text(doc, 0, "limit", r->limit, sizeof r->limit);
    busask_text(doc, 0, "hint", r->hint, sizeof r->hint);
    r->count = busask_u64(doc, 0, "count");
    uint64_t ms = busask_u64(doc, 0, "time_ms");
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    char at[32] = "?";
    if (localtime_r(&t, &tm)) {
        strftime(at, sizeof at, "%F %T", &tm);
    }
    snprintf(r->when, sizeof r->when, "%s.%03u", at, (unsigned)(ms % 1000));
}

static bool said(const char *s)
{
    return s[0] && strcmp(s, "-") != 0 && strcmp(s, "0") != 0;
}

/* "2026-01-01 12:00:00.000 dropped 12 messages on 'a/b' for client 3: queue full (limit 100); --queue allows more" */
static void sentence(const struct row *r)
{
    static const struct {
        const char *what, *one, *many;
    } words[] = {
        {"drop", "dropped a message", "dropped %" PRIu64 " messages"},
        {"deny", "denied an attempt", "denied %" PRIu64 " attempts"},
        {"kick", "cut the connection", "cut the connection %" PRIu64 " times"},
        {"dead", "gave up a message", "gave up %" PRIu64 " messages"},
        {"redeliver", "delivered a message again", "delivered %" PRIu64 " messages again"},
        {"quota", "refused for a quota", "refused %" PRIu64 " times for a quota"},
        {"slow", "found a slow handler", "found a slow handler %" PRIu64 " times"},
    };
    char text[64];
    snprintf(text, sizeof text, "%s", r->what);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(words[i].what, r->what) == 0) {
            snprintf(text, sizeof text, r->count > 1 ? words[i].many : words[i].one, r->count);
        }
    }
    printf("%s %s", r->when, text);
    if (said(r->topic)) {
        printf(" on '%s'", r->topic);
    }
    if (said(r->client)) {
        printf(" of client %s", r->client);
    }
    if (said(r->reason)) {
        printf(": %s", r->reason);
    }
    if (said(r->limit)) {
        printf(" (limit %s)", r->limit);
    }
    if (said(r->hint)) {
        printf("; %s", r->hint);
    }
    putchar('\n');
}

static void line(struct explain *e, const char *p, size_t n)
{
    struct cule_json doc;
    if (n == 0) {
        return;
    }
    e->rows++;
    if (e->run.cli->json) {
        fwrite(p, 1, n, stdout);
        putchar('\n');
        return;
    }
    cule_json_init(&doc);
    if (cule_json_parse(&doc, p, n, NULL) == 0) {
        struct row r;
        read_row(&doc, &r);
        sentence(&r);
    }
    cule_json_release(&doc);
}

static int lines(struct explain *e, const uint8_t *p, size_t n, bool last)
{
    int rc = cule_buf_add(&e->partial, p, n);
    const char *nl;
    while (rc == 0 && cule_buf_len(&e->partial) > 0 &&
           (nl = memchr(cule_buf_data(&e->partial), '\n', cule_buf_len(&e->partial)))) {
        const char *base = (const char *)cule_buf_data(&e->partial);
        line(e, base, (size_t)(nl - base));
        cule_buf_take(&e->partial, (size_t)(nl - base) + 1);
    }
    if (rc == 0 && last) {
        line(e, (const char *)cule_buf_data(&e->partial), cule_buf_len(&e->partial));
        cule_buf_clear(&e->partial);
    }
    return rc;
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct explain *e = arg;
    struct cule_err err = {0};
    int rc = cule_msg_error(answer, &err);
    if (e->run.over || rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED || rc == CULE_ECANCELLED) {
        return;
    }
    if (rc == 0 && (rc = lines(e, answer->body, answer->len, !(answer->h.flags & CULE_OPEN)))) {
        cule_err_set(&err, rc, "cannot hold an explanation of %zu bytes", answer->len);
    }
    if (rc) {
        busrun_fail(&e->run, &err);
    } else if (fflush(stdout) != 0) {
        busrun_done(&e->run, 0);
    } else if (!(answer->h.flags & CULE_OPEN)) {
        busclient_close(e->run.client);
    }
}

static void on_up(void *ctx)
{
    struct explain *e = ctx;
    struct cule_buf json;
    struct cule_json_writer w;
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_EXPLAIN);
    cule_buf_init(&json, 0);
    cule_json_begin(&w, &json);
    cule_json_open(&w, '{');
    if (e->o->pattern) {
        cule_json_member_str(&w, "pattern", e->o->pattern);
    }
    if (e->o->client) {
        cule_json_member_u64(&w, "client", e->o->client);
    }
    cule_json_member_u64(&w, "last", e->first_done ? 0 : e->o->last);
    cule_json_member_bool(&w, "follow", e->o->follow);
    cule_json_close(&w, '}');
    e->first_done = true;
    cule_buf_clear(&e->partial);
    m.body = cule_buf_data(&json);
    m.len = cule_buf_len(&json);
    int rc = cule_json_end(&w);
    if (rc == 0) {
        rc = cule_link_call(busclient_link(e->run.client), &m, e->o->follow ? 0 : e->run.cli->timeout_ms, on_answer, e,
                            NULL);
    }
    if (rc) {
        struct cule_err err;
        cule_err_set(&err, rc, "cannot ask the bus: %s", cule_err_text(rc));
        busrun_fail(&e->run, &err);
    }
    cule_buf_release(&json);
    busrun_ready(&e->run);
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct explain *e = ctx;
    busrun_down(&e->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct explain *e = ctx;
    if (why->code) {
        busrun_fail(&e->run, why);
    } else {
        busrun_done(&e->run, 0);
    }
}

static void on_stop(void *ctx)
{
    struct explain *e = ctx;
    busclient_close(e->run.client);
}

static const struct busclient_ops ops = {.up = on_up, .down = on_down, .over = on_over};

static int explain_run(struct cule_cli *cli)
{
    struct explain e = {.o = cli->opts};
    struct busclient_opts c = {
        .name = "cule-ipc explain", .ops = &ops, .ctx = &e, .connect_timeout_ms = cli->timeout_ms};
    struct cule_err err;
    c.reconnect = e.o->follow;
    cule_buf_init(&e.partial, CULE_MESSAGE_MAX);
    if (e.o->pattern && busclient_check_pattern(e.o->pattern, &err)) {
        return cule_cli_fail(cli, &err);
    }
    if (busrun_begin(&e.run, cli, &e.o->at, on_stop, &e) == 0 && busrun_client(&e.run, &c) == 0) {
        busrun_run(&e.run);
    }
    if (e.rows == 0 && !e.o->follow && e.run.err.code == 0 && !cli->json) {
        fputs("cule-ipc: nothing was dropped, denied or cut that you may see\n", stderr);
    }
    cule_buf_release(&e.partial);
    return busrun_end(&e.run);
}

const struct cule_command cule_ipc_explain = {
    .name = "explain",
    .group = "bus",
    .summary = "say why messages were dropped, denied or clients cut",
    .about = "Every line names what happened, to whom, how often, the limit that was reached and what to change.",
    .example = "cule-ipc explain 'logs/#' --follow",
    .opts_size = sizeof(struct explain_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct explain_opts),
            CULE_OPT_U64(struct explain_opts, client, 'c', "client", "N", "what concerns this client (0: all)",
                         .def = "0"),
            CULE_OPT_U64(struct explain_opts, last, 'n', "last", "N", "the last N decisions", .def = "100"),
            CULE_OPT_FLAG(struct explain_opts, follow, 'F', "follow", "go on with what happens from now on"),
            CULE_OPT_END},
    .args = (const struct cule_arg[]){CULE_ARG_OPTIONAL(struct explain_opts, pattern, "PATTERN", "topics of interest",
                                                        .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .run = explain_run,
};

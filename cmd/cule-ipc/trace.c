/* cule-ipc trace: spans of requests, from recordings and from running programs, as Chrome's trace JSON. */
#include "trace.h"

#include "cli/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int trace_span(struct trace_run *t, const struct cule_span *s, struct cule_err *err)
{
    bool traced = false;
    for (size_t i = 0; i < sizeof s->trace.id; i++) {
        traced = traced || s->trace.id[i];
    }
    if (!traced && !t->o->all) {
        t->untraced++;
        return 0;
    }
    t->spans++;
    int rc = t->o->lines ? cule_span_line(s, &t->out) : cule_chrome_span(&t->chrome, s);
    if (rc) {
        return cule_err_set(err, rc, "cannot write a span: %s", cule_err_text(rc));
    }
    bool now = t->o->lines && t->live;
    return now || cule_buf_len(&t->out) > TRACE_FLUSH ? trace_flush(t, err) : 0;
}

int trace_flush(struct trace_run *t, struct cule_err *err)
{
    int rc = ipc_write_all(t->fd, cule_buf_data(&t->out), cule_buf_len(&t->out), err);
    cule_buf_clear(&t->out);
    return rc;
}

static int open_out(struct trace_run *t, struct cule_err *err)
{
    t->fd = STDOUT_FILENO;
    if (strcmp(t->o->to, "-") != 0) {
        t->fd = open(t->o->to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (t->fd < 0) {
            return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot write '%s'", t->o->to);
        }
    }
    int rc = t->o->lines ? 0 : cule_chrome_begin(&t->chrome, &t->out);
    return rc ? cule_err_set(err, rc, "out of memory") : 0;
}

static int run_all(struct trace_run *t, struct cule_err *err)
{
    const struct cule_words *w = &t->o->from;
    size_t live = 0;
    int rc = open_out(t, err);
    for (size_t i = 0; i < w->n; i++) {
        live += ipc_is_endpoint(w->v[i]) && strcmp(w->v[i], "-") != 0 && strncmp(w->v[i], "file:", 5) != 0;
    }
    t->live = live > 0;
    for (size_t i = 0; i < w->n && !rc; i++) {
        const char *word = w->v[i];
        bool file = strncmp(word, "file:", 5) == 0;
        if (file || strcmp(word, "-") == 0 || !ipc_is_endpoint(word)) {
            rc = trace_recording(t, file ? word + 5 : word, err);
        }
    }
    if (live && !rc) {
        rc = trace_live(t, err);
    }
    /* What was gathered is written in each case, and whole. */
    struct cule_err late = {0};
    int last = t->o->lines ? 0 : cule_chrome_end(&t->chrome);
    last = t->fd < 0 ? 0 : last ? last : trace_flush(t, &late);
    if (last && !rc) {
        rc = last;
        *err = late.code ? late : *err;
        if (!late.code) {
            cule_err_set(err, last, "out of memory");
        }
    }
    return rc;
}

static int run(struct cule_cli *cli)
{
    struct trace_run t = {.cli = cli, .o = cli->opts, .fd = -1};
    struct cule_err err = {0};
    cule_buf_init(&t.out, 0);
    int rc = run_all(&t, &err);
    cule_chrome_release(&t.chrome);
    cule_buf_release(&t.out);
    if (t.fd > STDOUT_FILENO) {
        close(t.fd);
    }
    if (rc) {
        return cule_cli_fail(cli, &err);
    }
    if (t.untraced) {
        cule_cli_note(cli, t.spans ? 1 : 0, "%llu requests were part of no trace (--all shows them too)",
                      (unsigned long long)t.untraced);
    }
    cule_cli_note(cli, 1, "%llu spans", (unsigned long long)t.spans);
    return t.status;
}

const struct cule_command cule_ipc_trace = {
    .name = "trace",
    .group = "tools",
    .summary = "collect spans of requests across programs",
    .about =
        "Reads recordings, and listens to running programs until interrupted or --for has passed. Writes Chrome's "
        "trace JSON, which ui.perfetto.dev opens. While somebody listens a program traces every request; else only "
        "what call --trace or another tracer began.",
    .example = "cule-ipc trace --for 10s unix:/run/a.sock unix:/run/b.sock --to trace.json",
    .opts_size = sizeof(struct trace_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_STRING(struct trace_opts, to, 'o', "to", "FILE", "where to write", .def = "-",
                            .complete = CULE_COMPLETE_FILE),
            CULE_OPT_DURATION(struct trace_opts, for_ms, 'f', "for", "TIME", "listen so long (0: until interrupted)",
                              .def = "0"),
            CULE_OPT_U64(struct trace_opts, count, 'n', "count", "N", "listen for N spans (0: no limit)", .def = "0"),
            CULE_OPT_FLAG(struct trace_opts, lines, 'l', "lines", "write JSON lines, a span each, as they come"),
            CULE_OPT_FLAG(struct trace_opts, all, 'a', "all", "requests too that are part of no trace"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_MANY(struct trace_opts, from, "FILE|ENDPOINT", "recordings, and programs to listen to",
                          .complete = CULE_COMPLETE_FILE),
            CULE_ARG_END,
        },
    .run = run,
};

/* Spans from a recording: from each request to its last answer, as seen on that link. */
#include "trace.h"

#include "replay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A link, and who speaks on it. */
struct end {
    struct cule_map open; /* id -> struct cule_span */
    char program[CULE_SPAN_PROGRAM_MAX];
};

static struct end *end_of(struct cule_map *ends, uint64_t link)
{
    struct end *e = cule_map_get(ends, link);
    if (!e && (e = calloc(1, sizeof *e))) {
        cule_map_init(&e->open);
        snprintf(e->program, sizeof e->program, "link %" PRIu64, link);
        if (cule_map_put(ends, link, e)) {
            free(e);
            e = NULL;
        }
    }
    return e;
}

static int begin(struct end *e, const struct replay_item *x)
{
    struct cule_span *s = calloc(1, sizeof *s);
    if (!s) {
        return CULE_ENOMEM;
    }
    if (x->m.trace && cule_trace_get(&s->trace, x->m.trace)) {
        s->trace = (struct cule_trace){0};
    }
    s->start_ns = x->time_ns;
    s->service = x->m.h.service;
    s->op = x->m.h.op;
    s->track = x->link;
    s->client = true;
    memcpy(s->program, e->program, sizeof s->program);
    free(cule_map_take(&e->open, x->m.h.id));
    int rc = cule_map_put(&e->open, x->m.h.id, s);
    if (rc) {
        free(s);
    }
    return rc;
}

static int take(struct trace_run *t, struct end *e, const struct replay_item *x, struct cule_err *err)
{
    unsigned kind = x->m.h.kind;
    bool ends = kind == CULE_ERROR_FRAME || ((kind == CULE_REPLY || kind == CULE_DATA) && !(x->m.h.flags & CULE_OPEN));
    if (kind == CULE_HELLO && !x->answer && x->m.len) {
        snprintf(e->program, sizeof e->program, "%.*s", (int)CULE_MIN(x->m.len, sizeof e->program - 1),
                 (const char *)x->m.body);
    }
    if (kind == CULE_REQUEST && x->time_ns) {
        int rc = begin(e, x);
        return rc ? cule_err_set(err, rc, "out of memory") : 0;
    }
    /* The asker's own last DATA ends his stream, not the request. */
    struct cule_span *s = ends && (x->answer || kind != CULE_DATA) ? cule_map_take(&e->open, x->m.h.id) : NULL;
    if (!s) {
        return 0;
    }
    s->end_ns = CULE_MAX(x->time_ns, s->start_ns);
    s->code = cule_msg_error(&x->m, NULL);
    int rc = trace_span(t, s, err);
    free(s);
    return rc;
}

int trace_recording(struct trace_run *t, const char *path, struct cule_err *err)
{
    struct replay_source src;
    struct replay_item x;
    struct cule_map ends;
    size_t at = 0;
    struct end *e;
    cule_map_init(&ends);
    int rc = replay_source_open(&src, path, err);
    while (!rc && (rc = replay_source_next(&src, &x, err)) > 0) {
        e = end_of(&ends, x.link);
        rc = e ? take(t, e, &x, err) : cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    if (rc == CULE_ETRUNCATED) {
        cule_cli_warn(t->cli, "%s", err->text);
        t->status = 3;
        rc = 0;
    }
    int damaged = ipc_frames_report(t->cli, &src.r.in);
    t->status = t->status ? t->status : damaged;
    while ((e = cule_map_next(&ends, &at, NULL))) {
        size_t i = 0;
        struct cule_span *s;
        while ((s = cule_map_next(&e->open, &i, NULL))) {
            free(s); /* never answered */
        }
        cule_map_release(&e->open);
        free(e);
    }
    cule_map_release(&ends);
    replay_source_close(&src);
    return rc;
}

/* cule-ipc merge: several recordings into one, by time. */
#include "base/heap.h"
#include "base/map.h"
#include "cli/tty.h"
#include "record_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum { MERGE_FLUSH = 1024 * 1024 };

struct merge_opts {
    struct cule_words files;
    const char *to;
};

struct source {
    struct cule_heap_node node; /* first: by the time of the frame that is next */
    struct recording r;
    struct recorded x;
    uint64_t time_ns;      /* of the last frame that had one */
    struct cule_map links; /* number here -> number in the result, plus one */
    bool open;
};

struct merge {
    struct source *from;
    size_t n;
    struct cule_heap heap;
    struct recorder out;
    uint64_t next_link;
};

/* Reads a source's next frame and puts it in its place. An unmarked frame goes with the one before it. */
static int advance(struct merge *m, struct source *s, struct cule_err *err)
{
    int rc = recording_next(&s->r, &s->x, err);
    if (rc <= 0) {
        cule_heap_remove(&m->heap, &s->node);
        return rc;
    }
    s->time_ns = s->x.time_ns ? s->x.time_ns : s->time_ns;
    rc = cule_heap_put(&m->heap, &s->node, s->time_ns);
    return rc ? cule_err_set(err, rc, "out of memory") : 0;
}

/* Links keep apart what came by different ones: each gets a number of its own in the result. */
static int link_number(struct merge *m, struct source *s, uint64_t *number)
{
    uintptr_t known = (uintptr_t)cule_map_get(&s->links, s->x.link);
    if (!known) {
        known = (uintptr_t)(m->next_link++ + 1);
        int rc = cule_map_put(&s->links, s->x.link, (void *)known);
        if (rc) {
            return rc;
        }
    }
    *number = known - 1;
    return 0;
}

static int merge_all(struct merge *m, struct cule_err *err)
{
    int truncated = 0;
    struct cule_heap_node *top;
    while ((top = cule_heap_top(&m->heap))) {
        struct source *s = CULE_CONTAINER(top, struct source, node);
        uint64_t number;
        int rc = link_number(m, s, &number);
        rc = rc ? rc : recorder_add(&m->out, s->time_ns, number, s->x.answer, &s->x.f, s->x.payload);
        if (rc) {
            return cule_err_set(err, rc, "out of memory");
        }
        if (cule_buf_len(&m->out.buf) >= MERGE_FLUSH && (rc = recorder_flush(&m->out, err))) {
            return rc;
        }
        rc = advance(m, s, err);
        if (rc == CULE_ETRUNCATED) {
            truncated = rc; /* the others go on */
        } else if (rc) {
            return rc;
        }
    }
    return truncated;
}

static int run(struct cule_cli *cli)
{
    const struct merge_opts *o = cli->opts;
    struct merge m = {.n = o->files.n, .out = {.fd = -1}};
    struct cule_err err = {0};
    int truncated = 0;
    int status = 0;
    int rc = strcmp(o->to, "-") == 0 ? cule_tty_frames_out(cli, STDOUT_FILENO, &err) : 0;
    if (rc) {
        return cule_cli_fail(cli, &err);
    }
    cule_heap_init(&m.heap);
    m.from = calloc(m.n, sizeof *m.from);
    rc = m.from ? 0 : cule_err_set(&err, CULE_ENOMEM, "out of memory");
    for (size_t i = 0; i < m.n && !rc; i++) {
        cule_map_init(&m.from[i].links);
        m.from[i].open = true;
        rc = recording_open(&m.from[i].r, o->files.v[i], &err);
        rc = rc ? rc : advance(&m, &m.from[i], &err);
        truncated = rc == CULE_ETRUNCATED ? rc : truncated;
        rc = rc == CULE_ETRUNCATED ? 0 : rc;
    }
    rc = rc ? rc : recorder_open(&m.out, o->to, false, "cule-ipc merge", &err);
    rc = rc ? rc : merge_all(&m, &err);
    rc = rc ? rc : truncated;
    if (m.out.fd >= 0) {
        struct cule_err late = {0};
        if (recorder_close(&m.out, &late) && !rc) {
            err = late;
            rc = late.code;
        }
    }
    status = rc ? cule_cli_fail(cli, &err) : 0;
    for (size_t i = 0; m.from && i < m.n && m.from[i].open; i++) {
        int skipped = ipc_frames_report(cli, &m.from[i].r.in);
        status = status ? status : skipped;
        recording_close(&m.from[i].r);
        cule_map_release(&m.from[i].links);
    }
    free(m.from);
    cule_heap_release(&m.heap);
    return status;
}

const struct cule_command cule_ipc_merge = {
    .name = "merge",
    .group = "recording",
    .summary = "put several recordings together by time",
    .about = "Each link of each file becomes a link of its own in the result. Frames without a time stay behind the "
             "frame that they followed.",
    .example = "cule-ipc merge a.rec b.rec --to both.rec",
    .opts_size = sizeof(struct merge_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_STRING(struct merge_opts, to, 'o', "to", "FILE", "where to write", .def = "-",
                            .complete = CULE_COMPLETE_FILE),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_MANY(struct merge_opts, files, "FILE", "recordings", .complete = CULE_COMPLETE_FILE),
            CULE_ARG_END,
        },
    .run = run,
};

/* cule-ipc tee: frames from standard input to standard output and to files. */
#include "cli/tty.h"
#include "record_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEE_FLUSH = 256 * 1024 };

struct tee_opts {
    struct cule_words files;
    bool append;
    bool mark;
};

struct tee {
    const struct cule_cli *cli;
    struct recorder *to;
    const char **name;
    size_t n;
    struct cule_buf out;
    int status;
};

/* A file that cannot be written is told once and left; the others go on. */
static void lost(struct tee *t, size_t i, const struct cule_err *err)
{
    struct cule_err told = *err;
    cule_err_context(&told, told.code, "'%s'", t->name[i]);
    t->status = cule_cli_fail(t->cli, &told);
    cule_buf_release(&t->to[i].buf);
    if (t->to[i].owns_fd) {
        close(t->to[i].fd);
    }
    t->to[i].fd = -1;
}

static void to_files(struct tee *t, bool mark, const struct cule_frame *f, const uint8_t *tail)
{
    uint64_t now = mark ? cule_wall_ns() : 0;
    for (size_t i = 0; i < t->n; i++) {
        struct recorder *w = &t->to[i];
        struct cule_err err = {0};
        int rc = 0;
        if (w->fd < 0) {
            continue;
        }
        if (mark) {
            rc = recorder_add(w, now, 0, false, f, tail);
        } else {
            rc = ipc_add_frame(&w->buf, f, tail);
        }
        if (rc) {
            cule_err_set(&err, rc, "%s", cule_err_text(rc));
            lost(t, i, &err);
        }
    }
}

/* What was gathered, before more is waited for. */
static int flush(void *ctx, struct cule_err *err)
{
    struct tee *t = ctx;
    for (size_t i = 0; i < t->n; i++) {
        struct cule_err why = {0};
        if (t->to[i].fd >= 0 && recorder_flush(&t->to[i], &why)) {
            lost(t, i, &why);
        }
    }
    int rc = ipc_write_all(STDOUT_FILENO, cule_buf_data(&t->out), cule_buf_len(&t->out), err);
    cule_buf_clear(&t->out);
    return rc;
}

static int copy(struct tee *t, struct ipc_frames *in, bool mark)
{
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err = {0};
    int rc;
    while ((rc = ipc_frames_next(in, &f, &payload, &err)) > 0) {
        if (rc == CULE_DECODED_GAP) {
            continue;
        }
        to_files(t, mark, &f, payload);
        rc = ipc_add_frame(&t->out, &f, payload);
        rc = rc ? cule_err_set(&err, rc, "out of memory") : 0;
        if (!rc && cule_buf_len(&t->out) >= TEE_FLUSH) {
            rc = flush(t, &err);
        }
        if (rc) {
            break;
        }
    }
    if (rc == 0 || rc == CULE_ETRUNCATED) {
        struct cule_err late = {0};
        int last = flush(t, &late);
        if (last) {
            rc = last;
            err = late;
        }
    }
    if (rc < 0) {
        t->status = cule_cli_fail(t->cli, &err);
    }
    int skipped = ipc_frames_report(t->cli, in);
    return t->status ? t->status : skipped;
}

static int run(struct cule_cli *cli)
{
    const struct tee_opts *o = cli->opts;
    struct tee t = {.cli = cli, .name = o->files.v, .n = o->files.n};
    struct ipc_frames in = {.fd = -1, .notify = -1};
    struct cule_err err = {0};
    size_t opened = 0;
    int rc = cule_tty_frames_in(cli, STDIN_FILENO, &err);
    rc = rc ? rc : cule_tty_frames_out(cli, STDOUT_FILENO, &err);
    if (rc) {
        return cule_cli_fail(cli, &err);
    }
    t.to = calloc(t.n, sizeof *t.to);
    if (!t.to) {
        return cule_cli_failf(cli, CULE_ENOMEM, "out of memory");
    }
    for (; opened < t.n && !rc; opened++) {
        struct recorder *w = &t.to[opened];
        rc = o->mark ? recorder_open(w, o->files.v[opened], o->append, "cule-ipc tee", &err)
                     : recorder_open_plain(w, o->files.v[opened], o->append, &err);
    }
    rc = rc ? rc : ipc_frames_open(&in, "-", false, &err);
    in.idle = flush;
    in.ctx = &t;
    cule_buf_init(&t.out, 0);
    int status = rc ? cule_cli_fail(cli, &err) : copy(&t, &in, o->mark);
    for (size_t i = 0; i < opened; i++) {
        struct cule_err late = {0};
        if (t.to[i].fd >= 0 && recorder_close(&t.to[i], &late) && !status) {
            status = cule_cli_fail(cli, &late);
        }
    }
    if (in.fd >= 0) {
        ipc_frames_close(&in);
    }
    cule_buf_release(&t.out);
    free(t.to);
    return status;
}

const struct cule_command cule_ipc_tee = {
    .name = "tee",
    .group = "recording",
    .summary = "pass frames on and write them to files too",
    .about = "Files hold whole frames only. With --mark a file is a recording, which replay and merge understand.",
    .example = "producer | cule-ipc tee --mark seen.rec | consumer",
    .opts_size = sizeof(struct tee_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_FLAG(struct tee_opts, append, 'a', "append", "add to the files"),
            CULE_OPT_FLAG(struct tee_opts, mark, 'm', "mark", "write the time before each frame: a recording"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_MANY(struct tee_opts, files, "FILE", "files to write", .complete = CULE_COMPLETE_FILE),
            CULE_ARG_END,
        },
    .run = run,
};

/* cule-ipc encode: JSON lines to frames. */
#include "cli/tty.h"
#include "common.h"
#include "wire/mirror.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { ENCODE_LINE_MAX = 64 * 1024 * 1024, ENCODE_FLUSH = 256 * 1024, ENCODE_CHUNK = 128 * 1024 };

struct encode_opts {
    struct cule_words files;
    bool keep_going;
};

struct encode {
    const struct cule_cli *cli;
    const struct encode_opts *o;
    struct cule_mirror mirror;
    struct cule_buf in, out;
    uint64_t line;
    int status; /* of a line that was skipped */
};

static int flush(struct encode *e, struct cule_err *err)
{
    int rc = ipc_write_all(STDOUT_FILENO, cule_buf_data(&e->out), cule_buf_len(&e->out), err);
    cule_buf_clear(&e->out);
    return rc;
}

static bool blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!strchr(" \t\r\n", p[i])) {
            return false;
        }
    }
    return true;
}

static int one_line(struct encode *e, const char *name, const char *p, size_t n, struct cule_err *err)
{
    e->line++;
    if (blank(p, n)) {
        return 0;
    }
    int rc = cule_mirror_encode(&e->mirror, p, n, &e->out, err);
    if (rc) {
        cule_err_context(err, rc, "%s line %" PRIu64, name, e->line);
        if (!e->o->keep_going || rc == CULE_ENOMEM) {
            return rc;
        }
        e->status = cule_cli_fail(e->cli, err);
    }
    return cule_buf_len(&e->out) >= ENCODE_FLUSH ? flush(e, err) : 0;
}

/* The whole lines that are there; the last one without its newline too at the end of the input. */
static int lines(struct encode *e, const char *name, bool end, struct cule_err *err)
{
    size_t done = 0;
    size_t len = cule_buf_len(&e->in);
    const char *p = (const char *)cule_buf_data(&e->in);
    int rc = 0;
    while (rc == 0 && done < len) {
        const char *nl = memchr(p + done, '\n', len - done);
        if (!nl && !end) {
            break;
        }
        size_t n = nl ? (size_t)(nl - (p + done)) : len - done;
        rc = one_line(e, name, p + done, n, err);
        done += nl ? n + 1 : n;
    }
    if (rc == 0 && len - done > ENCODE_LINE_MAX) {
        rc = cule_err_set(err, CULE_ETOO_BIG, "%s line %" PRIu64 " is longer than %d bytes", name, e->line + 1,
                          ENCODE_LINE_MAX);
    }
    if (len) {
        cule_buf_take(&e->in, done);
    }
    return rc;
}

static int one_file(struct encode *e, const char *path, struct cule_err *err)
{
    struct ipc_frames raw;
    const char *name;
    int rc = ipc_frames_open(&raw, path, false, err);
    name = raw.name;
    e->line = 0;
    while (rc == 0) {
        uint8_t *at;
        rc = cule_buf_reserve(&e->in, ENCODE_CHUNK, &at);
        if (rc) {
            cule_err_set(err, rc, "out of memory");
            break;
        }
        ssize_t n = ipc_read(raw.fd, at, ENCODE_CHUNK, name, err);
        if (n <= 0) {
            rc = n < 0 ? (int)n : lines(e, name, true, err);
            break;
        }
        cule_buf_commit(&e->in, (size_t)n);
        /* Only the new bytes can hold the line's end; a line of many chunks is not searched over and over. */
        if (memchr(at, '\n', (size_t)n) || cule_buf_len(&e->in) > ENCODE_LINE_MAX) {
            rc = lines(e, name, false, err);
            rc = rc ? rc : flush(e, err);
        }
    }
    ipc_frames_close(&raw);
    return rc;
}

static int run(struct cule_cli *cli)
{
    struct encode e = {.cli = cli, .o = cli->opts};
    struct cule_err err = {0};
    static const char *const standard[] = {"-"};
    const char *const *files = e.o->files.n ? e.o->files.v : standard;
    size_t n = e.o->files.n ? e.o->files.n : 1;
    int rc = cule_tty_frames_out(cli, STDOUT_FILENO, &err);
    if (rc) {
        return cule_cli_fail(cli, &err);
    }
    cule_mirror_init(&e.mirror);
    cule_buf_init(&e.in, 0);
    cule_buf_init(&e.out, 0);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = one_file(&e, files[i], &err);
    }
    struct cule_err late = {0};
    int lost = flush(&e, &late);
    if (!rc && lost) {
        rc = lost;
        err = late;
    }
    cule_buf_release(&e.in);
    cule_buf_release(&e.out);
    cule_mirror_release(&e.mirror);
    return rc ? cule_cli_fail(cli, &err) : e.status;
}

const struct cule_command cule_ipc_encode = {
    .name = "encode",
    .group = "frames",
    .summary = "turn JSON lines into frames",
    .about = "The opposite of decode, without loss. A payload larger than a frame becomes several. Descriptors cannot "
             "be written as JSON.",
    .example = "jq -nc '{kind:\"event\",service:\"bus\",op:\"publish\",topic:\"a/b\",payload_text:\"hi\"}' | "
               "cule-ipc encode | consumer",
    .opts_size = sizeof(struct encode_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_FLAG(struct encode_opts, keep_going, 'k', "keep-going",
                          "report a bad line, leave it out and go on"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_ANY(struct encode_opts, files, "FILE", "JSON lines (standard input where none is given)",
                         .complete = CULE_COMPLETE_FILE),
            CULE_ARG_END,
        },
    .run = run,
};

/* cule-ipc decode: frames to JSON lines, or for people. */
#include "cli/tty.h"
#include "decode_filter.h"
#include "wire/mirror.h"
#include "wire/print.h"

#include <time.h>
#include <unistd.h>

enum { DECODE_FLUSH = 256 * 1024 };

struct decode_opts {
    struct cule_words files;
    struct cule_words filters;
    bool follow;
    bool human;
    bool messages;
    bool keep;
};

struct decode {
    const struct cule_cli *cli;
    const struct decode_opts *o;
    struct decode_filter filter;
    struct cule_mirror mirror;
    struct cule_assembler assembler;
    struct cule_buf out;
    struct cule_frame mark; /* what the next frame's MARK told, for the human view */
    bool marked;
    bool human, colour;
    int status;
};

static int flush(void *ctx, struct cule_err *err)
{
    struct decode *d = ctx;
    int rc = ipc_write_all(STDOUT_FILENO, cule_buf_data(&d->out), cule_buf_len(&d->out), err);
    cule_buf_clear(&d->out);
    return rc;
}

/* The time and the direction that a MARK told, before the frame that it is about. */
static int write_mark(struct decode *d)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(d->mark.arg0 / 1000000000u);
    if (!d->marked) {
        return 0;
    }
    d->marked = false;
    localtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%H:%M:%S", &tm);
    return cule_buf_addf(&d->out, "%s%s.%06u %llu %s%s ", cule_colour(d->colour, CULE_COLOUR_DIM), text,
                         (unsigned)(d->mark.arg0 % 1000000000u / 1000), (unsigned long long)(d->mark.arg1 >> 1),
                         d->mark.arg1 & 1 ? "<" : ">", cule_colour(d->colour, CULE_COLOUR_PLAIN));
}

static int write_human(struct decode *d, const struct cule_frame *f, const uint8_t *payload)
{
    if (f->kind == CULE_MARK && !(f->flags & CULE_NESTED)) {
        d->mark = *f;
        d->marked = true;
        return 0;
    }
    int rc = write_mark(d);
    rc = rc ? rc : cule_print_frame(f, payload, CULE_PRINT_PAYLOAD, &d->out);
    return rc ? rc : cule_buf_addc(&d->out, '\n');
}

static int write_frame(struct decode *d, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    return d->human ? write_human(d, f, payload) : cule_mirror_write(&d->mirror, f, payload, &d->out, err);
}

/* Puts messages together, and writes each that is whole. */
static int write_message(struct decode *d, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    struct cule_msg m;
    struct cule_frame bare = *f;
    bare.nfds = 0; /* a recording has none to give */
    int rc = cule_assembler_push(&d->assembler, &bare, payload, NULL, 0, &m, err);
    if (rc <= 0) {
        return rc;
    }
    m.h.nfds = f->nfds;
    if (!decode_filter_takes(&d->filter, &m.h, m.body, m.len)) {
        return 0;
    }
    if (!d->human) {
        return cule_mirror_write_msg(&d->mirror, &m, &d->out, err);
    }
    m.h.flags &= (uint16_t)~CULE_TRACE; /* the body is shown without it */
    m.h.length = (uint32_t)m.len;
    return write_human(d, &m.h, m.body);
}

static int one_frame(struct decode *d, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    if (d->o->messages) {
        return write_message(d, f, payload, err);
    }
    size_t skip = f->flags & CULE_TRACE ? CULE_TRACE_SIZE : 0;
    bool holds = f->length >= skip;
    if (f->kind == CULE_MARK && d->human && d->filter.n) {
        return write_human(d, f, payload);
    }
    if (!decode_filter_takes(&d->filter, f, payload + (holds ? skip : 0), holds ? f->length - skip : 0)) {
        d->marked = false;
        return 0;
    }
    return write_frame(d, f, payload, err);
}

static void tell_gap(const struct decode *d, const struct ipc_frames *in)
{
    cule_cli_warn(d->cli, "'%s' at byte %llu: %llu bytes skipped that are no frame: %s", in->name,
                  (unsigned long long)in->d.gap_offset, (unsigned long long)in->d.gap_bytes, in->why.text);
}

static int all_frames(struct decode *d, struct ipc_frames *in)
{
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err = {0};
    int rc;
    while ((rc = ipc_frames_next(in, &f, &payload, &err)) > 0) {
        if (rc == CULE_DECODED_GAP) {
            tell_gap(d, in);
            d->status = 3;
            continue;
        }
        if (rc == CULE_DECODED_BAD_BODY) {
            cule_cli_warn(d->cli, "'%s' at byte %llu: %s", in->name, (unsigned long long)in->last, in->why.text);
            d->status = 3;
            if (!d->o->keep) {
                continue;
            }
        }
        rc = one_frame(d, &f, payload, &err);
        if (rc == CULE_EMALFORMED || rc == CULE_ETOO_BIG || rc == CULE_ELIMIT) {
            cule_cli_warn(d->cli, "'%s' at byte %llu: %s", in->name, (unsigned long long)in->last, err.text);
            d->status = 3;
            rc = 0;
        }
        if (!rc && cule_buf_len(&d->out) >= DECODE_FLUSH) {
            rc = flush(d, &err);
        }
        if (rc < 0) {
            break;
        }
    }
    struct cule_err late = {0};
    int last = flush(d, &late);
    if (rc < 0 || last) {
        return cule_cli_fail(d->cli, rc < 0 ? &err : &late);
    }
    return 0;
}

static int one_file(struct decode *d, const char *path)
{
    struct ipc_frames in;
    struct cule_err err = {0};
    int rc = ipc_frames_open(&in, path, d->o->follow, &err);
    in.idle = flush;
    in.ctx = d;
    int status = rc ? cule_cli_fail(d->cli, &err) : all_frames(d, &in);
    if (d->cli->verbose) {
        cule_cli_note(d->cli, 1, "'%s': %llu frames in %llu bytes, %llu bytes skipped", in.name,
                      (unsigned long long)in.d.frames, (unsigned long long)in.d.offset,
                      (unsigned long long)in.d.skipped);
    }
    ipc_frames_close(&in);
    return status;
}

static int run(struct cule_cli *cli)
{
    struct decode d = {.cli = cli, .o = cli->opts};
    struct cule_err err = {0};
    static const char *const standard[] = {"-"};
    const char *const *files = d.o->files.n ? d.o->files.v : standard;
    size_t n = d.o->files.n ? d.o->files.n : 1;
    int rc = d.o->files.n ? 0 : cule_tty_frames_in(cli, STDIN_FILENO, &err);
    rc = rc ? rc : decode_filter_parse(&d.filter, &d.o->filters, &err);
    if (!rc && d.o->follow && n > 1) {
        rc = cule_err_set(&err, CULE_EUSAGE, "--follow takes one file, not %zu", n);
    }
    if (rc) {
        decode_filter_release(&d.filter);
        return cule_cli_fail(cli, &err);
    }
    d.human = !cli->json && (d.o->human || cule_tty_is(STDOUT_FILENO));
    d.colour = cule_tty_colour(STDOUT_FILENO);
    cule_mirror_init(&d.mirror);
    cule_buf_init(&d.out, 0);
    for (size_t i = 0; i < n; i++) {
        cule_assembler_init(&d.assembler);
        int status = one_file(&d, files[i]);
        if (d.assembler.open) {
            cule_cli_warn(cli, "'%s': %u message%s never finished", files[i], d.assembler.open,
                          d.assembler.open == 1 ? " was" : "s were");
            d.status = d.status ? d.status : 3;
        }
        cule_assembler_release(&d.assembler);
        d.status = status ? status : d.status;
    }
    cule_mirror_release(&d.mirror);
    cule_buf_release(&d.out);
    decode_filter_release(&d.filter);
    return d.status;
}

const struct cule_command cule_ipc_decode = {
    .name = "decode",
    .group = "frames",
    .summary = "turn frames into JSON lines, or show them",
    .about = "On a terminal frames are shown for people, elsewhere each is a JSON object on a line. Bytes that are no "
             "frame are skipped, reported on stderr, and make the exit status 3.",
    .example = "cule-ipc decode --filter kind=request,service=stor session.rec",
    .opts_size = sizeof(struct decode_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_FLAG(struct decode_opts, follow, 'f', "follow", "wait for more at the end of the file"),
            CULE_OPT_LIST(
                struct decode_opts, filters, 'F', "filter", "TERM[,TERM…]",
                "only frames for which all terms hold: service=S, op=OP, kind=KIND, topic=PATTERN, id=N; given "
                "again, frames that either takes"),
            CULE_OPT_FLAG(struct decode_opts, human, 'H', "human",
                          "the view for people also where there is no terminal"),
            CULE_OPT_FLAG(struct decode_opts, messages, 'm', "messages", "put messages of several frames together"),
            CULE_OPT_FLAG(struct decode_opts, keep, 0, "bad-bodies", "show frames too whose body does not hold"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_ANY(struct decode_opts, files, "FILE",
                         "recordings or streams (standard input where none is given)", .complete = CULE_COMPLETE_FILE),
            CULE_ARG_END,
        },
    .flags = CULE_CMD_JSON,
    .run = run,
};

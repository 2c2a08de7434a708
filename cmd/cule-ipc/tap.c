/* cule-ipc tap: every frame that passes through a bus on a pattern or of a client, as frames, JSON or for people. */
#include "base/bytes.h"
#include "base/json.h"
#include "busout.h"
#include "busrun.h"
#include "cli/tty.h"
#include "wire/decode.h"
#include "wire/mirror.h"
#include "wire/print.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct tap_opts {
    BUS_OPTION_FIELDS
    const char *pattern;
    uint64_t client, count;
    int format;
};

enum tap_format { TAP_TEXT, TAP_JSON, TAP_FRAMES };
enum { NS_PER_S = 1000000000 };

struct tap {
    struct busrun run;
    const struct tap_opts *o;
    struct busout out;
    struct cule_mirror mirror;
    uint64_t frames, request;
    bool hello_written, ending;
};

static void end(struct tap *t)
{
    t->ending = true;
    if (busout_waiting(&t->out) == 0) {
        busclient_close(t->run.client);
    }
}

static void on_moved(void *ctx)
{
    struct tap *t = ctx;
    struct cule_link *l = busclient_link(t->run.client);
    if (t->out.broken) {
        if (t->out.err.code == CULE_ECLOSED) {
            busrun_done(&t->run, 0);
        } else {
            busrun_fail(&t->run, &t->out.err);
        }
        return;
    }
    if (l && busout_waiting(&t->out) < BUSOUT_FULL / 2) {
        cule_link_pause(l, false);
    }
    if (t->ending) {
        end(t);
    }
}

/* "12:00:00.000123 in event BUS publish ..." */
static int text(struct tap *t, const struct cule_frame *mark, const struct cule_frame *f, const uint8_t *p)
{
    struct cule_buf *b = &t->out.buf;
    char at[32] = "";
    time_t s = (time_t)(mark->arg0 / NS_PER_S);
    struct tm tm;
    int rc = 0;
    if (mark->kind == CULE_MARK && localtime_r(&s, &tm)) {
        strftime(at, sizeof at, "%T", &tm);
        rc = cule_buf_addf(b, "%s.%06u %s ", at, (unsigned)(mark->arg0 % NS_PER_S / 1000),
                           (mark->arg1 & 1) ? "out" : "in");
    }
    if (rc == 0) {
        rc = cule_print_frame(f, p, CULE_PRINT_PAYLOAD, b);
    }
    return rc ? rc : cule_buf_addc(b, '\n');
}

/* Two lines, the mark's and the frame's, from which encode makes the recording again. */
static int json(struct tap *t, const struct cule_frame *mark, const struct cule_frame *f, const uint8_t *p)
{
    int rc = 0;
    if (mark->kind == CULE_MARK) {
        rc = cule_mirror_write(&t->mirror, mark, (const uint8_t *)"", &t->out.buf, NULL);
    }
    return rc ? rc : cule_mirror_write(&t->mirror, f, p, &t->out.buf, NULL);
}

/* A recording begins with a HELLO, whoever writes it. */
static int frames(struct tap *t, const struct cule_frame *mark, const struct cule_frame *f, const uint8_t *p)
{
    static const char name[] = "cule-ipc tap";
    int rc = 0;
    if (!t->hello_written) {
        struct cule_frame h;
        cule_frame_init(&h, CULE_HELLO);
        h.length = sizeof name - 1;
        h.arg1 = CULE_MESSAGE_MAX;
        rc = cule_frame_add(&t->out.buf, &h, false, name);
        t->hello_written = true;
    }
    if (rc == 0 && mark->kind == CULE_MARK) {
        rc = cule_frame_add(&t->out.buf, mark, false, NULL);
    }
    return rc ? rc : cule_frame_add(&t->out.buf, f, false, p);
}

static int show(struct tap *t, const struct cule_frame *mark, const struct cule_frame *f, const uint8_t *p)
{
    if (t->o->format == TAP_FRAMES) {
        return frames(t, mark, f, p);
    }
    if (t->o->format == TAP_JSON || t->run.cli->json) {
        return json(t, mark, f, p);
    }
    return text(t, mark, f, p);
}

static void on_data(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct tap *t = arg;
    struct cule_err err = {0};
    int rc = cule_msg_error(m, &err);
    if (t->run.over || t->ending || rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED || rc == CULE_ECANCELLED) {
        return;
    }
    struct cule_frame mark = {.kind = 0}, f;
    const uint8_t *p = m->body, *payload;
    size_t left = m->len, used;
    while (rc == 0 && left > 0 && !t->ending && (rc = cule_frame_nested(p, left, &f, &payload, &used, &err)) > 0) {
        p += used;
        left -= used;
        rc = 0;
        if (f.kind == CULE_MARK) {
            mark = f;
            continue;
        }
        rc = show(t, &mark, &f, payload);
        if (++t->frames == t->o->count) {
            end(t);
        }
    }
    if (rc) {
        cule_err_context(&err, rc, "the bus's tap");
        busrun_fail(&t->run, &err);
        return;
    }
    busout_kick(&t->out);
    if (busout_waiting(&t->out) > BUSOUT_FULL) {
        cule_link_pause(l, true);
    }
}

static void on_up(void *ctx)
{
    struct tap *t = ctx;
    struct cule_buf json;
    struct cule_json_writer w;
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_TAP);
    cule_buf_init(&json, 0);
    cule_json_begin(&w, &json);
    cule_json_open(&w, '{');
    if (t->o->client) {
        cule_json_member_u64(&w, "client", t->o->client);
    }
    if (t->o->pattern || !t->o->client) {
        cule_json_member_str(&w, "pattern", t->o->pattern ? t->o->pattern : "#");
    }
    cule_json_close(&w, '}');
    m.body = cule_buf_data(&json);
    m.len = cule_buf_len(&json);
    int rc = cule_json_end(&w);
    if (rc == 0) {
        rc = cule_link_call(busclient_link(t->run.client), &m, 0, on_data, t, &t->request);
    }
    if (rc) {
        struct cule_err err;
        cule_err_set(&err, rc, "cannot ask the bus: %s", cule_err_text(rc));
        busrun_fail(&t->run, &err);
    }
    cule_buf_release(&json);
    busrun_ready(&t->run);
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct tap *t = ctx;
    busrun_down(&t->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct tap *t = ctx;
    if (why->code) {
        busrun_fail(&t->run, why);
    } else {
        busrun_done(&t->run, 0);
    }
}

static void on_stop(void *ctx)
{
    end(ctx);
}

static const struct busclient_ops ops = {.up = on_up, .down = on_down, .over = on_over};

static int tap_run(struct cule_cli *cli)
{
    struct tap t = {.o = cli->opts};
    struct busclient_opts c = {.name = "cule-ipc tap", .ops = &ops, .ctx = &t, .reconnect = true};
    cule_mirror_init(&t.mirror);
    if (busrun_begin(&t.run, cli, &t.o->at, on_stop, &t) ||
        (t.o->pattern && busclient_check_pattern(t.o->pattern, &t.run.err)) ||
        (t.o->format == TAP_FRAMES && cule_tty_frames_out(cli, STDOUT_FILENO, &t.run.err)) ||
        busrun_client(&t.run, &c) || busout_init(&t.out, t.run.loop, STDOUT_FILENO, on_moved, &t, &t.run.err)) {
        goto out;
    }
    busrun_run(&t.run);
    if (!t.out.broken && busout_waiting(&t.out) > 0) {
        busout_drain(&t.out, BUSRUN_GRACE_MS, NULL);
    }
out:
    busout_release(&t.out);
    cule_mirror_release(&t.mirror);
    return busrun_end(&t.run);
}

const struct cule_command cule_ipc_tap = {
    .name = "tap",
    .group = "bus",
    .summary = "see every frame on a pattern, or of a client",
    .about = "--format frames makes a recording that replay, decode and tee understand.",
    .example = "cule-ipc tap 'jobs/#' --format frames > jobs.cule",
    .opts_size = sizeof(struct tap_opts),
    .options = (const struct cule_opt[]){BUS_OPTION_ROWS(struct tap_opts),
                                         CULE_OPT_CHOICE(struct tap_opts, format, 'f', "format", "FORMAT",
                                                         "text|json|frames", "how a frame is shown", .def = "text"),
                                         CULE_OPT_U64(struct tap_opts, client, 'c', "client", "N",
                                                      "what this client sends and gets (0: all)", .def = "0"),
                                         CULE_OPT_U64(struct tap_opts, count, 'n', "count", "N",
                                                      "end after N frames (0: go on)", .def = "0"),
                                         CULE_OPT_END},
    .args = (const struct cule_arg[]){CULE_ARG_OPTIONAL(struct tap_opts, pattern, "PATTERN",
                                                        "topics of interest (without --client: all)",
                                                        .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .flags = CULE_CMD_JSON,
    .run = tap_run,
};

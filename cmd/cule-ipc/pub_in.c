/* The way into pub: one message from the command line, or many from standard input. */
#include "base/bytes.h"
#include "busline.h"
#include "common.h"
#include "pub.h"
#include "wire/decode.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static int put(struct pub *p, const char *topic, size_t topic_len, const void *body, size_t len)
{
    const struct pub_message m = {topic, topic_len, body, len, (uint8_t)p->o->priority, p->o->retain};
    return pub_out_put(p, &m);
}

/* --- pace --- */

static void on_pace(void *ctx)
{
    pub_in_pump(ctx);
}

/* Whether a message may go now; if not, the timer is set for when it may. Bursts of up to a millisecond's worth make
 * up for a timer that counts in milliseconds. */
static bool may_go(struct pub *p)
{
    if (p->o->rate <= 0) {
        return true;
    }
    uint64_t now = cule_now_ns();
    if (p->next_ns > now) {
        cule_timer_start(p->pace, (p->next_ns - now + 999999) / 1000000u, 0);
        return false;
    }
    return true;
}

static void went(struct pub *p)
{
    if (p->o->rate > 0) {
        uint64_t step = (uint64_t)(1e9 / p->o->rate);
        uint64_t now = cule_now_ns();
        uint64_t behind = CULE_MAX(step, 2000000u);
        p->next_ns = CULE_MAX(p->next_ns, now > behind ? now - behind : 0) + step;
    }
}

/* --- one message --- */

static int one_shot(struct pub *p, const char *payload, struct cule_err *err)
{
    p->one_shot = true;
    p->left = p->o->repeat ? p->o->repeat : UINT64_MAX;
    return ipc_payload(&p->body, payload ? payload : "-", CULE_MESSAGE_MAX - BUSCLIENT_TOPIC_MAX, err);
}

static void pump_one_shot(struct pub *p)
{
    while (p->left > 0 && !p->stopped && may_go(p)) {
        int rc = put(p, p->o->topic, strlen(p->o->topic), cule_buf_data(&p->body), cule_buf_len(&p->body));
        if (rc == CULE_EAGAIN) {
            return;
        }
        if (rc) {
            struct cule_err err;
            cule_err_set(&err, rc, "cannot publish %zu bytes on '%s': %s", cule_buf_len(&p->body), p->o->topic,
                         cule_err_text(rc));
            busrun_fail(&p->run, &err);
            return;
        }
        went(p);
        p->left -= p->left != UINT64_MAX;
    }
    if (p->left == 0 || p->stopped) {
        p->eof = true;
        pub_out_finish(p);
    }
}

/* --- many --- */

/* A JSON line; a topic of the command line counts more than the line's. */
static int put_json(struct pub *p, const uint8_t *line, size_t n, struct cule_err *err)
{
    char topic[BUSCLIENT_TOPIC_MAX + 1];
    struct busline_in *in = p->line_in;
    int rc = busline_parse(in, (const char *)line, n, err);
    if (rc) {
        return rc;
    }
    if (!p->o->topic) {
        if (!in->topic) {
            return cule_err_set(err, CULE_EMALFORMED, "a line has no \"topic\", and none was given");
        }
        if (in->topic_len > BUSCLIENT_TOPIC_MAX) {
            return cule_err_set(err, CULE_EMALFORMED, "a topic has %zu bytes: at most %d are allowed", in->topic_len,
                                BUSCLIENT_TOPIC_MAX);
        }
        memcpy(topic, in->topic, in->topic_len);
        topic[in->topic_len] = '\0';
        if (busclient_check_topic(topic, err)) {
            return err->code = CULE_EMALFORMED;
        }
    }
    const char *t = p->o->topic ? p->o->topic : topic;
    const struct pub_message m = {t,
                                  strlen(t),
                                  in->body,
                                  in->len,
                                  in->has_priority ? in->priority : (uint8_t)p->o->priority,
                                  p->o->retain || in->retain};
    return pub_out_put(p, &m);
}

static int put_line(struct pub *p, const uint8_t *line, size_t n, struct cule_err *err)
{
    if (p->o->format == PUB_JSON) {
        for (size_t i = 0; i < n; i++) {
            if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
                return put_json(p, line, n, err);
            }
        }
        return 0; /* an empty line is no message */
    }
    return put(p, p->o->topic, strlen(p->o->topic), line, n);
}

/* Takes whole lines: 0 all of them, CULE_EAGAIN the bus or the pace is full, or an error. */
static int take_lines(struct pub *p, struct cule_err *err)
{
    const int end = p->o->null_ended ? '\0' : '\n';
    const uint8_t *base = cule_buf_data(&p->lines);
    size_t have = cule_buf_len(&p->lines), at = 0;
    int rc = 0;
    while (rc == 0) {
        const uint8_t *nl = at + p->scanned < have ? memchr(base + at + p->scanned, end, have - at - p->scanned) : NULL;
        size_t n = nl ? (size_t)(nl - base) - at : have - at;
        if (!nl && (!p->eof || n == 0)) {
            p->scanned = n;
            break;
        }
        if (!may_go(p)) {
            rc = CULE_EAGAIN;
            break;
        }
        if ((rc = put_line(p, base + at, n, err)) == 0) {
            went(p);
            at += n + (nl != NULL);
            p->scanned = 0;
        }
    }
    cule_buf_take(&p->lines, at);
    return rc;
}

/* What of a frame's message is published. A frame that is none of the bus's needs a topic from the command line. */
static int held_from(struct pub *p, struct cule_msg *m, struct pub_message *out, struct cule_err *err)
{
    struct busclient_delivery d;
    bool on_bus = m->h.service == CULE_S_BUS && (m->h.op == CULE_OP_BUS_PUBLISH || m->h.op == CULE_OP_BUS_DELIVER);
    if (!on_bus || !busclient_split(m, &d)) {
        if (!p->o->topic) {
            return cule_err_set(err, CULE_EMALFORMED, "a %s frame has no topic: name one (pub TOPIC --format frames)",
                                cule_kind_name(m->h.kind));
        }
        d = (struct busclient_delivery){.body = m->body, .len = m->len, .priority = m->h.priority};
    }
    const char *topic = p->o->topic ? p->o->topic : d.topic;
    size_t n = p->o->topic ? strlen(p->o->topic) : d.topic_len;
    *out = (struct pub_message){topic, n, d.body, d.len, d.priority, p->o->retain || d.retained};
    return 0;
}

/* The next message of the stream, in p->held: 1, 0 at the end of the block, or an error. */
static int next_frame(struct pub *p, struct cule_err *err)
{
    struct cule_frame f;
    const uint8_t *payload;
    int rc;
    while ((rc = cule_decoder_next(p->decoder, &f, &payload, err)) > 0) {
        struct cule_msg m;
        if (rc != CULE_DECODED_FRAME) {
            cule_cli_warn(p->run.cli, "standard input: %s", err->text);
            continue;
        }
        if (f.kind == CULE_HELLO || f.kind == CULE_MARK || f.kind == CULE_CREDIT || f.kind == CULE_BYE) {
            continue;
        }
        rc = cule_assembler_push(p->assembler, &f, payload, NULL, 0, &m, err);
        if (rc < 0) {
            return rc;
        }
        if (rc > 0) {
            rc = held_from(p, &m, &p->held, err);
            return rc ? rc : 1;
        }
    }
    return rc;
}

/* The held message points into the block or the assembler, both of which stay until the next step. */
static int take_frames(struct pub *p, struct cule_err *err)
{
    int rc = 0;
    for (;;) {
        if (!p->held.topic && (rc = next_frame(p, err)) <= 0) {
            break;
        }
        if (!may_go(p)) {
            return CULE_EAGAIN;
        }
        if ((rc = pub_out_put(p, &p->held))) {
            return rc;
        }
        went(p);
        p->held.topic = NULL;
    }
    if (rc == 0) {
        cule_buf_clear(&p->lines);
        if (p->eof) {
            rc = cule_decoder_end(p->decoder, err);
        }
    }
    return rc;
}

static int take(struct pub *p, struct cule_err *err)
{
    return p->o->format == PUB_FRAMES ? take_frames(p, err) : take_lines(p, err);
}

/* One block: 1 read, 0 nothing there now, or an error. */
static int read_block(struct pub *p, struct cule_err *err)
{
    uint8_t *at;
    int rc = cule_buf_reserve(&p->lines, PUB_READ_BYTES, &at);
    if (rc) {
        return cule_err_set(err, CULE_ETOO_BIG, "a line is longer than a message may be (%d bytes)", CULE_MESSAGE_MAX);
    }
    struct pollfd pfd = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&pfd, 1, 0) == 0) {
        return 0;
    }
    ssize_t n = read(STDIN_FILENO, at, PUB_READ_BYTES);
    if (n < 0) {
        return errno == EINTR || errno == EAGAIN ? 0 : cule_err_sys(err, CULE_EIO, errno, "cannot read standard input");
    }
    cule_buf_commit(&p->lines, (size_t)n);
    p->eof = n == 0;
    if (p->o->format == PUB_FRAMES && n > 0) {
        cule_decoder_feed(p->decoder, cule_buf_data(&p->lines), cule_buf_len(&p->lines));
    }
    return 1;
}

static void watch(struct pub *p, bool on)
{
    if (p->in) {
        cule_watch_set(p->in, on ? POLLIN : 0);
    }
}

static void pump_many(struct pub *p)
{
    enum { BLOCKS = 4 }; /* in one turn, so that answers and signals get their share */
    struct cule_err err = {0};
    int rc = 0;
    for (int i = 0; i < BLOCKS; i++) {
        rc = take(p, &err);
        if (rc || p->eof || p->stopped || (rc = read_block(p, &err)) <= 0) {
            break;
        }
        rc = 0;
    }
    if (rc < 0 && rc != CULE_EAGAIN) {
        if (!err.code) {
            cule_err_set(&err, rc, "cannot publish: %s", cule_err_text(rc));
        }
        pub_out_flush(p);
        busrun_fail(&p->run, &err);
        return;
    }
    bool blocked = rc == CULE_EAGAIN || pub_out_flush(p) == CULE_EAGAIN;
    bool end = (p->stopped && !blocked) || (p->eof && cule_buf_len(&p->lines) == 0 && !p->held.topic);
    watch(p, !blocked && !end && !p->eof && !p->stopped);
    if (end) {
        pub_out_finish(p);
    }
}

void pub_in_pump(struct pub *p)
{
    if (p->run.over || !busclient_is_up(p->run.client)) {
        return;
    }
    if (p->one_shot) {
        pump_one_shot(p);
    } else {
        pump_many(p);
    }
}

static void on_readable(void *ctx, int events)
{
    struct pub *p = ctx;
    (void)events;
    if (!busclient_is_up(p->run.client)) {
        watch(p, false); /* `up` pumps */
        return;
    }
    pub_in_pump(p);
}

int pub_in_begin(struct pub *p, struct cule_err *err)
{
    const struct pub_opts *o = p->o;
    const char *payload = o->payload ? o->payload : o->text;
    cule_buf_init(&p->lines, CULE_MESSAGE_MAX + 2 * PUB_READ_BYTES);
    cule_buf_init(&p->body, 0);
    int rc = cule_timer_new(p->run.loop, &p->pace, on_pace, p, err);
    if (rc) {
        return rc;
    }
    bool typed = o->format == PUB_LINES || o->format == PUB_JSON; /* may come from a keyboard */
    if (!payload && !typed && isatty(STDIN_FILENO)) {
        return cule_err_set(err, CULE_EUSAGE, "nothing to publish: give a text, --payload, or pipe something in");
    }
    if (o->format == PUB_RAW) {
        return one_shot(p, payload, err);
    }
    if (payload && strcmp(payload, "-") != 0) {
        return cule_err_set(err, CULE_EUSAGE, "--format %s reads standard input: leave the payload out",
                            o->format == PUB_LINES  ? "lines"
                            : o->format == PUB_JSON ? "json"
                                                    : "frames");
    }
    if (o->format == PUB_JSON) {
        if (!(p->line_in = malloc(sizeof *p->line_in))) {
            return cule_err_set(err, CULE_ENOMEM, "no memory for a reader of JSON");
        }
        busline_init(p->line_in);
    }
    if (o->format == PUB_FRAMES) {
        p->decoder = malloc(sizeof *p->decoder);
        p->assembler = malloc(sizeof *p->assembler);
        if (!p->decoder || !p->assembler) {
            return cule_err_set(err, CULE_ENOMEM, "no memory for a decoder");
        }
        cule_decoder_init(p->decoder, CULE_DECODE_RESYNC);
        cule_assembler_init(p->assembler);
    }
    return cule_watch_new(p->run.loop, &p->in, STDIN_FILENO, 0, on_readable, p, err);
}

void pub_in_release(struct pub *p)
{
    if (p->decoder) {
        cule_decoder_release(p->decoder);
    }
    if (p->assembler) {
        cule_assembler_release(p->assembler);
    }
    if (p->line_in) {
        busline_release(p->line_in);
    }
    free(p->line_in);
    free(p->decoder);
    free(p->assembler);
    cule_buf_release(&p->lines);
    cule_buf_release(&p->body);
}

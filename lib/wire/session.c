/* A session's life and what comes in: HELLO, frames to messages, errors of the peer's. */
#include "wire/session.h"

#include "base/utf8.h"
#include "wire/ops.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_LEN_MAX = 255 };

static void drop_fds(void *ctx, const int *fds, unsigned nfds)
{
    struct cule_session *s = ctx;
    s->ops->close_fds(s->link, fds, nfds);
}

static void assembler_init(struct cule_session *s)
{
    size_t max = (size_t)CULE_MIN(s->cfg.message_max, (uint64_t)SIZE_MAX / 4);
    cule_assembler_init(&s->assembler);
    s->assembler.message_max = max;
    s->assembler.total_max = max * 2;
    s->assembler.drop_fds = drop_fds;
    s->assembler.ctx = s;
}

void cule_session_drop_assemblies(struct cule_session *s)
{
    cule_assembler_release(&s->assembler);
    assembler_init(s);
}

void cule_session_init(struct cule_session *s, const struct cule_session_config *cfg,
                       const struct cule_session_ops *ops, struct cule_link *link)
{
    memset(s, 0, sizeof *s);
    s->ops = ops;
    s->link = link;
    s->cfg = *cfg;
    s->next_id = cfg->server ? 2 : 1;
    s->peer_message_max = CULE_MESSAGE_MAX;
    cule_decoder_init(&s->decoder, cfg->resync ? CULE_DECODE_RESYNC : CULE_DECODE_STRICT);
    assembler_init(s);
    for (int p = 0; p < CULE_PRIORITIES; p++) {
        cule_buf_init(&s->lane[p].bytes, 0);
        cule_list_init(&s->lane[p].fds);
    }
    cule_map_init(&s->exchanges);
    cule_list_init(&s->opened);
    cule_heap_init(&s->deadlines);
    cule_list_init(&s->pings);
}

void cule_session_release(struct cule_session *s)
{
    struct cule_list *n;
    while ((n = cule_list_pop(&s->opened))) {
        free(CULE_LIST_ENTRY(n, struct cule_exchange, node));
    }
    while ((n = cule_list_pop(&s->pings))) {
        free(n);
    }
    free(s->spare);
    s->part_left = 0;
    cule_session_drop_queues(s);
    cule_map_release(&s->exchanges);
    cule_heap_release(&s->deadlines);
    cule_assembler_release(&s->assembler);
    cule_decoder_release(&s->decoder);
    free(s->peer_name);
    s->peer_name = NULL;
}

int cule_session_greet(struct cule_session *s, bool again)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_HELLO);
    f.priority = CULE_CRITICAL;
    f.arg0 = CULE_FEATURE_TRACE | (s->cfg.can_pass_fds ? CULE_FEATURE_FDS : 0) | (again ? CULE_FEATURE_AGAIN : 0) |
             (s->cfg.window_frames != UINT32_MAX ? CULE_FEATURE_CREDIT : 0);
    f.arg1 = s->cfg.message_max;
    const char *name = s->cfg.name ? s->cfg.name : "";
    f.length = (uint32_t)strnlen(name, NAME_LEN_MAX);
    int rc = cule_session_queue(s, &f, name);
    for (unsigned p = 0; p < CULE_PRIORITIES && !rc && s->cfg.window_frames != UINT32_MAX; p++) {
        rc = cule_session_grant(s, p, 0, s->cfg.window_frames, s->cfg.window_bytes);
    }
    return rc;
}

int cule_session_start(struct cule_session *s)
{
    return s->cfg.duplex ? cule_session_greet(s, false) : 0;
}

/* The peer's name, with what a terminal must not see replaced: controls, those above 0x7f too, and what is no UTF-8. */
static char *printable_name(const uint8_t *p, size_t n)
{
    n = CULE_MIN(n, (size_t)NAME_LEN_MAX);
    char *out = malloc(n + 1);
    if (!out) {
        return NULL;
    }
    size_t to = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        unsigned len = cule_utf8_next(p + i, n - i, &c);
        if (len == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            out[to++] = '?';
            i += len ? len : 1;
        } else {
            memcpy(out + to, p + i, len);
            to += len;
            i += len;
        }
    }
    out[to] = 0;
    return out;
}

void cule_session_maybe_ready(struct cule_session *s)
{
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        if (s->send[p].limited && s->send[p].granted_frames == 0) {
            return; /* that grant is still to come */
        }
    }
    if (s->ready_due && s->hello_in && !s->dead) {
        s->ready_due = false;
        if (s->ops->ready) {
            s->ops->ready(s->link);
        }
    }
}

static int on_hello(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    bool later = s->hello_in;
    s->hello_in = true;
    s->peer_features = f->arg0;
    s->peer_message_max = f->arg1 ? f->arg1 : CULE_MESSAGE_MAX;
    free(s->peer_name);
    s->peer_name = printable_name(payload, f->length);
    /* What came before the first one was from, or meant for, another: it is void as after a later one. */
    bool stale = s->requests || s->assembler.count;
    bool again = !later || (f->arg0 & CULE_FEATURE_AGAIN);
    if (later || stale || (f->arg0 & CULE_FEATURE_AGAIN)) {
        int rc = cule_session_restarted(s, again);
        if (rc) {
            return cule_err_set(err, rc, "no memory to greet a new peer");
        }
    }
    for (unsigned p = 0; p < CULE_PRIORITIES && (f->arg0 & CULE_FEATURE_CREDIT); p++) {
        s->send[p].limited = true;
    }
    if (((later && !again) || s->cfg.hello_to_message) && !s->dead) {
        struct cule_msg m = {.h = *f, .body = payload, .len = f->length};
        s->ops->message(s->link, &m);
    }
    s->ready_due = s->ready_due || !later;
    cule_session_maybe_ready(s);
    return 1;
}

/* Without memory, or while the peer does not take what is queued, its PING times out, as it should. */
static void pong(struct cule_session *s, const struct cule_frame *ping, const uint8_t *payload)
{
    if (s->queued / 2 >= s->cfg.queue_bytes) {
        return;
    }
    struct cule_frame f = *ping;
    f.kind = CULE_PONG;
    f.flags = 0;
    f.nfds = 0;
    f.priority = CULE_CRITICAL;
    cule_session_queue(s, &f, payload);
}

/* What is the link's own business. 1: dealt with. */
static int control(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    switch (f->kind) {
    case CULE_HELLO: return on_hello(s, f, payload, err);
    case CULE_CREDIT: cule_session_on_credit(s, f); return 1;
    case CULE_PING: pong(s, f, payload); return 1;
    case CULE_PONG: cule_session_on_pong(s, f); return 1;
    case CULE_BYE: s->bye_in = true; return 1;
    default: break;
    }
    if (!s->hello_in && s->cfg.hello_first) {
        return cule_err_set(err, CULE_EMALFORMED, "the first frame is no hello but %s", cule_kind_name(f->kind));
    }
    return 0;
}

static int take_fds(struct cule_session *s, const struct cule_frame *f, int *fds, struct cule_err *err)
{
    unsigned got = s->ops->take_fds(s->link, fds, f->nfds);
    if (got == f->nfds) {
        return 0;
    }
    s->ops->close_fds(s->link, fds, got);
    return cule_err_set(err, CULE_EMALFORMED, "%u descriptors announced, %u came", f->nfds, got);
}

/* Whether a frame was paid for with credit. Those of a REPLY after its first are, also when nobody waits for it. */
static bool charged(struct cule_session *s, const struct cule_frame *f)
{
    return f->kind == CULE_REQUEST || f->kind == CULE_EVENT || f->kind == CULE_DATA ||
           (f->kind == CULE_REPLY && cule_assembler_has(&s->assembler, f));
}

/* A frame whose body does not hold. */
static int bad_frame(struct cule_session *s, const struct cule_frame *f, int code, const struct cule_err *err)
{
    int rc = cule_assembler_spoil(&s->assembler, f);
    if (rc < 0) {
        return rc;
    }
    s->stats.body_errors++;
    if (rc && s->cfg.duplex) {
        cule_session_bad_message(s, f, code, err->text);
    }
    return 0;
}

/* The frame on its way through the assembler to a message, and the message to whom it concerns. */
static int assemble(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, int *fds,
                    struct cule_msg *m, struct cule_err *err)
{
    int rc = cule_assembler_push(&s->assembler, f, payload, fds, f->nfds, m, err);
    if (rc == CULE_EREFUSED || rc == 0) {
        return rc;
    }
    if (rc < 0) {
        s->stats.body_errors++;
        if (s->cfg.duplex) {
            cule_session_bad_message(s, &m->h, rc, err->text);
        }
        return 0;
    }
    if (s->cfg.duplex) {
        rc = cule_session_on_message(s, m, err);
    } else {
        s->ops->message(s->link, m);
        rc = 0;
    }
    for (unsigned i = 0; i < m->nfds; i++) {
        if (m->fds[i] >= 0) {
            s->ops->close_fds(s->link, &m->fds[i], 1);
        }
    }
    return rc < 0 ? rc : 1;
}

/* The same with the frame's credit seen to. With manual credit the application gives a message's bytes and one frame
 * back once it has dealt with it; the session does so for the frames before its last, and for what never gets there. */
static int charge_and_assemble(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload,
                               int body_code, int *fds, struct cule_err *err)
{
    struct cule_credit *c = &s->recv[f->priority];
    bool manual = s->cfg.manual_credit && f->kind != CULE_REPLY;
    size_t held = s->assembler.total;
    struct cule_msg m;
    c->used_frames++;
    c->used_bytes += f->length;
    if (!manual) {
        cule_session_consumed(s, f->priority, 1, f->length);
    }
    if (cule_session_overdrawn(s, f->priority)) {
        s->ops->close_fds(s->link, fds, f->nfds);
        return cule_err_set(err, CULE_ELIMIT, "the peer sends without credit");
    }
    s->delivered = false;
    int rc = body_code ? bad_frame(s, f, body_code, err) : assemble(s, f, payload, fds, &m, err);
    if (manual && rc >= 0) {
        size_t whole = rc == 1 ? m.h.length : 0; /* the message that was completed */
        bool theirs = rc == 1 && s->delivered;
        size_t gone = f->length + held - s->assembler.total - (theirs ? whole : 0);
        cule_session_consumed(s, f->priority, theirs ? 0 : 1, gone);
    }
    return rc < 0 ? rc : 0;
}

static int frame_in(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, int body_code,
                    struct cule_err *err)
{
    int fds[CULE_FDS_MAX];
    struct cule_msg m;
    int rc;
    s->stats.frames_in++;
    if (f->nfds) {
        rc = take_fds(s, f, fds, err);
        if (rc) {
            return rc;
        }
    }
    if (body_code) {
        s->ops->close_fds(s->link, fds, f->nfds);
    }
    if (s->cfg.duplex) {
        rc = body_code ? 0 : control(s, f, payload, err);
        if (rc) {
            s->ops->close_fds(s->link, fds, f->nfds);
            return rc < 0 ? rc : 0;
        }
        if (charged(s, f)) {
            return charge_and_assemble(s, f, payload, body_code, fds, err);
        }
    }
    rc = body_code ? bad_frame(s, f, body_code, err) : assemble(s, f, payload, fds, &m, err);
    return rc < 0 ? rc : 0;
}

/* The last words on a link that cannot go on. */
static int give_up(struct cule_session *s, int rc, const struct cule_err *err)
{
    if (s->cfg.duplex && !s->dead) {
        cule_session_report(s, 0, CULE_CRITICAL, 0, rc, err->text);
    }
    return rc;
}

void cule_session_feed(struct cule_session *s, const void *p, size_t n)
{
    s->stats.bytes_in += n;
    cule_decoder_feed(&s->decoder, p, n);
}

int cule_session_step(struct cule_session *s, struct cule_err *err)
{
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err own;
    err = err ? err : &own;
    int rc = cule_decoder_next(&s->decoder, &f, &payload, err);
    switch (rc) {
    case 0: return 0;
    case CULE_DECODED_FRAME: rc = frame_in(s, &f, payload, 0, err); break;
    case CULE_DECODED_BAD_BODY: rc = frame_in(s, &f, payload, err->code, err); break;
    case CULE_DECODED_GAP:
        if (s->ops->skipped) {
            s->ops->skipped(s->link, s->decoder.gap_bytes);
        }
        rc = 0;
        break;
    default: break;
    }
    return rc < 0 ? give_up(s, rc, err) : 1;
}

int cule_session_frame(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    struct cule_err own;
    err = err ? err : &own;
    s->stats.bytes_in += CULE_HEADER_SIZE + f->length;
    int rc = cule_frame_validate(f, err);
    rc = rc ? rc : frame_in(s, f, payload, 0, err);
    return rc < 0 ? give_up(s, rc, err) : 0;
}

int cule_session_eof(struct cule_session *s, struct cule_err *err)
{
    return cule_decoder_end(&s->decoder, err);
}

int cule_session_finished(const struct cule_session *s, struct cule_err *err)
{
    if (s->assembler.open == 0) {
        return 0;
    }
    return cule_err_set(err, CULE_ETRUNCATED, "the stream ends inside a message (%u unfinished)", s->assembler.open);
}

void cule_session_bye(struct cule_session *s)
{
    if (s->cfg.duplex && !s->bye_out) {
        struct cule_frame f;
        cule_frame_init(&f, CULE_BYE);
        f.priority = CULE_LOW;
        s->bye_out = true;
        cule_session_queue(s, &f, NULL);
    }
}

/* A session's life and what comes in: HELLO, frames to messages, errors of the peer's. */
#include "wire/session.h"

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
    cule_assembler_init(&s->assembler);
    s->assembler.message_max = cfg->message_max;
    s->assembler.total_max = cfg->message_max * 2;
    s->assembler.drop_fds = drop_fds;
    s->assembler.ctx = s;
    for (int p = 0; p < CULE_PRIORITIES; p++) {
        cule_buf_init(&s->lane[p].bytes, 0);
        cule_list_init(&s->lane[p].fds);
    }
    cule_map_init(&s->exchanges);
    cule_heap_init(&s->deadlines);
    cule_list_init(&s->pings);
}

void cule_session_release(struct cule_session *s)
{
    size_t at = 0;
    struct cule_exchange *x;
    while ((x = cule_map_next(&s->exchanges, &at, NULL))) {
        free(x);
    }
    struct cule_list *n;
    while ((n = cule_list_pop(&s->pings))) {
        free(n);
    }
    s->part_left = 0;
    cule_session_drop_queues(s);
    cule_map_release(&s->exchanges);
    cule_heap_release(&s->deadlines);
    cule_assembler_release(&s->assembler);
    cule_decoder_release(&s->decoder);
    free(s->peer_name);
    s->peer_name = NULL;
}

int cule_session_start(struct cule_session *s)
{
    if (!s->cfg.duplex) {
        return 0;
    }
    struct cule_frame f;
    cule_frame_init(&f, CULE_HELLO);
    f.priority = CULE_CRITICAL;
    f.arg0 = CULE_FEATURE_TRACE | (s->cfg.can_pass_fds ? CULE_FEATURE_FDS : 0);
    f.arg1 = s->cfg.message_max;
    const char *name = s->cfg.name ? s->cfg.name : "";
    f.length = (uint32_t)strnlen(name, NAME_LEN_MAX);
    int rc = cule_session_queue(s, &f, name);
    for (unsigned p = 0; p < CULE_PRIORITIES && !rc && s->cfg.window_frames != UINT32_MAX; p++) {
        rc = cule_session_grant(s, p, 0, s->cfg.window_frames, s->cfg.window_bytes);
    }
    return rc;
}

/* The peer's name, with what a terminal must not see replaced. */
static char *printable_name(const uint8_t *p, size_t n)
{
    n = CULE_MIN(n, (size_t)NAME_LEN_MAX);
    char *out = malloc(n + 1);
    if (out) {
        for (size_t i = 0; i < n; i++) {
            out[i] = p[i] < 0x20 || p[i] == 0x7f ? '?' : (char)p[i];
        }
        out[n] = 0;
    }
    return out;
}

static int on_hello(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload)
{
    bool again = s->hello_in;
    s->hello_in = true;
    s->peer_features = f->arg0;
    s->peer_message_max = f->arg1 ? f->arg1 : CULE_MESSAGE_MAX;
    free(s->peer_name);
    s->peer_name = printable_name(payload, f->length);
    if (again) {
        cule_session_restarted(s);
    }
    if ((again || s->cfg.hello_to_message) && !s->dead) {
        struct cule_msg m = {.h = *f, .body = payload, .len = f->length};
        s->ops->message(s->link, &m);
    }
    if (!again && !s->dead && s->ops->ready) {
        s->ops->ready(s->link);
    }
    return 0;
}

static void pong(struct cule_session *s, const struct cule_frame *ping, const uint8_t *payload)
{
    struct cule_frame f = *ping;
    f.kind = CULE_PONG;
    f.flags = 0;
    f.priority = CULE_CRITICAL;
    cule_session_queue(s, &f, payload); /* without memory the peer's PING times out, as it should */
}

/* A bad body: the asker is told, the link goes on. */
static void bad_body(struct cule_session *s, const struct cule_frame *f, int code, const char *text)
{
    s->stats.body_errors++;
    if (s->cfg.duplex && f->kind == CULE_REQUEST && f->id) {
        cule_session_report(s, f->id, f->priority, f->service, code, text);
    }
}

/* What is the link's own business. 1: dealt with. */
static int control(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, struct cule_err *err)
{
    switch (f->kind) {
    case CULE_HELLO: on_hello(s, f, payload); return 1;
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

static int frame_in(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload, int body_code,
                    struct cule_err *err)
{
    int fds[CULE_FDS_MAX];
    s->stats.frames_in++;
    if (f->nfds) {
        int rc = take_fds(s, f, fds, err);
        if (rc) {
            return rc;
        }
    }
    if (body_code) {
        s->ops->close_fds(s->link, fds, f->nfds);
        bad_body(s, f, body_code, err ? err->text : "");
        cule_assembler_abort(&s->assembler, f->source, f->id);
        return 0;
    }
    if (s->cfg.duplex) {
        int rc = control(s, f, payload, err);
        if (rc) {
            s->ops->close_fds(s->link, fds, f->nfds);
            return rc < 0 ? rc : 0;
        }
        cule_session_on_frame_in(s, f);
        const struct cule_credit *c = &s->recv[f->priority];
        if (c->limited && c->used_bytes > c->granted_bytes + s->cfg.window_bytes + s->cfg.message_max) {
            s->ops->close_fds(s->link, fds, f->nfds);
            return cule_err_set(err, CULE_ELIMIT, "the peer sends without credit");
        }
    }
    struct cule_msg m;
    int rc = cule_assembler_push(&s->assembler, f, payload, fds, f->nfds, &m, err);
    if (rc == CULE_EREFUSED) {
        return rc;
    }
    if (rc < 0) {
        bad_body(s, &m.h, rc, err ? err->text : cule_err_text(rc));
        return 0;
    }
    if (rc == 0) {
        return 0;
    }
    rc = s->cfg.duplex ? cule_session_on_message(s, &m, err) : (s->ops->message(s->link, &m), 0);
    for (unsigned i = 0; i < m.nfds; i++) {
        if (m.fds[i] >= 0) {
            s->ops->close_fds(s->link, &m.fds[i], 1);
        }
    }
    return rc;
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

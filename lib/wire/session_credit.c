/* Credit: what each side may still send on the link, per priority, and on each stream. */
#include "wire/session.h"

enum { FRAME_BYTES_LOW = 1024 }; /* frames of a message are held to be no smaller on average */

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

bool cule_session_has_credit(const struct cule_credit *c)
{
    return !c->limited || (c->used_frames < c->granted_frames && c->used_bytes < c->granted_bytes);
}

bool cule_session_can_send(const struct cule_session *s, unsigned priority)
{
    return s->queued < s->cfg.queue_bytes && (!s->cfg.duplex || cule_session_has_credit(&s->send[priority]));
}

int cule_session_grant(struct cule_session *s, unsigned priority, uint64_t id, uint64_t frames, uint64_t bytes)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_CREDIT);
    f.priority = (uint8_t)priority;
    f.id = id;
    f.arg0 = frames;
    f.arg1 = bytes;
    int rc = cule_session_queue(s, &f, NULL);
    if (!rc && id == 0) {
        struct cule_credit *c = &s->recv[priority];
        c->limited = true;
        c->granted_frames = add_capped(c->granted_frames, frames);
        c->granted_bytes = add_capped(c->granted_bytes, bytes);
    }
    return rc;
}

/* What a message that began with credit may overdraw it by, and a window for what was sent before the grant came. */
bool cule_session_overdrawn(const struct cule_session *s, unsigned priority)
{
    const struct cule_credit *c = &s->recv[priority];
    uint64_t bytes = add_capped(s->cfg.window_bytes, s->cfg.message_max);
    uint64_t frames = s->cfg.window_frames + s->cfg.message_max / FRAME_BYTES_LOW + 1;
    return c->limited && (c->used_bytes > add_capped(c->granted_bytes, bytes) ||
                          c->used_frames > add_capped(c->granted_frames, frames));
}

void cule_session_on_credit(struct cule_session *s, const struct cule_frame *f)
{
    struct cule_exchange *x = f->id ? cule_map_get(&s->exchanges, f->id) : NULL;
    if ((f->id && !x) || s->half || !s->hello_in) {
        return; /* a stream that has ended meanwhile; more of what was granted to a predecessor of ours */
    }
    struct cule_credit *c = x ? &x->send : &s->send[f->priority];
    c->limited = true;
    c->granted_frames = x ? UINT64_MAX : add_capped(c->granted_frames, f->arg0);
    c->granted_bytes = add_capped(c->granted_bytes, f->arg1);
    if (s->ready_due) {
        cule_session_maybe_ready(s);
    }
    if (!cule_session_has_credit(c)) {
        return;
    }
    uint8_t bit = (uint8_t)(1u << f->priority);
    if (x && x->want_writable) {
        x->want_writable = false; /* it hears of it even if the link's queue is full, for it would not be told again */
    } else if (!x && (s->want_credit & bit)) {
        s->want_credit &= (uint8_t)~bit;
        if (s->queued >= s->cfg.queue_bytes) {
            s->want_room = true;
            return;
        }
    } else {
        return;
    }
    if (s->ops->writable) {
        s->ops->writable(s->link, f->id);
    }
}

/* Grants again what has been dealt with, once it is half a window. */
static void grant_due(struct cule_session *s, unsigned priority)
{
    struct cule_credit *c = &s->recv[priority];
    if (!c->limited || (c->due_frames < (s->cfg.window_frames + 1) / 2 && c->due_bytes < s->cfg.window_bytes / 2) ||
        (c->due_frames == 0 && c->due_bytes == 0)) {
        return;
    }
    if (s->queued >= s->cfg.queue_bytes) {
        s->grants_held = true;
    } else if (cule_session_grant(s, priority, 0, c->due_frames, c->due_bytes) == 0) {
        c->due_frames = c->due_bytes = 0;
    } else {
        s->grants_held = true; /* no memory now */
    }
}

void cule_session_regrant(struct cule_session *s)
{
    s->grants_held = false;
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        grant_due(s, p);
    }
}

/* Nobody gives back more than came: a program that counts a message's frames its own way does no harm. */
void cule_session_consumed(struct cule_session *s, unsigned priority, uint64_t frames, uint64_t bytes)
{
    struct cule_credit *c = &s->recv[priority];
    frames = CULE_MIN(frames, c->used_frames - c->back_frames);
    bytes = CULE_MIN(bytes, c->used_bytes - c->back_bytes);
    c->back_frames += frames;
    c->back_bytes += bytes;
    c->due_frames += frames;
    c->due_bytes += bytes;
    grant_due(s, priority);
}

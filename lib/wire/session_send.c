/* What a session sends: a queue of encoded frames per priority, credit, and the order of bytes on the carrier. */
#include "wire/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* --- queues --- */

void cule_session_queued(struct cule_session *s, unsigned p, size_t bytes, unsigned frames)
{
    if (p == CULE_CRITICAL && s->part_left && s->part_lane != CULE_CRITICAL) {
        s->stats.critical_waits++;
    }
    s->queued += bytes;
    s->stats.frames_out += frames;
    s->stats.queue_high_water_bytes = CULE_MAX(s->stats.queue_high_water_bytes, s->queued);
    s->ops->output(s->link);
}

int cule_session_queue(struct cule_session *s, const struct cule_frame *f, const void *payload)
{
    unsigned lane = f->kind == CULE_CREDIT ? CULE_CRITICAL : f->priority;
    int rc = cule_frame_add(&s->lane[lane].bytes, f, false, payload);
    if (!rc) {
        cule_session_queued(s, lane, CULE_HEADER_SIZE + cule_frame_tail(f), 1);
    }
    return rc;
}

void cule_session_drop_queues(struct cule_session *s)
{
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        struct cule_lane *l = &s->lane[p];
        struct cule_list *n;
        while ((n = cule_list_pop(&l->fds))) {
            struct cule_outfds *o = CULE_LIST_ENTRY(n, struct cule_outfds, node);
            s->ops->close_fds(s->link, o->fds, o->nfds);
            free(o);
        }
        size_t keep = s->part_left && s->part_lane == p ? s->part_left : 0;
        s->queued -= cule_buf_len(&l->bytes) - keep;
        l->taken += cule_buf_len(&l->bytes) - keep;
        if (keep) {
            l->bytes.tail = l->bytes.head + keep;
        } else {
            cule_buf_clear(&l->bytes);
        }
    }
}

/* Bytes of lane p that may go in this write, `skip` bytes in: up to the next frame with descriptors. */
static size_t until_fds(const struct cule_lane *l, size_t skip)
{
    size_t n = cule_buf_len(&l->bytes) - skip;
    if (!cule_list_empty(&l->fds)) {
        const struct cule_outfds *o = CULE_LIST_ENTRY(l->fds.next, const struct cule_outfds, node);
        n = CULE_MIN(n, (size_t)(o->offset - l->taken) - skip);
    }
    return n;
}

static size_t frame_size(const uint8_t *at)
{
    struct cule_frame f = {.length = cule_get32(at + offsetof(struct cule_frame, length)),
                           .flags = cule_get16(at + offsetof(struct cule_frame, flags))};
    return CULE_HEADER_SIZE + cule_frame_tail(&f);
}

int cule_session_output(struct cule_session *s, struct iovec iov[CULE_SESSION_IOV_MAX], const int **fds, unsigned *nfds)
{
    int n = 0;
    *fds = NULL;
    *nfds = 0;
    if (s->part_left) {
        iov[n++] = (struct iovec){cule_buf_data(&s->lane[s->part_lane].bytes), s->part_left};
    }
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        struct cule_lane *l = &s->lane[p];
        size_t skip = p == s->part_lane ? s->part_left : 0;
        size_t all = cule_buf_len(&l->bytes) - skip;
        if (all == 0) {
            continue;
        }
        uint8_t *at = cule_buf_data(&l->bytes) + skip;
        size_t some = until_fds(l, skip);
        if (some == 0 && n == 0) {
            struct cule_outfds *o = CULE_LIST_ENTRY(l->fds.next, struct cule_outfds, node);
            *fds = o->fds;
            *nfds = o->nfds;
            iov[n++] = (struct iovec){at, frame_size(at)};
            return n;
        }
        if (some) {
            iov[n++] = (struct iovec){at, some};
        }
        if (some < all) {
            break;
        }
    }
    return n;
}

const uint8_t *cule_session_head(struct cule_session *s, size_t *size)
{
    assert(s->part_left == 0);
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        if (cule_buf_len(&s->lane[p].bytes)) {
            const uint8_t *at = cule_buf_data(&s->lane[p].bytes);
            *size = frame_size(at);
            return at;
        }
    }
    return NULL;
}

/* Takes n bytes, which begin and may end inside a frame when `mid`, from a lane; says what is left of the last frame.
 */
static size_t take(struct cule_session *s, struct cule_lane *l, size_t n, size_t left_of_first)
{
    const uint8_t *at = cule_buf_data(&l->bytes);
    size_t end = left_of_first; /* where the frame that holds byte n ends */
    if (n < cule_buf_len(&l->bytes)) {
        while (end < n) {
            end += frame_size(at + end);
        }
    } else {
        end = n;
    }
    cule_buf_take(&l->bytes, n);
    l->taken += n;
    while (!cule_list_empty(&l->fds)) {
        struct cule_outfds *o = CULE_LIST_ENTRY(l->fds.next, struct cule_outfds, node);
        if (o->offset >= l->taken) {
            break;
        }
        cule_list_remove(&o->node);
        s->ops->close_fds(s->link, o->fds, o->nfds);
        free(o);
    }
    return end - n;
}

void cule_session_wrote(struct cule_session *s, size_t n)
{
    s->queued -= n;
    s->stats.bytes_out += n;
    if (s->part_left) {
        size_t some = CULE_MIN(n, s->part_left);
        s->part_left = take(s, &s->lane[s->part_lane], some, s->part_left);
        n -= some;
    }
    for (unsigned p = 0; p < CULE_PRIORITIES && n; p++) {
        struct cule_lane *l = &s->lane[p];
        /* The same order and bounds as cule_session_output gave. */
        size_t some = CULE_MIN(n, cule_buf_len(&l->bytes));
        if (!some) {
            continue;
        }
        s->part_left = take(s, l, some, 0);
        s->part_lane = p;
        n -= some;
        assert(s->part_left == 0 || n == 0);
    }
    if (s->grants_held && s->queued <= s->cfg.queue_bytes / 2) {
        cule_session_regrant(s);
    }
}

void cule_session_mute(struct cule_session *s)
{
    s->part_left = 0;
    cule_session_drop_queues(s);
}

void cule_session_notify(struct cule_session *s)
{
    if (s->want_room && s->queued <= s->cfg.queue_bytes / 2 && !s->dead) {
        s->want_room = false;
        if (s->ops->writable) {
            s->ops->writable(s->link, 0);
        }
    }
}

/* --- sending --- */

static int keep_fds(struct cule_lane *l, const struct cule_msg *m)
{
    struct cule_outfds *o = malloc(sizeof *o + m->nfds * sizeof o->fds[0]);
    if (!o) {
        return CULE_ENOMEM;
    }
    o->offset = l->taken + cule_buf_len(&l->bytes);
    o->nfds = m->nfds;
    memcpy(o->fds, m->fds, m->nfds * sizeof o->fds[0]);
    cule_list_push(&l->fds, &o->node);
    return 0;
}

static unsigned frames_of(size_t bytes)
{
    return bytes <= CULE_PAYLOAD_MAX ? 1 : (unsigned)((bytes + CULE_PAYLOAD_MAX - 1) / CULE_PAYLOAD_MAX);
}

/* A message of one frame without descriptors, which most are. */
static int enqueue_single(struct cule_session *s, const struct cule_msg *m)
{
    struct cule_frame f = m->h;
    uint8_t *at;
    size_t prefix = m->trace ? CULE_TRACE_SIZE : 0;
    f.length = (uint32_t)(prefix + m->len);
    f.nfds = 0;
    f.flags = (uint16_t)((f.flags & ~(CULE_MORE | CULE_TRACE)) | (prefix ? CULE_TRACE : 0));
    size_t size = CULE_HEADER_SIZE + cule_frame_tail(&f);
    int rc = cule_buf_reserve(&s->lane[f.priority].bytes, size, &at);
    if (rc) {
        return rc;
    }
    if (prefix) {
        memcpy(at + CULE_HEADER_SIZE, m->trace, CULE_TRACE_SIZE);
    }
    if (m->len) {
        memcpy(at + CULE_HEADER_SIZE + prefix, m->body, m->len);
    }
    cule_frame_seal(&f, false, at);
    cule_buf_commit(&s->lane[f.priority].bytes, size);
    cule_session_queued(s, f.priority, size, 1);
    return 0;
}

/* Queues a message on its lane. Nothing is asked. */
static int enqueue(struct cule_session *s, const struct cule_msg *m)
{
    struct cule_lane *l = &s->lane[m->h.priority];
    size_t bytes = m->len + (m->trace ? CULE_TRACE_SIZE : 0);
    size_t before = cule_buf_len(&l->bytes);
    if (m->nfds == 0) {
        int rc = cule_session_direct(s, m);
        if (rc != CULE_EUNSUPPORTED) {
            return rc;
        }
        if (bytes <= CULE_PAYLOAD_MAX) {
            return enqueue_single(s, m);
        }
    }
    if (m->nfds) {
        if (!s->cfg.can_pass_fds || m->nfds > CULE_FDS_MAX) {
            return m->nfds > CULE_FDS_MAX ? CULE_ETOO_BIG : CULE_EUNSUPPORTED;
        }
        int rc = keep_fds(l, m);
        if (rc) {
            return rc;
        }
    }
    int rc = cule_msg_add(&l->bytes, m);
    if (rc) {
        if (m->nfds) {
            struct cule_outfds *o = CULE_LIST_ENTRY(l->fds.prev, struct cule_outfds, node);
            cule_list_remove(&o->node);
            free(o);
        }
        return rc;
    }
    cule_session_queued(s, m->h.priority, cule_buf_len(&l->bytes) - before, frames_of(bytes));
    return 0;
}

static bool charged(unsigned kind)
{
    return kind == CULE_REQUEST || kind == CULE_EVENT || kind == CULE_DATA;
}

/* Whether there is credit and room; what is missing is noted, for `writable`. */
static bool may_send(struct cule_session *s, unsigned priority, bool pays)
{
    if (pays && !cule_session_has_credit(&s->send[priority])) {
        s->want_credit |= (uint8_t)(1u << priority);
    } else if (s->queued >= s->cfg.queue_bytes) {
        s->want_room = true;
    } else {
        return true;
    }
    s->stats.again++;
    return false;
}

int cule_session_send(struct cule_session *s, const struct cule_msg *m, bool force)
{
    size_t bytes = m->len + (m->trace ? CULE_TRACE_SIZE : 0);
    if (s->dead) {
        return CULE_ECLOSED;
    }
    if (m->h.priority >= CULE_PRIORITIES) {
        return CULE_EMALFORMED;
    }
    if (s->cfg.duplex && bytes > s->peer_message_max) {
        return CULE_ETOO_BIG;
    }
    struct cule_credit *c = &s->send[m->h.priority];
    bool pays = s->cfg.duplex && charged(m->h.kind);
    if (!force && !may_send(s, m->h.priority, pays)) {
        return CULE_EAGAIN;
    }
    int rc = enqueue(s, m);
    if (!rc && s->cfg.duplex) {
        unsigned n = frames_of(bytes);
        if (pays) {
            c->used_frames += n;
            c->used_bytes += bytes;
        } else if (m->h.kind == CULE_REPLY && n > 1) {
            c->used_frames += n - 1;
            c->used_bytes += bytes - CULE_PAYLOAD_MAX;
        }
    }
    return rc;
}

int cule_session_send_raw(struct cule_session *s, unsigned priority, const void *bytes, size_t n, unsigned frames)
{
    struct cule_credit *c = &s->send[priority];
    if (s->dead) {
        return CULE_ECLOSED;
    }
    if (!may_send(s, priority, s->cfg.duplex)) {
        return CULE_EAGAIN;
    }
    int rc = cule_buf_add(&s->lane[priority].bytes, bytes, n);
    if (rc) {
        return rc;
    }
    const uint8_t *p = bytes;
    for (size_t at = 0; at < n; at += frame_size(p + at)) {
        if (charged(p[at + offsetof(struct cule_frame, kind)])) {
            c->used_bytes += cule_get32(p + at + offsetof(struct cule_frame, length));
            c->used_frames++;
        }
    }
    cule_session_queued(s, priority, n, frames);
    return 0;
}

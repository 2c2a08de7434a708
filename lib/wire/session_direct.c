/* Large messages written from where they lie, without a copy in the queue, while nothing else waits. */
#include "wire/session.h"

#include <assert.h>
#include <string.h>

enum { DIRECT_MIN = 8 * 1024, DIRECT_FRAMES = 16, PARTS = 4 };

struct direct {
    uint8_t header[DIRECT_FRAMES][CULE_HEADER_SIZE];
    struct iovec iov[DIRECT_FRAMES * PARTS]; /* header, trace, payload, padding */
    size_t size[DIRECT_FRAMES];              /* of each frame */
    int parts;
    unsigned frames;
    size_t total;
};

static void add(struct direct *d, const void *p, size_t n)
{
    if (n) {
        d->iov[d->parts++] = (struct iovec){(void *)(uintptr_t)p, n};
    }
}

static void cut(struct direct *d, const struct cule_msg *m)
{
    static const uint8_t zeros[8];
    struct cule_split split;
    struct cule_frame f;
    const uint8_t *trace;
    const uint8_t *part;
    size_t n;
    d->parts = 0;
    d->frames = 0;
    d->total = 0;
    for (cule_split_init(&split, m, 0); cule_split_next(&split, &f, &trace, &part, &n); d->frames++) {
        assert(d->frames < DIRECT_FRAMES);
        cule_frame_encode(&f, false, d->header[d->frames]);
        add(d, d->header[d->frames], CULE_HEADER_SIZE);
        add(d, trace, trace ? CULE_TRACE_SIZE : 0);
        add(d, part, n);
        add(d, zeros, cule_pad8(f.length) - f.length);
        d->size[d->frames] = CULE_HEADER_SIZE + cule_frame_tail(&f);
        d->total += d->size[d->frames];
    }
}

/* Copies what lies behind the first n bytes. */
static void copy_rest(const struct direct *d, size_t n, uint8_t *to)
{
    for (int i = 0; i < d->parts; i++) {
        size_t len = d->iov[i].iov_len;
        size_t skip = n < len ? n : len;
        memcpy(to, (const uint8_t *)d->iov[i].iov_base + skip, len - skip);
        to += len - skip;
        n -= skip;
    }
}

int cule_session_direct(struct cule_session *s, const struct cule_msg *m)
{
    struct direct d;
    struct cule_buf *b = &s->lane[m->h.priority].bytes;
    uint8_t *at;
    if (m->len < DIRECT_MIN || m->len > (DIRECT_FRAMES - 1) * (size_t)CULE_PAYLOAD_MAX || s->queued || s->part_left ||
        (m->h.flags & CULE_CRC) || !s->ops->write) {
        return CULE_EUNSUPPORTED;
    }
    cut(&d, m);
    int rc = cule_buf_reserve(b, d.total, &at); /* before anything is gone, for the rest must find room */
    if (rc) {
        return rc;
    }
    size_t n = s->ops->write(s->link, d.iov, d.parts);
    s->stats.bytes_out += n;
    if (n == d.total) {
        cule_buf_clear(b);
        s->stats.frames_out += d.frames;
        return 0;
    }
    copy_rest(&d, n, at);
    cule_buf_commit(b, d.total - n);
    size_t end = 0;
    for (unsigned i = 0; end < n; i++) {
        end += d.size[i];
    }
    s->part_left = end - n;
    s->part_lane = m->h.priority;
    cule_session_queued(s, m->h.priority, d.total - n, d.frames);
    return 0;
}

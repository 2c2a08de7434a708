/* Messages: one encoding for all who get it, counted references, a bound on the memory of all. */
#include "base/pool.h"
#include "core/bus/internal.h"

#include <assert.h>

enum { SPARE_MAX = 64 * 1024 };

static struct cule_bus_msg *take(struct cule_bus *b, size_t size)
{
    struct cule_bus_msg *m = b->spare;
    if (m && m->cap >= size) {
        b->spare = NULL;
        return m;
    }
    if (b->cfg.limits.memory && b->stats.held_bytes + size > b->cfg.limits.memory) {
        return NULL;
    }
    size_t cap;
    m = cule_pool_get(size, &cap);
    if (m) {
        m->cap = cap;
        b->stats.held_bytes += cap;
    }
    return m;
}

struct cule_bus_msg *cule_bus_msg_new(struct cule_bus *b, struct cule_bus_topic *t, const struct cule_bus_record *r)
{
    bool single = r->len <= CULE_PAYLOAD_MAX;
    size_t padded = cule_pad8(r->len);
    struct cule_bus_msg *m = take(b, sizeof *m + CULE_HEADER_SIZE + padded);
    if (!m) {
        return NULL;
    }
    m->refs = 1;
    m->len = (uint32_t)r->len;
    m->topic = t;
    m->topic_len = (uint16_t)r->topic_len;
    m->seq = r->seq;
    m->wall_ms = r->wall_ms;
    m->source = r->source;
    m->flags = r->flags & (CULE_TRACE | CULE_RETAIN);
    m->priority = r->priority;
    m->single = single;
    uint8_t *payload = m->frame + CULE_HEADER_SIZE;
    memcpy(payload, r->payload, r->len);
    memset(payload + r->len, 0, padded - r->len);
    t->live++;
    return m;
}

void cule_bus_msg_seal(struct cule_bus_msg *m, uint64_t seq)
{
    m->seq = seq;
    if (m->single) {
        struct cule_frame h = {
            .magic = {'C', 'U'},
            .version = CULE_VERSION_1,
            .kind = CULE_EVENT,
            .priority = m->priority,
            .flags = m->flags & CULE_TRACE,
            .service = CULE_S_BUS,
            .op = CULE_OP_BUS_DELIVER,
            .length = m->len,
            .source = m->source,
            .arg0 = m->topic_len,
            .arg1 = seq,
        };
        cule_frame_encode(&h, false, m->frame);
    }
}

void cule_bus_msg_put(struct cule_bus *b, struct cule_bus_msg *m)
{
    assert(m->refs > 0);
    if (--m->refs) {
        return;
    }
    m->topic->live--;
    if (!b->spare && m->cap <= SPARE_MAX) {
        b->spare = m;
        return;
    }
    b->stats.held_bytes -= m->cap;
    cule_pool_put(m, m->cap);
}

struct cule_msg cule_bus_msg_view(const struct cule_bus_msg *m)
{
    size_t skip = m->flags & CULE_TRACE ? CULE_TRACE_SIZE : 0;
    const uint8_t *payload = m->frame + CULE_HEADER_SIZE;
    struct cule_msg v = {.trace = skip ? payload : NULL, .body = payload + skip, .len = m->len - skip};
    cule_frame_init(&v.h, CULE_EVENT);
    v.h.priority = m->priority;
    v.h.flags = m->flags & CULE_TRACE;
    v.h.service = CULE_S_BUS;
    v.h.op = CULE_OP_BUS_DELIVER;
    v.h.source = m->source;
    v.h.arg0 = m->topic_len;
    v.h.arg1 = m->seq;
    return v;
}

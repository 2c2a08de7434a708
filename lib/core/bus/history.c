/* What a topic keeps: the last messages, bounded by number, bytes and age, and its retained message. */
#include "core/bus/internal.h"

#include <stdlib.h>

static struct cule_bus_msg **slot(const struct cule_bus_history *h, uint32_t i)
{
    return &h->ring[(h->head + i) & (h->cap - 1)];
}

static void drop_first(struct cule_bus *b, struct cule_bus_history *h)
{
    struct cule_bus_msg *m = *slot(h, 0);
    h->head = (h->head + 1) & (h->cap - 1);
    h->count--;
    h->bytes -= m->len;
    cule_bus_msg_put(b, m);
}

/* What of the topic stays in memory: its history, or of one on disk the tail that those who catch up need. */
static struct cule_bus_keep in_memory(const struct cule_bus *b, const struct cule_bus_topic *t)
{
    struct cule_bus_keep k = t->policy.keep;
    if (cule_bus_topic_on_disk(b, t)) {
        k.messages = BUS_TAIL_MESSAGES;
        k.bytes = BUS_TAIL_BYTES;
        k.age_ms = 0;
    }
    return k;
}

void cule_bus_history_trim(struct cule_bus *b, struct cule_bus_topic *t)
{
    struct cule_bus_history *h = &t->history;
    struct cule_bus_keep k = in_memory(b, t);
    uint64_t now = cule_bus_wall_ms(b);
    bool none = !k.messages && !k.bytes && !k.age_ms;
    while (h->count && (none || (k.messages && h->count > k.messages) || (k.bytes && h->bytes > k.bytes) ||
                        (k.age_ms && (*slot(h, 0))->wall_ms + k.age_ms < now))) {
        drop_first(b, h);
    }
    if (h->count == 0) {
        free(h->ring);
        *h = (struct cule_bus_history){0};
    }
    cule_bus_topic_kept(b, t);
}

void cule_bus_history_add(struct cule_bus *b, struct cule_bus_topic *t, struct cule_bus_msg *m)
{
    struct cule_bus_history *h = &t->history;
    struct cule_bus_keep k = in_memory(b, t);
    if (!k.messages && !k.bytes && !k.age_ms) {
        return;
    }
    if (h->count == h->cap) {
        uint32_t cap = h->cap ? h->cap * 2 : 16;
        struct cule_bus_msg **ring = malloc(cap * sizeof(struct cule_bus_msg *));
        if (!ring) {
            if (h->count) {
                drop_first(b, h);
            } else {
                return;
            }
        } else {
            for (uint32_t i = 0; i < h->count; i++) {
                ring[i] = *slot(h, i);
            }
            free(h->ring);
            h->ring = ring;
            h->head = 0;
            h->cap = cap;
        }
    }
    h->count++;
    *slot(h, h->count - 1) = cule_bus_msg_ref(m);
    h->bytes += m->len;
    cule_bus_history_trim(b, t);
}

void cule_bus_history_clear(struct cule_bus *b, struct cule_bus_topic *t)
{
    while (t->history.count) {
        drop_first(b, &t->history);
    }
    free(t->history.ring);
    t->history = (struct cule_bus_history){0};
}

/* Numbers in a ring ascend but need not be contiguous: a topic's history may have been switched on and off. */
struct cule_bus_msg *cule_bus_history_at(const struct cule_bus_topic *t, uint64_t seq)
{
    const struct cule_bus_history *h = &t->history;
    uint32_t low = 0;
    uint32_t high = h->count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if ((*slot(h, mid))->seq < seq) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < h->count ? *slot(h, low) : NULL;
}

void cule_bus_set_retained(struct cule_bus *b, struct cule_bus_topic *t, struct cule_bus_msg *m)
{
    struct cule_bus_msg *was = t->retained;
    t->retained = m ? cule_bus_msg_ref(m) : NULL;
    if (was) {
        cule_bus_msg_put(b, was);
    }
    cule_bus_topic_kept(b, t);
}

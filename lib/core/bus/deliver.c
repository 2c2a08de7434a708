/* From a message to its targets: straight to the link where that is possible, else through the target's queue. */
#include "core/bus/internal.h"

void cule_bus_taken(struct cule_bus *b, struct cule_bus_sub *s, const struct cule_bus_msg *m)
{
    struct cule_bus_target *t = s->target;
    t->delivered++;
    s->client->delivered++;
    s->client->delivered_bytes += m->len;
    b->stats.delivered++;
    if (m->priority != CULE_CRITICAL && t->queue.ring[CULE_CRITICAL].count && !(s->client->blocked & 1) && !s->acking) {
        b->stats.critical_passed++;
    }
    if (s->client->taps) {
        struct cule_msg v = cule_bus_msg_view(m);
        cule_bus_tap_frame(b, s->client, m->topic->name, m->topic->len, true, &v);
    }
}

void cule_bus_target_settle(struct cule_bus *b, struct cule_bus_target *t)
{
    bool busy = t->queue.count || t->inflight || t->replay;
    t->slow = (t->slow & BUS_SLOW_KIND) | (t->queue.count ? BUS_SLOW_QUEUE : 0) | (t->replay ? BUS_SLOW_REPLAY : 0);
    if (busy && cule_list_empty(&t->busy)) {
        cule_list_push(&b->busy, &t->busy);
    } else if (!busy) {
        cule_list_remove(&t->busy);
        t->slow_told = false;
    }
}

static void charge(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_msg *m, bool on)
{
    uint64_t n = on ? m->len : -(uint64_t)m->len;
    t->queue.bytes += n;
    b->stats.queued_bytes_now += n;
    b->stats.queued_now += on ? 1 : (uint64_t)-1;
    if (t->solo) {
        t->solo->client->queued_bytes += n;
        if (t->solo->client->account) {
            t->solo->client->account->queued_bytes += n;
        }
    }
}

/* The bus's copy of a member's answer: blocked until the link says that it is writable. */
static int answer(struct cule_bus_client *c, unsigned priority, int rc)
{
    if (rc == CULE_EAGAIN) {
        c->blocked |= 1u << priority;
    }
    return rc ? CULE_EAGAIN : 0;
}

static int give_plain(struct cule_bus *b, struct cule_bus_sub *s, struct cule_bus_entry *e)
{
    struct cule_bus_msg *m = e->msg;
    struct cule_bus_client *c = s->client;
    int rc;
    if (m->single && !s->tagged && !e->flags) {
        rc = b->fx->deliver(b->ctx, c->peer, m->priority, m->frame, cule_bus_msg_frame_len(m), 1);
    } else {
        struct cule_msg v = cule_bus_msg_view(m);
        v.h.flags |= e->flags;
        v.h.arg0 |= s->tagged ? (uint64_t)s->id << 32 : 0;
        rc = b->fx->send(b->ctx, c->peer, &v);
    }
    rc = answer(c, m->priority, rc);
    if (!rc) {
        cule_bus_taken(b, s, m);
    }
    return rc;
}

int cule_bus_give(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_entry *e)
{
    unsigned p = e->msg->priority;
    if (t->stuck >> p & 1) {
        return CULE_EAGAIN;
    }
    for (uint32_t i = 0; i < t->nmembers; i++) {
        struct cule_bus_sub *s = CULE_LIST_ENTRY(t->members.next, struct cule_bus_sub, in_target);
        int rc = CULE_EAGAIN;
        if (!s->client->leaving && !(s->client->blocked >> p & 1)) {
            rc = s->acking ? cule_bus_give_acked(b, s, e) : give_plain(b, s, e);
        }
        cule_list_remove(&s->in_target);
        cule_list_push(&t->members, &s->in_target);
        if (!rc) {
            return 0;
        }
    }
    t->stuck |= (uint8_t)(1u << p);
    return CULE_EAGAIN;
}

void cule_bus_dropped(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_msg *m, const char *reason,
                      uint64_t limit, const char *hint)
{
    t->dropped++;
    b->stats.dropped++;
    m->topic->dropped++;
    if (t->solo) {
        t->solo->client->dropped++;
    }
    cule_bus_note(b, "drop", t->solo ? t->solo->client : NULL, m->topic->name, m->topic->len, reason, limit, hint);
}

static uint32_t room_messages(const struct cule_bus *b, const struct cule_bus_topic *topic,
                              const struct cule_bus_target *t)
{
    return t->max_queue ? t->max_queue : topic->policy.limit ? topic->policy.limit : b->cfg.limits.queue_messages;
}

/* Which bound one more message of n bytes would break: NULL, or what to call it with its value. A message alone in a
 * queue always has room. */
static const char *over(const struct cule_bus *b, const struct cule_bus_topic *topic, const struct cule_bus_target *t,
                        size_t n, uint64_t *limit)
{
    const struct cule_bus_limits *l = &b->cfg.limits;
    const struct cule_bus_client *c = t->solo ? t->solo->client : NULL;
    uint64_t bytes = t->max_queue_bytes ? t->max_queue_bytes : l->queue_bytes_each;
    *limit = room_messages(b, topic, t);
    if (t->queue.count >= *limit) {
        return "queue full: messages";
    }
    if (t->queue.count == 0) {
        return NULL;
    }
    *limit = bytes;
    if (bytes && t->queue.bytes + n > bytes) {
        return "queue full: bytes";
    }
    *limit = l->queue_bytes;
    if (c && l->queue_bytes && c->queued_bytes + n > l->queue_bytes) {
        return "the client's quota of queued bytes";
    }
    *limit = l->uid_queue_bytes;
    if (c && c->account && l->uid_queue_bytes && c->account->queued_bytes + n > l->uid_queue_bytes) {
        return "the uid's quota of queued bytes";
    }
    return NULL;
}

/* A subscriber may choose for itself, but only the topic may make publishers wait. */
static enum cule_bus_overflow overflow_of(const struct cule_bus_topic *topic, const struct cule_bus_target *t)
{
    bool own = t->overflow && (t->overflow != CULE_BUS_BLOCK || topic->policy.overflow == CULE_BUS_BLOCK);
    return own ? (enum cule_bus_overflow)t->overflow : topic->policy.overflow;
}

bool cule_bus_must_wait(const struct cule_bus *b, const struct cule_bus_topic *topic, const struct cule_bus_target *t)
{
    uint64_t limit;
    if (!(t->slow & (BUS_SLOW_QUEUE | BUS_SLOW_REPLAY)) || (t->solo && t->solo->client->leaving) ||
        overflow_of(topic, t) != CULE_BUS_BLOCK) {
        return false;
    }
    return (t->slow & BUS_SLOW_QUEUE && over(b, topic, t, 1, &limit)) || cule_bus_replay_needs(t, topic);
}

static struct cule_bus_entry popped(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_entry e)
{
    charge(b, t, e.msg, false);
    return e;
}

/* Makes room for m by the policy. False: m itself must go. */
static bool make_room(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_msg *m,
                      enum cule_bus_overflow how, const char *reason, uint64_t limit)
{
    static const char hint[] = "a slow subscriber: raise \"queue\", or choose overflow=block or disconnect";
    struct cule_bus_entry e;
    int last = how == CULE_BUS_DROP_NEWEST ? m->priority + 1 : m->priority;
    for (int p = CULE_LOW; p >= last; p--) {
        if (t->queue.ring[p].count) {
            e = how == CULE_BUS_DROP_NEWEST ? cule_bus_queue_pop_newest(&t->queue, (unsigned)p)
                                            : cule_bus_queue_pop(&t->queue, (unsigned)p);
            popped(b, t, e);
            cule_bus_dropped(b, t, e.msg, reason, limit, hint);
            cule_bus_durable_done(b, t, e.msg);
            cule_bus_msg_put(b, e.msg);
            return true;
        }
    }
    cule_bus_dropped(b, t, m, reason, limit, hint);
    return false;
}

/* Whether the overflow was dealt with such that m may wait. */
static bool overflow(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_msg *m, const char *reason,
                     uint64_t limit)
{
    enum cule_bus_overflow how = overflow_of(m->topic, t);
    if (how == CULE_BUS_BLOCK) {
        return true; /* what came in while there was room; the publisher waits with the next one */
    }
    if (how == CULE_BUS_DISCONNECT && t->solo) {
        cule_bus_dropped(b, t, m, reason, limit, NULL);
        cule_bus_kick(b, t->solo->client, CULE_EDISCONNECT, reason, m->topic->name, m->topic->len, limit);
        return false;
    }
    return make_room(b, t, m, how == CULE_BUS_DISCONNECT ? CULE_BUS_DROP_OLDEST : how, reason, limit);
}

static bool waits(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_msg *m)
{
    const char *reason;
    uint64_t limit;
    if (t->solo && t->solo->client->leaving) {
        return false;
    }
    while ((reason = over(b, m->topic, t, m->len, &limit))) {
        if (t->group && t->group->durable && cule_bus_topic_on_disk(b, m->topic)) {
            /* It is on disk: read it again when there is room. */
            return cule_bus_replay_add(b, t, m->topic, NULL, m->seq) == 0;
        }
        if (!overflow(b, t, m, reason, limit)) {
            return false;
        }
        if (overflow_of(m->topic, t) == CULE_BUS_BLOCK) {
            break;
        }
    }
    struct cule_bus_entry e = {.msg = m, .since_ns = b->now_ns};
    if (cule_bus_queue_push(&t->queue, m->priority, &e)) {
        cule_bus_dropped(b, t, m, "out of memory", 0, NULL);
        return false;
    }
    cule_bus_msg_ref(m);
    charge(b, t, m, true);
    b->stats.queued++;
    b->stats.critical_queued += m->priority == CULE_CRITICAL;
    return true;
}

void cule_bus_enqueue(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_msg *m)
{
    waits(b, t, m);
    cule_bus_target_settle(b, t);
}

void cule_bus_requeue(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_entry *e)
{
    if (cule_bus_queue_push_front(&t->queue, e->msg->priority, e) == 0) {
        cule_bus_msg_ref(e->msg);
        charge(b, t, e->msg, true);
    } else {
        cule_bus_dropped(b, t, e->msg, "out of memory", 0, NULL);
    }
    cule_bus_target_settle(b, t);
}

void cule_bus_drain_lane(struct cule_bus *b, struct cule_bus_target *t, unsigned p)
{
    while (t->queue.ring[p].count) {
        if (cule_bus_give(b, t, cule_bus_queue_front(&t->queue, p))) {
            break;
        }
        struct cule_bus_entry e = popped(b, t, cule_bus_queue_pop(&t->queue, p));
        cule_bus_msg_put(b, e.msg);
        b->room = true;
    }
}

void cule_bus_drain_target(struct cule_bus *b, struct cule_bus_target *t)
{
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        cule_bus_drain_lane(b, t, p);
    }
    if (t->replay) {
        cule_bus_replay_pump(b, t);
    }
    cule_bus_target_settle(b, t);
}

void cule_bus_queue_clear(struct cule_bus *b, struct cule_bus_target *t)
{
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        while (t->queue.ring[p].count) {
            struct cule_bus_entry e = popped(b, t, cule_bus_queue_pop(&t->queue, p));
            cule_bus_msg_put(b, e.msg);
        }
    }
    b->room = true;
    cule_bus_target_settle(b, t);
}

/* A target that cannot simply be sent the encoding. */
static bool offer(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_msg *m)
{
    if (t->group && t->group->durable && cule_bus_durable_begin(b, t, m->topic, m->seq - 1)) {
        cule_bus_dropped(b, t, m, "out of memory", 0, NULL);
        return false;
    }
    if (t->replay && cule_bus_replay_takes(b, t, m->topic)) {
        return true;
    }
    struct cule_bus_entry e = {.msg = m, .since_ns = b->now_ns};
    if (t->queue.ring[m->priority].count == 0 && cule_bus_give(b, t, &e) == 0) {
        cule_bus_target_settle(b, t);
        return true;
    }
    bool taken = waits(b, t, m);
    cule_bus_target_settle(b, t);
    return taken;
}

uint32_t cule_bus_fan_out(struct cule_bus *b, struct cule_bus_topic *topic, struct cule_bus_msg *m)
{
    const struct cule_bus_targets *v = cule_bus_topic_plain(b, topic);
    size_t n = cule_bus_msg_frame_len(m);
    uint32_t blocked = 1u << m->priority;
    uint32_t took = 0;
    uint32_t direct = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        struct cule_bus_target *t = v->v[i];
        if (!t->slow && m->single) {
            struct cule_bus_client *c = t->solo->client;
            if (!(c->blocked & blocked) && !c->taps) {
                if (b->fx->deliver(b->ctx, c->peer, m->priority, m->frame, n, 1) == 0) {
                    t->delivered++;
                    c->delivered++;
                    c->delivered_bytes += m->len;
                    direct++;
                    continue;
                }
                c->blocked |= blocked;
            }
        }
        took += offer(b, t, m);
    }
    b->stats.delivered += direct;
    return took + direct;
}

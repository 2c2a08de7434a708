/* What comes in: from clients, from the clock, from the links that have room again. */
#include "core/bus/internal.h"

#include <stdio.h>

/* Refused while the bus drains: whatever would make new work. */
static bool makes_work(uint32_t op)
{
    return op == CULE_OP_BUS_PUBLISH || op == CULE_OP_BUS_SUBSCRIBE || op == CULE_OP_BUS_REQUEST ||
           op == CULE_OP_BUS_TAP;
}

static void on_configure(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct cule_err err = {0};
    if (!cule_bus_allowed(b, c, m, CULE_BUS_MAY_CONFIGURE, "#", 1)) {
        return;
    }
    int rc = cule_bus_grant_json(b, c, m, &err);
    if (rc == CULE_ENOT_FOUND && err.code == 0) {
        rc = cule_bus_policy_json(b, (const char *)m->body, m->len, &err);
        if (!rc) {
            b->fx->reply(b->ctx, c->peer, m->h.id, false, 0, 0, NULL, 0);
        }
    }
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.code ? err.text : cule_err_text(rc));
    }
}

/* True: a publish that waits, so its credit is not given back yet. */
static bool on_bus(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    bool request = m->h.kind == CULE_REQUEST;
    if (b->draining && makes_work(m->h.op)) {
        cule_bus_refuse(b, c, m, CULE_ECLOSED, "the bus is shutting down");
        return false;
    }
    switch (m->h.op) {
    case CULE_OP_BUS_PUBLISH: return cule_bus_on_publish(b, c, m);
    case CULE_OP_BUS_ACK: cule_bus_on_ack(b, c, m, false); break;
    case CULE_OP_BUS_NACK: cule_bus_on_ack(b, c, m, true); break;
    case CULE_OP_BUS_UNSUBSCRIBE: cule_bus_on_unsubscribe(b, c, m); return false;
    default:
        if (!request) {
            cule_bus_note(b, "deny", c, NULL, 0, "an EVENT whose op is no event of the bus", m->h.op, NULL);
            return false;
        }
        break;
    }
    if (!request) {
        return false;
    }
    switch (m->h.op) {
    case CULE_OP_BUS_SUBSCRIBE: cule_bus_on_subscribe(b, c, m); break;
    case CULE_OP_BUS_REQUEST: cule_bus_on_request(b, c, m); break;
    case CULE_OP_BUS_LIST: cule_bus_on_list(b, c, m); break;
    case CULE_OP_BUS_TAP: cule_bus_on_tap(b, c, m); break;
    case CULE_OP_BUS_EXPLAIN: cule_bus_on_explain(b, c, m); break;
    case CULE_OP_BUS_CONFIGURE: on_configure(b, c, m); break;
    case CULE_OP_BUS_ACK:
    case CULE_OP_BUS_NACK: b->fx->reply(b->ctx, c->peer, m->h.id, false, 0, 0, NULL, 0); break;
    default: cule_bus_refuse(b, c, m, CULE_ENO_OP, "the bus has no operation 0x%04x", m->h.op); break;
    }
    return false;
}

static bool on_request_or_event(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    if (b->ntaps) {
        bool named = m->h.service == CULE_S_BUS && (m->h.op == CULE_OP_BUS_PUBLISH || m->h.op == CULE_OP_BUS_REQUEST) &&
                     m->h.arg0 && m->h.arg0 <= m->len;
        cule_bus_tap_frame(b, c, named ? (const char *)m->body : NULL, named ? (size_t)m->h.arg0 : 0, false, m);
    }
    if (m->h.service == CULE_S_BUS) {
        return on_bus(b, c, m);
    }
    if (m->h.service == CULE_S_CULE) {
        cule_bus_on_cule(b, c, m);
    } else {
        char text[CULE_SERVICE_TEXT];
        cule_bus_refuse(b, c, m, CULE_ENO_SERVICE, "the bus does not serve '%s'; a request to a topic might",
                        cule_service_text(m->h.service, text));
    }
    return false;
}

void cule_bus_message(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m, uint64_t now_ns)
{
    b->now_ns = now_ns;
    bool parked = false;
    if (c->leaving) {
        return;
    }
    switch (m->h.kind) {
    case CULE_EVENT:
    case CULE_REQUEST: parked = on_request_or_event(b, c, m); break;
    case CULE_DATA: cule_bus_on_data(b, c, m); break;
    case CULE_CANCEL: cule_bus_on_cancel(b, c, m); return;
    default: return;
    }
    if (!parked) {
        cule_bus_consumed(b, c, m);
    }
}

void cule_bus_writable(struct cule_bus *b, struct cule_bus_client *c, uint64_t id, uint64_t now_ns)
{
    b->now_ns = now_ns;
    if (id == 0) {
        c->blocked = 0;
        CULE_LIST_EACH (n, &c->subs) {
            struct cule_bus_target *t = CULE_LIST_ENTRY(n, struct cule_bus_sub, in_client)->target;
            t->stuck = 0;
        }
        /* What is urgent in one subscription goes before what is not in another. */
        for (unsigned p = 0; p < CULE_PRIORITIES && c->subscriptions > 1; p++) {
            CULE_LIST_EACH (n, &c->subs) {
                struct cule_bus_target *t = CULE_LIST_ENTRY(n, struct cule_bus_sub, in_client)->target;
                if (t->queue.ring[p].count) {
                    cule_bus_drain_lane(b, t, p);
                }
            }
        }
        CULE_LIST_EACH (n, &c->subs) {
            struct cule_bus_target *t = CULE_LIST_ENTRY(n, struct cule_bus_sub, in_client)->target;
            if (t->slow & (BUS_SLOW_QUEUE | BUS_SLOW_REPLAY)) {
                cule_bus_drain_target(b, t);
            }
        }
        b->room = true;
    }
    if (!cule_list_empty(&c->asked) || !cule_list_empty(&c->answering)) {
        cule_bus_routes_writable(b, c, id);
    }
}

/* --- time --- */

static uint64_t oldest(const struct cule_bus_target *t)
{
    uint64_t since = t->nmembers ? cule_bus_queue_oldest(&t->queue) : UINT64_MAX;
    CULE_LIST_EACH (n, &t->members) {
        const struct cule_bus_sub *s = CULE_LIST_ENTRY(n, const struct cule_bus_sub, in_target);
        if (s->acking && !cule_list_empty(&s->acking->inflight)) {
            const struct cule_bus_inflight *f =
                CULE_LIST_ENTRY(s->acking->inflight.next, const struct cule_bus_inflight, node);
            since = CULE_MIN(since, f->entry.since_ns);
        }
    }
    return since;
}

/* A slow handler is reported once, until it has caught up. */
static void look_at(struct cule_bus *b, struct cule_bus_target *t)
{
    uint64_t since = b->cfg.limits.slow_ns ? oldest(t) : UINT64_MAX;
    bool slow = since != UINT64_MAX && b->now_ns - since >= b->cfg.limits.slow_ns;
    if (slow && !t->slow_told) {
        const struct cule_bus_sub *s = CULE_LIST_ENTRY(t->members.next, const struct cule_bus_sub, in_target);
        const struct cule_bus_client *c = s->client;
        uint64_t ms = (b->now_ns - since) / BUS_MS;
        b->stats.slow++;
        t->slow_told = true;
        cule_bus_note(b, "slow", c, t->pattern, t->pattern_len,
                      t->inflight ? "slow handler: a message is not acknowledged" : "slow handler: messages wait", ms,
                      "--slow-ms");
        cule_bus_tell(b, CULE_BUS_LOG_WARNING,
                      "slow handler: client %u (%s) on '%s': a message is %llu ms old, %u wait", c->number,
                      c->name ? c->name : "", t->pattern, (unsigned long long)ms, t->queue.count);
        cule_bus_event(b, "slow", c, t->pattern, t->pattern_len, "a message waits", ms);
    } else if (!slow) {
        t->slow_told = false;
    }
    if (t->replay) {
        cule_bus_drain_target(b, t);
    }
}

/* Histories that are bounded by age. */
static void every_second(struct cule_bus *b)
{
    CULE_LIST_EACH (n, &b->kept) {
        struct cule_bus_topic *t = CULE_LIST_ENTRY(n, struct cule_bus_topic, kept);
        if (t->policy.keep.age_ms && t->history.count) {
            cule_bus_history_trim(b, t);
        }
        if (t->untrimmed && cule_bus_topic_on_disk(b, t) && !b->degraded) {
            const struct cule_bus_keep *k = &t->policy.keep;
            t->untrimmed = 0;
            if (k->messages || k->bytes || k->age_ms) {
                b->fx->trim(b->ctx, t->name, t->len, k, cule_bus_wall_ms(b));
            }
        }
    }
}

static uint64_t when(const struct cule_bus *b)
{
    uint64_t at = UINT64_MAX;
    struct cule_heap_node *n = cule_heap_top(&b->due);
    if (n) {
        at = CULE_MIN(at, n->key);
    }
    if (!cule_list_empty(&b->busy)) {
        at = CULE_MIN(at, b->next_scan_ns);
    }
    if (b->degraded && !b->probing && b->fx->probe && b->stats.store_pending == 0) {
        at = CULE_MIN(at, b->next_probe_ns);
    }
    if (!cule_list_empty(&b->kept) || !cule_list_empty(&b->follows)) {
        at = CULE_MIN(at, b->next_second_ns);
    }
    return at;
}

uint64_t cule_bus_tick(struct cule_bus *b, uint64_t now_ns)
{
    b->now_ns = now_ns;
    cule_bus_due(b);
    if (now_ns >= b->next_scan_ns) {
        uint64_t every = b->cfg.limits.slow_ns ? b->cfg.limits.slow_ns / 4 : BUS_SEC;
        b->next_scan_ns = now_ns + CULE_MIN(CULE_MAX(every, (uint64_t)10 * BUS_MS), (uint64_t)BUS_SEC);
        CULE_LIST_EACH (n, &b->busy) {
            look_at(b, CULE_LIST_ENTRY(n, struct cule_bus_target, busy));
        }
    }
    if (b->degraded && !b->probing && b->fx->probe && b->stats.store_pending == 0 && now_ns >= b->next_probe_ns) {
        b->probing = true;
        b->fx->probe(b->ctx);
    }
    if (now_ns >= b->next_second_ns) {
        b->next_second_ns = now_ns + BUS_SEC;
        every_second(b);
    }
    return when(b);
}

/* --- what the store held --- */

int cule_bus_restore_topic(struct cule_bus *b, const char *topic, size_t n, uint64_t first, uint64_t last)
{
    struct cule_bus_topic *t;
    int rc = cule_bus_topic_get(b, topic, n, &t, NULL);
    if (!rc) {
        t->seq = t->committed = CULE_MAX(t->seq, last);
        t->first_disk = first;
        cule_bus_topic_kept(b, t);
    }
    return rc;
}

void cule_bus_trimmed(struct cule_bus *b, const char *topic, size_t n, uint64_t first)
{
    struct cule_bus_topic *t = cule_bus_topic_find(b, topic, n);
    if (t && first > t->first_disk) {
        t->first_disk = first <= t->committed ? first : 0;
        cule_bus_topic_kept(b, t);
    }
}

int cule_bus_restore_retained(struct cule_bus *b, const struct cule_bus_record *r)
{
    struct cule_bus_topic *t;
    int rc = cule_bus_topic_get(b, r->topic, r->topic_len, &t, NULL);
    if (rc) {
        return rc;
    }
    struct cule_bus_msg *m = cule_bus_msg_new(b, t, r);
    if (!m) {
        return CULE_ENOMEM;
    }
    cule_bus_msg_seal(m, r->seq);
    cule_bus_set_retained(b, t, m);
    cule_bus_msg_put(b, m);
    return 0;
}

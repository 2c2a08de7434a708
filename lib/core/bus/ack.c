/* Deliveries that ask to be acknowledged: in flight, acked, given back, overdue, dead. */
#include "base/json.h"
#include "core/bus/internal.h"

#include <stdlib.h>

static void forget(struct cule_bus *b, struct cule_bus_inflight *f)
{
    struct cule_bus_sub *s = f->sub;
    cule_heap_remove(&b->due, &f->due);
    cule_list_remove(&f->node);
    cule_map_take(&s->acking->by_number, f->number);
    s->target->inflight--;
    s->target->stuck = 0;
    b->stats.inflight_now--;
    cule_bus_msg_put(b, f->entry.msg);
    free(f);
}

int cule_bus_give_acked(struct cule_bus *b, struct cule_bus_sub *s, struct cule_bus_entry *e)
{
    struct cule_bus_acking *a = s->acking;
    if (a->by_number.count >= a->max_inflight) {
        return CULE_EAGAIN;
    }
    struct cule_bus_inflight *f = calloc(1, sizeof *f);
    if (!f) {
        return CULE_EAGAIN;
    }
    f->sub = s;
    f->number = a->last_number + 1;
    if (cule_map_put(&a->by_number, f->number, f)) {
        free(f);
        return CULE_EAGAIN;
    }
    if (cule_heap_put(&b->due, &f->due, b->now_ns + a->ack_wait_ns)) {
        cule_map_take(&a->by_number, f->number);
        free(f);
        return CULE_EAGAIN;
    }
    struct cule_msg v = cule_bus_msg_view(e->msg);
    v.h.flags |= e->flags | CULE_ACK_WANTED | (e->deliveries ? CULE_REDELIVERED : 0);
    v.h.arg0 |= (uint64_t)s->id << 32;
    v.h.id = f->number;
    int rc = b->fx->send(b->ctx, s->client->peer, &v);
    if (rc) {
        s->client->blocked |= rc == CULE_EAGAIN ? 1u << e->msg->priority : 0;
        cule_heap_remove(&b->due, &f->due);
        cule_map_take(&a->by_number, f->number);
        free(f);
        return CULE_EAGAIN;
    }
    a->last_number++;
    f->entry = *e;
    f->entry.deliveries++;
    cule_bus_msg_ref(e->msg);
    cule_list_push(&a->inflight, &f->node);
    s->target->inflight++;
    b->stats.inflight_now++;
    if (e->deliveries) {
        a->redelivered++;
        b->stats.redelivered++;
    }
    cule_bus_taken(b, s, e->msg);
    cule_bus_target_settle(b, s->target);
    return 0;
}

/* Publishes a message to its dead-letter topic. */
static int bury(struct cule_bus *b, struct cule_bus_msg *m)
{
    static const char prefix[] = "$bus/dead/";
    const size_t pn = sizeof prefix - 1;
    bool twice = m->topic_len > pn && memcmp(cule_bus_msg_topic(m), prefix, pn) == 0;
    size_t trace = m->flags & CULE_TRACE ? CULE_TRACE_SIZE : 0;
    size_t added = twice ? 0 : pn;
    uint8_t *p = malloc(m->len + added + 1);
    if (!p) {
        return CULE_ENOMEM;
    }
    memcpy(p, m->frame + CULE_HEADER_SIZE, trace);
    memcpy(p + trace, prefix, added);
    memcpy(p + trace + added, m->frame + CULE_HEADER_SIZE + trace, m->len - trace);
    struct cule_bus_record r = {
        .topic = (const char *)p + trace,
        .topic_len = m->topic_len + added,
        .source = m->source,
        .flags = m->flags & CULE_TRACE,
        .priority = m->priority,
        .payload = p,
        .len = m->len + added,
    };
    int rc = twice ? 0 : cule_bus_publish_own(b, &r, cule_bus_topic_on_disk(b, m->topic));
    free(p);
    return rc;
}

/* False: it could not be buried yet, and stays in flight. */
static bool dead(struct cule_bus *b, struct cule_bus_inflight *f, const char *reason)
{
    struct cule_bus_msg *m = f->entry.msg;
    struct cule_bus_target *t = f->sub->target;
    int rc = bury(b, m);
    if (rc) {
        cule_bus_note(b, "dead", f->sub->client, m->topic->name, m->topic->len,
                      "the dead-letter topic cannot take it yet", 0, "it is kept and tried again");
        f->nacked = true;
        return cule_heap_put(&b->due, &f->due, b->now_ns + BUS_SEC) != 0;
    }
    b->stats.dead++;
    cule_bus_note(b, "dead", f->sub->client, m->topic->name, m->topic->len, reason, f->sub->acking->max_deliver,
                  "it is in $bus/dead/ and the topic's name");
    cule_bus_event(b, "dead", f->sub->client, m->topic->name, m->topic->len, reason, m->seq);
    cule_bus_durable_done(b, t, m);
    forget(b, f);
    return true;
}

/* It was not dealt with: again, or never again. */
static void back(struct cule_bus *b, struct cule_bus_inflight *f, const char *reason, bool last)
{
    struct cule_bus_sub *s = f->sub;
    if (last || f->entry.deliveries >= s->acking->max_deliver) {
        dead(b, f, reason);
        return;
    }
    struct cule_bus_entry e = f->entry;
    e.since_ns = b->now_ns;
    cule_bus_note(b, "redeliver", s->client, e.msg->topic->name, e.msg->topic->len, reason, s->acking->max_deliver,
                  NULL);
    cule_bus_requeue(b, s->target, &e);
    forget(b, f);
}

void cule_bus_due(struct cule_bus *b)
{
    struct cule_heap_node *n;
    while ((n = cule_heap_top(&b->due)) && n->key <= b->now_ns) {
        struct cule_bus_inflight *f = CULE_CONTAINER(n, struct cule_bus_inflight, due);
        struct cule_bus_target *t = f->sub->target;
        back(b, f, f->nacked ? "given back" : "not acknowledged in time", false);
        cule_bus_drain_target(b, t);
    }
}

struct nack {
    uint64_t delay_ms;
    bool dead;
    char reason[80];
};

static int nack_options(const struct cule_msg *m, struct nack *o)
{
    struct cule_json doc;
    *o = (struct nack){.reason = "given back"};
    if (m->len == 0) {
        return 0;
    }
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, (const char *)m->body, m->len, NULL);
    rc = rc ? rc : cule_json_get_u64(&doc, 0, "delay_ms", &o->delay_ms, NULL);
    rc = rc < 0 ? rc : cule_json_get_bool(&doc, 0, "dead", &o->dead, NULL);
    int i = rc < 0 ? -1 : cule_json_find(&doc, 0, "reason");
    if (i >= 0 && cule_json_str(&doc, i, o->reason, sizeof o->reason) == CULE_ETOO_BIG) {
        memcpy(o->reason, "given back, with a long reason", sizeof "given back, with a long reason");
    }
    cule_json_release(&doc);
    return rc < 0 ? rc : 0;
}

void cule_bus_on_ack(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, bool nack)
{
    struct cule_bus_sub *s = cule_bus_sub_find(c, m->h.arg0);
    struct cule_bus_inflight *f = s && s->acking ? cule_map_get(&s->acking->by_number, m->h.arg1) : NULL;
    if (!f) {
        b->stats.late_acks++;
        return;
    }
    struct cule_bus_target *t = s->target;
    if (!nack) {
        s->acking->acked++;
        b->stats.acked++;
        cule_bus_durable_done(b, t, f->entry.msg);
        forget(b, f);
    } else {
        struct nack o;
        if (nack_options(m, &o)) {
            cule_bus_note(b, "deny", c, NULL, 0, "a NACK whose payload is no JSON of use", 0, "taken as a plain one");
        }
        b->stats.nacked++;
        if (o.delay_ms && !o.dead) {
            f->nacked = true;
            uint64_t wait = CULE_MIN(o.delay_ms, (uint64_t)86400000) * BUS_MS;
            if (cule_heap_put(&b->due, &f->due, b->now_ns + wait) == 0) {
                return;
            }
        }
        back(b, f, o.reason, o.dead);
    }
    cule_bus_drain_target(b, t);
}

void cule_bus_acking_free(struct cule_bus *b, struct cule_bus_sub *s, bool requeue)
{
    struct cule_bus_acking *a = s->acking;
    if (!a) {
        return;
    }
    /* From the newest back, so that the oldest ends in front. */
    while (!cule_list_empty(&a->inflight)) {
        struct cule_bus_inflight *f = CULE_LIST_ENTRY(a->inflight.prev, struct cule_bus_inflight, node);
        if (requeue && f->entry.deliveries >= a->max_deliver) {
            f->entry.deliveries = a->max_deliver - 1; /* its consumer died: one more try, not the blame */
        }
        if (requeue) {
            struct cule_bus_entry e = f->entry;
            cule_bus_requeue(b, s->target, &e);
        }
        forget(b, f);
    }
    cule_map_release(&a->by_number);
    free(a);
    s->acking = NULL;
    cule_bus_target_settle(b, s->target);
}

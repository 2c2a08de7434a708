/* From a PUBLISH to the topic: checked, numbered, kept as its durability asks, then delivered and answered. */
#include "base/json.h"
#include "core/bus/internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static const char events_topic[] = "$bus/events";

/* The message has its number and is as durable as it must be: it counts, and goes out. */
static uint32_t commit(struct cule_bus *b, struct cule_bus_msg *m)
{
    struct cule_bus_topic *t = m->topic;
    t->committed = m->seq;
    t->published++;
    t->bytes += m->len;
    t->used_ns = b->now_ns;
    if (b->now_ns - t->rate_from_ns >= BUS_SEC) {
        t->rate_hz = t->rate_from_ns ? (double)t->rate_count * BUS_SEC / (double)(b->now_ns - t->rate_from_ns) : 0;
        t->rate_from_ns = b->now_ns;
        t->rate_count = 0;
    }
    t->rate_count++;
    b->stats.published++;
    cule_bus_history_add(b, t, m);
    if (m->flags & CULE_RETAIN && t->policy.durability != CULE_BUS_NONE) {
        bool empty = m->len == m->topic_len + (m->flags & CULE_TRACE ? CULE_TRACE_SIZE : 0u);
        cule_bus_set_retained(b, t, empty ? NULL : m);
        if (cule_bus_topic_on_disk(b, t) && b->fx->retain) {
            b->fx->retain(b->ctx, t->name, t->len, empty ? 0 : m->seq);
        }
    }
    return cule_bus_fan_out(b, t, m);
}

static int append(struct cule_bus *b, struct cule_bus_msg *m, uint32_t client, uint64_t id)
{
    struct cule_bus_topic *t = m->topic;
    struct cule_bus_append *a = calloc(1, sizeof *a);
    if (!a) {
        return CULE_ENOMEM;
    }
    cule_bus_msg_seal(m, t->seq + 1);
    m->wall_ms = cule_bus_wall_ms(b);
    struct cule_bus_record r = {
        .topic = t->name,
        .topic_len = t->len,
        .seq = m->seq,
        .wall_ms = m->wall_ms,
        .source = m->source,
        .flags = m->flags,
        .priority = m->priority,
        .payload = m->frame + CULE_HEADER_SIZE,
        .len = m->len,
    };
    int rc = b->fx->append(b->ctx, (uint64_t)(uintptr_t)a, &r);
    if (rc) {
        free(a);
        return rc;
    }
    t->seq++;
    t->pending++;
    a->msg = cule_bus_msg_ref(m);
    a->client = client;
    a->id = id;
    cule_list_push(&b->appends, &a->node);
    b->stats.store_pending++;
    if (++t->untrimmed >= BUS_TRIM_EVERY &&
        (t->policy.keep.messages || t->policy.keep.bytes || t->policy.keep.age_ms)) {
        t->untrimmed = 0;
        b->fx->trim(b->ctx, t->name, t->len, &t->policy.keep, cule_bus_wall_ms(b));
    }
    return 0;
}

/* Some subscriber with policy block has no room. */
static bool must_wait(struct cule_bus *b, struct cule_bus_topic *t)
{
    const struct cule_bus_targets *v = cule_bus_topic_plain(b, t);
    for (uint32_t i = 0; i < v->n; i++) {
        if (cule_bus_must_wait(b, t, v->v[i])) {
            return true;
        }
    }
    return false;
}

/* 0: published or under way; CULE_EAGAIN: it must wait; else why not. */
static int try_publish(struct cule_bus *b, struct cule_bus_client *c, struct cule_bus_msg *m, uint64_t id)
{
    struct cule_bus_topic *t = m->topic;
    if (t->policy.overflow == CULE_BUS_BLOCK && must_wait(b, t)) {
        return CULE_EAGAIN;
    }
    if (cule_bus_topic_on_disk(b, t)) {
        return b->degraded ? CULE_EDISK : append(b, m, c->number, id);
    }
    cule_bus_msg_seal(m, ++t->seq);
    uint32_t n = commit(b, m);
    if (id) {
        b->fx->reply(b->ctx, c->peer, id, false, n, m->seq, NULL, 0);
    }
    return 0;
}

/* --- waiting for room --- */

static bool parked_at(const struct cule_bus_client *c, unsigned priority)
{
    CULE_LIST_EACH (n, &c->parked) {
        if (CULE_LIST_ENTRY(n, struct cule_bus_parked, node)->msg->priority == priority) {
            return true;
        }
    }
    return false;
}

static int park(struct cule_bus *b, struct cule_bus_client *c, struct cule_bus_msg *m, const struct cule_msg *from)
{
    struct cule_bus_parked *p = calloc(1, sizeof *p);
    if (!p) {
        return CULE_ENOMEM;
    }
    p->msg = cule_bus_msg_ref(m);
    p->id = from->h.id;
    p->frames = cule_bus_frames_of(from);
    p->bytes = from->len + (from->trace ? CULE_TRACE_SIZE : 0);
    cule_list_push(&c->parked, &p->node);
    if (cule_list_empty(&c->waiting)) {
        cule_list_push(&b->parked, &c->waiting);
    }
    b->stats.parked++;
    b->stats.parked_now++;
    return 0;
}

static void unpark_one(struct cule_bus *b, struct cule_bus_client *c, struct cule_bus_parked *p)
{
    cule_list_remove(&p->node);
    b->stats.parked_now--;
    b->fx->consumed(b->ctx, c->peer, p->msg->priority, 0, p->frames, p->bytes);
    cule_bus_msg_put(b, p->msg);
    free(p);
    if (cule_list_empty(&c->parked)) {
        cule_list_remove(&c->waiting);
    }
}

static void publish_failed(struct cule_bus *b, struct cule_bus_client *c, const struct cule_bus_topic *t, uint64_t id,
                           int code, const char *why)
{
    c->dropped++;
    cule_bus_note(b, "deny", c, t->name, t->len, why, 0, NULL);
    if (id) {
        b->fx->error(b->ctx, c->peer, id, code, 0, why);
    }
}

/* What a client has parked, in order within each priority, as far as there is room. */
static void unpark_client(struct cule_bus *b, struct cule_bus_client *c)
{
    unsigned stopped = 0;
    CULE_LIST_EACH (n, &c->parked) {
        struct cule_bus_parked *p = CULE_LIST_ENTRY(n, struct cule_bus_parked, node);
        unsigned bit = 1u << p->msg->priority;
        int rc = stopped & bit ? CULE_EAGAIN : try_publish(b, c, p->msg, p->id);
        if (rc == CULE_EAGAIN) {
            stopped |= bit;
            if (stopped == (1u << CULE_PRIORITIES) - 1) {
                return;
            }
            continue;
        }
        if (rc) {
            publish_failed(b, c, p->msg->topic, p->id, rc, cule_err_text(rc));
        }
        unpark_one(b, c, p);
    }
}

void cule_bus_unpark(struct cule_bus *b)
{
    /* Each client once, in the order in which they began to wait; the list's end moves as some stay. */
    for (uint64_t left = b->stats.parked_now; left && !cule_list_empty(&b->parked); left--) {
        struct cule_list *first = b->parked.next;
        struct cule_list *last = b->parked.prev;
        struct cule_bus_client *c = CULE_LIST_ENTRY(first, struct cule_bus_client, waiting);
        unpark_client(b, c);
        if (!cule_list_empty(&c->waiting)) {
            cule_list_remove(&c->waiting);
            cule_list_push(&b->parked, &c->waiting);
        }
        if (first == last) {
            break;
        }
    }
}

bool cule_bus_parked_cancel(struct cule_bus *b, struct cule_bus_client *c, uint64_t id)
{
    CULE_LIST_EACH (n, &c->parked) {
        struct cule_bus_parked *p = CULE_LIST_ENTRY(n, struct cule_bus_parked, node);
        if (p->id == id) {
            unpark_one(b, c, p);
            return true;
        }
    }
    return false;
}

void cule_bus_parked_drop(struct cule_bus *b, struct cule_bus_client *c)
{
    while (!cule_list_empty(&c->parked)) {
        struct cule_bus_parked *p = CULE_LIST_ENTRY(c->parked.next, struct cule_bus_parked, node);
        cule_list_remove(&p->node);
        b->stats.parked_now--;
        cule_bus_msg_put(b, p->msg);
        free(p);
    }
    cule_list_remove(&c->waiting);
}

/* --- PUBLISH --- */

/* The topic a message names, made where it is new. False: refused. */
static bool topic_of(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m,
                     struct cule_bus_topic **out)
{
    const char *name = (const char *)m->body;
    size_t n = (size_t)m->h.arg0;
    struct cule_err err = {0};
    if (m->h.arg0 > m->len || n == 0) {
        cule_bus_refuse(b, c, m, CULE_EMALFORMED, "topic length %llu in a payload of %zu bytes",
                        (unsigned long long)m->h.arg0, m->len);
        return false;
    }
    struct cule_bus_topic *t = cule_bus_topic_find(b, name, n);
    int rc = t ? 0 : cule_topic_check(name, n, &err);
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.text);
        return false;
    }
    if (name[0] == '$') {
        cule_bus_note(b, "deny", c, name, n, "topics that begin with $ are the bus's own", 0, NULL);
        cule_bus_refuse(b, c, m, CULE_EAUTH, "topics that begin with $ are the bus's own");
        return false;
    }
    bool known = t && t->number == c->acl_topic && c->acl_generation == b->acl_generation && !m->h.cap;
    if (!known && !cule_bus_allowed(b, c, m, CULE_BUS_MAY_PUBLISH, name, n)) {
        return false;
    }
    if (!cule_bus_within_rate(b, c, m, name, n)) {
        return false;
    }
    rc = t ? 0 : cule_bus_topic_get(b, name, n, &t, &err);
    if (rc) {
        cule_bus_note(b, "quota", c, name, n, "the bus's limit on topics", b->cfg.limits.topics, "--max-topics");
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "no new topic: %s", err.code ? err.text : cule_err_text(rc));
        return false;
    }
    if (!b->acl || !cule_bus_acl_uses_caps(b->acl)) {
        c->acl_topic = t->number;
        c->acl_generation = b->acl_generation;
    }
    *out = t;
    return true;
}

bool cule_bus_on_publish(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct cule_bus_topic *t;
    if (!topic_of(b, c, m, &t)) {
        return false;
    }
    if (m->nfds) {
        cule_bus_refuse(b, c, m, CULE_EUNSUPPORTED, "descriptors go with requests, not with messages to a topic");
        return false;
    }
    if (t->policy.max_message && m->len - t->len > t->policy.max_message) {
        cule_bus_note(b, "deny", c, t->name, t->len, "message too large", t->policy.max_message, "max-message");
        cule_bus_refuse(b, c, m, CULE_ETOO_BIG, "%zu bytes, '%s' takes %llu", m->len - t->len, t->name,
                        (unsigned long long)t->policy.max_message);
        return false;
    }
    struct cule_bus_record r = {
        .topic_len = t->len,
        .wall_ms = cule_bus_wall_ms(b),
        .source = c->number,
        .flags = (m->trace ? CULE_TRACE : 0) | (m->h.flags & CULE_RETAIN),
        .priority = m->h.priority,
        /* The trace prefix stands directly before the body. */
        .payload = m->trace ? m->trace : m->body,
        .len = m->len + (m->trace ? CULE_TRACE_SIZE : 0),
    };
    struct cule_bus_msg *msg = cule_bus_msg_new(b, t, &r);
    if (!msg) {
        b->stats.over_quota++;
        c->dropped++;
        cule_bus_note(b, "quota", c, t->name, t->len, "the bus's limit on memory", b->cfg.limits.memory,
                      "--max-memory");
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "the bus's limit on memory (%llu bytes) is used up",
                        (unsigned long long)b->cfg.limits.memory);
        return false;
    }
    c->published++;
    c->published_bytes += m->len;
    bool waits = !cule_list_empty(&c->parked) && parked_at(c, m->h.priority);
    int rc = waits ? CULE_EAGAIN : try_publish(b, c, msg, m->h.id);
    bool parked = rc == CULE_EAGAIN && (rc = park(b, c, msg, m)) == 0;
    if (rc) {
        publish_failed(b, c, t, m->h.id, rc, rc == CULE_EDISK ? b->degraded_why : cule_err_text(rc));
    }
    cule_bus_msg_put(b, msg);
    return parked;
}

/* --- the bus's own --- */

int cule_bus_publish_own(struct cule_bus *b, const struct cule_bus_record *r, bool disk)
{
    struct cule_bus_topic *t;
    int rc = cule_bus_topic_get(b, r->topic, r->topic_len, &t, NULL);
    if (rc) {
        return rc;
    }
    if (disk && t->policy.durability != CULE_BUS_DISK) {
        t->policy.durability = CULE_BUS_DISK;
        cule_bus_history_trim(b, t);
    }
    disk = cule_bus_topic_on_disk(b, t);
    if (disk && b->degraded) {
        return CULE_EDISK;
    }
    struct cule_bus_record own = *r;
    own.wall_ms = cule_bus_wall_ms(b);
    struct cule_bus_msg *m = cule_bus_msg_new(b, t, &own);
    if (!m) {
        return CULE_ENOMEM;
    }
    if (disk) {
        rc = append(b, m, 0, 0);
    } else {
        cule_bus_msg_seal(m, ++t->seq);
        commit(b, m);
    }
    cule_bus_msg_put(b, m);
    return rc;
}

void cule_bus_event(struct cule_bus *b, const char *what, const struct cule_bus_client *c, const char *topic, size_t n,
                    const char *reason, uint64_t number)
{
    enum { EVENTS_MAX = 1024 * 1024 };
    struct cule_json_writer w;
    if (cule_buf_len(&b->events) > EVENTS_MAX) {
        return;
    }
    cule_json_begin(&w, &b->events);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "what", what);
    cule_json_member_u64(&w, "time_ms", cule_bus_wall_ms(b));
    if (c) {
        cule_json_member_u64(&w, "client", c->number);
        cule_json_key(&w, "name");
        cule_json_put_str(&w, c->name);
    }
    if (topic) {
        cule_json_key(&w, "topic");
        cule_json_put_bytes(&w, topic, n);
    }
    cule_json_member_str(&w, "reason", reason);
    cule_json_member_u64(&w, "number", number);
    cule_json_close(&w, '}');
    if (cule_json_end(&w) || cule_buf_addc(&b->events, '\n')) {
        cule_buf_clear(&b->events);
    }
}

static void flush_events(struct cule_bus *b)
{
    struct cule_buf lines = b->events;
    cule_buf_init(&b->events, 0);
    const char *p = (const char *)cule_buf_data(&lines);
    const char *end = p + cule_buf_len(&lines);
    const char *nl;
    for (; p < end && (nl = memchr(p, '\n', (size_t)(end - p))); p = nl + 1) {
        struct cule_buf one;
        cule_buf_init(&one, 0);
        if (cule_buf_add(&one, events_topic, sizeof events_topic - 1) == 0 &&
            cule_buf_add(&one, p, (size_t)(nl - p)) == 0) {
            struct cule_bus_record r = {
                .topic = events_topic,
                .topic_len = sizeof events_topic - 1,
                .priority = CULE_NORMAL,
                .payload = cule_buf_data(&one),
                .len = cule_buf_len(&one),
            };
            cule_bus_publish_own(b, &r, false);
        }
        cule_buf_release(&one);
    }
    cule_buf_release(&lines);
}

void cule_bus_flush(struct cule_bus *b, uint64_t now_ns)
{
    b->now_ns = now_ns;
    if (cule_buf_len(&b->events)) {
        flush_events(b);
    }
    if (b->room || b->stats.parked_now || b->nwaiting) {
        b->room = false;
        if (b->nwaiting) {
            cule_bus_retry_waiting(b);
        }
        if (b->stats.parked_now) {
            cule_bus_unpark(b);
        }
    }
    if (!cule_list_empty(&b->follows)) {
        cule_bus_follow_pump(b);
    }
}

/* --- the store's answers --- */

void cule_bus_degrade(struct cule_bus *b, const char *why)
{
    b->stats.store_failures++;
    if (b->degraded) {
        return;
    }
    b->degraded = true;
    b->next_probe_ns = b->now_ns + (uint64_t)BUS_PROBE_MS * BUS_MS;
    snprintf(b->degraded_why, sizeof b->degraded_why, "the store failed: %.120s", why);
    cule_bus_tell(b, CULE_BUS_LOG_ERROR, "%s; topics on disk are refused until it works again", b->degraded_why);
    cule_bus_note(b, "store", NULL, NULL, 0, b->degraded_why, 0, "free space, or look at the disk");
    cule_bus_event(b, "degraded", NULL, NULL, 0, b->degraded_why, 0);
}

static void probed(struct cule_bus *b, int code, const char *text)
{
    b->probing = false;
    if (code) {
        snprintf(b->degraded_why, sizeof b->degraded_why, "the store failed: %.120s", text);
        b->next_probe_ns = b->now_ns + (uint64_t)BUS_PROBE_MS * BUS_MS;
        return;
    }
    b->degraded = false;
    b->room = true;
    b->degraded_why[0] = 0;
    cule_bus_durables_again(b);
    cule_bus_tell(b, CULE_BUS_LOG_INFO, "the store works again; topics on disk are served");
    cule_bus_event(b, "recovered", NULL, NULL, 0, "the store works again", 0);
}

void cule_bus_stored(struct cule_bus *b, uint64_t token, int code, const char *text, uint64_t now_ns)
{
    b->now_ns = now_ns;
    if (token == 0) {
        probed(b, code, text);
        return;
    }
    struct cule_bus_append *a = (struct cule_bus_append *)(uintptr_t)token;
    struct cule_bus_msg *m = a->msg;
    struct cule_bus_topic *t = m->topic;
    struct cule_bus_client *c = a->client ? cule_map_get(&b->clients_by_number, a->client) : NULL;
    cule_list_remove(&a->node);
    b->stats.store_pending--;
    t->pending--;
    b->room = true;
    if (code) {
        cule_bus_degrade(b, text);
        if (t->pending == 0) {
            t->seq = t->committed; /* all that were given out beyond it have failed */
        }
        if (c) {
            publish_failed(b, c, t, a->id, CULE_EDISK, b->degraded_why);
        }
    } else {
        b->stats.stored++;
        t->first_disk = t->first_disk ? t->first_disk : m->seq;
        uint32_t n = commit(b, m);
        if (c && a->id) {
            b->fx->reply(b->ctx, c->peer, a->id, false, n, m->seq, NULL, 0);
        }
    }
    cule_bus_msg_put(b, m);
    free(a);
}

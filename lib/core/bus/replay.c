/*
 * What a target has not had yet: a topic's retained message and its history from some number on. While a topic is being
 * replayed to a target its live messages are left out there, for they are in the history too; when the replay has
 * reached the last one delivered, the topic is live. So nothing comes twice and nothing is left out.
 */
#include "core/bus/internal.h"

#include <stdlib.h>

static struct cule_bus_replay_topic *find(const struct cule_bus_target *t, const struct cule_bus_topic *topic)
{
    return t->replay ? cule_map_get(&t->replay->by_topic, topic->number) : NULL;
}

static void unload(struct cule_bus *b, struct cule_bus_replay_topic *rt)
{
    while (rt->at_loaded < rt->nloaded) {
        cule_bus_msg_put(b, rt->loaded[rt->at_loaded++]);
    }
    free(rt->loaded);
    rt->loaded = NULL;
    rt->nloaded = rt->at_loaded = 0;
}

static void remove_topic(struct cule_bus *b, struct cule_bus_replay_topic *rt)
{
    struct cule_bus_target *t = rt->target;
    unload(b, rt);
    if (rt->retained) {
        cule_bus_msg_put(b, rt->retained);
    }
    if (rt->loading) {
        cule_map_take(&b->loads, rt->loading);
    }
    rt->topic->users--;
    cule_list_remove(&rt->node);
    cule_map_take(&t->replay->by_topic, rt->topic->number);
    free(rt);
    if (cule_list_empty(&t->replay->topics)) {
        cule_map_release(&t->replay->by_topic);
        free(t->replay);
        t->replay = NULL;
    }
}

int cule_bus_replay_add(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic,
                        struct cule_bus_msg *retained, uint64_t next)
{
    struct cule_bus_replay_topic *rt = calloc(1, sizeof *rt);
    if (!rt) {
        return CULE_ENOMEM;
    }
    if (!t->replay) {
        t->replay = calloc(1, sizeof *t->replay);
        if (!t->replay) {
            free(rt);
            return CULE_ENOMEM;
        }
        cule_list_init(&t->replay->topics);
        cule_map_init(&t->replay->by_topic);
    }
    int rc = cule_map_put(&t->replay->by_topic, topic->number, rt);
    if (rc) {
        free(rt);
        if (cule_list_empty(&t->replay->topics)) {
            free(t->replay);
            t->replay = NULL;
        }
        return rc;
    }
    rt->target = t;
    rt->topic = topic;
    rt->retained = retained ? cule_bus_msg_ref(retained) : NULL;
    rt->next = next;
    topic->users++;
    cule_list_push(&t->replay->topics, &rt->node);
    cule_bus_target_settle(b, t);
    return 0;
}

void cule_bus_replay_free(struct cule_bus *b, struct cule_bus_target *t)
{
    while (t->replay) {
        remove_topic(b, CULE_LIST_ENTRY(t->replay->topics.next, struct cule_bus_replay_topic, node));
    }
    cule_bus_target_settle(b, t);
}

bool cule_bus_replay_takes(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic)
{
    struct cule_bus_replay_topic *rt = find(t, topic);
    if (!rt) {
        return false;
    }
    bool kept = topic->history.count || cule_bus_topic_on_disk(b, topic);
    if (rt->next && kept) {
        return true;
    }
    /* No history to come out of: what is retained goes into the queue, before the live one. */
    if (rt->retained) {
        unsigned p = rt->retained->priority;
        cule_bus_enqueue(b, t, rt->retained);
        cule_bus_drain_lane(b, t, p);
    }
    remove_topic(b, rt);
    cule_bus_target_settle(b, t);
    return false;
}

bool cule_bus_replay_needs(const struct cule_bus_target *t, const struct cule_bus_topic *topic)
{
    const struct cule_bus_replay_topic *rt = t->replay ? cule_map_get(&t->replay->by_topic, topic->number) : NULL;
    uint64_t keep = topic->policy.keep.messages;
    return rt && rt->next && keep && topic->seq + 1 >= rt->next + keep;
}

enum step { GOES_ON, CAUGHT_UP, MUST_WAIT, LOADING };

static void missing(struct cule_bus *b, struct cule_bus_replay_topic *rt, uint64_t first)
{
    uint64_t n = first - rt->next;
    rt->target->dropped += n;
    rt->topic->dropped += n;
    b->stats.dropped += n;
    cule_bus_note(b, "drop", rt->target->solo ? rt->target->solo->client : NULL, rt->topic->name, rt->topic->len,
                  "older than the topic's history", n, "raise the topic's history, or resume sooner");
    cule_bus_durable_missing(b, rt->target, rt->topic, first);
    rt->next = first;
}

static int deliver(struct cule_bus *b, struct cule_bus_replay_topic *rt, struct cule_bus_msg *m)
{
    if (m->seq > rt->next) {
        missing(b, rt, m->seq);
    }
    if (!cule_bus_durable_is_done(rt->target, rt->topic, m->seq)) {
        struct cule_bus_entry e = {.msg = m, .since_ns = b->now_ns, .flags = m->flags & CULE_RETAIN};
        int rc = cule_bus_give(b, rt->target, &e);
        if (rc) {
            return rc;
        }
    }
    rt->next = m->seq + 1;
    b->room = true;
    return 0;
}

static enum step load(struct cule_bus *b, struct cule_bus_replay_topic *rt)
{
    uint64_t token = ++b->last_load;
    if (cule_map_put(&b->loads, token, rt)) {
        return MUST_WAIT;
    }
    if (b->fx->load(b->ctx, token, rt->topic->name, rt->topic->len, rt->next, BUS_LOAD_COUNT)) {
        cule_map_take(&b->loads, token);
        return MUST_WAIT;
    }
    rt->loading = token;
    return LOADING;
}

static enum step advance(struct cule_bus *b, struct cule_bus_replay_topic *rt)
{
    struct cule_bus_topic *topic = rt->topic;
    if (rt->loading) {
        return LOADING;
    }
    if (rt->retained) {
        struct cule_bus_entry e = {.msg = rt->retained, .since_ns = b->now_ns, .flags = CULE_RETAIN};
        if (cule_bus_give(b, rt->target, &e)) {
            return MUST_WAIT;
        }
        cule_bus_msg_put(b, rt->retained);
        rt->retained = NULL;
    }
    if (!rt->next || rt->next > topic->committed) {
        return CAUGHT_UP;
    }
    if (rt->at_loaded < rt->nloaded) {
        struct cule_bus_msg *m = rt->loaded[rt->at_loaded];
        if (m->seq >= rt->next && deliver(b, rt, m)) {
            return MUST_WAIT;
        }
        rt->at_loaded++;
        cule_bus_msg_put(b, m);
        return GOES_ON;
    }
    unload(b, rt);
    struct cule_bus_msg *m = cule_bus_history_at(topic, rt->next);
    bool disk = topic->first_disk && b->fx->load;
    if (m && (m->seq == rt->next || !disk)) {
        return deliver(b, rt, m) ? MUST_WAIT : GOES_ON;
    }
    if (disk && rt->next < topic->first_disk) {
        missing(b, rt, topic->first_disk);
        return GOES_ON;
    }
    if (disk) {
        return load(b, rt);
    }
    missing(b, rt, topic->committed + 1);
    return CAUGHT_UP;
}

void cule_bus_replay_pump(struct cule_bus *b, struct cule_bus_target *t)
{
    if (!t->replay) {
        return;
    }
    CULE_LIST_EACH (n, &t->replay->topics) {
        struct cule_bus_replay_topic *rt = CULE_LIST_ENTRY(n, struct cule_bus_replay_topic, node);
        enum step s;
        do {
            s = advance(b, rt);
        } while (s == GOES_ON);
        if (s == MUST_WAIT) {
            break;
        }
        if (s == CAUGHT_UP) {
            bool last = t->replay->topics.next == &rt->node && t->replay->topics.prev == &rt->node;
            remove_topic(b, rt);
            if (last) {
                break;
            }
        }
    }
    cule_bus_target_settle(b, t);
}

void cule_bus_loaded(struct cule_bus *b, uint64_t token, const struct cule_bus_record *r, size_t n, int code,
                     uint64_t now_ns)
{
    struct cule_bus_replay_topic *rt = cule_map_take(&b->loads, token);
    b->now_ns = now_ns;
    if (!rt) {
        return; /* whoever wanted it has gone */
    }
    struct cule_bus_target *t = rt->target;
    rt->loading = 0;
    unload(b, rt);
    if (code) {
        cule_bus_degrade(b, cule_err_text(code));
        return; /* the scan of busy targets tries again */
    }
    rt->loaded = n ? calloc(n, sizeof(struct cule_bus_msg *)) : NULL;
    for (size_t i = 0; rt->loaded && i < n; i++) {
        struct cule_bus_msg *m = cule_bus_msg_new(b, rt->topic, &r[i]);
        if (!m) {
            break; /* over the limit on memory: the rest is loaded again later */
        }
        cule_bus_msg_seal(m, r[i].seq);
        rt->loaded[rt->nloaded++] = m;
        b->stats.loaded++;
    }
    if (n == 0) {
        missing(b, rt, rt->topic->committed + 1);
    }
    if (n == 0 || rt->nloaded) {
        cule_bus_replay_pump(b, t);
    }
    cule_bus_target_settle(b, t);
}

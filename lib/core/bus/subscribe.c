/* Subscriptions: made, joined into groups, ended. */
#include "base/json.h"
#include "core/bus/internal.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
    char pattern[CULE_TOPIC_OWN_MAX + 1];
    char group[BUS_NAME_MAX + 1];
    char durable[BUS_NAME_MAX + 1];
    char name[BUS_NAME_MAX + 1];
    size_t len;
    bool ack, retained, tagged, respond;
    bool has_from, has_last, has_since;
    uint64_t ack_wait_ms, max_deliver, max_inflight, from_seq, last, since_ms, queue, queue_bytes;
    enum cule_bus_overflow overflow;
    const struct cule_json *doc; /* for "after", while the request is dealt with */
    int after;                   /* its token, -1: none */
};

static int text_member(const struct cule_json *doc, const char *key, char *out, size_t size, struct cule_err *err)
{
    int rc = cule_json_get_str(doc, 0, key, out, size, err);
    return rc < 0 ? rc : 0;
}

static int number_member(const struct cule_json *doc, const char *key, uint64_t *out, uint64_t low, uint64_t high,
                         struct cule_err *err)
{
    int rc = cule_json_get_u64(doc, 0, key, out, err);
    if (rc == 1 && (*out < low || *out > high)) {
        return cule_err_set(err, CULE_EMALFORMED, "'%s' must be %llu to %llu", key, (unsigned long long)low,
                            (unsigned long long)high);
    }
    return rc;
}

static int read_numbers(const struct cule_json *doc, struct options *o, struct cule_err *err)
{
    const struct {
        const char *key;
        uint64_t *out;
        uint64_t low, high;
        bool *has;
    } rows[] = {
        {"ack_wait_ms", &o->ack_wait_ms, 1, 86400000, NULL},
        {"max_deliver", &o->max_deliver, 1, UINT32_MAX, NULL},
        {"max_inflight", &o->max_inflight, 1, BUS_INFLIGHT_MAX, NULL},
        {"from_seq", &o->from_seq, 0, UINT64_MAX - 1, &o->has_from},
        {"last", &o->last, 0, UINT32_MAX, &o->has_last},
        {"since_ms", &o->since_ms, 0, UINT64_MAX, &o->has_since},
        {"queue", &o->queue, 1, BUS_QUEUE_MAX, NULL},
        {"queue_bytes", &o->queue_bytes, 1, UINT64_MAX, NULL},
    };
    for (size_t i = 0; i < CULE_COUNT(rows); i++) {
        int rc = number_member(doc, rows[i].key, rows[i].out, rows[i].low, rows[i].high, err);
        if (rc < 0) {
            return rc;
        }
        if (rows[i].has) {
            *rows[i].has = rc == 1;
        }
    }
    return 0;
}

static int read_flags(const struct cule_json *doc, struct options *o, struct cule_err *err)
{
    const struct {
        const char *key;
        bool *out;
    } rows[] = {{"ack", &o->ack}, {"retained", &o->retained}, {"tagged", &o->tagged}, {"respond", &o->respond}};
    for (size_t i = 0; i < CULE_COUNT(rows); i++) {
        int rc = cule_json_get_bool(doc, 0, rows[i].key, rows[i].out, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* What goes together and what does not. */
static int check(struct options *o, const char *overflow, struct cule_err *err)
{
    o->len = strlen(o->pattern);
    int rc = cule_pattern_check(o->pattern, o->len, err);
    if (rc) {
        return rc;
    }
    if (*overflow && cule_bus_overflow_parse(overflow, &o->overflow)) {
        return cule_err_set(err, CULE_EMALFORMED, "'%s' is not drop-oldest, drop-newest, disconnect or block",
                            overflow);
    }
    if (o->has_from + o->has_last + o->has_since > 1) {
        return cule_err_set(err, CULE_EMALFORMED, "only one of from_seq, last and since_ms may be given");
    }
    if (*o->durable && (o->respond || !o->ack)) {
        return cule_err_set(err, CULE_EMALFORMED, "'durable' needs \"ack\":true");
    }
    if (*o->durable && !*o->group) {
        memcpy(o->group, o->durable, sizeof o->group);
    }
    if (o->respond && (o->ack || o->has_from || o->has_last || o->has_since)) {
        return cule_err_set(err, CULE_EMALFORMED, "a responder takes requests alone: no acks, no history");
    }
    return 0;
}

/* doc must be released by the caller, whatever comes of it; o points into it. */
static int read_options(const struct cule_msg *m, struct options *o, struct cule_json *doc, struct cule_err *err)
{
    static const char *const keys[] = {"pattern",      "group",    "durable", "name",        "ack",
                                       "retained",     "tagged",   "respond", "ack_wait_ms", "max_deliver",
                                       "max_inflight", "from_seq", "last",    "since_ms",    "queue",
                                       "queue_bytes",  "overflow", "after",   NULL};
    char overflow[32] = "";
    *o = (struct options){
        .retained = true,
        .ack_wait_ms = BUS_ACK_WAIT_MS,
        .max_deliver = BUS_MAX_DELIVER,
        .max_inflight = BUS_MAX_INFLIGHT,
    };
    cule_json_init(doc);
    int rc = cule_json_parse(doc, (const char *)m->body, m->len, err);
    rc = rc ? rc : cule_json_only(doc, 0, keys, err);
    rc = rc ? rc : text_member(doc, "pattern", o->pattern, sizeof o->pattern, err);
    rc = rc ? rc : text_member(doc, "group", o->group, sizeof o->group, err);
    rc = rc ? rc : text_member(doc, "durable", o->durable, sizeof o->durable, err);
    rc = rc ? rc : text_member(doc, "name", o->name, sizeof o->name, err);
    rc = rc ? rc : text_member(doc, "overflow", overflow, sizeof overflow, err);
    rc = rc ? rc : read_numbers(doc, o, err);
    rc = rc ? rc : read_flags(doc, o, err);
    rc = rc ? rc : check(o, overflow, err);
    o->doc = doc;
    o->after = rc ? -1 : cule_json_find(doc, 0, "after");
    if (o->after >= 0 && cule_json_type(doc, o->after) != CULE_JSON_OBJECT) {
        rc = cule_err_set(err, CULE_EMALFORMED, "'after' is no object of topics and sequence numbers");
    }
    return rc;
}

/* --- targets --- */

static int target_init(struct cule_bus *b, struct cule_bus_target *t, const struct options *o)
{
    cule_list_init(&t->members);
    cule_list_init(&t->busy);
    t->pattern = strdup(o->pattern);
    if (!t->pattern) {
        return CULE_ENOMEM;
    }
    t->pattern_len = (uint16_t)o->len;
    t->max_queue = (uint32_t)o->queue;
    t->max_queue_bytes = o->queue_bytes;
    t->overflow = (uint8_t)o->overflow;
    t->ack = o->ack;
    t->responder = o->respond;
    int rc = cule_trie_add(o->respond ? &b->responders : &b->trie, t->pattern, o->len, &t->item);
    if (rc) {
        free(t->pattern);
        return rc;
    }
    b->generation++;
    return 0;
}

static void target_release(struct cule_bus *b, struct cule_bus_target *t)
{
    cule_trie_remove(t->responder ? &b->responders : &b->trie, &t->item);
    b->generation++;
    cule_bus_replay_free(b, t);
    cule_bus_queue_clear(b, t);
    cule_list_remove(&t->busy);
    free(t->pattern);
}

static size_t group_key(char *key, const char *pattern, const char *name)
{
    size_t p = strlen(pattern) + 1;
    size_t n = strlen(name) + 1;
    memcpy(key, pattern, p);
    memcpy(key + p, name, n);
    return p + n;
}

static int group_new(struct cule_bus *b, const struct options *o, struct cule_bus_group **out)
{
    char key[CULE_TOPIC_OWN_MAX + BUS_NAME_MAX + 2];
    size_t n = group_key(key, o->pattern, o->group);
    struct cule_bus_group *g = calloc(1, sizeof *g + n);
    if (!g) {
        return CULE_ENOMEM;
    }
    memcpy(g->key, key, n);
    g->key_len = n;
    int rc = cule_strmap_put(&b->groups_by_key, g->key, n, g);
    rc = rc ? rc : target_init(b, &g->target, o);
    if (rc) {
        cule_strmap_take(&b->groups_by_key, g->key, n);
        free(g);
        return rc;
    }
    g->target.group = g;
    g->target.slow = BUS_SLOW_KIND;
    g->ack_wait_ns = o->ack_wait_ms * BUS_MS;
    g->max_deliver = (uint32_t)o->max_deliver;
    g->max_inflight = (uint32_t)o->max_inflight;
    cule_list_push(&b->groups, &g->node);
    *out = g;
    return 0;
}

void cule_bus_group_free(struct cule_bus *b, struct cule_bus_group *g)
{
    if (g->durable) {
        cule_bus_durable_free(b, g->durable);
    }
    target_release(b, &g->target);
    cule_strmap_take(&b->groups_by_key, g->key, g->key_len);
    cule_list_remove(&g->node);
    free(g);
}

/* The group of that pattern and name, made where it is not there. *made tells. */
static int group_get(struct cule_bus *b, const struct options *o, const struct cule_msg *m, struct cule_bus_group **out,
                     bool *made, struct cule_err *err)
{
    char key[CULE_TOPIC_OWN_MAX + BUS_NAME_MAX + 2];
    struct cule_bus_group *g = cule_strmap_get(&b->groups_by_key, key, group_key(key, o->pattern, o->group));
    struct cule_bus_durable *d = *o->durable ? cule_strmap_get(&b->durables, o->durable, strlen(o->durable)) : NULL;
    *made = !g;
    if (d && d->group != g) {
        return cule_err_set(err, CULE_EEXISTS, "durable '%s' belongs to pattern '%s'", o->durable,
                            d->group->target.pattern);
    }
    if (!g && *o->durable && b->degraded) {
        return cule_err_set(err, CULE_EDISK, "%s", b->degraded_why);
    }
    if (g) {
        if (g->target.ack != o->ack || (g->durable != NULL) != (*o->durable != 0) || (*o->durable && g->durable != d)) {
            return cule_err_set(err, CULE_EEXISTS, "group '%s' exists with other acks or another durable", o->group);
        }
        *out = g;
        return 0;
    }
    int rc = group_new(b, o, &g);
    if (rc) {
        return rc;
    }
    if (*o->durable) {
        g->durable = cule_bus_durable_new(b, o->durable, (const char *)m->body, m->len);
        if (!g->durable) {
            cule_bus_group_free(b, g);
            return CULE_ENOMEM;
        }
        g->durable->group = g;
        b->fx->define(b->ctx, o->durable, g->durable->json, strlen(g->durable->json));
    }
    *out = g;
    return 0;
}

/* --- what a new target gets first --- */

static uint64_t first_wanted(const struct cule_bus *b, const struct cule_bus_topic *t, const struct options *o)
{
    uint64_t first = 0;
    if (o->has_from) {
        first = CULE_MAX(o->from_seq, (uint64_t)1);
        /* Numbers that never were have not been lost. */
        uint64_t have = t->first_disk ? t->first_disk : t->history.count ? cule_bus_history_at(t, 0)->seq : first;
        first = o->from_seq == 0 ? have : first;
    } else if (o->has_last && o->last) {
        uint64_t have = t->first_disk ? t->first_disk : t->history.count ? cule_bus_history_at(t, 0)->seq : 0;
        first = t->committed >= o->last ? t->committed - o->last + 1 : 1;
        first = CULE_MAX(first, have);
    } else if (o->has_since) {
        for (uint32_t i = 0; i < t->history.count; i++) {
            const struct cule_bus_msg *m = t->history.ring[(t->history.head + i) & (t->history.cap - 1)];
            if (m->wall_ms >= o->since_ms) {
                bool older = i == 0 && t->first_disk && t->first_disk < m->seq && b->fx->load;
                return older ? t->first_disk : m->seq;
            }
        }
        first = t->first_disk && t->history.count == 0 ? t->first_disk : 0;
    }
    return first <= t->committed ? first : 0;
}

static bool replay_one(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic,
                       const struct options *o)
{
    uint64_t next = first_wanted(b, topic, o);
    cule_bus_durable_begin(b, t, topic, next ? next - 1 : topic->committed);
    struct cule_bus_msg *r = o->retained && !t->group ? topic->retained : NULL;
    if (r && next && r->seq >= next) {
        r = NULL; /* it comes with the history */
    }
    if (topic->history.count == 0 && !topic->first_disk) {
        next = 0;
    }
    return (r || next) && cule_bus_replay_add(b, t, topic, r, next) == 0;
}

/* The topics that "after" names, each from behind the number given. They are noted in `named`. */
static unsigned replay_named(struct cule_bus *b, struct cule_bus_target *t, const struct options *o,
                             struct cule_map *named)
{
    unsigned n = 0;
    for (int k = cule_json_first(o->doc, o->after); k >= 0; k = cule_json_next(o->doc, k)) {
        char name[CULE_TOPIC_OWN_MAX + 1];
        uint64_t seq = 0;
        int len = cule_json_str(o->doc, k, name, sizeof name);
        struct cule_bus_topic *topic = len > 0 ? cule_bus_topic_find(b, name, (size_t)len) : NULL;
        if (!topic || cule_json_u64(o->doc, cule_json_value(o->doc, k), &seq) ||
            !cule_pattern_match(t->pattern, t->pattern_len, topic->name, topic->len) ||
            cule_map_get(named, topic->number) || cule_map_put(named, topic->number, topic)) {
            continue;
        }
        struct options from = *o;
        from.has_from = true;
        from.from_seq = seq + 1;
        n += replay_one(b, t, topic, &from);
    }
    return n;
}

static unsigned replay_all(struct cule_bus *b, struct cule_bus_target *t, const struct options *o)
{
    struct cule_map named;
    if (cule_pattern_is_topic(o->pattern, o->len) && o->after < 0) {
        struct cule_bus_topic *topic = cule_bus_topic_find(b, o->pattern, o->len);
        return topic ? replay_one(b, t, topic, o) : 0;
    }
    cule_map_init(&named);
    unsigned n = replay_named(b, t, o, &named);
    CULE_LIST_EACH (k, &b->kept) {
        struct cule_bus_topic *topic = CULE_LIST_ENTRY(k, struct cule_bus_topic, kept);
        if (cule_pattern_match(t->pattern, t->pattern_len, topic->name, topic->len) &&
            !cule_map_get(&named, topic->number)) {
            n += replay_one(b, t, topic, o);
        }
    }
    cule_map_release(&named);
    return n;
}

/* --- subscriptions --- */

struct solo { /* a plain subscription is its own target */
    struct cule_bus_target target;
    struct cule_bus_sub sub; /* ends in its name */
};

static int acking_new(struct cule_bus_sub *s, uint64_t wait_ns, uint32_t max_deliver, uint32_t max_inflight)
{
    struct cule_bus_acking *a = calloc(1, sizeof *a);
    if (!a) {
        return CULE_ENOMEM;
    }
    cule_list_init(&a->inflight);
    cule_map_init(&a->by_number);
    a->ack_wait_ns = wait_ns;
    a->max_deliver = max_deliver;
    a->max_inflight = max_inflight;
    s->acking = a;
    return 0;
}

static int sub_new(struct cule_bus *b, struct cule_bus_client *c, const struct options *o, struct cule_bus_group *g,
                   struct cule_bus_sub **out)
{
    size_t n = strlen(o->name) + 1;
    struct solo *whole = g ? NULL : calloc(1, sizeof *whole + n);
    struct cule_bus_sub *s = g ? calloc(1, sizeof *s + n) : whole ? &whole->sub : NULL;
    int rc = s ? 0 : CULE_ENOMEM;
    if (!rc && o->ack) {
        rc = g ? acking_new(s, g->ack_wait_ns, g->max_deliver, g->max_inflight)
               : acking_new(s, o->ack_wait_ms * BUS_MS, (uint32_t)o->max_deliver, (uint32_t)o->max_inflight);
    }
    if (!rc && !g) {
        rc = target_init(b, &whole->target, o);
    }
    if (rc) {
        if (s) {
            free(s->acking);
        }
        free(g ? (void *)s : (void *)whole);
        return rc;
    }
    struct cule_bus_target *t = g ? &g->target : &whole->target;
    memcpy(s->name, o->name, n);
    s->client = c;
    s->target = t;
    s->id = ++c->last_sub;
    s->tagged = o->tagged;
    if (!g) {
        t->solo = s;
        t->slow = o->ack || o->tagged || o->respond ? BUS_SLOW_KIND : 0;
    }
    cule_list_push(&c->subs, &s->in_client);
    cule_list_push(&t->members, &s->in_target);
    t->nmembers++;
    t->stuck = 0;
    c->subscriptions++;
    b->stats.subscriptions++;
    if (c->account) {
        c->account->subscriptions++;
    }
    *out = s;
    return 0;
}

static bool within_quota(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m,
                         const struct options *o)
{
    const struct cule_bus_limits *l = &b->cfg.limits;
    const char *what = NULL;
    uint32_t limit = 0;
    if (l->subscriptions && c->subscriptions >= l->subscriptions) {
        what = "the client's quota of subscriptions";
        limit = l->subscriptions;
    } else if (l->uid_subscriptions && c->account && c->account->subscriptions >= l->uid_subscriptions) {
        what = "the uid's quota of subscriptions";
        limit = l->uid_subscriptions;
    }
    if (what) {
        b->stats.over_quota++;
        cule_bus_note(b, "quota", c, o->pattern, o->len, what, limit, NULL);
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "%s (%u) is used up", what, limit);
    }
    return what == NULL;
}

static void subscribe(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m, const struct options *o)
{
    struct cule_err err = {0};
    struct cule_bus_group *g = NULL;
    struct cule_bus_sub *s;
    bool made = true;
    char json[96];
    if (!cule_bus_allowed(b, c, m, o->respond ? CULE_BUS_MAY_RESPOND : CULE_BUS_MAY_SUBSCRIBE, o->pattern, o->len) ||
        !within_quota(b, c, m, o)) {
        return;
    }
    int rc = *o->group && !o->respond ? group_get(b, o, m, &g, &made, &err) : 0;
    rc = rc ? rc : sub_new(b, c, o, g, &s);
    if (rc) {
        if (g && made) {
            cule_bus_group_free(b, g);
        }
        cule_bus_refuse(b, c, m, rc, "%s", err.code ? err.text : cule_err_text(rc));
        return;
    }
    unsigned topics = made && !o->respond ? replay_all(b, s->target, o) : 0;
    int n = snprintf(json, sizeof json, "{\"subscription\":%u,\"topics\":%u,\"epoch\":\"%016llx\"}", s->id, topics,
                     (unsigned long long)b->cfg.epoch);
    b->fx->reply(b->ctx, c->peer, m->h.id, false, s->id, 0, json, (size_t)n);
    cule_bus_drain_target(b, s->target);
    b->room = true;
}

void cule_bus_on_subscribe(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct options o;
    struct cule_json doc;
    struct cule_err err = {0};
    int rc = read_options(m, &o, &doc, &err);
    if (!rc && *o.durable && !b->fx->append) {
        rc = cule_err_set(&err, CULE_EUNSUPPORTED, "this bus has no store, so a durable group cannot be kept");
    }
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.code ? err.text : cule_err_text(rc));
    } else {
        subscribe(b, c, m, &o);
    }
    cule_json_release(&doc);
}

struct cule_bus_sub *cule_bus_sub_find(const struct cule_bus_client *c, uint64_t id)
{
    CULE_LIST_EACH (n, &c->subs) {
        struct cule_bus_sub *s = CULE_LIST_ENTRY(n, struct cule_bus_sub, in_client);
        if (s->id == id) {
            return s;
        }
    }
    return NULL;
}

void cule_bus_unsubscribe(struct cule_bus *b, struct cule_bus_sub *s)
{
    struct cule_bus_target *t = s->target;
    struct cule_bus_group *g = t->group;
    struct cule_bus_client *c = s->client;
    CULE_LIST_EACH (n, &c->answering) {
        struct cule_bus_route *r = CULE_LIST_ENTRY(n, struct cule_bus_route, in_responder);
        r->sub = r->sub == s ? NULL : r->sub;
    }
    cule_list_remove(&s->in_client);
    cule_list_remove(&s->in_target);
    t->nmembers--;
    c->subscriptions--;
    b->stats.subscriptions--;
    if (c->account) {
        c->account->subscriptions--;
    }
    if (g) {
        bool last = t->nmembers == 0 && !g->durable;
        cule_bus_acking_free(b, s, !last);
        free(s);
        if (last) {
            cule_bus_group_free(b, g);
        } else {
            t->stuck = 0;
            cule_bus_drain_target(b, t);
        }
    } else {
        cule_bus_acking_free(b, s, false);
        target_release(b, t);
        free(CULE_CONTAINER(s, struct solo, sub));
    }
    b->room = true;
}

void cule_bus_on_unsubscribe(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct cule_bus_sub *s = cule_bus_sub_find(c, m->h.arg0);
    if (!s) {
        cule_bus_refuse(b, c, m, CULE_ENOT_FOUND, "there is no subscription %llu here", (unsigned long long)m->h.arg0);
        return;
    }
    struct cule_bus_group *g = s->target->group;
    bool forget = m->h.arg1 == 1 && g && g->durable && s->target->nmembers == 1;
    cule_bus_unsubscribe(b, s);
    if (forget) {
        b->fx->define(b->ctx, g->durable->name, NULL, 0);
        cule_bus_group_free(b, g);
    }
    if (m->h.kind == CULE_REQUEST) {
        b->fx->reply(b->ctx, c->peer, m->h.id, false, m->h.arg0, 0, NULL, 0);
    }
}

int cule_bus_restore_durable(struct cule_bus *b, const char *durable, const char *json, size_t n, uint64_t now_ns)
{
    struct options o;
    struct cule_json doc;
    struct cule_err err;
    struct cule_bus_group *g;
    bool made;
    struct cule_msg m = {.body = (const uint8_t *)json, .len = n};
    b->now_ns = now_ns;
    int rc = read_options(&m, &o, &doc, &err);
    if (!rc && strcmp(o.durable, durable) != 0) {
        rc = CULE_EMALFORMED;
    }
    rc = rc ? rc : group_get(b, &o, &m, &g, &made, &err);
    cule_json_release(&doc);
    return rc;
}

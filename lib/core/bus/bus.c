/* The broker's life, its clients, and what every request goes through. */
#include "base/pool.h"
#include "core/bus/internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void cule_bus_config_init(struct cule_bus_config *c)
{
    *c = (struct cule_bus_config){
        .name = "cule-ipc bus",
        .version = "",
        .log_level = CULE_BUS_LOG_INFO,
        .limits = {.topics = 100000,
                   .memory = 1024u * 1024 * 1024,
                   .queue_messages = 1024,
                   .queue_bytes_each = 8 * 1024 * 1024,
                   .slow_ns = BUS_SEC,
                   .requests = 65536},
    };
}

int cule_bus_new(struct cule_bus **out, const struct cule_bus_config *c, const struct cule_bus_effects *fx, void *ctx)
{
    struct cule_bus *b = calloc(1, sizeof *b);
    if (!b) {
        return CULE_ENOMEM;
    }
    b->fx = fx;
    b->ctx = ctx;
    b->cfg = *c;
    if (!b->cfg.limits.queue_messages) {
        b->cfg.limits.queue_messages = BUS_QUEUE_MAX;
    }
    b->generation = 1;
    b->acl_generation = 1;
    b->log_level = c->log_level;
    cule_strmap_init(&b->topics_by_name, c->seed);
    cule_strmap_init(&b->groups_by_key, c->seed);
    cule_strmap_init(&b->durables, c->seed);
    cule_strmap_init(&b->routes_by_asker, c->seed);
    cule_trie_init(&b->trie, c->seed);
    cule_trie_init(&b->responders, c->seed);
    cule_heap_init(&b->due);
    cule_bus_explain_init(&b->explain);
    struct cule_list *lists[] = {&b->topics, &b->kept,     &b->rules, &b->groups,  &b->clients, &b->parked,
                                 &b->busy,   &b->requests, &b->taps,  &b->follows, &b->appends};
    for (size_t i = 0; i < CULE_COUNT(lists); i++) {
        cule_list_init(lists[i]);
    }
    *out = b;
    return 0;
}

void cule_bus_set_wall(struct cule_bus *b, uint64_t offset_ns)
{
    b->wall_offset_ns = offset_ns;
}

void cule_bus_set_extra(struct cule_bus *b, void (*fn)(void *ctx, struct cule_buf *out))
{
    b->extra = fn;
}

/* --- clients --- */

static struct cule_bus_account *account_of(struct cule_bus *b, uint32_t uid)
{
    struct cule_bus_account *a = cule_map_get(&b->accounts, uid);
    if (!a) {
        a = calloc(1, sizeof *a);
        if (a && cule_map_put(&b->accounts, uid, a)) {
            free(a);
            a = NULL;
        }
        if (a) {
            a->uid = uid;
        }
    }
    return a;
}

static void account_put(struct cule_bus *b, struct cule_bus_account *a)
{
    if (a && a->clients == 0) {
        cule_map_take(&b->accounts, a->uid);
        free(a);
    }
}

static int admit(struct cule_bus *b, const struct cule_bus_identity *who, struct cule_bus_account *a,
                 struct cule_err *err)
{
    const struct cule_bus_limits *l = &b->cfg.limits;
    if (b->draining) {
        return cule_err_set(err, CULE_ECLOSED, "the bus is shutting down");
    }
    if (l->clients && b->stats.clients >= l->clients) {
        return cule_err_set(err, CULE_ELIMIT, "the bus has its %u clients already", l->clients);
    }
    if (a && l->uid_clients && a->clients >= l->uid_clients) {
        return cule_err_set(err, CULE_EQUOTA, "uid %u has its %u clients already", who->uid, l->uid_clients);
    }
    return 0;
}

static char *copy(const char *s)
{
    return s && *s ? strdup(s) : NULL;
}

int cule_bus_client_add(struct cule_bus *b, void *peer, const struct cule_bus_identity *who, uint64_t now_ns,
                        struct cule_bus_client **out, struct cule_err *err)
{
    b->now_ns = now_ns;
    if (!b->started_ns) {
        b->started_ns = now_ns;
    }
    struct cule_bus_account *a = who->has_cred ? account_of(b, who->uid) : NULL;
    int rc = admit(b, who, a, err);
    if (rc) {
        b->stats.over_quota++;
        cule_bus_note(b, "quota", NULL, NULL, 0, err ? err->text : cule_err_text(rc), 0, NULL);
        account_put(b, a);
        return rc;
    }
    struct cule_bus_client *c = calloc(1, sizeof *c);
    while (c &&
           (b->last_client == UINT32_MAX || !++b->last_client || cule_map_get(&b->clients_by_number, b->last_client))) {
        b->last_client = b->last_client == UINT32_MAX ? 0 : b->last_client;
    }
    if (!c || cule_map_put(&b->clients_by_number, b->last_client, c)) {
        free(c);
        account_put(b, a);
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    struct cule_list *lists[] = {&c->subs, &c->parked, &c->waiting, &c->asked, &c->answering};
    for (size_t i = 0; i < CULE_COUNT(lists); i++) {
        cule_list_init(lists[i]);
    }
    c->peer = peer;
    c->number = b->last_client;
    c->account = a;
    c->since_ns = now_ns;
    c->pid = who->pid;
    c->transport = who->transport;
    c->who = (struct cule_bus_who){.has_cred = who->has_cred, .uid = who->uid, .gid = who->gid};
    c->who.cert = copy(who->cert);
    c->name = copy(who->name);
    if (a) {
        a->clients++;
    }
    cule_list_push(&b->clients, &c->node);
    b->stats.clients++;
    *out = c;
    return 0;
}

static void client_free(struct cule_bus *b, struct cule_bus_client *c)
{
    cule_list_remove(&c->node);
    cule_map_take(&b->clients_by_number, c->number);
    if (c->account) {
        c->account->clients--;
        account_put(b, c->account);
    }
    if (c->caps) {
        cule_captable_release(c->caps);
        free(c->caps);
    }
    free(c->rule_buckets);
    free((char *)(uintptr_t)c->who.cert);
    free(c->who.token);
    free(c->name);
    free(c);
    b->stats.clients--;
}

void cule_bus_client_gone(struct cule_bus *b, struct cule_bus_client *c, uint64_t now_ns)
{
    b->now_ns = now_ns;
    c->leaving = true;
    cule_bus_watches_client_gone(b, c);
    cule_bus_routes_client_gone(b, c);
    cule_bus_parked_drop(b, c);
    while (!cule_list_empty(&c->subs)) {
        cule_bus_unsubscribe(b, CULE_LIST_ENTRY(c->subs.next, struct cule_bus_sub, in_client));
    }
    client_free(b, c);
    b->room = true;
}

unsigned cule_bus_log_level(const struct cule_bus *b)
{
    return b->log_level;
}

uint32_t cule_bus_client_number(const struct cule_bus_client *c)
{
    return c->number;
}

void *cule_bus_client_peer(const struct cule_bus_client *c)
{
    return c->peer;
}

static void drop_append(struct cule_bus *b, struct cule_list *n)
{
    struct cule_bus_append *a = CULE_LIST_ENTRY(n, struct cule_bus_append, node);
    a->msg->topic->pending--;
    b->stats.store_pending--;
    cule_bus_msg_put(b, a->msg);
    free(a);
}

void cule_bus_free(struct cule_bus *b)
{
    if (!b) {
        return;
    }
    struct cule_list *n;
    while (!cule_list_empty(&b->clients)) {
        struct cule_bus_client *c = CULE_LIST_ENTRY(b->clients.next, struct cule_bus_client, node);
        cule_bus_client_gone(b, c, b->now_ns);
    }
    while (!cule_list_empty(&b->groups)) {
        cule_bus_group_free(b, CULE_LIST_ENTRY(b->groups.next, struct cule_bus_group, node));
    }
    while ((n = cule_list_pop(&b->appends))) {
        drop_append(b, n);
    }
    while (!cule_list_empty(&b->topics)) {
        cule_bus_topic_free(b, CULE_LIST_ENTRY(b->topics.next, struct cule_bus_topic, node));
    }
    while ((n = cule_list_pop(&b->rules))) {
        free(CULE_LIST_ENTRY(n, struct cule_bus_rule, node));
    }
    if (b->spare) {
        b->stats.held_bytes -= b->spare->cap;
        cule_pool_put(b->spare, b->spare->cap);
    }
    assert(b->stats.held_bytes == 0);
    cule_trie_release(&b->trie);
    cule_trie_release(&b->responders);
    cule_strmap_release(&b->topics_by_name);
    cule_strmap_release(&b->groups_by_key);
    cule_strmap_release(&b->durables);
    cule_strmap_release(&b->routes_by_asker);
    cule_map_release(&b->clients_by_number);
    cule_map_release(&b->accounts);
    cule_map_release(&b->routes);
    cule_map_release(&b->loads);
    cule_heap_release(&b->due);
    cule_bus_explain_release(&b->explain);
    cule_bus_acl_free(b->acl);
    cule_buf_release(&b->events);
    free(b);
}

/* --- what every request goes through --- */

int cule_bus_set_acl(struct cule_bus *b, const char *text, struct cule_err *err)
{
    struct cule_bus_acl *a = NULL;
    int rc = text ? cule_bus_acl_new(&a, text, err) : 0;
    if (rc) {
        return rc;
    }
    cule_bus_acl_free(b->acl);
    b->acl = a;
    b->acl_generation++;
    CULE_LIST_EACH (n, &b->clients) {
        struct cule_bus_client *c = CULE_LIST_ENTRY(n, struct cule_bus_client, node);
        if (c->who.token && (!a || !cule_bus_acl_has_token(a, c->who.token))) {
            free(c->who.token);
            c->who.token = NULL;
        }
        free(c->rule_buckets);
        c->rule_buckets = NULL;
        c->nrule_buckets = 0;
    }
    return 0;
}

uint32_t cule_bus_frames_of(const struct cule_msg *m)
{
    size_t n = m->len + (m->trace ? CULE_TRACE_SIZE : 0);
    return n <= CULE_PAYLOAD_MAX ? 1 : (uint32_t)((n + CULE_PAYLOAD_MAX - 1) / CULE_PAYLOAD_MAX);
}

void cule_bus_consumed(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m)
{
    uint64_t n = m->len + (m->trace ? CULE_TRACE_SIZE : 0);
    b->fx->consumed(b->ctx, c->peer, m->h.priority, 0, cule_bus_frames_of(m), n);
}

void cule_bus_refuse(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, int code, const char *fmt,
                     ...)
{
    char text[CULE_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (m->h.kind == CULE_REQUEST) {
        b->fx->error(b->ctx, c->peer, m->h.id, code, 0, text);
    } else {
        c->dropped++;
    }
}

void cule_bus_tell(struct cule_bus *b, enum cule_bus_log level, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (b->fx->log && (unsigned)level <= b->log_level) {
        b->fx->log(b->ctx, level, text);
    }
}

void cule_bus_note(struct cule_bus *b, const char *what, const struct cule_bus_client *c, const char *topic, size_t n,
                   const char *reason, uint64_t limit, const char *hint)
{
    cule_bus_explain_add(&b->explain, what, c ? c->number : 0, topic, n, reason, limit, hint, cule_bus_wall_ms(b));
}

void cule_bus_kick(struct cule_bus *b, struct cule_bus_client *c, int code, const char *why, const char *topic,
                   size_t n, uint64_t limit)
{
    struct cule_err err;
    if (c->leaving) {
        return;
    }
    c->leaving = true;
    b->stats.disconnected++;
    cule_err_set(&err, code, "%s on '%.*s' (limit %llu)", why, (int)n, topic, (unsigned long long)limit);
    cule_bus_note(b, "kick", c, topic, n, why, limit, "overflow=disconnect: raise \"queue\" or read faster");
    cule_bus_tell(b, CULE_BUS_LOG_WARNING, "client %u (%s) disconnected: %s", c->number, c->name ? c->name : "",
                  err.text);
    cule_bus_event(b, "kick", c, topic, n, why, limit);
    b->fx->disconnect(b->ctx, c->peer, &err);
}

/* Rights of the capability that the frame presents to the bus itself. */
static uint16_t presented(const struct cule_bus *b, const struct cule_bus_client *c, const struct cule_frame *h)
{
    if (!h->cap || h->flags & CULE_DELEGATE || !c->caps) {
        return 0;
    }
    const struct cule_cap *k = cule_captable_find(c->caps, h->cap, 0, b->now_ns);
    return k && k->target == 0 ? (uint16_t)(h->cap >> 48) : 0;
}

/* The rate= of an ACL line. */
static bool line_rate(struct cule_bus *b, struct cule_bus_client *c, const struct cule_bus_verdict *v)
{
    uint32_t n = cule_bus_acl_rules(b->acl);
    if (c->nrule_buckets != n) {
        free(c->rule_buckets);
        c->rule_buckets = calloc(n, sizeof *c->rule_buckets);
        c->nrule_buckets = c->rule_buckets ? n : 0;
    }
    return v->rule < c->nrule_buckets && cule_bus_bucket_take(&c->rule_buckets[v->rule], v->rate, b->now_ns);
}

bool cule_bus_allowed(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, enum cule_bus_right what,
                      const char *topic, size_t n)
{
    char reason[CULE_BUS_REASON_MAX];
    if (!b->acl) {
        bool own = c->who.has_cred && (c->who.uid == b->cfg.uid || c->who.uid == 0);
        if (what != CULE_BUS_MAY_CONFIGURE || own) {
            return true;
        }
        cule_bus_note(b, "deny", c, topic, n, "configuring is for the bus's own uid", 0, "--acl can allow more");
        b->stats.denied++;
        cule_bus_refuse(b, c, m, CULE_EAUTH, "configuring is for the bus's own uid, or whom --acl allows");
        return false;
    }
    struct cule_bus_verdict v = cule_bus_acl_check(b->acl, &c->who, what, topic, n, presented(b, c, &m->h));
    if (v.allowed && v.rate && !line_rate(b, c, &v)) {
        snprintf(reason, sizeof reason, "rate of ACL line %u", v.line);
        b->stats.over_quota++;
        cule_bus_note(b, "quota", c, topic, n, reason, v.rate, NULL);
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "more than %llu a second (line %u of the ACL)",
                        (unsigned long long)v.rate, v.line);
        return false;
    }
    if (!v.allowed) {
        if (v.line) {
            snprintf(reason, sizeof reason, "ACL line %u: %.80s", v.line, v.text);
        } else {
            snprintf(reason, sizeof reason, "no line of the ACL allows %s", cule_bus_right_name(what));
        }
        b->stats.denied++;
        cule_bus_note(b, "deny", c, topic, n, reason, 0, NULL);
        cule_bus_refuse(b, c, m, CULE_EAUTH, "may not %s '%.*s': %s", cule_bus_right_name(what), (int)n, topic, reason);
    }
    return v.allowed;
}

bool cule_bus_within_rate(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, const char *topic,
                          size_t n)
{
    const struct cule_bus_limits *l = &b->cfg.limits;
    const char *what = NULL;
    uint64_t rate = l->rate;
    if (!cule_bus_bucket_take(&c->bucket, l->rate, b->now_ns)) {
        what = "the client's quota of messages per second";
    } else if (c->account && !cule_bus_bucket_take(&c->account->bucket, l->uid_rate, b->now_ns)) {
        what = "the uid's quota of messages per second";
        rate = l->uid_rate;
    }
    if (what) {
        b->stats.over_quota++;
        cule_bus_note(b, "quota", c, topic, n, what, rate, "--max-rate, --uid-max-rate");
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "%s (%llu) is used up", what, (unsigned long long)rate);
    }
    return what == NULL;
}

void cule_bus_drain(struct cule_bus *b)
{
    b->draining = true;
}

bool cule_bus_idle(const struct cule_bus *b)
{
    if (b->stats.store_pending || b->stats.parked_now) {
        return false;
    }
    CULE_LIST_EACH (n, &b->busy) {
        const struct cule_bus_target *t = CULE_LIST_ENTRY(n, const struct cule_bus_target, busy);
        if (t->nmembers && t->queue.count) {
            return false;
        }
    }
    return true;
}

void cule_bus_stats(const struct cule_bus *b, struct cule_bus_stats *out)
{
    *out = b->stats;
    out->degraded = b->degraded;
    out->draining = b->draining;
}

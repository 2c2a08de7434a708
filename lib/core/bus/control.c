/* Service CULE as the bus answers it, and capabilities that the bus itself gives out. */
#include "base/json.h"
#include "core/bus/internal.h"

#include <stdio.h>
#include <stdlib.h>

struct counter {
    const char *name;
    const char *help;
    size_t offset;
    bool gauge;
};

#define COUNTER(field, text)                                                                                           \
    {                                                                                                                  \
#field, text, offsetof(struct cule_bus_stats, field), false                                                    \
    }
#define GAUGE(field, text)                                                                                             \
    {                                                                                                                  \
#field, text, offsetof(struct cule_bus_stats, field), true                                                     \
    }
static const struct counter counters[] = {
    COUNTER(published, "messages taken from publishers"),
    COUNTER(delivered, "deliveries handed to links"),
    COUNTER(queued, "deliveries that had to wait in a queue first"),
    COUNTER(dropped, "messages dropped for a subscription"),
    COUNTER(denied, "attempts denied for want of authority"),
    COUNTER(over_quota, "attempts refused for a quota"),
    COUNTER(disconnected, "clients disconnected for being slow"),
    COUNTER(acked, "deliveries acknowledged"),
    COUNTER(nacked, "deliveries given back"),
    COUNTER(redelivered, "deliveries made again"),
    COUNTER(dead, "messages moved to a dead-letter topic"),
    COUNTER(late_acks, "acknowledgements of deliveries no longer in flight"),
    COUNTER(requests, "requests passed to responders"),
    COUNTER(answered, "requests answered"),
    COUNTER(no_responder, "requests that found no responder"),
    COUNTER(stored, "messages committed to the store"),
    COUNTER(store_failures, "store operations that failed"),
    COUNTER(loaded, "messages read back from the store"),
    COUNTER(match_builds, "match lists built"),
    COUNTER(parked, "publishes that had to wait for room"),
    COUNTER(slow, "slow handlers reported"),
    COUNTER(critical_queued, "critical messages that waited for credit of their own"),
    COUNTER(critical_passed, "messages that went before a critical one that could have gone"),
    GAUGE(clients, "clients connected"),
    GAUGE(topics, "topics known"),
    GAUGE(subscriptions, "subscriptions"),
    GAUGE(routes, "requests under way"),
    GAUGE(queued_now, "deliveries waiting"),
    GAUGE(queued_bytes_now, "bytes of deliveries waiting"),
    GAUGE(held_bytes, "bytes of memory in messages"),
    GAUGE(inflight_now, "deliveries not acknowledged yet"),
    GAUGE(parked_now, "publishes waiting for room"),
    GAUGE(store_pending, "messages on their way to the store"),
};

static uint64_t value(const struct cule_bus_stats *s, const struct counter *c)
{
    return *(const uint64_t *)(const void *)((const char *)s + c->offset);
}

static int prometheus(struct cule_bus *b, struct cule_buf *out)
{
    int rc = 0;
    for (size_t i = 0; i < CULE_COUNT(counters) && !rc; i++) {
        const struct counter *c = &counters[i];
        const char *tail = c->gauge ? "" : "_total";
        rc = cule_buf_addf(out, "# HELP cule_bus_%s%s %s\n# TYPE cule_bus_%s%s %s\ncule_bus_%s%s %llu\n", c->name, tail,
                           c->help, c->name, tail, c->gauge ? "gauge" : "counter", c->name, tail,
                           (unsigned long long)value(&b->stats, c));
    }
    return rc ? rc
              : cule_buf_addf(out,
                              "# HELP cule_bus_degraded whether the store has failed\n# TYPE cule_bus_degraded gauge\n"
                              "cule_bus_degraded %d\n",
                              b->degraded);
}

static int stats_json(struct cule_bus *b, struct cule_buf *out)
{
    int rc = cule_buf_addc(out, '{');
    for (size_t i = 0; i < CULE_COUNT(counters) && !rc; i++) {
        rc = cule_buf_addf(out, "\"%s\":%llu,", counters[i].name, (unsigned long long)value(&b->stats, &counters[i]));
    }
    if (!rc && b->extra) {
        b->extra(b->ctx, out);
    }
    return rc ? rc
              : cule_buf_addf(out, "\"degraded\":%s,\"draining\":%s,\"uptime_ms\":%llu}",
                              b->degraded ? "true" : "false", b->draining ? "true" : "false",
                              (unsigned long long)((b->now_ns - b->started_ns) / BUS_MS));
}

static void answer(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, int rc,
                   struct cule_buf *out)
{
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", cule_err_text(rc));
    } else {
        b->fx->reply(b->ctx, c->peer, m->h.id, false, 0, 0, cule_buf_data(out), cule_buf_len(out));
    }
    cule_buf_release(out);
}

static int health(struct cule_bus *b, struct cule_buf *out)
{
    struct cule_json_writer w;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "state", b->degraded ? "degraded" : "ok");
    cule_json_member_str(&w, "reason", b->degraded ? b->degraded_why : b->draining ? "shutting down" : "");
    cule_json_close(&w, '}');
    return cule_json_end(&w);
}

static int info(struct cule_bus *b, struct cule_buf *out)
{
    struct cule_json_writer w;
    char epoch[20];
    snprintf(epoch, sizeof epoch, "%016llx", (unsigned long long)b->cfg.epoch);
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "name", b->cfg.name);
    cule_json_member_str(&w, "version", b->cfg.version);
    cule_json_member_u64(&w, "pid", b->cfg.pid);
    cule_json_member_str(&w, "epoch", epoch);
    cule_json_member_u64(&w, "uptime_ms", (b->now_ns - b->started_ns) / BUS_MS);
    cule_json_key(&w, "services");
    cule_json_open(&w, '[');
    cule_json_put_str(&w, "bus");
    cule_json_put_str(&w, "cule");
    cule_json_close(&w, ']');
    cule_json_close(&w, '}');
    return cule_json_end(&w);
}

static int ops(struct cule_buf *out)
{
    struct cule_json_writer w;
    char text[CULE_SERVICE_TEXT];
    cule_json_begin(&w, out);
    cule_json_open(&w, '[');
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        bool ours = o->service == (uint32_t)CULE_S_BUS || o->service == (uint32_t)CULE_S_CULE;
        if (ours && o->op != CULE_OP_CULE_TRACE_ON && o->op != CULE_OP_CULE_TRACE_OFF) {
            cule_json_open(&w, '{');
            cule_json_member_str(&w, "service", cule_service_text(o->service, text));
            cule_json_member_u64(&w, "op", o->op);
            cule_json_member_str(&w, "name", o->name);
            cule_json_member_str(&w, "what", o->what);
            cule_json_close(&w, '}');
        }
    }
    cule_json_close(&w, ']');
    return cule_json_end(&w);
}

static void on_auth(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    uint8_t hash[CULE_BUS_HASH_SIZE];
    const char *name = NULL;
    if (b->acl && m->len) {
        b->fx->hash(b->ctx, m->body, m->len, hash);
        name = cule_bus_acl_token(b->acl, hash);
    }
    if (!name) {
        b->stats.denied++;
        cule_bus_note(b, "deny", c, NULL, 0, b->acl ? "an unknown token" : "no tokens here: the bus has no ACL", 0,
                      NULL);
        cule_bus_refuse(b, c, m, CULE_EAUTH, "%s",
                        b->acl ? "the bus does not know this token" : "the bus has no ACL, so there are no tokens");
        return;
    }
    free(c->who.token);
    c->who.token = strdup(name);
    c->acl_generation = 0;
    b->fx->reply(b->ctx, c->peer, m->h.id, false, c->who.token ? 1 : 0, c->number, NULL, 0);
}

void cule_bus_on_cule(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct cule_buf out;
    if (m->h.kind != CULE_REQUEST) {
        return;
    }
    cule_buf_init(&out, 0);
    switch (m->h.op) {
    case CULE_OP_CULE_INFO: answer(b, c, m, info(b, &out), &out); break;
    case CULE_OP_CULE_HEALTH: answer(b, c, m, health(b, &out), &out); break;
    case CULE_OP_CULE_STATS: answer(b, c, m, m->h.arg0 == 1 ? prometheus(b, &out) : stats_json(b, &out), &out); break;
    case CULE_OP_CULE_OPS: answer(b, c, m, ops(&out), &out); break;
    case CULE_OP_CULE_LOG_GET: b->fx->reply(b->ctx, c->peer, m->h.id, false, b->log_level, 0, NULL, 0); break;
    case CULE_OP_CULE_LOG_SET: {
        uint64_t was = b->log_level;
        if (!cule_bus_allowed(b, c, m, CULE_BUS_MAY_CONFIGURE, "#", 1)) {
            break;
        }
        if (m->h.arg0 > 4) {
            cule_bus_refuse(b, c, m, CULE_EMALFORMED, "log level %llu is not 0 to 4", (unsigned long long)m->h.arg0);
            break;
        }
        b->log_level = (unsigned)m->h.arg0;
        b->fx->reply(b->ctx, c->peer, m->h.id, false, was, 0, NULL, 0);
        break;
    }
    case CULE_OP_CULE_ECHO: b->fx->reply(b->ctx, c->peer, m->h.id, false, m->h.arg0, m->h.arg1, m->body, m->len); break;
    case CULE_OP_CULE_AUTH: on_auth(b, c, m); break;
    default: cule_bus_refuse(b, c, m, CULE_ENO_OP, "the bus has no operation 0x%04x of service CULE", m->h.op); break;
    }
}

/* --- capabilities --- */

/* The client named by a member, NULL with *rc set. */
static struct cule_bus_client *named_client(struct cule_bus *b, const struct cule_json *doc, int obj, int *rc,
                                            struct cule_err *err)
{
    uint64_t number = 0;
    *rc = cule_json_get_u64(doc, obj, "client", &number, err);
    struct cule_bus_client *c = *rc == 1 ? cule_map_get(&b->clients_by_number, number) : NULL;
    if (!c && *rc >= 0) {
        *rc = cule_err_set(err, CULE_ENOT_FOUND, "there is no client %llu", (unsigned long long)number);
    }
    return c;
}

static int grant(struct cule_bus *b, const struct cule_json *doc, int obj, uint64_t *handle, struct cule_err *err)
{
    uint64_t rights = 0;
    uint64_t ttl_ms = 0;
    int rc;
    struct cule_bus_client *to = named_client(b, doc, obj, &rc, err);
    if (!to) {
        return rc;
    }
    rc = cule_json_get_u64(doc, obj, "rights", &rights, err);
    rc = rc < 0 ? rc : cule_json_get_u64(doc, obj, "ttl_ms", &ttl_ms, err);
    if (rc < 0) {
        return rc;
    }
    if (rights == 0 || rights > UINT16_MAX || ttl_ms > 1000ull * 86400 * 365) {
        return cule_err_set(err, CULE_EMALFORMED, "'rights' must be 1 to 65535, 'ttl_ms' at most a year");
    }
    if (!to->caps) {
        to->caps = malloc(sizeof *to->caps);
        if (!to->caps) {
            return CULE_ENOMEM;
        }
        cule_captable_init(to->caps, false, BUS_CAPS_MAX);
    }
    rc = cule_captable_issue(to->caps, 0, 0, (uint16_t)rights, ttl_ms ? b->now_ns + ttl_ms * BUS_MS : 0, handle);
    if (rc) {
        return cule_err_set(err, rc, "client %u has its %d capabilities already", to->number, BUS_CAPS_MAX);
    }
    struct cule_msg m = {0};
    cule_frame_init(&m.h, CULE_EVENT);
    m.h.service = CULE_S_CULE;
    m.h.op = CULE_OP_CULE_AUTH;
    m.h.flags = CULE_DELEGATE;
    m.h.cap = *handle;
    rc = b->fx->send(b->ctx, to->peer, &m);
    if (rc) {
        cule_captable_revoke(to->caps, *handle);
        return cule_err_set(err, rc, "client %u does not read", to->number);
    }
    return 0;
}

int cule_bus_grant_json(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m, struct cule_err *err)
{
    struct cule_json doc;
    uint64_t handle = 0;
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, (const char *)m->body, m->len, err);
    int give = rc ? -1 : cule_json_find(&doc, 0, "grant");
    int take = rc ? -1 : cule_json_find(&doc, 0, "revoke");
    if (rc == 0 && give < 0 && take < 0) {
        rc = CULE_ENOT_FOUND;
    } else if (give >= 0) {
        rc = grant(b, &doc, give, &handle, err);
    } else if (take >= 0) {
        struct cule_bus_client *from = named_client(b, &doc, take, &rc, err);
        rc = from ? 0 : rc;
        if (from && from->caps) {
            cule_captable_revoke_target(from->caps, 0);
        }
    }
    cule_json_release(&doc);
    if (rc == 0) {
        b->fx->reply(b->ctx, c->peer, m->h.id, false, handle, 0, NULL, 0);
    }
    return rc;
}

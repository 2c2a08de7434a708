/* LIST: who is connected, which topics there are, who subscribes to what. */
#include "base/json.h"
#include "core/bus/internal.h"

#include <stdio.h>
#include <string.h>

struct list {
    struct cule_bus *b;
    struct cule_json_writer w;
    char what[16];
    char pattern[CULE_TOPIC_OWN_MAX + 1];
    size_t len;
};

static int read_filter(const struct cule_msg *m, struct list *l, struct cule_err *err)
{
    static const char *const keys[] = {"what", "pattern", NULL};
    struct cule_json doc;
    memcpy(l->what, "all", 4);
    l->len = 0;
    if (m->len == 0) {
        return 0;
    }
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, (const char *)m->body, m->len, err);
    rc = rc ? rc : cule_json_only(&doc, 0, keys, err);
    rc = rc ? rc : cule_json_get_str(&doc, 0, "what", l->what, sizeof l->what, err);
    rc = rc < 0 ? rc : cule_json_get_str(&doc, 0, "pattern", l->pattern, sizeof l->pattern, err);
    if (rc == 1) {
        l->len = strlen(l->pattern);
        rc = cule_pattern_check(l->pattern, l->len, err);
    }
    cule_json_release(&doc);
    return rc < 0 ? rc : 0;
}

static bool wanted(const struct list *l, const char *what)
{
    return strcmp(l->what, "all") == 0 || strcmp(l->what, what) == 0;
}

static void bytes_member(struct cule_json_writer *w, const char *key, const char *p, size_t n)
{
    cule_json_key(w, key);
    cule_json_put_bytes(w, p, n);
}

static uint64_t queued_for(const struct cule_bus_client *c)
{
    uint64_t n = 0;
    CULE_LIST_EACH (k, &c->subs) {
        const struct cule_bus_target *t = CULE_LIST_ENTRY(k, const struct cule_bus_sub, in_client)->target;
        n += t->solo ? t->queue.count : 0;
    }
    return n;
}

static void client(struct list *l, const struct cule_bus_client *c)
{
    struct cule_json_writer *w = &l->w;
    cule_json_open(w, '{');
    cule_json_member_u64(w, "id", c->number);
    cule_json_member_str(w, "name", c->name ? c->name : "");
    if (c->who.has_cred) {
        cule_json_member_u64(w, "pid", c->pid);
        cule_json_member_u64(w, "uid", c->who.uid);
        cule_json_member_u64(w, "gid", c->who.gid);
    }
    cule_json_member_str(w, "transport", c->transport ? c->transport : "");
    if (c->who.cert) {
        cule_json_member_str(w, "cert", c->who.cert);
    }
    if (c->who.token) {
        cule_json_member_str(w, "token", c->who.token);
    }
    cule_json_member_u64(w, "since_ms", (l->b->now_ns - c->since_ns) / BUS_MS);
    cule_json_member_u64(w, "in_messages", c->published);
    cule_json_member_u64(w, "in_bytes", c->published_bytes);
    cule_json_member_u64(w, "out_messages", c->delivered);
    cule_json_member_u64(w, "out_bytes", c->delivered_bytes);
    cule_json_member_u64(w, "queued", queued_for(c));
    cule_json_member_u64(w, "queued_bytes", c->queued_bytes);
    cule_json_member_u64(w, "dropped", c->dropped);
    cule_json_member_u64(w, "subscriptions", c->subscriptions);
    cule_json_close(w, '}');
}

static double rate(const struct cule_bus *b, const struct cule_bus_topic *t)
{
    uint64_t age = b->now_ns - t->rate_from_ns;
    if (!t->rate_from_ns || age > 2ull * BUS_SEC) {
        return 0;
    }
    return t->rate_hz > 0 ? t->rate_hz
           : age          ? (double)t->rate_count * BUS_SEC / (double)CULE_MAX(age, (uint64_t)BUS_SEC)
                          : 0;
}

static void topic(struct list *l, struct cule_bus_topic *t)
{
    struct cule_json_writer *w = &l->w;
    const struct cule_bus_policy *p = &t->policy;
    if (l->len && !cule_pattern_match(l->pattern, l->len, t->name, t->len)) {
        return;
    }
    cule_json_open(w, '{');
    bytes_member(w, "topic", t->name, t->len);
    cule_json_member_u64(w, "seq", t->committed);
    cule_json_member_bool(w, "retained", t->retained != NULL);
    cule_json_member_u64(w, "history", t->first_disk ? t->committed - t->first_disk + 1 : (uint64_t)t->history.count);
    cule_json_member_double(w, "rate_hz", rate(l->b, t));
    cule_json_member_str(w, "overflow", cule_bus_overflow_name(p->overflow));
    cule_json_member_str(w, "durability", cule_bus_durability_name(p->durability));
    cule_json_member_u64(w, "published", t->published);
    cule_json_member_u64(w, "bytes", t->bytes);
    cule_json_member_u64(w, "subscribers", cule_bus_topic_plain(l->b, t)->n);
    cule_json_member_u64(w, "responders", cule_bus_topic_responders(l->b, t)->n);
    cule_json_member_u64(w, "dropped", t->dropped);
    cule_json_close(w, '}');
}

static uint64_t age_of(const struct cule_bus *b, const struct cule_bus_sub *s)
{
    uint64_t since = cule_bus_queue_oldest(&s->target->queue);
    if (s->acking && !cule_list_empty(&s->acking->inflight)) {
        const struct cule_bus_inflight *f =
            CULE_LIST_ENTRY(s->acking->inflight.next, const struct cule_bus_inflight, node);
        since = CULE_MIN(since, f->entry.since_ns);
    }
    return since == UINT64_MAX ? 0 : (b->now_ns - since) / BUS_MS;
}

static void subscription(struct list *l, const struct cule_bus_sub *s)
{
    struct cule_json_writer *w = &l->w;
    const struct cule_bus_target *t = s->target;
    if (l->len && !cule_pattern_overlap(l->pattern, l->len, t->pattern, t->pattern_len)) {
        return;
    }
    cule_json_open(w, '{');
    cule_json_member_u64(w, "client", s->client->number);
    cule_json_member_u64(w, "subscription", s->id);
    bytes_member(w, "pattern", t->pattern, t->pattern_len);
    cule_json_member_str(w, "group", t->group ? t->group->key + t->pattern_len + 1 : "");
    if (t->group && t->group->durable) {
        cule_json_member_str(w, "durable", t->group->durable->name);
    }
    if (s->name[0]) {
        cule_json_member_str(w, "name", s->name);
    }
    cule_json_member_bool(w, "responder", t->responder);
    cule_json_member_bool(w, "ack", t->ack);
    cule_json_member_u64(w, "queue", t->queue.count);
    cule_json_member_u64(w, "queue_bytes", t->queue.bytes);
    cule_json_member_u64(w, "inflight", t->responder ? s->open_requests : s->acking ? s->acking->by_number.count : 0);
    cule_json_member_u64(w, "delivered", t->delivered);
    cule_json_member_u64(w, "dropped", t->dropped);
    cule_json_member_u64(w, "acked", s->acking ? s->acking->acked : 0);
    cule_json_member_u64(w, "redelivered", s->acking ? s->acking->redelivered : 0);
    cule_json_member_u64(w, "slow_ms", age_of(l->b, s));
    cule_json_member_bool(w, "replaying", t->replay != NULL);
    cule_json_close(w, '}');
}

static void clients(struct list *l, bool subscriptions)
{
    cule_json_key(&l->w, subscriptions ? "subscriptions" : "clients");
    cule_json_open(&l->w, '[');
    CULE_LIST_EACH (n, &l->b->clients) {
        const struct cule_bus_client *c = CULE_LIST_ENTRY(n, const struct cule_bus_client, node);
        if (!subscriptions) {
            client(l, c);
            continue;
        }
        CULE_LIST_EACH (k, &c->subs) {
            subscription(l, CULE_LIST_ENTRY(k, const struct cule_bus_sub, in_client));
        }
    }
    cule_json_close(&l->w, ']');
}

void cule_bus_on_list(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct list l = {.b = b};
    struct cule_err err = {0};
    struct cule_buf out;
    char epoch[20];
    int rc = read_filter(m, &l, &err);
    if (!rc && !wanted(&l, "clients") && !wanted(&l, "topics") && !wanted(&l, "subscriptions")) {
        rc = cule_err_set(&err, CULE_EMALFORMED, "'%s' is not clients, topics, subscriptions or all", l.what);
    }
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.code ? err.text : cule_err_text(rc));
        return;
    }
    cule_buf_init(&out, CULE_MESSAGE_MAX);
    cule_json_begin(&l.w, &out);
    cule_json_open(&l.w, '{');
    snprintf(epoch, sizeof epoch, "%016llx", (unsigned long long)b->cfg.epoch);
    cule_json_member_str(&l.w, "epoch", epoch);
    if (wanted(&l, "clients")) {
        clients(&l, false);
    }
    if (wanted(&l, "topics")) {
        cule_json_key(&l.w, "topics");
        cule_json_open(&l.w, '[');
        CULE_LIST_EACH (n, &b->topics) {
            topic(&l, CULE_LIST_ENTRY(n, struct cule_bus_topic, node));
        }
        cule_json_close(&l.w, ']');
    }
    if (wanted(&l, "subscriptions")) {
        clients(&l, true);
    }
    cule_json_close(&l.w, '}');
    rc = cule_json_end(&l.w);
    if (rc == 0) {
        b->fx->reply(b->ctx, c->peer, m->h.id, false, 0, 0, cule_buf_data(&out), cule_buf_len(&out));
    } else {
        cule_bus_refuse(b, c, m, CULE_ETOO_BIG, "the list is beyond %d bytes: ask for one part, or with a pattern",
                        CULE_MESSAGE_MAX);
    }
    cule_buf_release(&out);
}

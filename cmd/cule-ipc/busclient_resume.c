/* What a client asks for when it comes back: positions that still hold, and the JSON of its subscriptions. */
#include "base/bytes.h"
#include "base/json.h"
#include "busclient_impl.h"

#include <stdio.h>

enum { AFTER_MAX = 1024 * 1024 }; /* bytes of positions in one SUBSCRIBE */

bool busclient_resume_needed(const struct busclient *c)
{
    return c->positions && c->stats.connects > 0 && c->stats.delivered > 0;
}

/* Which broker this is: its process, and where it says so its epoch. */
void busclient_resume_info(struct busclient *c, const uint8_t *json, size_t n)
{
    struct cule_json doc;
    char epoch[32] = "", id[sizeof c->broker];
    uint64_t pid = 0;
    cule_json_init(&doc);
    if (cule_json_parse(&doc, (const char *)json, n, NULL) == 0) {
        cule_json_get_u64(&doc, 0, "pid", &pid, NULL);
        cule_json_get_str(&doc, 0, "epoch", epoch, sizeof epoch, NULL);
        snprintf(id, sizeof id, "%llu %s", (unsigned long long)pid, epoch);
        c->other_broker = c->other_broker || (c->broker[0] && strcmp(c->broker, id) != 0);
        memcpy(c->broker, id, sizeof id);
    }
    cule_json_release(&doc);
}

struct listing {
    struct busclient *c;
    const struct cule_json *doc;
    int topics;
};

/* A broker that started anew counts from 1 again, but for what it keeps on disk. */
static void check_position(void *ctx, const char *topic, size_t n)
{
    struct listing *ls = ctx;
    char name[BUSCLIENT_TOPIC_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)n, topic);
    for (int i = cule_json_first(ls->doc, ls->topics); i >= 0; i = cule_json_next(ls->doc, i)) {
        uint64_t seq = 0;
        if (!cule_json_equal(ls->doc, cule_json_find(ls->doc, i, "topic"), name)) {
            continue;
        }
        cule_json_get_u64(ls->doc, i, "seq", &seq, NULL);
        bool disk = cule_json_equal(ls->doc, cule_json_find(ls->doc, i, "durability"), "disk");
        if (seq < busclient_seen_newest(ls->c->seen, topic, n) || (ls->c->other_broker && !disk)) {
            busclient_seen_forget(ls->c->seen, topic, n);
        }
        return;
    }
    busclient_seen_forget(ls->c->seen, topic, n); /* a topic that is gone */
}

void busclient_resume_listing(struct busclient *c, const uint8_t *json, size_t n)
{
    struct cule_json doc;
    cule_json_init(&doc);
    if (cule_json_parse(&doc, (const char *)json, n, NULL) == 0) {
        struct listing ls = {.c = c, .doc = &doc, .topics = cule_json_find(&doc, 0, "topics")};
        if (ls.topics >= 0) {
            busclient_seen_walk(c->seen, check_position, &ls);
            c->other_broker = false;
        }
    }
    cule_json_release(&doc);
}

/* How far back --since goes; never before the epoch. */
static uint64_t since_age(const struct busclient_sub *s)
{
    return s->s.has_since ? CULE_MIN(s->s.since_ms, s->first_wall_ms) : 0;
}

/* Where a subscription begins that was there before: behind what was seen of each topic; topics that were not seen, at
 * the time of the first subscription. Where the positions are too many to tell, all begin then, and what was seen is
 * dropped when it comes again. */
static void put_resume(const struct busclient *c, const struct busclient_sub *s, struct cule_json_writer *w)
{
    const char *p = s->s.pattern;
    struct cule_buf after;
    cule_json_member_bool(w, "retained", false);
    uint64_t seq = busclient_has_wildcard(p) ? 0 : busclient_seen_position(c->seen, p, strlen(p));
    if (seq > 0) {
        cule_json_member_u64(w, "from_seq", seq + 1);
        return;
    }
    cule_buf_init(&after, 0);
    if (busclient_has_wildcard(p) && busclient_seen_json(c->seen, p, AFTER_MAX, &after) == 0) {
        cule_json_key(w, "after");
        cule_json_put_raw(w, cule_buf_data(&after), cule_buf_len(&after));
    }
    cule_buf_release(&after);
    if (s->s.has_from) {
        cule_json_member_u64(w, "from_seq", s->s.from_seq);
    } else {
        cule_json_member_u64(w, "since_ms", s->first_wall_ms - since_age(s));
    }
}

static void member_unless_0(struct cule_json_writer *w, const char *key, uint64_t v)
{
    if (v) {
        cule_json_member_u64(w, key, v);
    }
}

int busclient_resume_json(const struct busclient *c, const struct busclient_sub *sub, struct cule_buf *out)
{
    const struct busclient_subscribe *s = &sub->s;
    struct cule_json_writer w;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "pattern", s->pattern);
    if (s->group) {
        cule_json_member_str(&w, "group", s->group);
    }
    if (s->durable) {
        cule_json_member_str(&w, "durable", s->durable);
    }
    if (s->overflow) {
        cule_json_member_str(&w, "overflow", s->overflow);
    }
    if (s->ack) {
        cule_json_member_bool(&w, "ack", true);
    }
    if (s->respond) {
        cule_json_member_bool(&w, "respond", true);
    }
    member_unless_0(&w, "ack_wait_ms", s->ack_wait_ms);
    member_unless_0(&w, "max_deliver", s->max_deliver);
    member_unless_0(&w, "max_inflight", s->max_inflight);
    member_unless_0(&w, "queue", s->queue);
    member_unless_0(&w, "queue_bytes", s->queue_bytes);
    if (sub->subscribed && c->positions) {
        put_resume(c, sub, &w);
    } else {
        if (s->no_retained || sub->subscribed) {
            cule_json_member_bool(&w, "retained", false);
        }
        if (s->has_from && !sub->subscribed) {
            cule_json_member_u64(&w, "from_seq", s->from_seq);
        } else if (s->has_last && !sub->subscribed) {
            cule_json_member_u64(&w, "last", s->last);
        } else if (s->has_since && !sub->subscribed) {
            cule_json_member_u64(&w, "since_ms", sub->first_wall_ms - since_age(sub));
        }
    }
    cule_json_close(&w, '}');
    return cule_json_end(&w);
}

/* Which messages of which topics have been seen: positions to resume from, and how doubles are told. */
#include "base/bytes.h"
#include "base/json.h"
#include "base/map.h"
#include "busclient.h"

#include <stdio.h>
#include <stdlib.h>

/* A topic's position is kept for each priority, because a higher one overtakes. */
struct seen_topic {
    struct seen_topic *next; /* of the same hash */
    uint64_t last[CULE_PRIORITIES];
    size_t len;
    char name[];
};

struct busclient_seen {
    struct cule_map topics; /* hash to struct seen_topic */
    struct seen_topic *recent;
    size_t count;
    size_t max;
};

static uint64_t hash_of(const char *p, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; p += 8, n -= 8) {
        h = (h ^ cule_get64(p)) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t last = 0;
    memcpy(&last, p, n);
    h = (h ^ last) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

struct busclient_seen *busclient_seen_new(size_t topics_max)
{
    struct busclient_seen *t = calloc(1, sizeof *t);
    if (t) {
        cule_map_init(&t->topics);
        t->max = topics_max;
    }
    return t;
}

void busclient_seen_clear(struct busclient_seen *t)
{
    size_t at = 0;
    struct seen_topic *e;
    while ((e = cule_map_next(&t->topics, &at, NULL))) {
        while (e) {
            struct seen_topic *next = e->next;
            free(e);
            e = next;
        }
    }
    cule_map_release(&t->topics);
    t->recent = NULL;
    t->count = 0;
}

void busclient_seen_free(struct busclient_seen *t)
{
    if (t) {
        busclient_seen_clear(t);
        free(t);
    }
}

static bool is_named(const struct seen_topic *e, const char *topic, size_t n)
{
    return e->len == n && memcmp(e->name, topic, n) == 0;
}

static struct seen_topic *find(const struct busclient_seen *t, const char *topic, size_t n)
{
    struct seen_topic *e = cule_map_get(&t->topics, hash_of(topic, n));
    while (e && !is_named(e, topic, n)) {
        e = e->next;
    }
    return e;
}

static struct seen_topic *add(struct busclient_seen *t, const char *topic, size_t n)
{
    if (t->count == t->max) {
        return NULL;
    }
    struct seen_topic *e = calloc(1, sizeof *e + n);
    if (!e) {
        return NULL;
    }
    e->len = n;
    memcpy(e->name, topic, n);
    uint64_t h = hash_of(topic, n);
    e->next = cule_map_get(&t->topics, h);
    if (cule_map_put(&t->topics, h, e)) {
        free(e);
        return NULL;
    }
    t->count++;
    return e;
}

bool busclient_seen_note(struct busclient_seen *t, const char *topic, size_t n, unsigned priority, uint64_t seq)
{
    struct seen_topic *e = t->recent;
    if (!e || !is_named(e, topic, n)) {
        e = find(t, topic, n);
        if (!e && !(e = add(t, topic, n))) {
            return true; /* too many topics: better a double than a loss */
        }
        t->recent = e;
    }
    if (seq <= e->last[priority]) {
        return false;
    }
    e->last[priority] = seq;
    return true;
}

/* The lowest of the priorities in use: what a higher one overtook is asked for again, and told apart when it comes. */
static uint64_t position(const struct seen_topic *e)
{
    uint64_t low = 0;
    for (unsigned p = 0; p < CULE_PRIORITIES; p++) {
        if (e->last[p] && (low == 0 || e->last[p] < low)) {
            low = e->last[p];
        }
    }
    return low;
}

uint64_t busclient_seen_position(const struct busclient_seen *t, const char *topic, size_t n)
{
    const struct seen_topic *e = find(t, topic, n);
    return e ? position(e) : 0;
}

uint64_t busclient_seen_newest(const struct busclient_seen *t, const char *topic, size_t n)
{
    const struct seen_topic *e = find(t, topic, n);
    uint64_t high = 0;
    for (unsigned p = 0; e && p < CULE_PRIORITIES; p++) {
        high = CULE_MAX(high, e->last[p]);
    }
    return high;
}

void busclient_seen_forget(struct busclient_seen *t, const char *topic, size_t n)
{
    struct seen_topic *e = find(t, topic, n);
    if (e) {
        memset(e->last, 0, sizeof e->last);
    }
}

void busclient_seen_walk(const struct busclient_seen *t, void (*fn)(void *ctx, const char *topic, size_t n), void *ctx)
{
    size_t at = 0;
    struct seen_topic *e;
    while ((e = cule_map_next(&t->topics, &at, NULL))) {
        for (; e; e = e->next) {
            fn(ctx, e->name, e->len);
        }
    }
}

int busclient_seen_json(const struct busclient_seen *t, const char *pattern, size_t max, struct cule_buf *out)
{
    struct cule_json_writer w;
    size_t at = 0, begin = cule_buf_len(out);
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    for (struct seen_topic *e; (e = cule_map_next(&t->topics, &at, NULL));) {
        for (; e; e = e->next) {
            char name[BUSCLIENT_TOPIC_MAX + 1];
            uint64_t seq = position(e);
            if (seq == 0 || !busclient_matches(pattern, e->name, e->len)) {
                continue;
            }
            snprintf(name, sizeof name, "%.*s", (int)e->len, e->name);
            cule_json_member_u64(&w, name, seq);
            if (cule_buf_len(out) - begin > max) {
                return CULE_ELIMIT;
            }
        }
    }
    cule_json_close(&w, '}');
    return cule_json_end(&w);
}

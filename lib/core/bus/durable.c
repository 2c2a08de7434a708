/* Durable groups: how far each is in each topic on disk, so that it goes on from there after a restart. */
#include "core/bus/internal.h"

#include <stdlib.h>

static struct cule_bus_durable *of(const struct cule_bus_target *t)
{
    return t->group ? t->group->durable : NULL;
}

static struct cule_bus_cursor *cursor_of(const struct cule_bus_target *t, const struct cule_bus_topic *topic)
{
    struct cule_bus_durable *d = of(t);
    return d ? cule_map_get(&d->cursors, topic->number) : NULL;
}

struct cule_bus_durable *cule_bus_durable_new(struct cule_bus *b, const char *name, const char *json, size_t n)
{
    size_t len = strlen(name);
    struct cule_bus_durable *d = calloc(1, sizeof *d + len + 1);
    if (!d) {
        return NULL;
    }
    memcpy(d->name, name, len);
    cule_map_init(&d->cursors);
    d->json = strndup(json, n);
    if (!d->json || cule_strmap_put(&b->durables, d->name, len, d)) {
        free(d->json);
        free(d);
        return NULL;
    }
    return d;
}

void cule_bus_durable_free(struct cule_bus *b, struct cule_bus_durable *d)
{
    size_t at = 0;
    struct cule_bus_cursor *k;
    while ((k = cule_map_next(&d->cursors, &at, NULL))) {
        k->topic->users--;
        cule_map_release(&k->done);
        free(k);
    }
    cule_map_release(&d->cursors);
    cule_strmap_take(&b->durables, d->name, strlen(d->name));
    free(d->json);
    free(d);
}

int cule_bus_durable_begin(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic, uint64_t floor)
{
    struct cule_bus_durable *d = of(t);
    if (!d || !cule_bus_topic_on_disk(b, topic) || cule_map_get(&d->cursors, topic->number)) {
        return 0;
    }
    struct cule_bus_cursor *k = calloc(1, sizeof *k);
    if (!k || cule_map_put(&d->cursors, topic->number, k)) {
        free(k);
        return CULE_ENOMEM;
    }
    k->topic = topic;
    k->floor = floor;
    cule_map_init(&k->done);
    topic->users++;
    b->fx->done(b->ctx, d->name, topic->name, topic->len, floor, floor);
    return 0;
}

static void mark(struct cule_bus *b, struct cule_bus_durable *d, struct cule_bus_cursor *k, uint64_t seq)
{
    if (seq <= k->floor) {
        return;
    }
    if (seq == k->floor + 1) {
        k->floor++;
        while (k->done.count && cule_map_take(&k->done, k->floor + 1)) {
            k->floor++;
        }
    } else if (cule_map_put(&k->done, seq, k)) {
        return; /* not noted: it comes again after a restart */
    }
    b->fx->done(b->ctx, d->name, k->topic->name, k->topic->len, seq, k->floor);
}

void cule_bus_durable_done(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_msg *m)
{
    struct cule_bus_cursor *k = cursor_of(t, m->topic);
    if (k) {
        mark(b, of(t), k, m->seq);
    }
}

bool cule_bus_durable_is_done(struct cule_bus_target *t, struct cule_bus_topic *topic, uint64_t seq)
{
    struct cule_bus_cursor *k = cursor_of(t, topic);
    return k && (seq <= k->floor || cule_map_get(&k->done, seq));
}

void cule_bus_durable_missing(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic,
                              uint64_t first)
{
    struct cule_bus_cursor *k = cursor_of(t, topic);
    if (k && k->floor + 1 < first) {
        while (k->floor + 1 < first) {
            k->floor++;
            cule_map_take(&k->done, k->floor);
        }
        b->fx->done(b->ctx, of(t)->name, topic->name, topic->len, 0, k->floor);
    }
}

int cule_bus_restore_done(struct cule_bus *b, const char *durable, const char *topic, size_t n, uint64_t seq,
                          bool floor)
{
    struct cule_bus_durable *d = cule_strmap_get(&b->durables, durable, strlen(durable));
    struct cule_bus_topic *t;
    if (!d) {
        return CULE_ENOT_FOUND;
    }
    int rc = cule_bus_topic_get(b, topic, n, &t, NULL);
    if (rc) {
        return rc;
    }
    struct cule_bus_cursor *k = cule_map_get(&d->cursors, t->number);
    if (!k) {
        k = calloc(1, sizeof *k);
        if (!k || cule_map_put(&d->cursors, t->number, k)) {
            free(k);
            return CULE_ENOMEM;
        }
        k->topic = t;
        t->users++;
    }
    if (floor) {
        k->floor = seq;
        return 0;
    }
    return seq > k->floor ? cule_map_put(&k->done, seq, k) : 0;
}

/* After a failure of the store: what it may not have taken. */
void cule_bus_durables_again(struct cule_bus *b)
{
    size_t at = 0;
    struct cule_bus_durable *d;
    while ((d = cule_strmap_next(&b->durables, &at))) {
        struct cule_bus_cursor *k;
        b->fx->define(b->ctx, d->name, d->json, strlen(d->json));
        for (size_t i = 0; (k = cule_map_next(&d->cursors, &i, NULL));) {
            uint64_t seq;
            b->fx->done(b->ctx, d->name, k->topic->name, k->topic->len, 0, k->floor);
            for (size_t n = 0; cule_map_next(&k->done, &n, &seq);) {
                b->fx->done(b->ctx, d->name, k->topic->name, k->topic->len, seq, k->floor);
            }
        }
    }
}

/* What each durable group has not had: from its floor on in the topics it knows, from the start in those that came
 * while it was not looking. */
void cule_bus_restored(struct cule_bus *b, uint64_t now_ns)
{
    size_t at = 0;
    struct cule_bus_durable *d;
    b->now_ns = now_ns;
    while ((d = cule_strmap_next(&b->durables, &at))) {
        struct cule_bus_target *t = &d->group->target;
        CULE_LIST_EACH (n, &b->topics) {
            struct cule_bus_topic *topic = CULE_LIST_ENTRY(n, struct cule_bus_topic, node);
            if (!cule_bus_topic_on_disk(b, topic) || !topic->first_disk ||
                !cule_pattern_match(t->pattern, t->pattern_len, topic->name, topic->len)) {
                continue;
            }
            struct cule_bus_cursor *k = cursor_of(t, topic);
            uint64_t next = k ? k->floor + 1 : topic->first_disk;
            if (!k && cule_bus_durable_begin(b, t, topic, next - 1)) {
                continue;
            }
            if (next <= topic->committed) {
                cule_bus_replay_add(b, t, topic, NULL, next);
            }
        }
    }
}

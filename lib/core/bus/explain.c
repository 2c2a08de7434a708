/* The log of decisions: rows that count repetitions. */
#include "core/bus/explain.h"

#include "base/json.h"
#include "base/strmap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cule_bus_explain_init(struct cule_bus_explain *e)
{
    *e = (struct cule_bus_explain){0};
    cule_map_init(&e->by_key);
}

void cule_bus_explain_release(struct cule_bus_explain *e)
{
    for (size_t i = 0; e->rows && i < CULE_BUS_ROWS; i++) {
        free(e->rows[i].topic);
    }
    free(e->rows);
    cule_map_release(&e->by_key);
    cule_bus_explain_init(e);
}

static struct cule_bus_row *slot(struct cule_bus_explain *e, uint64_t number)
{
    return &e->rows[number % CULE_BUS_ROWS];
}

void cule_bus_explain_add(struct cule_bus_explain *e, const char *what, uint32_t client, const char *topic, size_t n,
                          const char *reason, uint64_t limit, const char *hint, uint64_t wall_ms)
{
    uint64_t key = cule_hash_bytes(reason, strlen(reason), (uintptr_t)what ^ client);
    key = topic ? cule_hash_bytes(topic, n, key) : key;
    struct cule_bus_row *r = cule_map_get(&e->by_key, key);
    if (r) {
        r->count++;
        r->last_ms = wall_ms;
        return;
    }
    if (!e->rows && !(e->rows = calloc(CULE_BUS_ROWS, sizeof *e->rows))) {
        return;
    }
    r = slot(e, e->last + 1);
    if (r->number) {
        cule_map_take(&e->by_key, r->key);
        free(r->topic);
        *r = (struct cule_bus_row){0};
    }
    if (cule_map_put(&e->by_key, key, r)) {
        return;
    }
    *r = (struct cule_bus_row){
        .number = ++e->last,
        .key = key,
        .first_ms = wall_ms,
        .last_ms = wall_ms,
        .count = 1,
        .limit = limit,
        .client = client,
        .what = what,
        .hint = hint,
        .topic = topic ? strndup(topic, n) : NULL,
    };
    snprintf(r->reason, sizeof r->reason, "%s", reason);
}

const struct cule_bus_row *cule_bus_explain_row(const struct cule_bus_explain *e, uint64_t number)
{
    const struct cule_bus_row *r = e->rows && number ? &e->rows[number % CULE_BUS_ROWS] : NULL;
    return r && r->number == number ? r : NULL;
}

int cule_bus_explain_json(const struct cule_bus_row *r, struct cule_buf *out)
{
    struct cule_json_writer w;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_u64(&w, "row", r->number);
    cule_json_member_u64(&w, "time_ms", r->last_ms);
    cule_json_member_u64(&w, "first_ms", r->first_ms);
    cule_json_member_str(&w, "what", r->what);
    if (r->client) {
        cule_json_member_u64(&w, "client", r->client);
    }
    if (r->topic) {
        cule_json_member_str(&w, "topic", r->topic);
    }
    cule_json_member_str(&w, "reason", r->reason);
    cule_json_member_u64(&w, "count", r->count);
    if (r->limit) {
        cule_json_member_u64(&w, "limit", r->limit);
    }
    if (r->hint) {
        cule_json_member_str(&w, "hint", r->hint);
    }
    cule_json_close(&w, '}');
    int rc = cule_json_end(&w);
    return rc ? rc : cule_buf_addc(out, '\n');
}

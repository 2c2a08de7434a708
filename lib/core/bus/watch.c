/* Who looks on: TAP, which shows frames as they pass, and EXPLAIN, which shows decisions. */
#include "base/json.h"
#include "core/bus/internal.h"

#include <stdlib.h>

enum { EXPLAIN_BYTES = 32 * 1024, TAP_BYTES_MAX = 1024 * 1024 };

struct filter {
    char pattern[CULE_TOPIC_OWN_MAX + 1];
    size_t len;
    uint64_t client, last;
    bool follow;
};

static int read_filter(const struct cule_msg *m, struct filter *f, struct cule_err *err)
{
    static const char *const keys[] = {"pattern", "client", "last", "follow", NULL};
    struct cule_json doc;
    *f = (struct filter){.last = CULE_BUS_ROWS};
    if (m->len == 0) {
        return 0;
    }
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, (const char *)m->body, m->len, err);
    rc = rc ? rc : cule_json_only(&doc, 0, keys, err);
    rc = rc ? rc : cule_json_get_u64(&doc, 0, "client", &f->client, err);
    rc = rc < 0 ? rc : cule_json_get_u64(&doc, 0, "last", &f->last, err);
    rc = rc < 0 ? rc : cule_json_get_bool(&doc, 0, "follow", &f->follow, err);
    rc = rc < 0 ? rc : cule_json_get_str(&doc, 0, "pattern", f->pattern, sizeof f->pattern, err);
    if (rc == 1) {
        f->len = strlen(f->pattern);
        rc = cule_pattern_check(f->pattern, f->len, err);
    }
    cule_json_release(&doc);
    if (rc >= 0 && f->client > UINT32_MAX) {
        rc = cule_err_set(err, CULE_EMALFORMED, "'client' is no number of a client");
    }
    return rc < 0 ? rc : 0;
}

/* --- EXPLAIN --- */

/* Rows name topics or patterns; either counts when it has to do with what was asked for. */
static bool row_matches(const struct cule_bus_row *r, uint32_t client, const char *pattern, size_t n)
{
    if (client && r->client != client) {
        return false;
    }
    return n == 0 || (r->topic && cule_pattern_overlap(pattern, n, r->topic, strlen(r->topic)));
}

/* What the asker may see: its own rows, and all of them who may subscribe to everything. */
static bool may_see_all(struct cule_bus *b, const struct cule_bus_client *c)
{
    return !b->acl || cule_bus_acl_check(b->acl, &c->who, CULE_BUS_MAY_SUBSCRIBE, "#", 1, 0).allowed;
}

static void follow(struct cule_bus *b, struct cule_bus_client *c, uint64_t id, const struct filter *f)
{
    struct cule_bus_follow *w = calloc(1, sizeof *w + f->len + 1);
    if (!w) {
        b->fx->data(b->ctx, c->peer, id, 0, NULL, 0, true);
        return;
    }
    w->client = c;
    w->id = id;
    w->next = b->explain.last + 1;
    w->only = (uint32_t)f->client;
    w->len = f->len;
    memcpy(w->pattern, f->pattern, f->len);
    cule_list_push(&b->follows, &w->node);
}

void cule_bus_on_explain(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct filter f;
    struct cule_err err = {0};
    struct cule_buf out;
    int rc = read_filter(m, &f, &err);
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.code ? err.text : cule_err_text(rc));
        return;
    }
    if (!may_see_all(b, c)) {
        f.client = c->number;
    }
    uint64_t first = b->explain.last + 1;
    uint64_t found = 0;
    uint64_t floor = first > CULE_BUS_ROWS ? first - CULE_BUS_ROWS : 1;
    while (first > floor && found < f.last) {
        const struct cule_bus_row *r = cule_bus_explain_row(&b->explain, --first);
        found += r && row_matches(r, (uint32_t)f.client, f.pattern, f.len);
    }
    cule_buf_init(&out, 0);
    for (; found && first <= b->explain.last && !rc; first++) {
        const struct cule_bus_row *r = cule_bus_explain_row(&b->explain, first);
        rc = r && row_matches(r, (uint32_t)f.client, f.pattern, f.len) ? cule_bus_explain_json(r, &out) : 0;
    }
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", cule_err_text(rc));
    } else {
        b->fx->reply(b->ctx, c->peer, m->h.id, f.follow, 0, 0, cule_buf_data(&out), cule_buf_len(&out));
        if (f.follow) {
            follow(b, c, m->h.id, &f);
        }
    }
    cule_buf_release(&out);
}

void cule_bus_follow_pump(struct cule_bus *b)
{
    CULE_LIST_EACH (n, &b->follows) {
        struct cule_bus_follow *w = CULE_LIST_ENTRY(n, struct cule_bus_follow, node);
        struct cule_buf out;
        uint64_t next = w->next;
        cule_buf_init(&out, 0);
        if (b->explain.last >= CULE_BUS_ROWS && next <= b->explain.last - CULE_BUS_ROWS) {
            next = b->explain.last - CULE_BUS_ROWS + 1;
        }
        for (; next <= b->explain.last && cule_buf_len(&out) < EXPLAIN_BYTES; next++) {
            const struct cule_bus_row *r = cule_bus_explain_row(&b->explain, next);
            if (r && row_matches(r, w->only, w->pattern, w->len) && cule_bus_explain_json(r, &out)) {
                break;
            }
        }
        bool some = cule_buf_len(&out) > 0;
        if (!some ||
            b->fx->data(b->ctx, w->client->peer, w->id, 0, cule_buf_data(&out), cule_buf_len(&out), false) == 0) {
            w->next = next;
        }
        cule_buf_release(&out);
    }
}

/* --- TAP --- */

void cule_bus_on_tap(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct filter f;
    struct cule_err err = {0};
    int rc = read_filter(m, &f, &err);
    if (!rc && !f.client && !f.len) {
        rc = cule_err_set(&err, CULE_EMALFORMED, "neither 'pattern' nor 'client' given");
    }
    struct cule_bus_client *at = !rc && f.client ? cule_map_get(&b->clients_by_number, f.client) : NULL;
    if (!rc && f.client && !at) {
        rc = cule_err_set(&err, CULE_ENOT_FOUND, "there is no client %llu", (unsigned long long)f.client);
    }
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.code ? err.text : cule_err_text(rc));
        return;
    }
    /* Seeing a link is seeing everything on it. */
    bool all = f.client != 0;
    if (!cule_bus_allowed(b, c, m, CULE_BUS_MAY_SUBSCRIBE, all ? "#" : f.pattern, all ? 1 : f.len)) {
        return;
    }
    struct cule_bus_tap *t = calloc(1, sizeof *t + f.len + 1);
    if (!t) {
        cule_bus_refuse(b, c, m, CULE_ENOMEM, "%s", cule_err_text(CULE_ENOMEM));
        return;
    }
    t->client = c;
    t->id = m->h.id;
    t->target = (uint32_t)f.client;
    t->len = f.len;
    memcpy(t->pattern, f.pattern, f.len);
    if (at) {
        at->taps++;
    }
    cule_list_push(&b->taps, &t->node);
    b->ntaps++;
    b->fx->reply(b->ctx, c->peer, m->h.id, true, 0, 0, NULL, 0);
}

static void tap_free(struct cule_bus *b, struct cule_bus_tap *t)
{
    struct cule_bus_client *at = t->target ? cule_map_get(&b->clients_by_number, t->target) : NULL;
    if (at && at->taps) {
        at->taps--;
    }
    cule_list_remove(&t->node);
    b->ntaps--;
    free(t);
}

/* Appends the frames of a message as they stand inside another. */
static int nested(struct cule_buf *out, const struct cule_msg *m)
{
    struct cule_split s;
    struct cule_frame f;
    const uint8_t *trace;
    const uint8_t *part;
    size_t n;
    int rc = 0;
    cule_split_init(&s, m, 0);
    while (!rc && cule_split_next(&s, &f, &trace, &part, &n)) {
        uint8_t *at;
        f.flags &= (uint16_t)~CULE_CRC;
        f.nfds = 0;
        rc = cule_buf_reserve(out, CULE_HEADER_SIZE + cule_pad8(f.length), &at);
        if (!rc) {
            memset(at + CULE_HEADER_SIZE, 0, cule_pad8(f.length));
            cule_frame_encode(&f, true, at);
            if (trace) {
                memcpy(at + CULE_HEADER_SIZE, trace, CULE_TRACE_SIZE);
            }
            if (n) {
                memcpy(at + CULE_HEADER_SIZE + (trace ? CULE_TRACE_SIZE : 0), part, n);
            }
            cule_buf_commit(out, CULE_HEADER_SIZE + cule_pad8(f.length));
        }
    }
    return rc;
}

static int encode(struct cule_bus *b, struct cule_buf *out, const struct cule_bus_client *c, bool outward,
                  const struct cule_msg *m)
{
    struct cule_frame mark;
    struct cule_msg copy = *m;
    cule_frame_init(&mark, CULE_MARK);
    mark.arg0 = b->now_ns + b->wall_offset_ns;
    mark.arg1 = (uint64_t)c->number << 1 | (outward ? 1 : 0);
    copy.h.source = outward ? m->h.source : c->number;
    int rc = cule_frame_add(out, &mark, true, NULL);
    return rc ? rc : nested(out, &copy);
}

void cule_bus_tap_frame(struct cule_bus *b, const struct cule_bus_client *c, const char *topic, size_t n, bool outward,
                        const struct cule_msg *m)
{
    struct cule_buf out;
    cule_buf_init(&out, 0);
    CULE_LIST_EACH (k, &b->taps) {
        struct cule_bus_tap *t = CULE_LIST_ENTRY(k, struct cule_bus_tap, node);
        bool hit =
            t->target ? t->target == c->number : !outward && topic && cule_pattern_match(t->pattern, t->len, topic, n);
        if (!hit || t->client == c) {
            continue;
        }
        int rc = cule_buf_len(&out) ? 0 : m->len > TAP_BYTES_MAX ? CULE_ETOO_BIG : encode(b, &out, c, outward, m);
        rc = rc ? rc
                : b->fx->data(b->ctx, t->client->peer, t->id, CULE_NESTED, cule_buf_data(&out), cule_buf_len(&out),
                              false);
        if (rc) {
            t->dropped++;
            cule_bus_note(b, "drop", t->client, topic, n, "a tap that does not keep up misses frames", 0, NULL);
        }
    }
    cule_buf_release(&out);
}

/* --- ends --- */

bool cule_bus_watch_cancel(struct cule_bus *b, struct cule_bus_client *c, uint64_t id)
{
    CULE_LIST_EACH (n, &b->taps) {
        struct cule_bus_tap *t = CULE_LIST_ENTRY(n, struct cule_bus_tap, node);
        if (t->client == c && (id == 0 || t->id == id)) {
            tap_free(b, t);
            if (id) {
                return true;
            }
        }
    }
    CULE_LIST_EACH (n, &b->follows) {
        struct cule_bus_follow *w = CULE_LIST_ENTRY(n, struct cule_bus_follow, node);
        if (w->client == c && (id == 0 || w->id == id)) {
            cule_list_remove(&w->node);
            free(w);
            if (id) {
                return true;
            }
        }
    }
    return false;
}

void cule_bus_watches_client_gone(struct cule_bus *b, struct cule_bus_client *c)
{
    cule_bus_watch_cancel(b, c, 0);
    CULE_LIST_EACH (n, &b->taps) {
        struct cule_bus_tap *t = CULE_LIST_ENTRY(n, struct cule_bus_tap, node);
        if (t->target == c->number) { /* what it looked at is gone: the stream ends */
            b->fx->data(b->ctx, t->client->peer, t->id, 0, NULL, 0, true);
            tap_free(b, t);
        }
    }
}

/* The bus's store: its schema and what each piece of work does to it. */
#include "store/buslog_impl.h"

#include <stdlib.h>
#include <string.h>

static const char *const sql[Q_COUNT] = {
    [Q_BEGIN] = "BEGIN IMMEDIATE",
    [Q_COMMIT] = "COMMIT",
    [Q_ROLLBACK] = "ROLLBACK",
    [Q_TOPIC_NEW] = "INSERT INTO topic(name, first, last, bytes) VALUES(?1, 0, 0, 0)",
    [Q_TOPIC_SET] = "UPDATE topic SET first = ?2, last = ?3, bytes = ?4 WHERE id = ?1",
    [Q_APPEND] = "INSERT INTO message(id, time_ms, source, priority, flags, payload) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [Q_LOAD] = "SELECT id, time_ms, source, priority, flags, payload FROM message WHERE id BETWEEN ?1 AND ?2 "
               "ORDER BY id LIMIT ?3",
    [Q_LOOK] = "SELECT id, length(payload), time_ms FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3",
    [Q_DELETE] = "DELETE FROM message WHERE id BETWEEN ?1 AND ?2",
    [Q_RETAIN] = "INSERT OR REPLACE INTO retained(topic, seq, time_ms, source, priority, flags, payload) "
                 "SELECT ?1, ?3, time_ms, source, priority, flags, payload FROM message WHERE id = ?2",
    [Q_UNRETAIN] = "DELETE FROM retained WHERE topic = ?1",
    [Q_FLOOR] = "INSERT INTO position(durable, topic, floor) SELECT id, ?2, ?3 FROM durable WHERE name = ?1 "
                "ON CONFLICT(durable, topic) DO UPDATE SET floor = excluded.floor",
    [Q_DONE] = "INSERT OR IGNORE INTO done(durable, topic, seq) SELECT id, ?2, ?3 FROM durable WHERE name = ?1",
    [Q_UNDONE] =
        "DELETE FROM done WHERE durable = (SELECT id FROM durable WHERE name = ?1) AND topic = ?2 AND seq <= ?3",
    [Q_DEFINE] = "INSERT INTO durable(name, definition) VALUES(?1, ?2) "
                 "ON CONFLICT(name) DO UPDATE SET definition = excluded.definition",
    [Q_FORGET] = "DELETE FROM durable WHERE name = ?1",
    [Q_PROBE] = "UPDATE probe SET n = n + 1, pad = randomblob(65536)", /* room for more than a row */
};

int buslog_prepare(struct cule_buslog *b, struct cule_err *err)
{
    int rc = 0;
    for (int i = 0; i < Q_COUNT && !rc; i++) {
        rc = cule_store_prepare(&b->store, &b->q[i], sql[i], err);
    }
    return rc;
}

void buslog_finalize(struct cule_buslog *b)
{
    for (int i = 0; i < Q_COUNT; i++) {
        sqlite3_finalize(b->q[i]);
        b->q[i] = NULL;
    }
}

int buslog_step(struct cule_buslog *b, enum buslog_sql q, struct cule_err *err)
{
    int rc = sqlite3_step(b->q[q]);
    rc = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : cule_store_error(&b->store, err, "write");
    sqlite3_reset(b->q[q]);
    return rc;
}

static int64_t key(const struct buslog_topic *t, uint64_t seq)
{
    return t->now.id << BUSLOG_SEQ_BITS | (int64_t)seq;
}

static void bind_text(sqlite3_stmt *q, int i, const char *s, size_t n)
{
    sqlite3_bind_text(q, i, s, (int)n, SQLITE_STATIC);
}

static void touch(struct cule_buslog *b, struct buslog_topic *t)
{
    if (cule_list_empty(&t->dirty)) {
        cule_list_push(&b->dirty, &t->dirty);
    }
}

int buslog_topic_get(struct cule_buslog *b, const char *name, size_t n, struct buslog_topic **out)
{
    struct buslog_topic *t = cule_strmap_get(&b->topics, name, n);
    if (!t) {
        t = calloc(1, sizeof *t + n + 1);
        if (!t) {
            return CULE_ENOMEM;
        }
        memcpy(t->name, name, n);
        t->len = n;
        cule_list_init(&t->dirty);
        int rc = cule_strmap_put(&b->topics, t->name, n, t);
        if (rc) {
            free(t);
            return rc;
        }
    }
    *out = t;
    return 0;
}

/* The topic with a row of its own. */
static int topic_row(struct cule_buslog *b, const char *name, size_t n, struct buslog_topic **out, struct cule_err *err)
{
    int rc = buslog_topic_get(b, name, n, out);
    if (rc || (*out)->now.id) {
        return rc;
    }
    bind_text(b->q[Q_TOPIC_NEW], 1, name, n);
    rc = buslog_step(b, Q_TOPIC_NEW, err);
    if (rc) {
        return rc;
    }
    (*out)->now.id = sqlite3_last_insert_rowid(b->store.db);
    touch(b, *out);
    return (*out)->now.id < BUSLOG_TOPICS_MAX
               ? 0
               : cule_err_set(err, CULE_ELIMIT, "the store has %d topics already", BUSLOG_TOPICS_MAX);
}

static int append(struct cule_buslog *b, const struct buslog_work *w, struct cule_err *err)
{
    const struct cule_buslog_record *r = &w->r;
    struct buslog_topic *t;
    int rc = topic_row(b, w->topic, w->topic_len, &t, err);
    if (rc) {
        return rc;
    }
    if (r->seq >> BUSLOG_SEQ_BITS) {
        return cule_err_set(err, CULE_ELIMIT, "sequence number beyond 2^%d", BUSLOG_SEQ_BITS);
    }
    sqlite3_stmt *q = b->q[Q_APPEND];
    sqlite3_bind_int64(q, 1, key(t, r->seq));
    sqlite3_bind_int64(q, 2, (int64_t)r->wall_ms);
    sqlite3_bind_int64(q, 3, r->source);
    sqlite3_bind_int(q, 4, r->priority);
    sqlite3_bind_int(q, 5, r->flags);
    sqlite3_bind_blob(q, 6, r->payload, (int)r->len, SQLITE_STATIC);
    rc = buslog_step(b, Q_APPEND, err);
    sqlite3_bind_null(q, 6);
    if (rc) {
        return rc;
    }
    t->now.first = t->now.first && t->now.first <= t->now.last ? t->now.first : r->seq;
    t->now.last = r->seq;
    t->now.bytes += r->len;
    touch(b, t);
    return 0;
}

int buslog_do_load(struct cule_buslog *b, struct buslog_work *w, struct cule_err *err)
{
    struct buslog_topic *t = cule_strmap_get(&b->topics, w->topic, w->topic_len);
    if (!t || !t->now.id) {
        return 0;
    }
    sqlite3_stmt *q = b->q[Q_LOAD];
    sqlite3_bind_int64(q, 1, key(t, w->a));
    sqlite3_bind_int64(q, 2, key(t, t->now.last));
    sqlite3_bind_int64(q, 3, (int64_t)w->b);
    int rc = 0;
    int got;
    while (!rc && (got = sqlite3_step(q)) == SQLITE_ROW) {
        struct buslog_head h = {
            .seq = (uint64_t)sqlite3_column_int64(q, 0) & ((1ull << BUSLOG_SEQ_BITS) - 1),
            .wall_ms = (uint64_t)sqlite3_column_int64(q, 1),
            .source = (uint32_t)sqlite3_column_int64(q, 2),
            .priority = (uint8_t)sqlite3_column_int(q, 3),
            .flags = (uint16_t)sqlite3_column_int(q, 4),
            .len = (uint32_t)sqlite3_column_bytes(q, 5),
        };
        rc = cule_buf_add(&w->loaded, &h, sizeof h);
        rc = rc ? rc : cule_buf_add(&w->loaded, sqlite3_column_blob(q, 5), h.len);
        w->nloaded += rc == 0;
        if (cule_buf_len(&w->loaded) > BUSLOG_LOAD_BYTES) {
            got = SQLITE_DONE;
            break;
        }
    }
    if (!rc && got != SQLITE_DONE) {
        rc = cule_store_error(&b->store, err, "read");
    }
    sqlite3_reset(q);
    return rc;
}

/* Removes the oldest messages until what is left is within every bound. */
static int trim(struct cule_buslog *b, struct buslog_work *w, struct cule_err *err)
{
    struct buslog_topic *t = cule_strmap_get(&b->topics, w->topic, w->topic_len);
    if (!t || !t->now.id || t->now.first > t->now.last) {
        return 0;
    }
    uint64_t count = t->now.last - t->now.first + 1;
    uint64_t bytes = t->now.bytes;
    uint64_t cut = 0; /* the last one to go */
    sqlite3_stmt *q = b->q[Q_LOOK];
    sqlite3_bind_int64(q, 1, key(t, t->now.first));
    sqlite3_bind_int64(q, 2, key(t, t->now.last));
    sqlite3_bind_int64(q, 3, BUSLOG_TRIM_ROWS);
    while (sqlite3_step(q) == SQLITE_ROW) {
        uint64_t when = (uint64_t)sqlite3_column_int64(q, 2);
        if (!((w->a && count > w->a) || (w->b && bytes > w->b) || (w->c && when < w->c))) {
            break;
        }
        cut = (uint64_t)sqlite3_column_int64(q, 0) & ((1ull << BUSLOG_SEQ_BITS) - 1);
        bytes -= CULE_MIN(bytes, (uint64_t)sqlite3_column_int64(q, 1));
        count--;
    }
    sqlite3_reset(q);
    if (!cut) {
        return 0;
    }
    sqlite3_bind_int64(b->q[Q_DELETE], 1, key(t, t->now.first));
    sqlite3_bind_int64(b->q[Q_DELETE], 2, key(t, cut));
    int rc = buslog_step(b, Q_DELETE, err);
    if (!rc) {
        t->now.first = cut + 1;
        w->first = cut + 1;
        t->now.bytes = bytes;
        touch(b, t);
    }
    return rc;
}

static int retain(struct cule_buslog *b, const struct buslog_work *w, struct cule_err *err)
{
    struct buslog_topic *t;
    int rc = topic_row(b, w->topic, w->topic_len, &t, err);
    if (rc) {
        return rc;
    }
    if (w->a == 0) {
        sqlite3_bind_int64(b->q[Q_UNRETAIN], 1, t->now.id);
        return buslog_step(b, Q_UNRETAIN, err);
    }
    sqlite3_bind_int64(b->q[Q_RETAIN], 1, t->now.id);
    sqlite3_bind_int64(b->q[Q_RETAIN], 2, key(t, w->a));
    sqlite3_bind_int64(b->q[Q_RETAIN], 3, (int64_t)w->a);
    return buslog_step(b, Q_RETAIN, err);
}

static int done(struct cule_buslog *b, const struct buslog_work *w, struct cule_err *err)
{
    struct buslog_topic *t;
    int rc = topic_row(b, w->topic, w->topic_len, &t, err);
    if (rc) {
        return rc;
    }
    bool beyond = w->a > w->b;
    enum buslog_sql q = beyond ? Q_DONE : Q_FLOOR;
    bind_text(b->q[q], 1, w->name, strlen(w->name));
    sqlite3_bind_int64(b->q[q], 2, t->now.id);
    sqlite3_bind_int64(b->q[q], 3, (int64_t)(beyond ? w->a : w->b));
    rc = buslog_step(b, q, err);
    if (!rc && !beyond && w->b > w->a) { /* it took some with it that were noted one by one */
        bind_text(b->q[Q_UNDONE], 1, w->name, strlen(w->name));
        sqlite3_bind_int64(b->q[Q_UNDONE], 2, t->now.id);
        sqlite3_bind_int64(b->q[Q_UNDONE], 3, (int64_t)w->b);
        rc = buslog_step(b, Q_UNDONE, err);
    }
    return rc;
}

static int define(struct cule_buslog *b, const struct buslog_work *w, struct cule_err *err)
{
    enum buslog_sql q = w->has_json ? Q_DEFINE : Q_FORGET;
    bind_text(b->q[q], 1, w->name, strlen(w->name));
    if (w->has_json) {
        bind_text(b->q[q], 2, w->json, w->json_len);
    }
    return buslog_step(b, q, err);
}

int buslog_do(struct cule_buslog *b, struct buslog_work *w, struct cule_err *err)
{
    switch (w->kind) {
    case W_APPEND: return append(b, w, err);
    case W_RETAIN: return retain(b, w, err);
    case W_TRIM: return trim(b, w, err);
    case W_DONE: return done(b, w, err);
    case W_DEFINE: return define(b, w, err);
    case W_PROBE: return buslog_step(b, Q_PROBE, err);
    case W_LOAD: break;
    }
    return 0;
}

int buslog_flush_topics(struct cule_buslog *b, struct cule_err *err)
{
    int rc = 0;
    CULE_LIST_EACH (n, &b->dirty) {
        struct buslog_topic *t = CULE_LIST_ENTRY(n, struct buslog_topic, dirty);
        sqlite3_stmt *q = b->q[Q_TOPIC_SET];
        sqlite3_bind_int64(q, 1, t->now.id);
        sqlite3_bind_int64(q, 2, (int64_t)t->now.first);
        sqlite3_bind_int64(q, 3, (int64_t)t->now.last);
        sqlite3_bind_int64(q, 4, (int64_t)t->now.bytes);
        rc = rc ? rc : buslog_step(b, Q_TOPIC_SET, err);
    }
    return rc;
}

void buslog_topics_committed(struct cule_buslog *b, bool committed)
{
    struct cule_list *n;
    while ((n = cule_list_pop(&b->dirty))) {
        struct buslog_topic *t = CULE_LIST_ENTRY(n, struct buslog_topic, dirty);
        if (committed) {
            t->committed = t->now;
        } else {
            t->now = t->committed;
        }
    }
}

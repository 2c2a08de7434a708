/* The bus's store: the queue of work, the thread that does it in transactions, and the answers. */
#include "store/buslog.h"

#include "store/buslog_impl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char schema_sql[] =
    "CREATE TABLE topic(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL,"
    "  last INTEGER NOT NULL, bytes INTEGER NOT NULL);"
    /* id is topic << 40 | sequence number: one B-tree, appended to at the end of each topic's range */
    "CREATE TABLE message(id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, source INTEGER NOT NULL,"
    "  priority INTEGER NOT NULL, flags INTEGER NOT NULL, payload BLOB NOT NULL);"
    "CREATE TABLE retained(topic INTEGER PRIMARY KEY REFERENCES topic(id), seq INTEGER NOT NULL,"
    "  time_ms INTEGER NOT NULL, source INTEGER NOT NULL, priority INTEGER NOT NULL, flags INTEGER NOT NULL,"
    "  payload BLOB NOT NULL);"
    "CREATE TABLE durable(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL);"
    "CREATE TABLE position(durable INTEGER NOT NULL, topic INTEGER NOT NULL, floor INTEGER NOT NULL,"
    "  PRIMARY KEY(durable, topic)) WITHOUT ROWID;"
    "CREATE TABLE done(durable INTEGER NOT NULL, topic INTEGER NOT NULL, seq INTEGER NOT NULL,"
    "  PRIMARY KEY(durable, topic, seq)) WITHOUT ROWID;"
    "CREATE TRIGGER forget AFTER DELETE ON durable BEGIN DELETE FROM position WHERE durable = old.id;"
    "  DELETE FROM done WHERE durable = old.id; END;"
    "CREATE TABLE probe(n INTEGER NOT NULL, pad BLOB); INSERT INTO probe VALUES(0, NULL);"
    "CREATE VIEW messages AS SELECT t.name AS topic, m.id & 1099511627775 AS seq, m.time_ms, m.source, m.priority,"
    "  m.flags, m.payload FROM message m JOIN topic t ON t.id = m.id >> 40;";

static const struct cule_store_schema schema = {
    .what = "a store of a cule-ipc bus",
    .application_id = 0x43554c42, /* CULB */
    .version = 1,
    .sql = schema_sql,
};

int cule_buslog_open(struct cule_buslog **out, const char *path, const struct cule_buslog_opts *o, struct cule_err *err)
{
    struct cule_buslog *b = calloc(1, sizeof *b);
    if (!b) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    b->o = *o;
    b->o.queue_count = o->queue_count ? o->queue_count : 65536;
    b->o.queue_bytes = o->queue_bytes ? o->queue_bytes : 64u * 1024 * 1024;
    cule_strmap_init(&b->topics, 0);
    cule_list_init(&b->dirty);
    cule_list_init(&b->queue);
    cule_list_init(&b->answers);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->more, NULL);
    int rc = cule_store_open(&b->store, path, &schema, err);
    rc = rc ? rc : buslog_prepare(b, err);
    if (rc) {
        cule_buslog_close(b);
        return rc;
    }
    *out = b;
    return 0;
}

/* --- queueing --- */

static struct buslog_work *work_new(enum buslog_kind kind, uint64_t token, const char *topic, size_t tn,
                                    const char *name, const char *json, size_t jn)
{
    size_t nn = name ? strlen(name) : 0;
    struct buslog_work *w = calloc(1, sizeof *w + tn + nn + jn + 3);
    if (!w) {
        return NULL;
    }
    w->kind = kind;
    w->token = token;
    w->topic = w->text;
    w->topic_len = tn;
    w->name = w->topic + tn + 1;
    w->json = w->name + nn + 1;
    w->json_len = jn;
    w->has_json = json != NULL;
    memcpy(w->topic, topic ? topic : "", tn);
    memcpy(w->name, name ? name : "", nn);
    if (jn) {
        memcpy(w->json, json, jn);
    }
    cule_buf_init(&w->loaded, 0);
    return w;
}

static void work_free(struct buslog_work *w)
{
    cule_buf_release(&w->loaded);
    free(w);
}

/* `bounded`: refused when the queue is full. Work without an answer follows from work that has one. */
static int put(struct cule_buslog *b, struct buslog_work *w, bool bounded)
{
    if (!w) {
        return CULE_ENOMEM;
    }
    pthread_mutex_lock(&b->lock);
    bool full = b->queued >= b->o.queue_count || (b->queued && b->queued_bytes + w->r.len > b->o.queue_bytes);
    if (bounded && full) {
        pthread_mutex_unlock(&b->lock);
        work_free(w);
        return CULE_EAGAIN;
    }
    bool wake = cule_list_empty(&b->queue);
    cule_list_push(&b->queue, &w->node);
    b->queued++;
    b->queued_bytes += w->r.len;
    b->stats.pending++;
    if (wake) {
        pthread_cond_signal(&b->more);
    }
    pthread_mutex_unlock(&b->lock);
    return 0;
}

int cule_buslog_append(struct cule_buslog *b, uint64_t token, const struct cule_buslog_record *r)
{
    struct buslog_work *w = work_new(W_APPEND, token, r->topic, r->topic_len, NULL, NULL, 0);
    if (w) {
        w->r = *r;
    }
    return put(b, w, true);
}

int cule_buslog_load(struct cule_buslog *b, uint64_t token, const char *topic, size_t n, uint64_t from, uint32_t count)
{
    struct buslog_work *w = work_new(W_LOAD, token, topic, n, NULL, NULL, 0);
    if (w) {
        w->a = from;
        w->b = count;
    }
    return put(b, w, true);
}

int cule_buslog_retain(struct cule_buslog *b, const char *topic, size_t n, uint64_t seq)
{
    struct buslog_work *w = work_new(W_RETAIN, 0, topic, n, NULL, NULL, 0);
    if (w) {
        w->a = seq;
    }
    return put(b, w, false);
}

int cule_buslog_trim(struct cule_buslog *b, const char *topic, size_t n, uint64_t messages, uint64_t bytes,
                     uint64_t before_ms)
{
    struct buslog_work *w = work_new(W_TRIM, 0, topic, n, NULL, NULL, 0);
    if (w) {
        w->a = messages;
        w->b = bytes;
        w->c = before_ms;
    }
    return put(b, w, false);
}

int cule_buslog_done(struct cule_buslog *b, const char *durable, const char *topic, size_t n, uint64_t seq,
                     uint64_t floor)
{
    struct buslog_work *w = work_new(W_DONE, 0, topic, n, durable, NULL, 0);
    if (w) {
        w->a = seq;
        w->b = floor;
    }
    return put(b, w, false);
}

int cule_buslog_define(struct cule_buslog *b, const char *durable, const char *json, size_t n)
{
    return put(b, work_new(W_DEFINE, 0, NULL, 0, durable, json, n), false);
}

int cule_buslog_probe(struct cule_buslog *b)
{
    return put(b, work_new(W_PROBE, 0, NULL, 0, NULL, NULL, 0), false);
}

/* --- the thread --- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail_all(struct cule_buslog *b, struct cule_list *batch, int code)
{
    CULE_LIST_EACH (n, batch) {
        CULE_LIST_ENTRY(n, struct buslog_work, node)->code = code;
    }
    pthread_mutex_lock(&b->lock);
    memcpy(b->text, b->why.text, sizeof b->text);
    b->stats.failures++;
    pthread_mutex_unlock(&b->lock);
}

/* All of a batch in one transaction: all of it is on disk afterwards, or nothing. */
static void commit(struct cule_buslog *b, struct cule_list *batch, bool probe)
{
    if (b->failed && !probe) {
        fail_all(b, batch, b->why.code);
        return;
    }
    int rc = buslog_step(b, Q_BEGIN, &b->why);
    CULE_LIST_EACH (n, batch) {
        rc = rc ? rc : buslog_do(b, CULE_LIST_ENTRY(n, struct buslog_work, node), &b->why);
    }
    rc = rc ? rc : buslog_flush_topics(b, &b->why);
    rc = rc ? rc : buslog_step(b, Q_COMMIT, &b->why);
    buslog_topics_committed(b, rc == 0);
    b->failed = rc != 0;
    if (rc) {
        if (!sqlite3_get_autocommit(b->store.db)) {
            buslog_step(b, Q_ROLLBACK, NULL);
        }
        b->why.code = rc;
        fail_all(b, batch, rc);
    }
}

/* Takes what may go in one transaction: up to a bound, a load or a probe alone. */
static unsigned take(struct cule_buslog *b, struct cule_list *batch, bool *alone)
{
    unsigned n = 0;
    size_t bytes = 0;
    *alone = false;
    while (!cule_list_empty(&b->queue) && n < BUSLOG_BATCH_COUNT && bytes < BUSLOG_BATCH_BYTES) {
        struct buslog_work *w = CULE_LIST_ENTRY(b->queue.next, struct buslog_work, node);
        bool single = w->kind == W_LOAD || w->kind == W_PROBE;
        if (single && n) {
            break;
        }
        cule_list_remove(&w->node);
        cule_list_push(batch, &w->node);
        b->queued--;
        b->queued_bytes -= w->r.len;
        bytes += w->r.len;
        n++;
        if (single) {
            *alone = true;
            break;
        }
    }
    return n;
}

static void answer(struct cule_buslog *b, struct cule_list *batch, unsigned n, uint64_t took_ns)
{
    struct cule_list *k;
    bool some = false;
    pthread_mutex_lock(&b->lock);
    b->stats.commits++;
    b->stats.batch_max = CULE_MAX(b->stats.batch_max, (uint64_t)n);
    b->stats.commit_ns_max = CULE_MAX(b->stats.commit_ns_max, took_ns);
    b->stats.commit_ns_sum += took_ns;
    b->stats.pending -= n;
    while ((k = cule_list_pop(batch))) {
        struct buslog_work *w = CULE_LIST_ENTRY(k, struct buslog_work, node);
        bool wants = w->kind == W_APPEND || w->kind == W_LOAD || w->kind == W_PROBE || (w->first && !w->code);
        b->stats.appends += w->kind == W_APPEND && !w->code;
        if (wants) {
            cule_list_push(&b->answers, &w->node);
            some = true;
        } else {
            work_free(w);
        }
    }
    pthread_mutex_unlock(&b->lock);
    if (some && b->o.wake) {
        b->o.wake(b->o.ctx);
    }
}

static void *work(void *arg)
{
    struct cule_buslog *b = arg;
    struct cule_list batch;
    cule_list_init(&batch);
    for (;;) {
        bool alone;
        pthread_mutex_lock(&b->lock);
        while (cule_list_empty(&b->queue) && !b->stop) {
            pthread_cond_wait(&b->more, &b->lock);
        }
        unsigned n = take(b, &batch, &alone);
        pthread_mutex_unlock(&b->lock);
        if (n == 0) {
            return NULL;
        }
        uint64_t start = now_ns();
        struct buslog_work *first = CULE_LIST_ENTRY(batch.next, struct buslog_work, node);
        if (alone && first->kind == W_LOAD) {
            first->code = buslog_do_load(b, first, &b->why);
        } else {
            commit(b, &batch, alone);
        }
        answer(b, &batch, n, now_ns() - start);
    }
}

int cule_buslog_start(struct cule_buslog *b, struct cule_err *err)
{
    sigset_t all;
    sigset_t was;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &was); /* signals are for the loop's thread */
    int rc = pthread_create(&b->thread, NULL, work, b);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (rc) {
        return cule_err_sys(err, CULE_ENOMEM, rc, "cannot start the store's thread");
    }
    b->running = true;
    return 0;
}

/* --- answers --- */

static void give_loaded(const struct cule_buslog_answers *a, void *ctx, struct buslog_work *w)
{
    struct cule_buslog_record *r = w->nloaded ? calloc(w->nloaded, sizeof *r) : NULL;
    const uint8_t *p = w->nloaded ? cule_buf_data(&w->loaded) : NULL;
    int code = w->code ? w->code : w->nloaded && !r ? CULE_ENOMEM : 0;
    for (uint32_t i = 0; r && i < w->nloaded; i++) {
        struct buslog_head h;
        memcpy(&h, p, sizeof h);
        r[i] = (struct cule_buslog_record){
            .topic = w->topic,
            .topic_len = w->topic_len,
            .seq = h.seq,
            .wall_ms = h.wall_ms,
            .source = h.source,
            .flags = h.flags,
            .priority = h.priority,
            .payload = p + sizeof h,
            .len = h.len,
        };
        p += sizeof h + h.len;
    }
    a->loaded(ctx, w->token, r, code ? 0 : w->nloaded, code);
    free(r);
}

void cule_buslog_poll(struct cule_buslog *b, const struct cule_buslog_answers *a, void *ctx)
{
    struct cule_list mine;
    struct cule_list *n;
    char text[CULE_ERR_TEXT_MAX];
    cule_list_init(&mine);
    pthread_mutex_lock(&b->lock);
    while ((n = cule_list_pop(&b->answers))) {
        cule_list_push(&mine, n);
    }
    memcpy(text, b->text, sizeof text);
    pthread_mutex_unlock(&b->lock);
    while ((n = cule_list_pop(&mine))) {
        struct buslog_work *w = CULE_LIST_ENTRY(n, struct buslog_work, node);
        if (w->kind == W_LOAD) {
            give_loaded(a, ctx, w);
        } else if (w->kind == W_TRIM) {
            a->trimmed(ctx, w->topic, w->topic_len, w->first);
        } else {
            a->stored(ctx, w->token, w->code, w->code ? text : "");
        }
        work_free(w);
    }
}

void cule_buslog_stats(struct cule_buslog *b, struct cule_buslog_stats *out)
{
    pthread_mutex_lock(&b->lock);
    *out = b->stats;
    pthread_mutex_unlock(&b->lock);
}

/* --- beginning and end --- */

static int visit_topics(struct cule_buslog *b, const struct cule_buslog_visitor *v, void *ctx, struct cule_err *err)
{
    sqlite3_stmt *q;
    int rc = cule_store_prepare(&b->store, &q, "SELECT name, id, first, last, bytes FROM topic ORDER BY id", err);
    while (!rc && sqlite3_step(q) == SQLITE_ROW) {
        struct buslog_topic *t;
        const char *name = (const char *)sqlite3_column_text(q, 0);
        size_t n = (size_t)sqlite3_column_bytes(q, 0);
        rc = buslog_topic_get(b, name, n, &t);
        if (!rc) {
            t->now = (struct buslog_extent){
                .id = sqlite3_column_int64(q, 1),
                .first = (uint64_t)sqlite3_column_int64(q, 2),
                .last = (uint64_t)sqlite3_column_int64(q, 3),
                .bytes = (uint64_t)sqlite3_column_int64(q, 4),
            };
            t->committed = t->now;
            rc = v->topic(ctx, t->name, n, t->now.first <= t->now.last ? t->now.first : 0, t->now.last);
        }
    }
    sqlite3_finalize(q);
    return rc;
}

static int visit_retained(struct cule_buslog *b, const struct cule_buslog_visitor *v, void *ctx, struct cule_err *err)
{
    sqlite3_stmt *q;
    int rc = cule_store_prepare(&b->store, &q,
                                "SELECT t.name, r.seq, r.time_ms, r.source, r.priority, r.flags, r.payload "
                                "FROM retained r JOIN topic t ON t.id = r.topic ORDER BY t.id",
                                err);
    while (!rc && sqlite3_step(q) == SQLITE_ROW) {
        struct cule_buslog_record r = {
            .topic = (const char *)sqlite3_column_text(q, 0),
            .topic_len = (size_t)sqlite3_column_bytes(q, 0),
            .seq = (uint64_t)sqlite3_column_int64(q, 1),
            .wall_ms = (uint64_t)sqlite3_column_int64(q, 2),
            .source = (uint32_t)sqlite3_column_int64(q, 3),
            .priority = (uint8_t)sqlite3_column_int(q, 4),
            .flags = (uint16_t)sqlite3_column_int(q, 5),
            .payload = sqlite3_column_blob(q, 6),
            .len = (size_t)sqlite3_column_bytes(q, 6),
        };
        rc = v->retained(ctx, &r);
    }
    sqlite3_finalize(q);
    return rc;
}

static int visit_durables(struct cule_buslog *b, const struct cule_buslog_visitor *v, void *ctx, struct cule_err *err)
{
    sqlite3_stmt *q;
    int rc = cule_store_prepare(&b->store, &q, "SELECT name, definition FROM durable ORDER BY id", err);
    while (!rc && sqlite3_step(q) == SQLITE_ROW) {
        rc = v->durable(ctx, (const char *)sqlite3_column_text(q, 0), (const char *)sqlite3_column_text(q, 1),
                        (size_t)sqlite3_column_bytes(q, 1));
    }
    sqlite3_finalize(q);
    return rc;
}

static int visit_done(struct cule_buslog *b, const struct cule_buslog_visitor *v, void *ctx, struct cule_err *err)
{
    sqlite3_stmt *q;
    int rc = cule_store_prepare(&b->store, &q,
                                "SELECT d.name, t.name, p.floor, 1 FROM position p JOIN durable d ON d.id = p.durable "
                                "JOIN topic t ON t.id = p.topic UNION ALL "
                                "SELECT d.name, t.name, n.seq, 0 FROM done n JOIN durable d ON d.id = n.durable "
                                "JOIN topic t ON t.id = n.topic ORDER BY 4 DESC, 3",
                                err);
    while (!rc && sqlite3_step(q) == SQLITE_ROW) {
        rc = v->done(ctx, (const char *)sqlite3_column_text(q, 0), (const char *)sqlite3_column_text(q, 1),
                     (size_t)sqlite3_column_bytes(q, 1), (uint64_t)sqlite3_column_int64(q, 2),
                     sqlite3_column_int(q, 3) != 0);
    }
    sqlite3_finalize(q);
    return rc;
}

int cule_buslog_visit(struct cule_buslog *b, const struct cule_buslog_visitor *v, void *ctx, struct cule_err *err)
{
    int rc = visit_topics(b, v, ctx, err);
    rc = rc ? rc : visit_retained(b, v, ctx, err);
    rc = rc ? rc : visit_durables(b, v, ctx, err);
    return rc ? rc : visit_done(b, v, ctx, err);
}

void cule_buslog_close(struct cule_buslog *b)
{
    if (!b) {
        return;
    }
    if (b->running) {
        pthread_mutex_lock(&b->lock);
        b->stop = true;
        pthread_cond_signal(&b->more);
        pthread_mutex_unlock(&b->lock);
        pthread_join(b->thread, NULL);
    }
    struct cule_list *lists[] = {&b->queue, &b->answers};
    for (size_t i = 0; i < CULE_COUNT(lists); i++) {
        struct cule_list *n;
        while ((n = cule_list_pop(lists[i]))) {
            work_free(CULE_LIST_ENTRY(n, struct buslog_work, node));
        }
    }
    struct buslog_topic *t;
    for (size_t at = 0; (t = cule_strmap_next(&b->topics, &at));) {
        free(t);
    }
    cule_strmap_release(&b->topics);
    buslog_finalize(b);
    cule_store_close(&b->store);
    pthread_cond_destroy(&b->more);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* Between the files of the bus's store: its work and its tables. */
#ifndef CULE_STORE_BUSLOG_IMPL_H
#define CULE_STORE_BUSLOG_IMPL_H

#include "base/buf.h"
#include "base/list.h"
#include "base/strmap.h"
#include "store/buslog.h"
#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>

enum buslog_kind { W_APPEND, W_LOAD, W_RETAIN, W_TRIM, W_DONE, W_DEFINE, W_PROBE };

enum {
    BUSLOG_SEQ_BITS = 40,
    BUSLOG_TOPICS_MAX = 1 << 22,
    BUSLOG_BATCH_COUNT = 16384,
    BUSLOG_BATCH_BYTES = 16 * 1024 * 1024,
    BUSLOG_LOAD_BYTES = 1024 * 1024,
    BUSLOG_TRIM_ROWS = 4096, /* looked at by one trim */
};

struct buslog_work {
    struct cule_list node;
    enum buslog_kind kind;
    uint64_t token;
    uint64_t a, b, c; /* load: from, count; retain: seq; trim: messages, bytes, before_ms; done: seq, floor */
    struct cule_buslog_record r; /* append */
    int code;
    uint64_t first;         /* trim: what is left begins there; 0: nothing was removed */
    struct cule_buf loaded; /* records, each a struct loaded_head and its payload */
    uint32_t nloaded;
    size_t topic_len, json_len;
    bool has_json;
    char *topic, *name, *json; /* in text */
    char text[];
};

struct buslog_head {
    uint64_t seq, wall_ms;
    uint32_t source, len;
    uint16_t flags;
    uint8_t priority;
};

/* What the thread knows of a topic: as it is in the open transaction, and as it was last committed. */
struct buslog_extent {
    int64_t id; /* 0: no row yet */
    uint64_t first, last, bytes;
};
struct buslog_topic {
    struct cule_list dirty;
    struct buslog_extent now, committed;
    size_t len;
    char name[];
};

enum buslog_sql {
    Q_BEGIN,
    Q_COMMIT,
    Q_ROLLBACK,
    Q_TOPIC_NEW,
    Q_TOPIC_SET,
    Q_APPEND,
    Q_LOAD,
    Q_LOOK,
    Q_DELETE,
    Q_RETAIN,
    Q_UNRETAIN,
    Q_FLOOR,
    Q_DONE,
    Q_UNDONE,
    Q_DEFINE,
    Q_FORGET,
    Q_PROBE,
    Q_COUNT,
};

struct cule_buslog {
    struct cule_store store;
    sqlite3_stmt *q[Q_COUNT];
    struct cule_strmap topics;
    struct cule_list dirty;
    struct cule_buslog_opts o;
    bool running;
    bool failed; /* thread's own: everything fails until a probe succeeds */
    struct cule_err why;
    pthread_t thread;
    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct cule_list queue, answers;
    uint32_t queued;
    uint64_t queued_bytes;
    bool stop;
    char text[CULE_ERR_TEXT_MAX]; /* of the last failure */
    struct cule_buslog_stats stats;
};

/* buslog_sql.c: each within the open transaction; 0 or a code with its text in *err. */
int buslog_prepare(struct cule_buslog *b, struct cule_err *err);
void buslog_finalize(struct cule_buslog *b);
int buslog_step(struct cule_buslog *b, enum buslog_sql q, struct cule_err *err);
int buslog_topic_get(struct cule_buslog *b, const char *name, size_t n, struct buslog_topic **out);
int buslog_do(struct cule_buslog *b, struct buslog_work *w, struct cule_err *err);
int buslog_flush_topics(struct cule_buslog *b, struct cule_err *err);
void buslog_topics_committed(struct cule_buslog *b, bool committed);
int buslog_do_load(struct cule_buslog *b, struct buslog_work *w, struct cule_err *err);

#endif

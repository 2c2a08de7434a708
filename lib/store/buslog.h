/*
 * What a bus keeps on disk: the messages of topics, retained messages, durable groups and how far they are.
 *
 * Calls put work into a queue and return; a thread does it in their order and gathers what has come meanwhile into one
 * transaction (group commit), so that callers never wait for a disk. Its answers are fetched with cule_buslog_poll when
 * `wake` has been called (from that thread).
 *
 * Durability: an append that was answered with 0 has been committed with synchronous=FULL: it outlives a crash of the
 * process and of the machine. After a failure (disk full, I/O error) everything fails until a probe succeeds, so that
 * sequence numbers on disk have no holes.
 *
 * Numbers of one topic are stored without holes, up to 2^40; topics up to 2^22.
 */
#ifndef CULE_STORE_BUSLOG_H
#define CULE_STORE_BUSLOG_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cule_buslog;

struct cule_buslog_record {
    const char *topic;
    size_t topic_len;
    uint64_t seq;
    uint64_t wall_ms;
    uint32_t source;
    uint16_t flags;
    uint8_t priority;
    const uint8_t *payload;
    size_t len;
};

struct cule_buslog_opts {
    void (*wake)(void *ctx); /* called from the thread; answers are there */
    void *ctx;
    uint32_t queue_count; /* work that may wait; 0: 65536 */
    uint64_t queue_bytes; /* payload bytes that may wait; 0: 64 MiB */
};

/* As cule_store_open. */
int cule_buslog_open(struct cule_buslog **out, const char *path, const struct cule_buslog_opts *o,
                     struct cule_err *err);

/* What is there, before cule_buslog_start. A callback that does not return 0 ends the walk with that value. */
struct cule_buslog_visitor {
    int (*topic)(void *ctx, const char *topic, size_t n, uint64_t first, uint64_t last);
    int (*retained)(void *ctx, const struct cule_buslog_record *r);
    int (*durable)(void *ctx, const char *name, const char *json, size_t n);
    int (*done)(void *ctx, const char *durable, const char *topic, size_t n, uint64_t seq, bool floor);
};
int cule_buslog_visit(struct cule_buslog *b, const struct cule_buslog_visitor *v, void *ctx, struct cule_err *err);

/* Starts the thread. */
int cule_buslog_start(struct cule_buslog *b, struct cule_err *err);

/* token is for the answer. r's memory must stay until then. 0, CULE_EAGAIN (the queue is full), CULE_ENOMEM. */
int cule_buslog_append(struct cule_buslog *b, uint64_t token, const struct cule_buslog_record *r);
/* At most count messages with numbers from `from` on. The same answers. */
int cule_buslog_load(struct cule_buslog *b, uint64_t token, const char *topic, size_t n, uint64_t from, uint32_t count);
/* These have no answer (a trim that removed something apart). 0 or CULE_ENOMEM. */
int cule_buslog_retain(struct cule_buslog *b, const char *topic, size_t n, uint64_t seq); /* 0: none any more */
int cule_buslog_trim(struct cule_buslog *b, const char *topic, size_t n, uint64_t messages, uint64_t bytes,
                     uint64_t before_ms);
int cule_buslog_done(struct cule_buslog *b, const char *durable, const char *topic, size_t n, uint64_t seq,
                     uint64_t floor);
int cule_buslog_define(struct cule_buslog *b, const char *durable, const char *json, size_t n); /* json NULL: forget */
/* After a failure: tries a transaction; answered by stored() with token 0. */
int cule_buslog_probe(struct cule_buslog *b);

struct cule_buslog_answers {
    void (*stored)(void *ctx, uint64_t token, int code, const char *text);
    /* r and what it points to hold during the call. */
    void (*loaded)(void *ctx, uint64_t token, const struct cule_buslog_record *r, size_t n, int code);
    /* A trim removed something: what is left begins with `first`. */
    void (*trimmed)(void *ctx, const char *topic, size_t n, uint64_t first);
};
/* Delivers the answers that are there. */
void cule_buslog_poll(struct cule_buslog *b, const struct cule_buslog_answers *a, void *ctx);

struct cule_buslog_stats {
    uint64_t commits, appends, failures;
    uint64_t pending; /* work not answered yet */
    uint64_t commit_ns_max, commit_ns_sum;
    uint64_t batch_max; /* most work in one transaction */
};
void cule_buslog_stats(struct cule_buslog *b, struct cule_buslog_stats *out);

/* Does what is queued, ends the thread, closes the file. Answers that were not fetched are dropped. NULL is fine. */
void cule_buslog_close(struct cule_buslog *b);

#endif

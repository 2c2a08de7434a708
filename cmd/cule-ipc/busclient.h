/*
 * A client of the bus, for the subcommands that stay connected: connects, presents its token, subscribes, and after a
 * lost connection connects again and goes on behind the last message it saw, without gap and without double.
 *
 * What is kept for that: the last sequence number of each topic and priority (at most BUSCLIENT_POSITIONS_MAX topics;
 * what comes again on others is a double). Positions are forgotten when the broker started anew and the
 * topic is not on disk.
 *
 * Everything runs in one loop. The caller owns the client until busclient_free; callbacks may call anything here but
 * free. Strings in the options must outlive the client.
 */
#ifndef CULE_IPC_BUSCLIENT_H
#define CULE_IPC_BUSCLIENT_H

#include "common.h"
#include "io/link.h"

enum {
    BUSCLIENT_POSITIONS_MAX = 65536,
    BUSCLIENT_RETRY_MIN_MS = 50,
    BUSCLIENT_RETRY_MAX_MS = 2000,
    BUSCLIENT_ASK_MS = 30000, /* a SUBSCRIBE or AUTH that is not answered in this time ends the connection */
    BUSCLIENT_TOPIC_MAX = 255,
};

struct busclient;
struct busclient_sub;

/* Options that every bus subcommand takes; put BUS_OPTION_FIELDS in its struct and BUS_OPTION_ROWS in its table. */
struct busclient_at {
    const char *bus;
    const char *token_file;
    uint64_t wait_ms;
};
#define BUS_OPTION_FIELDS struct busclient_at at;
#define BUS_OPTION_ROWS(S)                                                                                             \
    CULE_OPT_STRING(S, at.bus, 'b', "bus", "ENDPOINT", "the bus (default: $CULE_BUS, else unix:$CULE_RUN/bus)",        \
                    .complete = CULE_COMPLETE_ENDPOINT),                                                               \
        CULE_OPT_STRING(S, at.token_file, 0, "token-file", "FILE", "present the token in FILE (default: $CULE_TOKEN)", \
                        .complete = CULE_COMPLETE_FILE),                                                               \
        IPC_WAIT_ROW(S, at.wait_ms)

/* Where the bus is, from the option, CULE_BUS or the run directory; and which token, "" for none. */
struct busclient_where {
    char endpoint[CULE_ENDPOINT_MAX];
    char token[1024];
    uint64_t wait_ms; /* how long a broker may take to come up */
};
int busclient_where(struct busclient_where *w, const struct busclient_at *at, struct cule_err *err);

/* --- one question and gone: request, list, stats, log-level --- */
/* Connects without a loop and presents the token. */
int busclient_dial(const struct busclient_where *w, uint64_t timeout_ms, struct cule_link **out, struct cule_err *err);
/* Asks on such a link: REPLY in *answer, which holds until the next call. */
int busclient_ask(struct cule_link *l, uint32_t service, uint32_t op, uint64_t arg0, const char *json,
                  uint64_t timeout_ms, struct cule_msg *answer, struct cule_err *err);

/* --- staying --- */
struct busclient_delivery {
    const char *topic; /* not ended by NUL */
    size_t topic_len;
    const uint8_t *body;
    size_t len;
    uint64_t seq;
    uint64_t number;       /* what an ack names; 0: none wanted */
    uint64_t subscription; /* 0 for plain subscriptions */
    uint32_t source;
    uint8_t priority;
    bool retained;
    bool redelivered;
    struct cule_msg *msg; /* all of it */
};

struct busclient_ops {
    /* Connected, and every subscription is in place; also after each reconnect. May be NULL. */
    void (*up)(void *ctx);
    /* A message of a subscription. May be NULL where nothing is subscribed. */
    void (*deliver)(void *ctx, const struct busclient_delivery *d);
    /* A request for a responder subscription: answer by d->msg->h.id with cule_link_reply or cule_link_error. */
    void (*request)(void *ctx, const struct busclient_delivery *d);
    /* CANCEL of such a request, DATA of its stream. May be NULL. */
    void (*other)(void *ctx, struct cule_msg *m);
    /* As link.h has it. May be NULL. */
    void (*writable)(void *ctx, uint64_t id);
    /* The connection is gone and will be tried again. May be NULL. */
    void (*down)(void *ctx, const struct cule_err *why);
    /* The end: not reached the first time, refused, or gone without --reconnect. Also the answer to busclient_close,
     * then with why->code 0. */
    void (*over)(void *ctx, const struct cule_err *why);
};

struct busclient_opts {
    const struct busclient_where *where;
    const char *name; /* in our HELLO: "cule-ipc sub" */
    const struct busclient_ops *ops;
    void *ctx;
    bool reconnect;
    bool manual_credit;
    uint64_t connect_timeout_ms;
    uint64_t window_bytes;
    uint32_t window_frames;
    uint64_t queue_bytes;
};

struct busclient_subscribe {
    const char *pattern;
    const char *group; /* NULL: none */
    const char *durable;
    const char *overflow;
    bool ack;
    bool respond;
    bool no_retained;
    uint64_t ack_wait_ms; /* 0: the broker's default, here and below */
    uint64_t max_deliver, max_inflight, queue, queue_bytes;
    bool has_from, has_last, has_since; /* at most one */
    uint64_t from_seq, last, since_ms;
};

int busclient_new(struct cule_loop *loop, const struct busclient_opts *o, struct busclient **out, struct cule_err *err);
void busclient_free(struct busclient *c);

/* Adds a subscription, before busclient_start. */
int busclient_subscribe(struct busclient *c, const struct busclient_subscribe *s, struct cule_err *err);
int busclient_start(struct busclient *c, struct cule_err *err);

/* The link, or NULL while there is no connection. */
struct cule_link *busclient_link(const struct busclient *c);
/* For a message that was acknowledged: ACK or NACK (json may be NULL). Harmless when the connection it came by is
 * gone; epoch is busclient_epoch() at the time of the delivery. */
void busclient_ack(struct busclient *c, uint64_t epoch, uint64_t subscription, uint64_t number);
void busclient_nack(struct busclient *c, uint64_t epoch, uint64_t subscription, uint64_t number, const char *json);
uint64_t busclient_epoch(const struct busclient *c); /* counts connections */
bool busclient_is_up(const struct busclient *c);

/* A message was dealt with (manual_credit): its bytes and one frame; the link sees to the frames before its last. */
void busclient_consumed(struct busclient *c, const struct busclient_delivery *d);

/* Tells the broker that nothing more is wanted, on this connection, and makes its loss the end: what is under way can
 * be finished. */
void busclient_unsubscribe(struct busclient *c);
/* Ends: unsubscribes nothing, flushes, says BYE; `over` follows. No reconnect any more. */
void busclient_close(struct busclient *c);

struct busclient_stats {
    uint64_t connects, delivered, doubles; /* doubles: dropped because they had been seen */
};
struct busclient_stats busclient_stats(const struct busclient *c);

/* --- small things --- */
/* 0, or CULE_EUSAGE: a topic one may publish to; a pattern. */
int busclient_check_topic(const char *topic, struct cule_err *err);
int busclient_check_pattern(const char *pattern, struct cule_err *err);
bool busclient_has_wildcard(const char *pattern);
/* Topic and body of a PUBLISH, DELIVER or REQUEST; false when the topic's length does not hold. */
bool busclient_split(struct cule_msg *m, struct busclient_delivery *d);
/* A payload made of topic and body, in *out (cleared first). */
int busclient_join(struct cule_buf *out, const char *topic, size_t topic_len, const void *body, size_t n);

/* Last-seen table, for tests. */
struct busclient_seen;
struct busclient_seen *busclient_seen_new(size_t topics_max);
void busclient_seen_free(struct busclient_seen *t);
/* True if (topic, priority, seq) is newer than all seen of that topic and priority, and notes it. */
bool busclient_seen_note(struct busclient_seen *t, const char *topic, size_t n, unsigned priority, uint64_t seq);
/* The position from which to resume a topic: 0 where it was not seen. */
uint64_t busclient_seen_position(const struct busclient_seen *t, const char *topic, size_t n);
uint64_t busclient_seen_newest(const struct busclient_seen *t, const char *topic, size_t n);
void busclient_seen_forget(struct busclient_seen *t, const char *topic, size_t n);
void busclient_seen_walk(const struct busclient_seen *t, void (*fn)(void *ctx, const char *topic, size_t n), void *ctx);
void busclient_seen_clear(struct busclient_seen *t);
/* Appends {"topic":seq,...}, the positions of topics that a pattern matches; CULE_ELIMIT beyond max bytes. */
int busclient_seen_json(const struct busclient_seen *t, const char *pattern, size_t max, struct cule_buf *out);
/* As the broker matches: "+" one level, a last "#" any number of levels, "$..." only by patterns that begin so. */
bool busclient_matches(const char *pattern, const char *topic, size_t n);

#endif

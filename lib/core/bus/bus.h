/*
 * The broker, pure: messages of clients in, effects out. No clock, no descriptors, no randomness: the caller tells the
 * time with each call (nanoseconds of a monotonic clock that never runs backwards; cule_bus_set_wall says how far it is
 * from the epoch), and everything that happens outside goes through a table of functions, which must not call back into
 * the bus. The protocol is cule-ipc(1)'s, section BUS PROTOCOL; the frames are cule-frame(5)'s.
 *
 * Ownership: the bus owns clients, subscriptions, topics and messages. `peer` is the caller's pointer for a client and
 * is only ever handed back. Messages passed in are read and not kept. Not thread-safe.
 */
#ifndef CULE_CORE_BUS_BUS_H
#define CULE_CORE_BUS_BUS_H

#include "base/buf.h"
#include "wire/message.h"
#include "wire/ops.h"

struct cule_bus;
struct cule_bus_client;

/* What happens to a message for a subscription whose queue is full. */
enum cule_bus_overflow {
    CULE_BUS_OVERFLOW_UNSET,
    CULE_BUS_DROP_OLDEST, /* the oldest of the least important ones that wait goes */
    CULE_BUS_DROP_NEWEST, /* the new one goes */
    CULE_BUS_DISCONNECT,  /* the slow client goes */
    CULE_BUS_BLOCK,       /* the publisher waits */
};

/* What a publisher's REPLY vouches for. */
enum cule_bus_durability {
    CULE_BUS_DURABILITY_UNSET,
    CULE_BUS_NONE,   /* nothing: no history, no retained message */
    CULE_BUS_MEMORY, /* it is in the broker's memory */
    CULE_BUS_DISK,   /* it is on disk, synchronised; nobody is sent a message before that either */
};

struct cule_bus_identity {
    bool has_cred; /* pid, uid, gid are the kernel's word */
    uint32_t pid, uid, gid;
    const char *name;      /* the peer's own word, from its HELLO */
    const char *transport; /* "unix", ... */
    const char *address;
    const char *cert; /* name in a verified certificate, or "" */
};

/* 0 means without limit, unless said otherwise. */
struct cule_bus_limits {
    uint32_t clients;
    uint32_t topics; /* default 100000; idle ones make room first */
    uint64_t rate;   /* messages per second of one client, and of all clients of a uid */
    uint64_t uid_rate;
    uint32_t subscriptions; /* of one client; of a uid */
    uint32_t uid_subscriptions;
    uint64_t queue_bytes; /* waiting for one client; for a uid */
    uint64_t uid_queue_bytes;
    uint32_t uid_clients;
    uint64_t memory;           /* all messages that the bus holds; default 1 GiB */
    uint32_t queue_messages;   /* of a subscription that does not say; default 1024 */
    uint64_t queue_bytes_each; /* the same, bytes; default 8 MiB */
    uint64_t slow_ns;          /* a message older than that makes a slow handler; default 1 s */
    uint32_t requests;         /* requests under way or waiting for a responder, all clients; default 65536 */
};

/* A message as the store gets it and gives it back. payload: trace prefix where flagged, topic, body. */
struct cule_bus_record {
    const char *topic;
    size_t topic_len;
    uint64_t seq;
    uint64_t wall_ms;
    uint32_t source;
    uint16_t flags; /* CULE_TRACE, CULE_RETAIN */
    uint8_t priority;
    const uint8_t *payload;
    size_t len;
};

/* How much of a topic is kept; 0: that measure does not bound it. */
struct cule_bus_keep {
    uint64_t messages;
    uint64_t bytes;
    uint64_t age_ms;
};

enum cule_bus_log { CULE_BUS_LOG_ERROR, CULE_BUS_LOG_WARNING, CULE_BUS_LOG_INFO };

struct cule_bus_effects {
    /* Whole frames, encoded, of one priority. 0, CULE_EAGAIN (cule_bus_writable will be called), or the link is gone.
     */
    int (*deliver)(void *ctx, void *peer, unsigned priority, const void *frames, size_t n, unsigned count);
    /* A message as it stands; the same answers. */
    int (*send)(void *ctx, void *peer, const struct cule_msg *m);
    /* Terminal answers to the peer's request, and the opening one of a stream. CULE_EAGAIN: not now. */
    int (*reply)(void *ctx, void *peer, uint64_t id, bool open, uint64_t arg0, uint64_t arg1, const void *body,
                 size_t n);
    void (*error)(void *ctx, void *peer, uint64_t id, int code, uint64_t detail, const char *text);
    /* More of a stream, either side's. CULE_EAGAIN: cule_bus_writable with that id will be called. */
    int (*data)(void *ctx, void *peer, uint64_t id, uint16_t flags, const void *body, size_t n, bool last);
    /* Passes a request on; its answers come to cule_bus_answer under `route`. */
    int (*call)(void *ctx, void *peer, struct cule_msg *m, uint64_t route, uint64_t *id);
    void (*cancel)(void *ctx, void *peer, uint64_t id);
    /* Credit: what came from the peer has been dealt with. id 0: of the link at that priority, else of a stream. */
    void (*consumed)(void *ctx, void *peer, unsigned priority, uint64_t id, uint32_t frames, uint64_t bytes);
    void (*disconnect)(void *ctx, void *peer, const struct cule_err *why);
    /* SHA-256, for tokens. */
    void (*hash)(void *ctx, const void *p, size_t n, uint8_t out[32]);
    /* The store, all NULL without one. It works in the order of the calls. append: r's memory stays until
     * cule_bus_stored(token); CULE_EAGAIN: its queue is full, cule_bus_flush tries again. */
    int (*append)(void *ctx, uint64_t token, const struct cule_bus_record *r);
    /* At most `count` messages of a topic from a sequence number on; the answer is cule_bus_loaded(token). */
    int (*load)(void *ctx, uint64_t token, const char *topic, size_t n, uint64_t from, uint32_t count);
    /* A topic's retained message is that one from now on; 0: none. */
    void (*retain)(void *ctx, const char *topic, size_t n, uint64_t seq);
    void (*trim)(void *ctx, const char *topic, size_t n, const struct cule_bus_keep *keep, uint64_t wall_ms);
    /* A durable group has dealt with seq; all up to `floor` are done. */
    void (*done)(void *ctx, const char *durable, const char *topic, size_t n, uint64_t seq, uint64_t floor);
    /* Keeps a durable group's definition (JSON as in SUBSCRIBE). */
    void (*define)(void *ctx, const char *durable, const char *json, size_t n);
    /* After a failure, once everything under way has failed too: try again; the answer is cule_bus_stored(0). */
    void (*probe)(void *ctx);
    void (*log)(void *ctx, enum cule_bus_log level, const char *text);
};

struct cule_bus_config {
    const char *name; /* in INFO */
    const char *version;
    uint32_t pid;
    uint32_t uid;       /* the broker's own: may always configure unless an ACL says else */
    unsigned log_level; /* at first: 0 error to 4 trace; LOG_SET changes it */
    uint64_t epoch;     /* tells clients that come back whether this is the broker they knew */
    uint64_t seed;      /* of the hash tables: not to be guessed by clients */
    struct cule_bus_limits limits;
};

/* Fills in the defaults above. */
void cule_bus_config_init(struct cule_bus_config *c);

int cule_bus_new(struct cule_bus **out, const struct cule_bus_config *c, const struct cule_bus_effects *fx, void *ctx);
/* Clients that are still there go as if their peers had gone, effects included. NULL is fine. */
void cule_bus_free(struct cule_bus *b);

/* What to add to now_ns for nanoseconds since the epoch. */
void cule_bus_set_wall(struct cule_bus *b, uint64_t offset_ns);

/* --- set up --- */
/* "PATTERN:overflow=block,durability=disk,history=1000,history-bytes=1M,history-age=1h,max-message=64K,limit=1024". */
int cule_bus_set_topic(struct cule_bus *b, const char *spec, struct cule_err *err);
/* The text of an ACL file; NULL: everybody may do everything (configuring apart). Names the line in *err and changes
 * nothing when it does not hold. */
int cule_bus_set_acl(struct cule_bus *b, const char *text, struct cule_err *err);
/* What the store holds, before the first client: topics, retained messages, durable groups and how far they are. */
int cule_bus_restore_topic(struct cule_bus *b, const char *topic, size_t n, uint64_t first, uint64_t last);
int cule_bus_restore_retained(struct cule_bus *b, const struct cule_bus_record *r);
int cule_bus_restore_durable(struct cule_bus *b, const char *durable, const char *json, size_t n, uint64_t now_ns);
/* floor true: all up to seq are done; false: this one is, beyond the floor. */
int cule_bus_restore_done(struct cule_bus *b, const char *durable, const char *topic, size_t n, uint64_t seq,
                          bool floor);
/* Lets durable groups begin to read what they have not seen. */
void cule_bus_restored(struct cule_bus *b, uint64_t now_ns);

/* --- input --- */
/* 0 with the client, or why it is not taken (CULE_ELIMIT, CULE_EQUOTA, CULE_ENOMEM). */
int cule_bus_client_add(struct cule_bus *b, void *peer, const struct cule_bus_identity *who, uint64_t now_ns,
                        struct cule_bus_client **out, struct cule_err *err);
/* The peer has gone. Its open requests have been or will be cancelled by the effects' side in silence. */
void cule_bus_client_gone(struct cule_bus *b, struct cule_bus_client *c, uint64_t now_ns);
/* REQUEST, EVENT, DATA, CANCEL as links deliver them. Descriptors that are passed on stay the caller's. */
void cule_bus_message(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m, uint64_t now_ns);
void cule_bus_answer(struct cule_bus *b, uint64_t route, struct cule_msg *m, uint64_t now_ns);
void cule_bus_writable(struct cule_bus *b, struct cule_bus_client *c, uint64_t id, uint64_t now_ns);
/* The store's answers. token 0: a probe. Code 0 or negative with its text. */
void cule_bus_stored(struct cule_bus *b, uint64_t token, int code, const char *text, uint64_t now_ns);
/* What is left of a topic on disk after a trim begins with `first`. */
void cule_bus_trimmed(struct cule_bus *b, const char *topic, size_t n, uint64_t first);
/* Records in order of seq, fewer than asked for when there are no more. */
void cule_bus_loaded(struct cule_bus *b, uint64_t token, const struct cule_bus_record *r, size_t n, int code,
                     uint64_t now_ns);
/* Once in each turn, after its inputs: retries what waited for room. */
void cule_bus_flush(struct cule_bus *b, uint64_t now_ns);
/* Does what is due and says when it wants to be called again at the latest; UINT64_MAX: not before the next input. */
uint64_t cule_bus_tick(struct cule_bus *b, uint64_t now_ns);
/* Draining: publishes, subscriptions and requests are refused from now on; acks are still taken. */
void cule_bus_drain(struct cule_bus *b);
/* Nothing waits for a subscriber that is there, nor for the store. */
bool cule_bus_idle(const struct cule_bus *b);

/* --- to look at --- */
struct cule_bus_stats {
    uint64_t published, delivered, queued, dropped, denied, over_quota, disconnected;
    uint64_t acked, nacked, redelivered, dead, late_acks;
    uint64_t requests, answered, no_responder;
    uint64_t stored, store_failures, loaded;
    uint64_t match_builds, parked, slow;
    uint64_t critical_queued; /* critical messages that had to wait for credit or room of their own */
    uint64_t critical_passed; /* messages that went before a critical one that could have gone: 0 by design */
    uint64_t clients, topics, subscriptions, routes;
    uint64_t queued_now, queued_bytes_now; /* waiting for subscriptions */
    uint64_t held_bytes;                   /* memory in messages */
    uint64_t inflight_now, parked_now, store_pending;
    bool degraded, draining;
};
void cule_bus_stats(const struct cule_bus *b, struct cule_bus_stats *out);
unsigned cule_bus_log_level(const struct cule_bus *b);
uint32_t cule_bus_client_number(const struct cule_bus_client *c);
void *cule_bus_client_peer(const struct cule_bus_client *c);

/* Extra members for HEALTH and STATS, of whoever drives the bus: called with a buffer to append `"key":value,` to. */
void cule_bus_set_extra(struct cule_bus *b, void (*fn)(void *ctx, struct cule_buf *out));

#endif

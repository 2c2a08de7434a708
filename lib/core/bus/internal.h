/*
 * The broker's state, for the files of lib/core/bus alone.
 *
 * A publish finds its topic (one hash look-up), the topic's list of targets (kept until a subscription changes) and
 * hands one encoding of the message to each. A target is a queue with members: one for a plain subscription, several
 * for a queue group. `slow` says why a target may not be served directly; a plain one that keeps up has it 0.
 *
 *   bus ── topics (name → topic ── history, retained, matches[])
 *       ── trie / responders (pattern → target ── queue, replay, members ── subscription ── client)
 *       ── clients (number → client ── subscriptions, parked messages, account of its uid)
 *       ── routes (number → request under way: asker, responder, what waits for either)
 */
#ifndef CULE_CORE_BUS_INTERNAL_H
#define CULE_CORE_BUS_INTERNAL_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "core/bus/acl.h"
#include "core/bus/bus.h"
#include "core/bus/explain.h"
#include "core/bus/queue.h"
#include "core/bus/quota.h"
#include "core/bus/topic.h"
#include "core/bus/trie.h"
#include "wire/captable.h"

enum {
    BUS_MS = 1000000, /* nanoseconds */
    BUS_SEC = 1000000000,
    BUS_ACK_WAIT_MS = 30000, /* defaults of SUBSCRIBE */
    BUS_MAX_DELIVER = 5,
    BUS_MAX_INFLIGHT = 256,
    BUS_INFLIGHT_MAX = 65536, /* what a client may ask for */
    BUS_QUEUE_MAX = 1 << 20,
    BUS_LOAD_COUNT = 256,    /* messages asked from the store at once */
    BUS_TAIL_MESSAGES = 256, /* of a topic on disk, kept in memory for whoever catches up */
    BUS_TAIL_BYTES = 1024 * 1024,
    BUS_DEAD_HISTORY = 1000,            /* of $bus/dead/#, unless configured */
    BUS_MATCH_BYTES = 64 * 1024 * 1024, /* all cached match lists together */
    BUS_NAME_MAX = 255,
    BUS_TRIM_EVERY = 128, /* appends to a topic between two trims of its store */
    BUS_PROBE_MS = 1000,
    BUS_CAPS_MAX = 1024,  /* capabilities handed out to one client */
    BUS_RULES_MAX = 4096, /* topic rules, those of CONFIGURE included */
};

/* --- messages --- */
/* One publish, encoded as a DELIVER frame: 64 bytes of header, then trace prefix, topic and body, padded. One of more
 * than a frame's payload has no header of use and is sent in parts by the link. */
struct cule_bus_msg {
    uint32_t refs;
    uint32_t len; /* bytes behind the header, padding apart */
    size_t cap;   /* of the pool's block */
    struct cule_bus_topic *topic;
    uint64_t seq;
    uint64_t wall_ms;
    uint32_t source;
    uint16_t topic_len;
    uint16_t flags; /* CULE_TRACE, CULE_RETAIN: as published */
    uint8_t priority;
    bool single;
    uint8_t frame[] __attribute__((aligned(8)));
};

static inline const char *cule_bus_msg_topic(const struct cule_bus_msg *m)
{
    return (const char *)m->frame + CULE_HEADER_SIZE + (m->flags & CULE_TRACE ? CULE_TRACE_SIZE : 0);
}
static inline size_t cule_bus_msg_frame_len(const struct cule_bus_msg *m)
{
    return CULE_HEADER_SIZE + cule_pad8(m->len);
}
/* One reference. NULL: no memory, or the limit on it. */
struct cule_bus_msg *cule_bus_msg_new(struct cule_bus *b, struct cule_bus_topic *t, const struct cule_bus_record *r);
void cule_bus_msg_put(struct cule_bus *b, struct cule_bus_msg *m);
static inline struct cule_bus_msg *cule_bus_msg_ref(struct cule_bus_msg *m)
{
    m->refs++;
    return m;
}
/* Sets the sequence number in the struct and in the frame. */
void cule_bus_msg_seal(struct cule_bus_msg *m, uint64_t seq);
/* As a message to send: for acks, tags and replays, whose headers differ. */
struct cule_msg cule_bus_msg_view(const struct cule_bus_msg *m);

/* --- topics --- */
struct cule_bus_policy {
    enum cule_bus_overflow overflow;
    enum cule_bus_durability durability;
    struct cule_bus_keep keep; /* keep.messages 0 and nothing else set: no history */
    uint64_t max_message;
    uint32_t limit; /* messages in a subscriber's queue; 0: the bus's default */
};

struct cule_bus_targets {
    struct cule_bus_target **v;
    uint32_t n;
    uint32_t cap;
    uint64_t generation; /* of the index when it was built; 0: never */
};

struct cule_bus_history {
    struct cule_bus_msg **ring;
    uint32_t head, count, cap;
    uint64_t bytes;
};

struct cule_bus_topic {
    struct cule_list node; /* bus.topics */
    struct cule_list kept; /* bus.kept while it has history or a retained message, else empty */
    uint64_t number;       /* of the topic, never used again */
    uint64_t seq;          /* the last given out */
    uint64_t committed;    /* the last delivered: behind seq only while the store has not answered */
    uint64_t first_disk;   /* the oldest on disk as far as known; 0: none */
    struct cule_bus_targets plain;
    struct cule_bus_targets responders;
    struct cule_bus_policy policy;
    struct cule_bus_history history;
    struct cule_bus_msg *retained;
    uint64_t live;    /* messages that point here */
    uint64_t users;   /* replays and cursors that point here */
    uint64_t pending; /* appends the store has not answered */
    uint64_t published, bytes, dropped;
    uint64_t used_ns; /* last publish */
    uint64_t rate_from_ns, rate_count;
    double rate_hz; /* of the last whole second */
    uint32_t untrimmed;
    uint16_t len;
    char name[];
};

struct cule_bus_topic *cule_bus_topic_find(struct cule_bus *b, const char *name, size_t n);
/* Makes it where it is not there. 0, CULE_EMALFORMED, CULE_ELIMIT, CULE_ENOMEM. */
int cule_bus_topic_get(struct cule_bus *b, const char *name, size_t n, struct cule_bus_topic **out,
                       struct cule_err *err);
void cule_bus_topic_free(struct cule_bus *b, struct cule_bus_topic *t);
void cule_bus_topic_kept(struct cule_bus *b, struct cule_bus_topic *t);
/* The targets that take the topic, from the cache or newly looked up. */
const struct cule_bus_targets *cule_bus_topic_plain(struct cule_bus *b, struct cule_bus_topic *t);
const struct cule_bus_targets *cule_bus_topic_responders(struct cule_bus *b, struct cule_bus_topic *t);
static inline bool cule_bus_topic_on_disk(const struct cule_bus *b, const struct cule_bus_topic *t);

struct cule_bus_rule {
    struct cule_list node;
    struct cule_bus_policy policy;
    unsigned set; /* which of the policy's fields */
    size_t len;
    char pattern[];
};
void cule_bus_policy_apply(struct cule_bus *b, struct cule_bus_topic *t);
int cule_bus_policy_json(struct cule_bus *b, const char *json, size_t n, struct cule_err *err);
const char *cule_bus_overflow_name(enum cule_bus_overflow o);
const char *cule_bus_durability_name(enum cule_bus_durability d);
int cule_bus_overflow_parse(const char *s, enum cule_bus_overflow *o);

void cule_bus_history_add(struct cule_bus *b, struct cule_bus_topic *t, struct cule_bus_msg *m);
void cule_bus_history_trim(struct cule_bus *b, struct cule_bus_topic *t);
void cule_bus_history_clear(struct cule_bus *b, struct cule_bus_topic *t);
/* The message with that number, or the first one after it; NULL: none in memory. */
struct cule_bus_msg *cule_bus_history_at(const struct cule_bus_topic *t, uint64_t seq);
void cule_bus_set_retained(struct cule_bus *b, struct cule_bus_topic *t, struct cule_bus_msg *m);

/* --- subscriptions --- */
enum {                           /* target.slow: why a message may not go straight to the link */
       BUS_SLOW_QUEUE = 1 << 0,  /* the queue is not empty */
       BUS_SLOW_REPLAY = 1 << 1, /* history is being delivered */
       BUS_SLOW_KIND = 1 << 2,   /* acks, tags or a group: every delivery has its own header or member */
};

struct cule_bus_target {
    uint32_t slow;
    uint32_t max_queue;
    struct cule_bus_sub *solo; /* the only member of a plain subscription; NULL for a group */
    uint64_t delivered;
    struct cule_trie_item item;
    struct cule_bus_queue queue;
    uint64_t max_queue_bytes;
    uint64_t dropped;
    struct cule_list members; /* subs; the first is the next to be served */
    struct cule_list busy;    /* bus.busy while something waits or is unacknowledged */
    struct cule_bus_replay *replay;
    struct cule_bus_group *group; /* NULL: solo */
    char *pattern;
    uint16_t pattern_len;
    uint8_t overflow;
    bool ack;
    bool responder;
    uint8_t stuck; /* bit p: no member could take a message of priority p when last asked */
    bool slow_told;
    uint32_t inflight;
    uint32_t nmembers;
};

/* What only acknowledged targets have. */
struct cule_bus_acking {
    uint64_t ack_wait_ns;
    uint32_t max_deliver;
    uint32_t max_inflight;
    struct cule_list inflight;
    struct cule_map by_number;
    uint64_t last_number;
    uint64_t acked, redelivered;
};

struct cule_bus_group {
    struct cule_list node; /* bus.groups */
    struct cule_bus_target target;
    struct cule_bus_durable *durable; /* NULL: gone with its last member */
    uint64_t ack_wait_ns;
    uint32_t max_deliver, max_inflight;
    size_t key_len;
    char key[]; /* pattern, NUL, name, NUL */
};

/* How far a durable group is in a topic. */
struct cule_bus_cursor {
    struct cule_bus_topic *topic;
    uint64_t floor;       /* all up to it are done */
    struct cule_map done; /* numbers beyond it that are */
};

struct cule_bus_durable {
    struct cule_bus_group *group;
    struct cule_map cursors; /* topic -> cursor */
    char *json;
    char name[];
};

struct cule_bus_sub {
    struct cule_list in_client;
    struct cule_list in_target;
    struct cule_bus_client *client;
    struct cule_bus_target *target;
    struct cule_bus_acking *acking; /* NULL without acks */
    uint32_t id;
    uint32_t open_requests; /* responders */
    uint64_t last_request;
    bool tagged;
    char name[]; /* the subscriber's word for it, may be empty */
};

struct cule_bus_inflight {
    struct cule_heap_node due; /* bus.due */
    struct cule_list node;
    struct cule_bus_sub *sub;
    uint64_t number;
    struct cule_bus_entry entry;
    bool nacked; /* given back, and waits for its delay */
};

/* One topic whose history a target has not had in full. */
struct cule_bus_replay_topic {
    struct cule_list node;
    struct cule_bus_target *target;
    struct cule_bus_topic *topic;
    struct cule_bus_msg *retained; /* to be delivered first */
    uint64_t next;                 /* sequence number; 0: no history wanted, the retained message alone */
    uint64_t loading;              /* token of a load under way; 0: none */
    struct cule_bus_msg **loaded;
    uint32_t nloaded, at_loaded;
};

struct cule_bus_replay {
    struct cule_list topics;
    struct cule_map by_topic;
};

/* --- clients --- */
struct cule_bus_account { /* of a uid */
    uint32_t uid;
    uint32_t clients;
    uint32_t subscriptions;
    uint64_t queued_bytes;
    struct cule_bus_bucket bucket;
};

struct cule_bus_parked {
    struct cule_list node;
    struct cule_bus_msg *msg; /* not sealed yet */
    uint64_t id;
    uint32_t frames;
    uint64_t bytes;
};

struct cule_bus_append {
    struct cule_list node;
    struct cule_bus_msg *msg;
    uint32_t client; /* number of the publisher; 0: the bus itself */
    uint64_t id;
};

struct cule_bus_client {
    void *peer;
    uint32_t blocked; /* bit p: the link has no credit or room at priority p */
    uint32_t number;
    uint64_t delivered, delivered_bytes;
    struct cule_list node; /* bus.clients */
    struct cule_list subs;
    struct cule_list parked;
    struct cule_list waiting; /* bus.parked while there are */
    struct cule_list asked;   /* routes */
    struct cule_list answering;
    struct cule_bus_account *account;
    struct cule_bus_bucket bucket;
    uint64_t acl_topic; /* number of the last topic it was allowed to publish to */
    uint64_t acl_generation;
    struct cule_bus_who who; /* for the ACL */
    uint32_t subscriptions, last_sub;
    uint64_t published, published_bytes, dropped, queued_bytes;
    uint64_t since_ns;
    struct cule_captable *caps;           /* NULL until the first */
    struct cule_bus_bucket *rule_buckets; /* rate= of the ACL's lines, indexed by line */
    uint32_t nrule_buckets;
    uint32_t pid;
    uint32_t taps; /* taps on this client */
    bool leaving;  /* told to disconnect */
    char *name;
    const char *transport;
};

/* --- requests --- */
struct cule_bus_piece { /* of a stream or an answer that waits for room */
    struct cule_list node;
    struct cule_frame h;
    size_t len;
    uint8_t body[];
};

struct cule_bus_route {
    uint64_t number;
    struct cule_bus_client *asker;
    struct cule_bus_client *responder;
    struct cule_bus_sub *sub; /* the responder's, NULL once unsubscribed */
    struct cule_list in_asker, in_responder;
    uint64_t asker_id, responder_id;
    struct cule_list to_asker, to_responder; /* pieces */
    bool answered;                           /* the terminal answer has come and waits in to_asker */
    uint8_t key[12];
};

/* A request that no responder could take yet. */
struct cule_bus_waiting {
    struct cule_list node;
    struct cule_bus_client *asker;
    struct cule_bus_topic *topic;
    uint64_t since_ns;
    struct cule_frame h;
    size_t len;
    bool has_trace;
    uint8_t bytes[]; /* trace prefix, payload */
};

struct cule_bus_tap {
    struct cule_list node;
    struct cule_bus_client *client; /* who looks */
    uint64_t id;
    uint32_t target; /* number of the client looked at; 0: by pattern */
    uint64_t dropped;
    size_t len;
    char pattern[];
};

struct cule_bus_follow { /* an EXPLAIN that goes on */
    struct cule_list node;
    struct cule_bus_client *client;
    uint64_t id;
    uint64_t next; /* row */
    uint32_t only;
    size_t len;
    char pattern[];
};

/* --- the bus --- */
struct cule_bus {
    const struct cule_bus_effects *fx;
    void *ctx;
    uint64_t now_ns;
    uint64_t wall_offset_ns;
    struct cule_bus_config cfg;
    struct cule_strmap topics_by_name;
    struct cule_list topics, kept;
    uint64_t last_topic;
    uint64_t seq_floor; /* the highest number of any topic that was forgotten */
    struct cule_list rules;
    unsigned nrules;
    struct cule_trie trie, responders;
    uint64_t generation; /* of trie and responders */
    uint64_t match_bytes;
    struct cule_list groups;
    struct cule_strmap groups_by_key;
    struct cule_strmap durables; /* name -> durable */
    struct cule_list clients;
    struct cule_map clients_by_number, accounts;
    uint32_t last_client;
    struct cule_list parked; /* clients whose publishes wait */
    struct cule_list busy;   /* targets */
    struct cule_heap due;    /* inflight */
    struct cule_map routes;
    struct cule_strmap routes_by_asker;
    struct cule_list requests; /* struct cule_bus_waiting */
    uint32_t nwaiting;
    uint64_t last_route, last_request;
    struct cule_list taps, follows;
    unsigned ntaps;
    unsigned log_level;    /* 0 error to 4 trace */
    struct cule_map loads; /* token -> replay topic */
    uint64_t last_load;
    struct cule_list appends; /* struct cule_bus_append: waiting for the store, oldest first */
    struct cule_bus_acl *acl;
    uint64_t acl_generation;
    struct cule_bus_explain explain;
    struct cule_bus_msg *spare;
    struct cule_bus_stats stats;
    void (*extra)(void *ctx, struct cule_buf *out);
    uint64_t started_ns, next_scan_ns, next_probe_ns, next_second_ns;
    char degraded_why[160];
    bool degraded, probing, draining;
    struct cule_buf events; /* JSON lines, each to be published to $bus/events */
    bool room;              /* something gave way since the last flush */
};

static inline bool cule_bus_topic_on_disk(const struct cule_bus *b, const struct cule_bus_topic *t)
{
    return t->policy.durability == CULE_BUS_DISK && b->fx->append;
}

static inline uint64_t cule_bus_wall_ms(const struct cule_bus *b)
{
    return (b->now_ns + b->wall_offset_ns) / BUS_MS;
}

/* --- between the files --- */
/* publish.c */
/* True: it waits for room, and its credit is given back when it goes on. */
bool cule_bus_on_publish(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_unpark(struct cule_bus *b);
bool cule_bus_parked_cancel(struct cule_bus *b, struct cule_bus_client *c, uint64_t id);
void cule_bus_parked_drop(struct cule_bus *b, struct cule_bus_client *c);
/* Publishes something of the bus's own; topic may be beyond a user's length. */
int cule_bus_publish_own(struct cule_bus *b, const struct cule_bus_record *r, bool disk);
/* Something for $bus/events, published with the next flush. */
void cule_bus_event(struct cule_bus *b, const char *what, const struct cule_bus_client *c, const char *topic, size_t n,
                    const char *reason, uint64_t number);
void cule_bus_degrade(struct cule_bus *b, const char *why);

/* deliver.c */
/* Offers a message to every target; returns how many took it. */
uint32_t cule_bus_fan_out(struct cule_bus *b, struct cule_bus_topic *t, struct cule_bus_msg *m);
/* 0: some member took the entry; CULE_EAGAIN: none can now. */
int cule_bus_give(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_entry *e);
/* What waits in one priority, as far as members take it; all of them, and the replay behind them. */
void cule_bus_drain_lane(struct cule_bus *b, struct cule_bus_target *t, unsigned priority);
void cule_bus_drain_target(struct cule_bus *b, struct cule_bus_target *t);
/* Puts an entry back in front. */
void cule_bus_requeue(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_entry *e);
void cule_bus_enqueue(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_msg *m);
/* Whether a publish at that priority must wait for this target (policy block). */
bool cule_bus_must_wait(const struct cule_bus *b, const struct cule_bus_topic *t, const struct cule_bus_target *g);
void cule_bus_queue_clear(struct cule_bus *b, struct cule_bus_target *t);
void cule_bus_dropped(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_msg *m, const char *reason,
                      uint64_t limit, const char *hint);

void cule_bus_taken(struct cule_bus *b, struct cule_bus_sub *s, const struct cule_bus_msg *m);
/* Keeps target.slow and the list of busy targets true. */
void cule_bus_target_settle(struct cule_bus *b, struct cule_bus_target *t);

/* ack.c */
void cule_bus_on_ack(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, bool nack);
int cule_bus_give_acked(struct cule_bus *b, struct cule_bus_sub *s, struct cule_bus_entry *e);
void cule_bus_due(struct cule_bus *b);
void cule_bus_acking_free(struct cule_bus *b, struct cule_bus_sub *s, bool requeue);

/* replay.c */
int cule_bus_replay_add(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic,
                        struct cule_bus_msg *retained, uint64_t next);
void cule_bus_replay_pump(struct cule_bus *b, struct cule_bus_target *t);
/* A live message meets a replay. True: it will come out of the history, so it must not be delivered now. */
bool cule_bus_replay_takes(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic);
/* Whether one more message would push out of the topic's history what this replay has not delivered yet. */
bool cule_bus_replay_needs(const struct cule_bus_target *t, const struct cule_bus_topic *topic);
void cule_bus_replay_free(struct cule_bus *b, struct cule_bus_target *t);

/* durable.c */
void cule_bus_durable_done(struct cule_bus *b, struct cule_bus_target *t, const struct cule_bus_msg *m);
bool cule_bus_durable_is_done(struct cule_bus_target *t, struct cule_bus_topic *topic, uint64_t seq);
void cule_bus_durable_missing(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic,
                              uint64_t first);
/* Called for a topic's first message: its cursor begins there. */
int cule_bus_durable_begin(struct cule_bus *b, struct cule_bus_target *t, struct cule_bus_topic *topic, uint64_t floor);
void cule_bus_durables_again(struct cule_bus *b);
struct cule_bus_durable *cule_bus_durable_new(struct cule_bus *b, const char *name, const char *json, size_t n);
void cule_bus_durable_free(struct cule_bus *b, struct cule_bus_durable *d);

/* subscribe.c */
void cule_bus_on_subscribe(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_on_unsubscribe(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_unsubscribe(struct cule_bus *b, struct cule_bus_sub *s);
struct cule_bus_sub *cule_bus_sub_find(const struct cule_bus_client *c, uint64_t id);
void cule_bus_group_free(struct cule_bus *b, struct cule_bus_group *g);

/* route.c */
void cule_bus_on_request(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_on_data(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_on_cancel(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_routes_writable(struct cule_bus *b, struct cule_bus_client *c, uint64_t id);
void cule_bus_routes_client_gone(struct cule_bus *b, struct cule_bus_client *c);
bool cule_bus_waiting_cancel(struct cule_bus *b, struct cule_bus_client *c, uint64_t id);
void cule_bus_retry_waiting(struct cule_bus *b);
void cule_bus_route_free(struct cule_bus *b, struct cule_bus_route *r);
struct cule_bus_route *cule_bus_route_find(struct cule_bus *b, const struct cule_bus_client *asker, uint64_t id);

/* list.c, watch.c, control.c */
void cule_bus_on_list(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_on_tap(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
void cule_bus_on_explain(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
bool cule_bus_watch_cancel(struct cule_bus *b, struct cule_bus_client *c, uint64_t id);
void cule_bus_watches_client_gone(struct cule_bus *b, struct cule_bus_client *c);
void cule_bus_tap_frame(struct cule_bus *b, const struct cule_bus_client *c, const char *topic, size_t n, bool out,
                        const struct cule_msg *m);
void cule_bus_follow_pump(struct cule_bus *b);
void cule_bus_on_cule(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m);
/* CONFIGURE with "grant" or "revoke"; CULE_ENOT_FOUND without a text: it has neither. */
int cule_bus_grant_json(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m, struct cule_err *err);

/* bus.c */
void cule_bus_consumed(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m);
uint32_t cule_bus_frames_of(const struct cule_msg *m);
/* Answers a REQUEST; an EVENT has no id and nobody to tell. */
void cule_bus_refuse(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, int code, const char *fmt,
                     ...) CULE_PRINTF(5, 6);
void cule_bus_kick(struct cule_bus *b, struct cule_bus_client *c, int code, const char *why, const char *topic,
                   size_t n, uint64_t limit);
void cule_bus_tell(struct cule_bus *b, enum cule_bus_log level, const char *fmt, ...) CULE_PRINTF(3, 4);
/* A row for explain. c, topic, hint may be NULL. */
void cule_bus_note(struct cule_bus *b, const char *what, const struct cule_bus_client *c, const char *topic, size_t n,
                   const char *reason, uint64_t limit, const char *hint);
/* Whether the client may; if not, the request is answered and the row written. */
bool cule_bus_allowed(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, enum cule_bus_right what,
                      const char *topic, size_t n);
/* Takes one message from the client's and its uid's rate. */
bool cule_bus_within_rate(struct cule_bus *b, struct cule_bus_client *c, const struct cule_msg *m, const char *topic,
                          size_t n);

#endif

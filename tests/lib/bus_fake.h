/*
 * A world for the bus's core: peers that remember what they were sent, credit that is given by hand, a store that
 * answers when told to, a clock that moves when moved. Include it in one test program.
 */
#ifndef CULE_TESTS_BUS_FAKE_H
#define CULE_TESTS_BUS_FAKE_H

#include "core/bus/bus.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOT_MAX = 1 << 16, STORE_MAX = 1 << 14 };

struct got {  /* one thing a peer was sent */
    int kind; /* CULE_EVENT, REPLY, ERROR, DATA, REQUEST, CANCEL */
    uint64_t id, arg0, arg1, cap;
    unsigned flags, priority;
    uint32_t source, service, op;
    int code;
    bool open, last;
    char topic[320];
    char body[256];
    size_t len;
};

struct peer {
    struct cule_bus_client *client;
    struct got *got;
    unsigned n, size;
    int64_t credit[CULE_PRIORITIES]; /* frames; negative: without limit */
    int stream_credit;               /* DATA messages; negative: without limit */
    bool kicked;
    char why[256];
    uint64_t last_id; /* of requests passed to it */
    uint64_t route[256];
    uint64_t consumed_frames, consumed_bytes, consumed_stream;
};

struct stored {
    struct cule_bus_record r;
    char *topic;
    uint8_t *payload;
};

struct fake {
    struct cule_bus *bus;
    uint64_t now;
    bool has_store, store_fails, store_full;
    unsigned npending;
    struct stored *disk;
    size_t ndisk;
    unsigned probes;
    uint64_t done_floor, done_calls;
    char done_topic[320], defined[64], logged[512];
    unsigned logs;
    struct {
        uint64_t token;
        struct stored s;
        bool is_load;
        char topic[320];
        uint64_t from;
        uint32_t count;
    } pending[STORE_MAX]; /* last: it is not cleared */
};

static struct fake F;

/* What the fake itself allocates is not what is tested: without memory a run ends. */
static inline void *have(void *p)
{
    if (!p) {
        exit(4);
    }
    return p;
}

static struct got *keep(struct peer *p)
{
    if (p->n >= GOT_MAX) {
        abort();
    }
    if (p->n == p->size) {
        p->size = p->size ? p->size * 2 : 64;
        p->got = have(realloc(p->got, p->size * sizeof *p->got));
    }
    memset(&p->got[p->n], 0, sizeof *p->got);
    return &p->got[p->n++];
}

static void keep_body(struct got *g, const void *body, size_t n, size_t topic)
{
    if (topic && topic <= n) {
        snprintf(g->topic, sizeof g->topic, "%.*s", (int)topic, (const char *)body);
        body = (const char *)body + topic;
        n -= topic;
    }
    g->len = n;
    snprintf(g->body, sizeof g->body, "%.*s", (int)CULE_MIN(n, sizeof g->body - 1), n ? (const char *)body : "");
}

static void keep_frame(struct peer *p, const struct cule_frame *h, const void *body, size_t n)
{
    struct got *g = keep(p);
    g->kind = h->kind;
    g->id = h->id;
    g->arg0 = h->arg0;
    g->arg1 = h->arg1;
    g->cap = h->cap;
    g->flags = h->flags;
    g->priority = h->priority;
    g->source = h->source;
    g->service = h->service;
    g->op = h->op;
    bool topic = h->service == (uint32_t)CULE_S_BUS && (h->op == CULE_OP_BUS_DELIVER || h->op == CULE_OP_BUS_REQUEST);
    keep_body(g, body, n, topic ? (uint32_t)h->arg0 : 0);
}

static bool pays(struct peer *p, unsigned priority)
{
    if (p->credit[priority] == 0) {
        return false;
    }
    p->credit[priority] -= p->credit[priority] > 0;
    return true;
}

static int fake_deliver(void *ctx, void *peer, unsigned priority, const void *frames, size_t n, unsigned count)
{
    struct peer *p = peer;
    struct cule_frame h;
    struct cule_err err;
    (void)ctx;
    if (!pays(p, priority)) {
        return CULE_EAGAIN;
    }
    if (count != 1 || cule_frame_decode(&h, false, frames, &err) || h.priority != priority ||
        n != CULE_HEADER_SIZE + cule_pad8(h.length)) {
        abort();
    }
    size_t skip = h.flags & CULE_TRACE ? CULE_TRACE_SIZE : 0;
    keep_frame(p, &h, (const uint8_t *)frames + CULE_HEADER_SIZE + skip, h.length - skip);
    return 0;
}

static int fake_send(void *ctx, void *peer, const struct cule_msg *m)
{
    struct peer *p = peer;
    (void)ctx;
    if (!pays(p, m->h.priority)) {
        return CULE_EAGAIN;
    }
    keep_frame(p, &m->h, m->body, m->len);
    return 0;
}

static int fake_reply(void *ctx, void *peer, uint64_t id, bool open, uint64_t arg0, uint64_t arg1, const void *body,
                      size_t n)
{
    struct got *g = keep(peer);
    (void)ctx;
    g->kind = CULE_REPLY;
    g->id = id;
    g->open = open;
    g->arg0 = arg0;
    g->arg1 = arg1;
    keep_body(g, body, n, 0);
    return 0;
}

static void fake_error(void *ctx, void *peer, uint64_t id, int code, uint64_t detail, const char *text)
{
    struct got *g = keep(peer);
    (void)ctx, (void)detail;
    g->kind = CULE_ERROR_FRAME;
    g->id = id;
    g->code = code;
    keep_body(g, text, strlen(text), 0);
}

static int fake_data(void *ctx, void *peer, uint64_t id, uint16_t flags, const void *body, size_t n, bool last)
{
    struct peer *p = peer;
    (void)ctx;
    if (n && p->stream_credit == 0) {
        return CULE_EAGAIN;
    }
    p->stream_credit -= p->stream_credit > 0;
    struct got *g = keep(p);
    g->kind = CULE_DATA;
    g->id = id;
    g->flags = flags;
    g->last = last;
    keep_body(g, body, n, 0);
    return 0;
}

static int fake_call(void *ctx, void *peer, struct cule_msg *m, uint64_t route, uint64_t *id)
{
    struct peer *p = peer;
    (void)ctx;
    if (!pays(p, m->h.priority)) {
        return CULE_EAGAIN;
    }
    p->last_id += 2;
    m->h.id = p->last_id;
    p->route[p->last_id / 2 % 256] = route;
    *id = p->last_id;
    keep_frame(p, &m->h, m->body, m->len);
    return 0;
}

static void fake_cancel(void *ctx, void *peer, uint64_t id)
{
    struct got *g = keep(peer);
    (void)ctx;
    g->kind = CULE_CANCEL;
    g->id = id;
}

static void fake_consumed(void *ctx, void *peer, unsigned priority, uint64_t id, uint32_t frames, uint64_t bytes)
{
    struct peer *p = peer;
    (void)ctx, (void)priority;
    if (id) {
        p->consumed_stream += bytes;
    } else {
        p->consumed_frames += frames;
        p->consumed_bytes += bytes;
    }
}

static void fake_disconnect(void *ctx, void *peer, const struct cule_err *why)
{
    struct peer *p = peer;
    (void)ctx;
    p->kicked = true;
    snprintf(p->why, sizeof p->why, "%s", why->text);
}

/* Not SHA-256, but as good for a test: the text, repeated. */
static void fake_hash(void *ctx, const void *in, size_t n, uint8_t out[32])
{
    (void)ctx;
    for (size_t i = 0; i < 32; i++) {
        out[i] = ((const uint8_t *)in)[i % n];
    }
}

static int fake_append(void *ctx, uint64_t token, const struct cule_bus_record *r)
{
    (void)ctx;
    if (F.store_full || F.npending == STORE_MAX) {
        return CULE_EAGAIN;
    }
    F.pending[F.npending].token = token;
    F.pending[F.npending].is_load = false;
    struct stored *s = &F.pending[F.npending++].s;
    s->r = *r;
    s->topic = have(strndup(r->topic, r->topic_len));
    s->payload = have(malloc(r->len + 1));
    memcpy(s->payload, r->payload, r->len);
    s->r.topic = s->topic;
    s->r.payload = s->payload;
    return 0;
}

static int fake_load(void *ctx, uint64_t token, const char *topic, size_t n, uint64_t from, uint32_t count)
{
    (void)ctx;
    if (F.npending == STORE_MAX) {
        return CULE_EAGAIN;
    }
    F.pending[F.npending].token = token;
    F.pending[F.npending].is_load = true;
    F.pending[F.npending].from = from;
    F.pending[F.npending].count = count;
    snprintf(F.pending[F.npending].topic, sizeof F.pending[0].topic, "%.*s", (int)n, topic);
    F.npending++;
    return 0;
}

static void fake_retain(void *ctx, const char *topic, size_t n, uint64_t seq)
{
    (void)ctx, (void)topic, (void)n, (void)seq;
}

static void fake_trim(void *ctx, const char *topic, size_t n, const struct cule_bus_keep *k, uint64_t wall_ms)
{
    (void)ctx, (void)topic, (void)n, (void)k, (void)wall_ms;
}

static void fake_done(void *ctx, const char *durable, const char *topic, size_t n, uint64_t seq, uint64_t floor)
{
    (void)ctx, (void)durable, (void)seq;
    F.done_calls++;
    F.done_floor = floor;
    snprintf(F.done_topic, sizeof F.done_topic, "%.*s", (int)n, topic);
}

static void fake_define(void *ctx, const char *durable, const char *json, size_t n)
{
    (void)ctx, (void)n;
    snprintf(F.defined, sizeof F.defined, "%s%s", json ? "" : "-", durable);
}

static void fake_probe(void *ctx)
{
    (void)ctx;
    F.probes++;
}

static void fake_log(void *ctx, enum cule_bus_log level, const char *text)
{
    (void)ctx, (void)level;
    F.logs++;
    snprintf(F.logged, sizeof F.logged, "%s", text);
}

static struct cule_bus_effects fake_fx = {
    .deliver = fake_deliver,
    .send = fake_send,
    .reply = fake_reply,
    .error = fake_error,
    .data = fake_data,
    .call = fake_call,
    .cancel = fake_cancel,
    .consumed = fake_consumed,
    .disconnect = fake_disconnect,
    .hash = fake_hash,
    .log = fake_log,
};

static const uint64_t ms = 1000000;

static inline struct cule_bus_config world_config(void)
{
    struct cule_bus_config c;
    cule_bus_config_init(&c);
    c.seed = 7;
    c.epoch = 0xabc;
    c.uid = 1000;
    return c;
}

static inline void world_begin(const struct cule_bus_config *c, bool store)
{
    memset(&F, 0, offsetof(struct fake, pending));
    F.now = 1000 * ms;
    F.has_store = store;
    fake_fx.append = store ? fake_append : NULL;
    fake_fx.load = store ? fake_load : NULL;
    fake_fx.retain = store ? fake_retain : NULL;
    fake_fx.trim = store ? fake_trim : NULL;
    fake_fx.done = store ? fake_done : NULL;
    fake_fx.define = store ? fake_define : NULL;
    fake_fx.probe = store ? fake_probe : NULL;
    have(cule_bus_new(&F.bus, c, &fake_fx, &F) ? NULL : F.bus);
    cule_bus_set_wall(F.bus, 1700000000000 * ms);
}

static inline void stored_free(struct stored *s)
{
    free(s->topic);
    free(s->payload);
}

static inline void world_end(void)
{
    cule_bus_free(F.bus);
    for (unsigned i = 0; i < F.npending; i++) {
        if (!F.pending[i].is_load) {
            stored_free(&F.pending[i].s);
        }
    }
    for (size_t i = 0; i < F.ndisk; i++) {
        stored_free(&F.disk[i]);
    }
    free(F.disk);
    F.disk = NULL;
    F.bus = NULL;
}

/* The store deals with all that is pending, in order. */
static inline void store_run(void)
{
    while (F.npending) {
        unsigned n = F.npending;
        for (unsigned i = 0; i < n; i++) {
            if (F.pending[i].is_load) {
                struct cule_bus_record r[512];
                size_t found = 0;
                for (size_t k = 0; k < F.ndisk && found < F.pending[i].count; k++) {
                    if (strcmp(F.disk[k].topic, F.pending[i].topic) == 0 && F.disk[k].r.seq >= F.pending[i].from) {
                        r[found++] = F.disk[k].r;
                    }
                }
                cule_bus_loaded(F.bus, F.pending[i].token, r, found, 0, F.now);
            } else if (F.store_fails) {
                cule_bus_stored(F.bus, F.pending[i].token, CULE_EDISK, "disk full", F.now);
                stored_free(&F.pending[i].s);
            } else {
                F.disk = have(realloc(F.disk, (F.ndisk + 1) * sizeof *F.disk));
                F.disk[F.ndisk++] = F.pending[i].s;
                cule_bus_stored(F.bus, F.pending[i].token, 0, "", F.now);
            }
        }
        F.npending -= n;
        memmove(&F.pending[0], &F.pending[n], F.npending * sizeof F.pending[0]);
    }
    cule_bus_flush(F.bus, F.now);
}

static inline void peer_init(struct peer *p, uint32_t uid)
{
    struct cule_bus_identity who = {
        .has_cred = true, .pid = 1, .uid = uid, .gid = uid, .name = "test", .transport = "unix", .cert = ""};
    memset(p, 0, sizeof *p);
    for (int i = 0; i < CULE_PRIORITIES; i++) {
        p->credit[i] = -1;
    }
    p->stream_credit = -1;
    if (cule_bus_client_add(F.bus, p, &who, F.now, &p->client, NULL)) {
        p->client = NULL;
    }
}

static inline void peer_gone(struct peer *p)
{
    if (p->client) {
        cule_bus_client_gone(F.bus, p->client, F.now);
        cule_bus_flush(F.bus, F.now);
    }
    p->client = NULL;
    free(p->got);
    p->got = NULL;
    p->n = p->size = 0;
}

static inline void peer_clear(struct peer *p)
{
    p->n = 0;
}

static inline void peer_credit(struct peer *p, int64_t n)
{
    for (int i = 0; i < CULE_PRIORITIES; i++) {
        p->credit[i] = n;
    }
    cule_bus_writable(F.bus, p->client, 0, F.now);
    cule_bus_flush(F.bus, F.now);
}

/* The nth thing of that kind that a peer got, from 0; NULL: none. */
static inline struct got *got_of(struct peer *p, int kind, unsigned nth)
{
    for (unsigned i = 0; i < p->n; i++) {
        if (p->got[i].kind == kind && nth-- == 0) {
            return &p->got[i];
        }
    }
    return NULL;
}

static inline unsigned count_of(struct peer *p, int kind)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->n; i++) {
        n += p->got[i].kind == kind;
    }
    return n;
}

static inline struct got *last_got(struct peer *p)
{
    return p->n ? &p->got[p->n - 1] : NULL;
}

/* Sends a message of topic and body; kind, op, id, flags, priority as given. */
static inline void put(struct peer *p, int kind, uint32_t op, uint64_t id, unsigned flags, unsigned priority,
                       const char *topic, const char *body)
{
    char both[70000];
    size_t tn = strlen(topic);
    size_t bn = strlen(body);
    struct cule_msg m = {0};
    memcpy(both, topic, tn);
    memcpy(both + tn, body, bn);
    cule_frame_init(&m.h, (enum cule_kind)kind);
    m.h.service = CULE_S_BUS;
    m.h.op = op;
    m.h.id = id;
    m.h.flags = (uint16_t)flags;
    m.h.priority = (uint8_t)priority;
    m.h.arg0 = tn;
    m.body = (const uint8_t *)both;
    m.len = tn + bn;
    m.h.length = (uint32_t)m.len;
    cule_bus_message(F.bus, p->client, &m, F.now);
    cule_bus_flush(F.bus, F.now);
}

static inline void pub(struct peer *p, const char *topic, const char *body)
{
    put(p, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, CULE_NORMAL, topic, body);
}

static inline void pub_ack(struct peer *p, uint64_t id, const char *topic, const char *body)
{
    put(p, CULE_REQUEST, CULE_OP_BUS_PUBLISH, id, 0, CULE_NORMAL, topic, body);
}

/* A request whose payload is text alone. */
static inline void ask(struct peer *p, uint32_t service, uint32_t op, uint64_t id, uint64_t arg0, uint64_t arg1,
                       const char *text)
{
    struct cule_msg m = {0};
    cule_frame_init(&m.h, id ? CULE_REQUEST : CULE_EVENT);
    m.h.service = service;
    m.h.op = op;
    m.h.id = id;
    m.h.arg0 = arg0;
    m.h.arg1 = arg1;
    m.body = (const uint8_t *)text;
    m.len = strlen(text);
    m.h.length = (uint32_t)m.len;
    cule_bus_message(F.bus, p->client, &m, F.now);
    cule_bus_flush(F.bus, F.now);
}

/* Subscribes; the subscription's number, 0 when refused. */
static inline uint64_t sub(struct peer *p, const char *json)
{
    unsigned before = p->n;
    ask(p, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE, 9001, 0, 0, json);
    for (unsigned i = before; i < p->n; i++) {
        if (p->got[i].kind == CULE_REPLY && p->got[i].id == 9001) {
            return p->got[i].arg0;
        }
    }
    return 0;
}

static inline void ack(struct peer *p, const struct got *g)
{
    ask(p, CULE_S_BUS, CULE_OP_BUS_ACK, 0, g->arg0 >> 32, g->id, "");
}

static inline void nack(struct peer *p, const struct got *g, const char *json)
{
    ask(p, CULE_S_BUS, CULE_OP_BUS_NACK, 0, g->arg0 >> 32, g->id, json);
}

/* Moves the clock, doing what falls due on the way. */
static inline void pass_ms(uint64_t n)
{
    uint64_t end = F.now + n * ms;
    for (;;) {
        uint64_t next = cule_bus_tick(F.bus, F.now);
        cule_bus_flush(F.bus, F.now);
        if (F.now >= end) {
            return;
        }
        F.now = next <= F.now ? F.now + 1 : next < end ? next : end;
    }
}

/* The bodies of all deliveries a peer got, with spaces between. */
static inline const char *bodies(struct peer *p)
{
    static char out[1 << 16];
    out[0] = 0;
    size_t n = 0;
    for (unsigned i = 0; i < p->n; i++) {
        if (p->got[i].kind == CULE_EVENT) {
            n += (size_t)snprintf(out + n, sizeof out - n, "%s%s", n ? " " : "", p->got[i].body);
        }
    }
    return out;
}

static inline struct cule_bus_stats stats(void)
{
    struct cule_bus_stats s;
    cule_bus_stats(F.bus, &s);
    return s;
}

#endif

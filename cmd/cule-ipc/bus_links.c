/* The broker's links: what comes from clients goes into the bus, what the bus decides goes out to them. */
#include "bus.h"
#include "cli/report.h"
#include "crypt/sha256.h"

#include <stdlib.h>

_Static_assert(sizeof(uintptr_t) >= sizeof(uint64_t), "routes travel in a pointer");

static struct bus_peer *peer_of(struct cule_link *l)
{
    return cule_link_ctx(l);
}

/* --- into the bus --- */

static void on_ready(struct cule_link *l, void *ctx)
{
    struct bus_peer *p = ctx;
    const struct cule_peer *who = cule_link_peer(l);
    struct cule_err err;
    struct cule_bus_identity id = {
        .has_cred = who->has_cred,
        .pid = (uint32_t)who->pid,
        .uid = who->uid,
        .gid = who->gid,
        .name = cule_link_peer_name(l),
        .transport = cule_link_transport(l),
        .address = who->address,
        .cert = who->identity,
    };
    if (cule_bus_client_add(p->b->bus, p, &id, bus_now(p->b, true), &p->client, &err)) {
        cule_link_abort(l, &err);
    }
    bus_turn(p->b);
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    struct bus_peer *p = ctx;
    if (m->h.kind == CULE_HELLO && p->client) { /* the peer was replaced: what it subscribed to is not the new one's */
        cule_bus_client_gone(p->b->bus, p->client, bus_now(p->b, true));
        p->client = NULL;
        on_ready(l, ctx);
        return;
    }
    if (p->client) {
        cule_bus_message(p->b->bus, p->client, m, bus_now(p->b, false));
        bus_turn(p->b);
    }
}

/* Told at the end of the turn: the bus may be in the middle of something when a link drains. */
static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    struct bus_peer *p = ctx;
    (void)l;
    if (id == 0) {
        p->whole = true;
    } else {
        uint64_t *ids = realloc(p->ids, (p->nids + 1) * sizeof *ids);
        if (ids) {
            p->ids = ids;
            p->ids[p->nids++] = id;
        }
    }
    if (cule_list_empty(&p->due)) {
        cule_list_push(&p->b->due, &p->due);
    }
    bus_turn(p->b);
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    struct bus_peer *p = ctx;
    if (why->code && cule_bus_log_level(p->b->bus) >= CULE_BUS_LOG_INFO) {
        cule_cli_note(p->b->cli, 0, "client '%s' has gone: %s", cule_link_peer_name(l), why->text);
    }
    if (p->client) {
        cule_bus_client_gone(p->b->bus, p->client, bus_now(p->b, true));
        bus_turn(p->b);
    }
    bus_crowd(p->b, -1);
    cule_list_remove(&p->node);
    cule_list_remove(&p->due);
    free(p->ids);
    free(p);
}

static const struct cule_link_ops link_ops = {
    .ready = on_ready, .message = on_message, .writable = on_writable, .closed = on_closed};

void bus_accept(struct cule_listener *s, void *ctx, struct cule_link *l)
{
    struct broker *b = ctx;
    struct bus_peer *p = calloc(1, sizeof *p);
    (void)s;
    if (!p) {
        struct cule_err err;
        cule_err_set(&err, CULE_ENOMEM, "the bus is out of memory");
        cule_link_abort(l, &err);
        return;
    }
    p->b = b;
    p->link = l;
    cule_list_init(&p->due);
    cule_list_push(&b->peers, &p->node);
    cule_link_set_ctx(l, &link_ops, p);
    bus_crowd(b, 1);
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct bus_peer *p = peer_of(l);
    if (m->h.kind == CULE_DATA) { /* the bus gives back the stream's credit as it passes it on; the link's is ours */
        size_t n = m->len + (m->trace ? CULE_TRACE_SIZE : 0);
        cule_link_consumed(l, m->h.priority, n ? (uint32_t)((n + CULE_PAYLOAD_MAX - 1) / CULE_PAYLOAD_MAX) : 1, n);
    }
    if (!p->b->in_cancel) {
        cule_bus_answer(p->b->bus, (uint64_t)(uintptr_t)arg, m, bus_now(p->b, false));
        bus_turn(p->b);
    }
}

/* --- out of the bus --- */

static int deliver(void *ctx, void *peer, unsigned priority, const void *frames, size_t n, unsigned count)
{
    struct bus_peer *p = peer;
    (void)ctx;
    return cule_link_send_raw(p->link, priority, frames, n, count);
}

static int send_message(void *ctx, void *peer, const struct cule_msg *m)
{
    struct bus_peer *p = peer;
    (void)ctx;
    return cule_link_send(p->link, m);
}

static int reply(void *ctx, void *peer, uint64_t id, bool open, uint64_t arg0, uint64_t arg1, const void *body,
                 size_t n)
{
    struct bus_peer *p = peer;
    (void)ctx;
    return open ? cule_link_reply_open(p->link, id, arg0, arg1, body, n)
                : cule_link_reply(p->link, id, arg0, arg1, body, n);
}

static void error(void *ctx, void *peer, uint64_t id, int code, uint64_t detail, const char *text)
{
    struct bus_peer *p = peer;
    (void)ctx;
    cule_link_error(p->link, id, code, detail, "%s", text);
}

static int data(void *ctx, void *peer, uint64_t id, uint16_t flags, const void *body, size_t n, bool last)
{
    struct bus_peer *p = peer;
    (void)ctx;
    if (flags & CULE_NESTED && !last) {
        struct cule_msg m = cule_msg_make(CULE_DATA, 0, 0);
        m.h.id = id;
        m.h.flags = CULE_OPEN | CULE_NESTED;
        m.body = body;
        m.len = n;
        return cule_link_send(p->link, &m);
    }
    return cule_link_data(p->link, id, body, n, last);
}

static int call(void *ctx, void *peer, struct cule_msg *m, uint64_t route, uint64_t *id)
{
    struct bus_peer *p = peer;
    (void)ctx;
    return cule_link_call(p->link, m, m->h.deadline_ms, on_answer, (void *)(uintptr_t)route, id);
}

/* The bus has forgotten the route already: the answer that the link makes up is not for it. */
static void cancel(void *ctx, void *peer, uint64_t id)
{
    struct broker *b = ctx;
    struct bus_peer *p = peer;
    bool was = b->in_cancel;
    b->in_cancel = true;
    cule_link_cancel(p->link, id);
    b->in_cancel = was;
}

static void consumed(void *ctx, void *peer, unsigned priority, uint64_t id, uint32_t frames, uint64_t bytes)
{
    struct bus_peer *p = peer;
    (void)ctx;
    if (id) {
        cule_link_stream_consumed(p->link, id, bytes);
    } else {
        cule_link_consumed(p->link, priority, frames, bytes);
    }
}

static void disconnect(void *ctx, void *peer, const struct cule_err *why)
{
    struct bus_peer *p = peer;
    (void)ctx;
    cule_link_abort(p->link, why);
}

static void hash(void *ctx, const void *bytes, size_t n, uint8_t out[32])
{
    (void)ctx;
    cule_sha256(bytes, n, out);
}

static void report(void *ctx, enum cule_bus_log level, const char *text)
{
    struct broker *b = ctx;
    if (level == CULE_BUS_LOG_INFO) {
        cule_cli_note(b->cli, 0, "%s", text);
    } else {
        cule_cli_warn(b->cli, "%s", text);
    }
}

const struct cule_bus_effects bus_effects = {
    .deliver = deliver,
    .send = send_message,
    .reply = reply,
    .error = error,
    .data = data,
    .call = call,
    .cancel = cancel,
    .consumed = consumed,
    .disconnect = disconnect,
    .hash = hash,
    .log = report,
};

/*
 * Requests through the bus: one responder is chosen, ids and capabilities are rewritten, and whatever belongs to the
 * exchange passes both ways until its terminal answer. A request that finds every responder out of credit waits its
 * turn; one that finds none is told at once.
 */
#include "core/bus/internal.h"

#include <stdio.h>
#include <stdlib.h>

static size_t key_of(uint8_t key[12], const struct cule_bus_client *asker, uint64_t id)
{
    cule_put32(key, asker->number);
    cule_put64(key + 4, id);
    return 12;
}

struct cule_bus_route *cule_bus_route_find(struct cule_bus *b, const struct cule_bus_client *asker, uint64_t id)
{
    uint8_t key[12];
    return cule_strmap_get(&b->routes_by_asker, key, key_of(key, asker, id));
}

static void drop_pieces(struct cule_list *l)
{
    struct cule_list *n;
    while ((n = cule_list_pop(l))) {
        free(CULE_LIST_ENTRY(n, struct cule_bus_piece, node));
    }
}

void cule_bus_route_free(struct cule_bus *b, struct cule_bus_route *r)
{
    cule_map_take(&b->routes, r->number);
    cule_strmap_take(&b->routes_by_asker, r->key, sizeof r->key);
    cule_list_remove(&r->in_asker);
    cule_list_remove(&r->in_responder);
    if (r->sub && r->sub->open_requests) {
        r->sub->open_requests--;
    }
    drop_pieces(&r->to_asker);
    drop_pieces(&r->to_responder);
    b->stats.routes--;
    b->room = true;
    free(r);
}

static struct cule_bus_route *route_new(struct cule_bus *b, struct cule_bus_client *asker, uint64_t id,
                                        struct cule_bus_sub *s)
{
    struct cule_bus_route *r = calloc(1, sizeof *r);
    if (!r) {
        return NULL;
    }
    r->number = ++b->last_route;
    r->asker = asker;
    r->asker_id = id;
    r->responder = s->client;
    r->sub = s;
    cule_list_init(&r->to_asker);
    cule_list_init(&r->to_responder);
    cule_list_init(&r->in_asker);
    cule_list_init(&r->in_responder);
    key_of(r->key, asker, id);
    if (cule_map_put(&b->routes, r->number, r)) {
        free(r);
        return NULL;
    }
    if (cule_strmap_put(&b->routes_by_asker, r->key, sizeof r->key, r)) {
        cule_map_take(&b->routes, r->number);
        free(r);
        return NULL;
    }
    cule_list_push(&asker->asked, &r->in_asker);
    cule_list_push(&s->client->answering, &r->in_responder);
    s->open_requests++;
    b->stats.routes++;
    return r;
}

/* A capability as it passes from one client's link to another's. */
static int translate(struct cule_bus *b, struct cule_bus_client *from, struct cule_bus_client *to, struct cule_frame *h)
{
    if (!h->cap) {
        return 0;
    }
    struct cule_bus_client *both[] = {from, to};
    for (int i = 0; i < 2; i++) {
        if (!both[i]->caps) {
            both[i]->caps = malloc(sizeof *both[i]->caps);
            if (!both[i]->caps) {
                return CULE_ENOMEM;
            }
            cule_captable_init(both[i]->caps, false, BUS_CAPS_MAX);
        }
    }
    struct cule_cap_side f = {from->caps, from->number};
    struct cule_cap_side t = {to->caps, to->number};
    return cule_captable_translate(&f, &t, h->cap, h->flags & CULE_DELEGATE, b->now_ns, &h->cap, NULL);
}

/* Before another in the choice: fewer open requests, then the one that was not asked for longest. */
static bool better(const struct cule_bus_sub *s, const struct cule_bus_sub *than)
{
    if (!than || s->open_requests != than->open_requests) {
        return !than || s->open_requests < than->open_requests;
    }
    return s->last_request < than->last_request;
}

static struct cule_bus_sub *choose(struct cule_bus *b, struct cule_bus_topic *t, unsigned priority, bool *any)
{
    const struct cule_bus_targets *v = cule_bus_topic_responders(b, t);
    struct cule_bus_sub *best = NULL;
    *any = false;
    for (uint32_t i = 0; i < v->n; i++) {
        struct cule_bus_sub *s = v->v[i]->solo;
        if (s->client->leaving) {
            continue;
        }
        *any = true;
        if (!(s->client->blocked >> priority & 1) && better(s, best)) {
            best = s;
        }
    }
    return best;
}

/* 0: on its way; CULE_EAGAIN: every responder is out of credit; else why not. */
static int forward(struct cule_bus *b, struct cule_bus_client *c, struct cule_bus_topic *t, const struct cule_msg *m)
{
    struct cule_bus_sub *s;
    bool any;
    while ((s = choose(b, t, m->h.priority, &any))) {
        struct cule_msg out = *m;
        out.h.source = c->number;
        int rc = translate(b, c, s->client, &out.h);
        struct cule_bus_route *r = rc ? NULL : route_new(b, c, m->h.id, s);
        if (!r) {
            return rc ? rc : CULE_ENOMEM;
        }
        rc = b->fx->call(b->ctx, s->client->peer, &out, r->number, &r->responder_id);
        if (!rc) {
            s->last_request = ++b->last_request;
            s->target->delivered++;
            b->stats.requests++;
            return 0;
        }
        cule_bus_route_free(b, r);
        if (rc != CULE_EAGAIN && rc != CULE_ECLOSED) {
            return rc;
        }
        s->client->blocked |= 1u << m->h.priority;
        s->client->leaving |= rc == CULE_ECLOSED;
    }
    return any ? CULE_EAGAIN : CULE_ENO_RESPONDER;
}

static void failed(struct cule_bus *b, struct cule_bus_client *c, const struct cule_bus_topic *t, uint64_t id, int rc)
{
    char text[CULE_TOPIC_MAX + 64];
    snprintf(text, sizeof text, rc == CULE_ENO_RESPONDER ? "nobody answers '%s'" : "cannot pass the request on to '%s'",
             t->name);
    b->stats.no_responder += rc == CULE_ENO_RESPONDER;
    cule_bus_note(b, "deny", c, t->name, t->len, cule_err_text(rc), 0, NULL);
    b->fx->error(b->ctx, c->peer, id, rc, 0, text);
}

/* --- waiting for a responder --- */

static int wait_for_one(struct cule_bus *b, struct cule_bus_client *c, struct cule_bus_topic *t,
                        const struct cule_msg *m)
{
    if (m->nfds) {
        return CULE_EBUSY; /* descriptors are not kept: the asker may try again */
    }
    if (b->cfg.limits.requests && b->nwaiting >= b->cfg.limits.requests) {
        return CULE_EBUSY;
    }
    size_t skip = m->trace ? CULE_TRACE_SIZE : 0;
    size_t n = sizeof(struct cule_bus_waiting) + skip + m->len;
    if (b->cfg.limits.memory && b->stats.held_bytes + n > b->cfg.limits.memory) {
        return CULE_EBUSY;
    }
    struct cule_bus_waiting *w = malloc(n);
    if (!w) {
        return CULE_ENOMEM;
    }
    *w = (struct cule_bus_waiting){
        .asker = c, .topic = t, .since_ns = b->now_ns, .h = m->h, .len = m->len, .has_trace = m->trace != NULL};
    if (skip) {
        memcpy(w->bytes, m->trace, skip);
    }
    memcpy(w->bytes + skip, m->body, m->len);
    cule_list_push(&b->requests, &w->node);
    t->users++;
    b->nwaiting++;
    b->stats.held_bytes += n;
    return 0;
}

static void waiting_free(struct cule_bus *b, struct cule_bus_waiting *w)
{
    b->stats.held_bytes -= sizeof *w + w->len + (w->has_trace ? CULE_TRACE_SIZE : 0);
    cule_list_remove(&w->node);
    w->topic->users--;
    b->nwaiting--;
    free(w);
}

void cule_bus_retry_waiting(struct cule_bus *b)
{
    CULE_LIST_EACH (n, &b->requests) {
        struct cule_bus_waiting *w = CULE_LIST_ENTRY(n, struct cule_bus_waiting, node);
        size_t skip = w->has_trace ? CULE_TRACE_SIZE : 0;
        struct cule_msg m = {.h = w->h, .body = w->bytes + skip, .len = w->len, .trace = skip ? w->bytes : NULL};
        uint64_t waited_ms = (b->now_ns - w->since_ns) / BUS_MS;
        if (m.h.deadline_ms) {
            if (waited_ms >= m.h.deadline_ms) {
                continue; /* its link is about to say so */
            }
            m.h.deadline_ms -= (uint32_t)waited_ms;
        }
        int rc = forward(b, w->asker, w->topic, &m);
        if (rc == CULE_EAGAIN) {
            continue;
        }
        if (rc) {
            failed(b, w->asker, w->topic, w->h.id, rc);
        }
        waiting_free(b, w);
    }
}

bool cule_bus_waiting_cancel(struct cule_bus *b, struct cule_bus_client *c, uint64_t id)
{
    bool found = false;
    CULE_LIST_EACH (n, &b->requests) {
        struct cule_bus_waiting *w = CULE_LIST_ENTRY(n, struct cule_bus_waiting, node);
        if (w->asker == c && (id == 0 || w->h.id == id)) {
            waiting_free(b, w);
            found = true;
        }
    }
    return found;
}

void cule_bus_on_request(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    const char *name = (const char *)m->body;
    size_t n = (size_t)m->h.arg0;
    struct cule_bus_topic *t;
    struct cule_err err = {0};
    if (m->h.arg0 > m->len || n == 0) {
        cule_bus_refuse(b, c, m, CULE_EMALFORMED, "topic length %llu in a payload of %zu bytes",
                        (unsigned long long)m->h.arg0, m->len);
        return;
    }
    t = cule_bus_topic_find(b, name, n);
    int rc = t ? 0 : cule_topic_check(name, n, &err);
    if (rc) {
        cule_bus_refuse(b, c, m, rc, "%s", err.text);
        return;
    }
    if (!cule_bus_allowed(b, c, m, CULE_BUS_MAY_REQUEST, name, n) || !cule_bus_within_rate(b, c, m, name, n)) {
        return;
    }
    rc = t ? 0 : cule_bus_topic_get(b, name, n, &t, &err);
    if (rc) {
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "no new topic: %s", err.code ? err.text : cule_err_text(rc));
        return;
    }
    if (b->cfg.limits.requests && b->stats.routes >= b->cfg.limits.requests) {
        cule_bus_note(b, "quota", c, name, n, "the bus's limit on open requests", b->cfg.limits.requests, NULL);
        cule_bus_refuse(b, c, m, CULE_EQUOTA, "%u requests are open already", b->cfg.limits.requests);
        return;
    }
    rc = forward(b, c, t, m);
    if (rc == CULE_EAGAIN) {
        rc = wait_for_one(b, c, t, m);
    }
    if (rc) {
        failed(b, c, t, m->h.id, rc);
    }
}

/* --- what follows a request --- */

static int queue_piece(struct cule_list *l, const struct cule_msg *m)
{
    struct cule_bus_piece *p = malloc(sizeof *p + m->len);
    if (!p) {
        return CULE_ENOMEM;
    }
    p->h = m->h;
    p->len = m->len;
    if (m->len) {
        memcpy(p->body, m->body, m->len);
    }
    cule_list_push(l, &p->node);
    return 0;
}

static bool terminal(const struct cule_frame *h)
{
    return h->kind == CULE_ERROR_FRAME || (h->kind == CULE_REPLY && !(h->flags & CULE_OPEN));
}

/* Sends one piece of an answer to the asker. */
static int to_asker(struct cule_bus *b, struct cule_bus_route *r, const struct cule_frame *h, const void *body,
                    size_t n)
{
    void *peer = r->asker->peer;
    char text[CULE_ERR_TEXT_MAX];
    switch (h->kind) {
    case CULE_ERROR_FRAME:
        snprintf(text, sizeof text, "%.*s", (int)CULE_MIN(n, sizeof text - 1), (const char *)body);
        b->fx->error(b->ctx, peer, r->asker_id, -(int)(h->arg0 & 0x7fffffff), h->arg1, text);
        return 0;
    case CULE_REPLY: return b->fx->reply(b->ctx, peer, r->asker_id, h->flags & CULE_OPEN, h->arg0, h->arg1, body, n);
    case CULE_DATA: {
        int rc = b->fx->data(b->ctx, peer, r->asker_id, h->flags, body, n, !(h->flags & CULE_OPEN));
        if (rc != CULE_EAGAIN) {
            b->fx->consumed(b->ctx, r->responder->peer, h->priority, r->responder_id, 0, n);
        }
        return rc;
    }
    default: return 0;
    }
}

/* Whether the whole exchange is over: the last answer is out, and the stream that a REPLY opened too. */
static bool over(const struct cule_bus_route *r, const struct cule_frame *h)
{
    return terminal(h) || (h->kind == CULE_DATA && !(h->flags & CULE_OPEN) && r->answered);
}

void cule_bus_answer(struct cule_bus *b, uint64_t number, struct cule_msg *m, uint64_t now_ns)
{
    struct cule_bus_route *r = cule_map_get(&b->routes, number);
    b->now_ns = now_ns;
    if (!r) {
        return; /* cancelled, or the asker has gone */
    }
    r->answered |= m->h.kind == CULE_REPLY;
    if (r->asker->taps) {
        cule_bus_tap_frame(b, r->asker, NULL, 0, true, m);
    }
    if (m->h.kind == CULE_REPLY && m->h.cap && translate(b, r->responder, r->asker, &m->h)) {
        m->h.cap = 0;
    }
    int rc = cule_list_empty(&r->to_asker) ? to_asker(b, r, &m->h, m->body, m->len) : CULE_EAGAIN;
    if (rc == CULE_EAGAIN) {
        rc = queue_piece(&r->to_asker, m);
        if (rc) {
            b->fx->error(b->ctx, r->asker->peer, r->asker_id, rc, 0, "the bus is out of memory");
            uint64_t id = r->responder_id;
            struct cule_bus_client *responder = r->responder;
            cule_bus_route_free(b, r);
            b->fx->cancel(b->ctx, responder->peer, id);
        }
        return;
    }
    if (over(r, &m->h)) {
        b->stats.answered++;
        cule_bus_route_free(b, r);
    }
}

void cule_bus_on_data(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct cule_bus_route *r = cule_bus_route_find(b, c, m->h.id);
    if (!r) {
        b->fx->consumed(b->ctx, c->peer, m->h.priority, m->h.id, 0, m->len);
        return;
    }
    int rc = CULE_EAGAIN;
    if (cule_list_empty(&r->to_responder)) {
        rc = b->fx->data(b->ctx, r->responder->peer, r->responder_id, m->h.flags, m->body, m->len,
                         !(m->h.flags & CULE_OPEN));
    }
    if (rc == CULE_EAGAIN && queue_piece(&r->to_responder, m) == 0) {
        return;
    }
    b->fx->consumed(b->ctx, c->peer, m->h.priority, m->h.id, 0, m->len);
}

/* A link has room again, on one stream or (id 0) at large. */
static void pump(struct cule_bus *b, struct cule_bus_route *r)
{
    while (!cule_list_empty(&r->to_responder)) {
        struct cule_bus_piece *p = CULE_LIST_ENTRY(r->to_responder.next, struct cule_bus_piece, node);
        if (b->fx->data(b->ctx, r->responder->peer, r->responder_id, p->h.flags, p->body, p->len,
                        !(p->h.flags & CULE_OPEN)) == CULE_EAGAIN) {
            break;
        }
        b->fx->consumed(b->ctx, r->asker->peer, p->h.priority, r->asker_id, 0, p->len);
        cule_list_remove(&p->node);
        free(p);
    }
    while (!cule_list_empty(&r->to_asker)) {
        struct cule_bus_piece *p = CULE_LIST_ENTRY(r->to_asker.next, struct cule_bus_piece, node);
        if (to_asker(b, r, &p->h, p->body, p->len) == CULE_EAGAIN) {
            break;
        }
        struct cule_frame h = p->h;
        cule_list_remove(&p->node);
        free(p);
        if (over(r, &h)) {
            b->stats.answered++;
            cule_bus_route_free(b, r);
            return;
        }
    }
}

void cule_bus_routes_writable(struct cule_bus *b, struct cule_bus_client *c, uint64_t id)
{
    CULE_LIST_EACH (n, &c->asked) {
        struct cule_bus_route *r = CULE_LIST_ENTRY(n, struct cule_bus_route, in_asker);
        if (!cule_list_empty(&r->to_asker) && (id == 0 || r->asker_id == id)) {
            pump(b, r);
        }
    }
    CULE_LIST_EACH (n, &c->answering) {
        struct cule_bus_route *r = CULE_LIST_ENTRY(n, struct cule_bus_route, in_responder);
        if (!cule_list_empty(&r->to_responder) && (id == 0 || r->responder_id == id)) {
            pump(b, r);
        }
    }
}

void cule_bus_on_cancel(struct cule_bus *b, struct cule_bus_client *c, struct cule_msg *m)
{
    struct cule_bus_route *r = cule_bus_route_find(b, c, m->h.id);
    if (r) {
        uint64_t id = r->responder_id;
        struct cule_bus_client *responder = r->responder;
        cule_bus_route_free(b, r);
        b->fx->cancel(b->ctx, responder->peer, id);
    } else if (!cule_bus_parked_cancel(b, c, m->h.id) && !cule_bus_waiting_cancel(b, c, m->h.id)) {
        cule_bus_watch_cancel(b, c, m->h.id);
    }
}

void cule_bus_routes_client_gone(struct cule_bus *b, struct cule_bus_client *c)
{
    cule_bus_waiting_cancel(b, c, 0);
    while (!cule_list_empty(&c->asked)) {
        struct cule_bus_route *r = CULE_LIST_ENTRY(c->asked.next, struct cule_bus_route, in_asker);
        uint64_t id = r->responder_id;
        struct cule_bus_client *responder = r->responder;
        cule_bus_route_free(b, r);
        if (responder != c) {
            b->fx->cancel(b->ctx, responder->peer, id);
        }
    }
    while (!cule_list_empty(&c->answering)) {
        struct cule_bus_route *r = CULE_LIST_ENTRY(c->answering.next, struct cule_bus_route, in_responder);
        b->fx->error(b->ctx, r->asker->peer, r->asker_id, CULE_ECLOSED, 0, "the responder has gone");
        cule_bus_route_free(b, r);
    }
}

/* The staying client of the bus: connect, present the token, find out where to resume, subscribe; and again. */
#include "busclient.h"

#include "base/bytes.h"
#include "busclient_impl.h"

#include <stdlib.h>

static void step(struct busclient *c);
static void retry(void *ctx);

static void finish(struct busclient *c, const struct cule_err *why)
{
    if (c->state == BUSCLIENT_OVER) {
        return;
    }
    c->state = BUSCLIENT_OVER;
    cule_timer_stop(c->timer);
    if (c->o.ops->over) {
        c->o.ops->over(c->o.ctx, why);
    }
}

/* The connection cannot be used: ends it; `closed` decides whether it is tried again. */
static void give_up(struct busclient *c, const struct cule_err *why, bool for_good)
{
    c->refused = c->refused || for_good;
    c->why = *why;
    if (c->link) {
        cule_link_abort(c->link, NULL);
    }
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct busclient *c = arg;
    struct cule_err err = {0};
    int rc = cule_msg_error(answer, &err);
    if (c->state == BUSCLIENT_CLOSING || c->state == BUSCLIENT_OVER || c->state == BUSCLIENT_WAITING) {
        return;
    }
    if (rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED || rc == CULE_ECANCELLED) {
        return; /* `closed` follows, or a HELLO */
    }
    if (rc && c->state == BUSCLIENT_AUTH) {
        cule_err_context(&err, rc, "the bus did not take the token");
        give_up(c, &err, rc != CULE_ETIMEOUT);
        return;
    }
    if (rc && c->state == BUSCLIENT_SUBSCRIBING) {
        cule_err_context(&err, rc, "cannot subscribe to '%s'", c->subs[c->next_sub - 1].s.pattern);
        give_up(c, &err, rc != CULE_ETIMEOUT);
        return;
    }
    if (c->state == BUSCLIENT_INFO) {
        if (rc == 0) {
            busclient_resume_info(c, answer->body, answer->len);
        }
    } else if (c->state == BUSCLIENT_LISTING) {
        if (rc == 0) {
            busclient_resume_listing(c, answer->body, answer->len);
        } /* a broker that does not let us list: keep what we know */
    } else if (c->state == BUSCLIENT_SUBSCRIBING) {
        struct busclient_sub *s = &c->subs[c->next_sub - 1];
        s->number = answer->h.arg0;
        s->subscribed = true;
    }
    step(c);
}

static int ask(struct busclient *c, uint32_t service, uint32_t op, const void *body, size_t n)
{
    struct cule_msg m = cule_msg_make(CULE_REQUEST, service, op);
    m.body = body;
    m.len = n;
    return cule_link_call(c->link, &m, BUSCLIENT_ASK_MS, on_answer, c, NULL);
}

/* The next thing to do on a fresh connection. */
static void step(struct busclient *c)
{
    struct cule_err err = {0};
    struct cule_buf json;
    int rc = 0;
    cule_buf_init(&json, 0);
    if (c->state == BUSCLIENT_CONNECTING && c->o.where->token[0]) {
        c->state = BUSCLIENT_AUTH;
        rc = ask(c, CULE_S_CULE, CULE_OP_CULE_AUTH, c->o.where->token, strlen(c->o.where->token));
        goto out;
    }
    /* Also where nobody resumes: by the time of the answer the broker's first grants of credit are in. */
    if (c->state < BUSCLIENT_INFO) {
        c->state = BUSCLIENT_INFO;
        rc = ask(c, CULE_S_CULE, CULE_OP_CULE_INFO, NULL, 0);
        goto out;
    }
    if (c->state < BUSCLIENT_LISTING && busclient_resume_needed(c)) {
        c->state = BUSCLIENT_LISTING;
        static const char what[] = "{\"what\":\"topics\"}";
        rc = ask(c, CULE_S_BUS, CULE_OP_BUS_LIST, what, sizeof what - 1);
        goto out;
    }
    c->state = BUSCLIENT_SUBSCRIBING;
    if (c->next_sub < c->nsubs) {
        struct busclient_sub *s = &c->subs[c->next_sub++];
        if (s->first_wall_ms == 0) {
            s->first_wall_ms = cule_wall_ns() / 1000000u;
        }
        rc = busclient_resume_json(c, s, &json);
        if (rc == 0) {
            rc = ask(c, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE, cule_buf_data(&json), cule_buf_len(&json));
        }
        goto out;
    }
    c->state = BUSCLIENT_UP;
    c->retry_ms = BUSCLIENT_RETRY_MIN_MS;
    c->stats.connects++;
    if (c->o.ops->up) {
        c->o.ops->up(c->o.ctx);
    }
out:
    cule_buf_release(&json);
    if (rc) {
        give_up(c, (cule_err_set(&err, rc, "cannot talk to the bus: %s", cule_err_text(rc)), &err), false);
    }
}

/* --- the link's callbacks --- */

static void deliver(struct busclient *c, struct cule_msg *m)
{
    struct busclient_delivery d;
    if (!busclient_split(m, &d)) {
        cule_link_consumed(c->link, m->h.priority, 1, m->h.length);
        return;
    }
    if (c->positions && d.seq != 0 && !busclient_seen_note(c->seen, d.topic, d.topic_len, d.priority, d.seq) &&
        !d.redelivered) {
        c->stats.doubles++;
        busclient_consumed(c, &d);
        if (d.number) {
            busclient_ack(c, c->epoch, d.subscription, d.number);
        }
        return;
    }
    c->stats.delivered++;
    if (c->o.ops->deliver) {
        c->o.ops->deliver(c->o.ctx, &d);
    }
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    struct busclient *c = ctx;
    if (c->state == BUSCLIENT_OVER) {
        return;
    }
    if (m->h.kind == CULE_EVENT && m->h.service == CULE_S_BUS && m->h.op == CULE_OP_BUS_DELIVER) {
        deliver(c, m);
        return;
    }
    if (m->h.kind == CULE_REQUEST) {
        struct busclient_delivery d;
        if (m->h.service != CULE_S_BUS || m->h.op != CULE_OP_BUS_REQUEST || !c->o.ops->request) {
            cule_link_error(l, m->h.id, CULE_ENO_SERVICE, 0, "a client of the bus answers no such request");
        } else if (!busclient_split(m, &d)) {
            cule_link_error(l, m->h.id, CULE_EMALFORMED, 0, "the topic's length does not hold");
        } else {
            c->o.ops->request(c->o.ctx, &d);
        }
        return;
    }
    if (m->h.kind == CULE_HELLO) { /* another broker took its place behind the same socket */
        c->epoch++;
        c->next_sub = 0;
        c->state = BUSCLIENT_CONNECTING;
        step(c);
        return;
    }
    if (c->o.ops->other) {
        c->o.ops->other(c->o.ctx, m);
    }
}

static void on_ready(struct cule_link *l, void *ctx)
{
    (void)l;
    struct busclient *c = ctx;
    if (c->state == BUSCLIENT_CONNECTING) {
        c->epoch++;
        c->next_sub = 0;
        step(c);
    }
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    (void)l;
    struct busclient *c = ctx;
    if (c->state == BUSCLIENT_UP && c->o.ops->writable) {
        c->o.ops->writable(c->o.ctx, id);
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    struct busclient *c = ctx;
    struct cule_err err = *why;
    c->link = NULL;
    if (c->state == BUSCLIENT_CLOSING || (c->leaving && c->state == BUSCLIENT_UP)) {
        struct cule_err none = {0};
        finish(c, c->closing_clean ? &none : why);
        return;
    }
    if (c->state == BUSCLIENT_OVER) {
        return;
    }
    if (c->why.code) {
        err = c->why;
    } else if (err.code == 0) {
        cule_err_set(&err, CULE_ECLOSED, "the bus at '%s' closed the connection", c->o.where->endpoint);
    } else {
        cule_err_context(&err, err.code, c->stats.connects ? "lost the bus at '%s'" : "cannot reach the bus at '%s'",
                         c->o.where->endpoint);
    }
    memset(&c->why, 0, sizeof c->why);
    if (!c->o.reconnect || c->refused || c->stats.connects == 0) {
        finish(c, &err);
        return;
    }
    if (c->state == BUSCLIENT_UP && c->o.ops->down) {
        c->state = BUSCLIENT_WAITING;
        c->o.ops->down(c->o.ctx, &err);
    }
    if (c->state == BUSCLIENT_OVER) {
        return;
    }
    c->state = BUSCLIENT_WAITING;
    /* Some jitter, so that many clients of a broker that was restarted do not come back in one instant. */
    cule_timer_start(c->timer, c->retry_ms + cule_now_ns() / 1000 % (c->retry_ms / 2 + 1), 0);
    c->retry_ms = CULE_MIN(c->retry_ms * 2, (uint64_t)BUSCLIENT_RETRY_MAX_MS);
}

static const struct cule_link_ops link_ops = {
    .message = on_message, .ready = on_ready, .writable = on_writable, .closed = on_closed};

static int open_link(struct busclient *c, struct cule_err *err)
{
    const struct cule_link_opts o = {
        .name = c->o.name,
        .ops = &link_ops,
        .ctx = c,
        .manual_credit = c->o.manual_credit,
        .connect_timeout_ms = c->o.connect_timeout_ms,
        .wait_ms = c->o.where->wait_ms,
        .window_bytes = c->o.window_bytes,
        .window_frames = c->o.window_frames,
        .queue_bytes = c->o.queue_bytes,
    };
    c->state = BUSCLIENT_CONNECTING;
    return cule_link_open(c->loop, c->o.where->endpoint, &o, &c->link, err);
}

static void retry(void *ctx)
{
    struct busclient *c = ctx;
    struct cule_err err = {0};
    if (c->state == BUSCLIENT_WAITING && open_link(c, &err)) {
        c->state = BUSCLIENT_WAITING;
        cule_timer_start(c->timer, c->retry_ms, 0);
        c->retry_ms = CULE_MIN(c->retry_ms * 2, (uint64_t)BUSCLIENT_RETRY_MAX_MS);
    }
}

/* --- for the caller --- */

int busclient_new(struct cule_loop *loop, const struct busclient_opts *o, struct busclient **out, struct cule_err *err)
{
    struct busclient *c = calloc(1, sizeof *c);
    if (!c || !(c->seen = busclient_seen_new(BUSCLIENT_POSITIONS_MAX))) {
        free(c);
        return cule_err_set(err, CULE_ENOMEM, "no memory for a client of the bus");
    }
    c->loop = loop;
    c->o = *o;
    c->retry_ms = BUSCLIENT_RETRY_MIN_MS;
    c->positions = true;
    int rc = cule_timer_new(loop, &c->timer, retry, c, err);
    if (rc) {
        busclient_seen_free(c->seen);
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void busclient_free(struct busclient *c)
{
    if (!c) {
        return;
    }
    if (c->link) {
        cule_link_free(c->link);
    }
    cule_timer_free(c->timer);
    busclient_seen_free(c->seen);
    free(c->subs);
    free(c);
}

int busclient_subscribe(struct busclient *c, const struct busclient_subscribe *s, struct cule_err *err)
{
    int rc = busclient_check_pattern(s->pattern, err);
    if (rc) {
        return rc;
    }
    struct busclient_sub *subs = reallocarray(c->subs, c->nsubs + 1, sizeof *subs);
    if (!subs) {
        return cule_err_set(err, CULE_ENOMEM, "no memory for a subscription");
    }
    c->subs = subs;
    c->subs[c->nsubs++] = (struct busclient_sub){.s = *s};
    if (s->group || s->respond || s->durable) {
        c->positions = false; /* the broker knows where a group stands */
    }
    return 0;
}

int busclient_start(struct busclient *c, struct cule_err *err)
{
    int rc = open_link(c, err);
    return rc ? cule_err_context(err, rc, "cannot reach the bus at '%s'", c->o.where->endpoint) : 0;
}

struct cule_link *busclient_link(const struct busclient *c)
{
    return c->link;
}

bool busclient_is_up(const struct busclient *c)
{
    return c->state == BUSCLIENT_UP;
}

uint64_t busclient_epoch(const struct busclient *c)
{
    return c->epoch;
}

static void verdict(struct busclient *c, uint32_t op, uint64_t epoch, uint64_t subscription, uint64_t number,
                    const char *json)
{
    if (!c->link || epoch != c->epoch) {
        return;
    }
    struct cule_msg m = cule_msg_make(CULE_EVENT, CULE_S_BUS, op);
    m.h.arg0 = subscription;
    m.h.arg1 = number;
    m.body = (const uint8_t *)json;
    m.len = json ? strlen(json) : 0;
    cule_link_send_free(c->link, &m); /* an ack that waits for credit could wait for the ack's own effect */
}

void busclient_ack(struct busclient *c, uint64_t epoch, uint64_t subscription, uint64_t number)
{
    verdict(c, CULE_OP_BUS_ACK, epoch, subscription, number, NULL);
}

void busclient_nack(struct busclient *c, uint64_t epoch, uint64_t subscription, uint64_t number, const char *json)
{
    verdict(c, CULE_OP_BUS_NACK, epoch, subscription, number, json);
}

void busclient_consumed(struct busclient *c, const struct busclient_delivery *d)
{
    if (c->link && c->o.manual_credit) {
        cule_link_consumed(c->link, d->priority, 1, d->msg->len + (d->msg->trace ? CULE_TRACE_SIZE : 0));
    }
}

void busclient_unsubscribe(struct busclient *c)
{
    c->leaving = true;
    c->closing_clean = true;
    for (size_t i = 0; c->link && i < c->nsubs; i++) {
        struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_UNSUBSCRIBE);
        m.h.arg0 = c->subs[i].number;
        cule_link_call(c->link, &m, BUSCLIENT_ASK_MS, NULL, NULL, NULL);
    }
}

void busclient_close(struct busclient *c)
{
    const struct cule_err none = {0};
    if (c->state == BUSCLIENT_OVER || c->state == BUSCLIENT_CLOSING) {
        return;
    }
    if (!c->link) {
        finish(c, &none);
        return;
    }
    c->closing_clean = true;
    c->state = BUSCLIENT_CLOSING;
    cule_link_close(c->link);
}

struct busclient_stats busclient_stats(const struct busclient *c)
{
    return c->stats;
}

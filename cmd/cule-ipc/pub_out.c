/* The way out of pub: events in batches, or requests whose acknowledgement is waited for. */
#include "base/bytes.h"
#include "pub.h"

#include <stdlib.h>

/* A publication that the bus has not acknowledged; it is sent again after a lost connection. */
struct pub_unacked {
    struct cule_list node;
    struct pub *p;
    uint64_t epoch; /* of the connection that it is on its way on; 0: none */
    uint8_t priority;
    bool retain;
    uint8_t topic_len;
    size_t len;
    uint8_t bytes[]; /* topic, body */
};

int pub_out_begin(struct pub *p, struct cule_err *err)
{
    (void)err;
    cule_buf_init(&p->batch, 0);
    cule_list_init(&p->unacked);
    return 0;
}

static void drop(struct pub_unacked *u)
{
    u->p->unacked_count--;
    u->p->unacked_bytes -= u->len;
    cule_list_remove(&u->node);
    free(u);
}

void pub_out_release(struct pub *p)
{
    if (!p->unacked.next) {
        return;
    }
    CULE_LIST_EACH (n, &p->unacked) {
        drop(CULE_LIST_ENTRY(n, struct pub_unacked, node));
    }
    cule_buf_release(&p->batch);
}

/* --- acknowledged --- */

static void on_ack(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct pub_unacked *u = arg;
    struct pub *p = u->p;
    struct cule_err err = {0};
    int rc = cule_msg_error(answer, &err);
    if (p->run.over) {
        return;
    }
    if ((rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED) && !p->o->no_reconnect) {
        u->epoch = 0; /* whether it was taken is not known: at least once is what --ack promises */
        return;
    }
    if (rc) {
        p->failed++;
        if (!p->first_failure.code) {
            p->first_failure = err;
            cule_err_context(&p->first_failure, rc, "the bus did not take a message on '%.*s'", (int)u->topic_len,
                             (const char *)u->bytes);
        }
    } else {
        p->acked++;
    }
    drop(u);
    pub_in_pump(p);
}

static int send_unacked(struct pub *p, struct pub_unacked *u)
{
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_PUBLISH);
    m.h.priority = u->priority;
    m.h.flags = (uint16_t)(CULE_ACK_WANTED | (u->retain ? CULE_RETAIN : 0));
    m.h.arg0 = u->topic_len;
    m.body = u->bytes;
    m.len = u->len;
    u->epoch = busclient_epoch(p->run.client);
    int rc =
        cule_link_call(busclient_link(p->run.client), &m, p->one_shot ? p->run.cli->timeout_ms : 0, on_ack, u, NULL);
    if (rc) {
        u->epoch = 0;
    }
    return rc;
}

static int put_acked(struct pub *p, const struct pub_message *m)
{
    size_t n = m->topic_len + m->len;
    if (p->unacked_count >= PUB_UNACKED_MAX || (p->unacked_count > 0 && p->unacked_bytes + n > PUB_UNACKED_BYTES)) {
        return CULE_EAGAIN;
    }
    struct pub_unacked *u = malloc(sizeof *u + n);
    if (!u) {
        return CULE_ENOMEM;
    }
    *u = (struct pub_unacked){
        .p = p, .priority = m->priority, .retain = m->retain, .topic_len = (uint8_t)m->topic_len, .len = n};
    memcpy(u->bytes, m->topic, m->topic_len);
    if (m->len) {
        memcpy(u->bytes + m->topic_len, m->body, m->len);
    }
    cule_list_push(&p->unacked, &u->node);
    p->unacked_count++;
    p->unacked_bytes += n;
    int rc = send_unacked(p, u);
    if (rc == CULE_EAGAIN) {
        drop(u);
        p->full = true;
        return rc;
    }
    if (rc) {
        drop(u);
    }
    return rc;
}

/* --- fire and forget --- */

/* The last message of a batch asks for an answer, which comes when the bus has dealt with all before it of the same
 * priority: so the end can be waited for, and a refusal is heard of, at the price of one answer for many messages. */
static void on_batch(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct pub *p = arg;
    struct cule_err err = {0};
    int rc = cule_msg_error(answer, &err);
    p->batches--;
    if (p->run.over) {
        return;
    }
    if (rc && rc != CULE_ECLOSED && rc != CULE_EPEER_RESTARTED) {
        p->failed++;
        if (!p->first_failure.code) {
            p->first_failure = err;
            cule_err_context(&p->first_failure, rc, "the bus does not take what is published");
        }
    }
    if (p->eof || p->stopped) {
        pub_in_pump(p);
    }
}

static int send_last(struct pub *p)
{
    struct cule_frame h;
    const uint8_t *at = cule_buf_data(&p->batch);
    if (cule_frame_decode(&h, false, at, NULL)) {
        return CULE_EMALFORMED; /* we wrote it ourselves */
    }
    struct cule_msg m = {.h = h, .body = at + CULE_HEADER_SIZE, .len = h.length};
    m.h.kind = CULE_REQUEST;
    int rc = cule_link_call(busclient_link(p->run.client), &m, p->run.cli->timeout_given ? p->run.cli->timeout_ms : 0,
                            on_batch, p, NULL);
    p->batches += rc == 0;
    return rc;
}

int pub_out_flush(struct pub *p)
{
    struct cule_link *l = busclient_link(p->run.client);
    int rc = 0;
    if (p->batch_frames == 0) {
        return 0;
    }
    if (!l || !busclient_is_up(p->run.client)) {
        p->full = true;
        return CULE_EAGAIN;
    }
    if (p->batch_frames > 1) {
        rc = cule_link_send_raw(l, p->batch_priority, cule_buf_data(&p->batch), p->batch_last, p->batch_frames - 1);
        if (rc == 0) {
            cule_buf_take(&p->batch, p->batch_last);
            p->batch_last = 0;
            p->batch_frames = 1;
        }
    }
    if (rc == 0 && (rc = send_last(p)) == 0) {
        p->batch_frames = 0;
        cule_buf_clear(&p->batch);
    }
    p->full = p->full || rc == CULE_EAGAIN;
    return rc;
}

static struct cule_frame event_header(const struct pub_message *m)
{
    struct cule_frame h;
    cule_frame_init(&h, CULE_EVENT);
    h.service = CULE_S_BUS;
    h.op = CULE_OP_BUS_PUBLISH;
    h.priority = m->priority;
    h.flags = m->retain ? CULE_RETAIN : 0;
    h.arg0 = m->topic_len;
    h.length = (uint32_t)(m->topic_len + m->len);
    return h;
}

static int put_event(struct pub *p, const struct pub_message *m)
{
    size_t n = m->topic_len + m->len;
    int rc;
    if (p->batch_frames > 0 && (m->priority != p->batch_priority || p->batch_frames >= PUB_BATCH_FRAMES ||
                                cule_buf_len(&p->batch) + n > PUB_BATCH_BYTES)) {
        if ((rc = pub_out_flush(p))) {
            return rc;
        }
    }
    p->batch_priority = m->priority;
    uint8_t *at;
    if ((rc = cule_buf_reserve(&p->batch, CULE_HEADER_SIZE + cule_pad8(n), &at))) {
        return rc;
    }
    struct cule_frame h = event_header(m);
    cule_frame_encode(&h, false, at);
    at += CULE_HEADER_SIZE;
    memset(at + (cule_pad8(n) - (n ? 8 : 0)), 0, n ? 8 : 0);
    memcpy(at, m->topic, m->topic_len);
    if (m->len) {
        memcpy(at + m->topic_len, m->body, m->len);
    }
    p->batch_last = cule_buf_len(&p->batch);
    cule_buf_commit(&p->batch, CULE_HEADER_SIZE + cule_pad8(n));
    p->batch_frames++;
    return 0;
}

int pub_out_put(struct pub *p, const struct pub_message *m)
{
    if (p->full || !busclient_is_up(p->run.client)) {
        return CULE_EAGAIN;
    }
    int rc;
    if (p->o->ack || p->one_shot) {
        rc = put_acked(p, m);
    } else if (m->topic_len + m->len > CULE_PAYLOAD_MAX) { /* several frames: not for a batch */
        rc = pub_out_flush(p);
        rc = rc ? rc : put_acked(p, m);
    } else {
        rc = put_event(p, m);
    }
    p->published += rc == 0;
    return rc;
}

/* --- the end --- */

void pub_out_finish(struct pub *p)
{
    if (!busclient_is_up(p->run.client) || p->run.over) {
        return; /* `up` comes back here */
    }
    int rc = pub_out_flush(p);
    if (p->batches > 0) {
        return;
    }
    if (rc == CULE_EAGAIN || p->unacked_count > 0) {
        return;
    }
    if (rc) {
        struct cule_err err;
        cule_err_set(&err, rc, "cannot publish: %s", cule_err_text(rc));
        busrun_fail(&p->run, &err);
        return;
    }
    if (p->failed > 1) {
        cule_cli_warn(p->run.cli, "%llu of %llu messages were not taken; the first reason follows",
                      (unsigned long long)p->failed, (unsigned long long)p->published);
    }
    if (p->failed) {
        busrun_fail(&p->run, &p->first_failure);
        return;
    }
    busclient_close(p->run.client);
}

void pub_out_up(struct pub *p)
{
    p->full = false;
    CULE_LIST_EACH (n, &p->unacked) {
        struct pub_unacked *u = CULE_LIST_ENTRY(n, struct pub_unacked, node);
        if (u->epoch == 0 && send_unacked(p, u)) {
            p->full = true; /* the rest when there is room */
            return;
        }
    }
    pub_in_pump(p);
}

void pub_out_down(struct pub *p)
{
    p->full = false;
    if (!p->o->ack && !p->one_shot && p->published > p->lost) {
        cule_cli_note(p->run.cli, 1, "messages on their way may be lost; --ack would send them again");
        p->lost = p->published;
    }
}

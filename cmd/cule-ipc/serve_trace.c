/* Spans of what a server does, for whoever listens; with nobody listening, nothing is done. */
#include "serve.h"

#include <string.h>
#include <unistd.h>

/* Ids of spans need to be unlike each other, not secret: a generator that is seeded once (xorshift128+, Vigna 2017)
 * spares a system call for each. */
static void span_random(struct serve *s, uint8_t out[24])
{
    uint64_t words[3];
    if (s->random[0] == 0) {
        ipc_random(s->random, sizeof s->random);
        s->random[0] |= 1;
        s->pid = (uint64_t)getpid();
    }
    for (int i = 0; i < 3; i++) {
        uint64_t a = s->random[0];
        uint64_t b = s->random[1];
        s->random[0] = b;
        a ^= a << 23;
        s->random[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
        words[i] = s->random[1] + b;
    }
    memcpy(out, words, sizeof words);
}

/* A request that is traced becomes a span of ours only while somebody is told; else its prefix passes as it came. While
 * somebody listens, what is not traced begins a trace here. */
void serve_span_start(struct serve_req *q)
{
    struct serve *s = q->s;
    const struct cule_frame *h = &q->k->m.h;
    uint8_t random[24];
    q->traced = q->k->m.trace && cule_trace_get(&q->trace, q->k->m.trace) == 0;
    if (s->ntracers == 0) {
        return;
    }
    span_random(s, random);
    if (q->traced) {
        memcpy(q->span.parent, q->trace.span, sizeof q->span.parent);
        cule_trace_child(&q->trace, &q->trace, random);
    } else {
        cule_trace_root(&q->trace, random);
        q->traced = true;
    }
    cule_trace_put(&q->trace, q->k->trace);
    q->k->m.trace = q->k->trace;
    q->span.trace = q->trace;
    q->span.start_ns = cule_wall_ns();
    q->span.service = h->service;
    q->span.op = h->op;
    q->span.pid = s->pid;
    q->span.track = q->client->number;
    strncpy(q->span.program, s->own_name, sizeof q->span.program - 1);
}

/* The spans of a turn go out as one piece. */
static void tell_spans(void *ctx)
{
    struct serve *s = ctx;
    for (unsigned i = 0; i < s->ntracers; i++) {
        struct serve_tracer *t = &s->tracers[i];
        /* A listener that reads too slowly misses spans; the work does not wait for it. */
        if (cule_link_data(t->client->link, t->id, cule_buf_data(&s->spans), cule_buf_len(&s->spans), false)) {
            s->n.spans_dropped += s->nspans;
        }
    }
    s->nspans = 0;
    cule_buf_clear(&s->spans);
}

void serve_spans_init(struct serve *s)
{
    cule_buf_init(&s->spans, SERVE_SPANS_BYTES);
    cule_defer_init(&s->tell_spans, tell_spans, s);
}

void serve_spans_release(struct serve *s)
{
    cule_defer_cancel(&s->tell_spans);
    cule_buf_release(&s->spans);
}

void serve_span_end(struct serve_req *q, int code)
{
    struct serve *s = q->s;
    if (q->span.start_ns == 0 || s->ntracers == 0) {
        return;
    }
    q->span.end_ns = CULE_MAX(cule_wall_ns(), q->span.start_ns);
    q->span.code = code;
    if (cule_buf_len(&s->spans) > SERVE_SPANS_BYTES - SERVE_SPAN_BYTES) {
        tell_spans(s);
    }
    if (cule_span_line(&q->span, &s->spans) == 0) {
        s->nspans++;
        cule_loop_defer(s->loop, &s->tell_spans);
    } else {
        s->n.spans_dropped++;
    }
}

int serve_trace_on(struct serve_client *c, uint64_t id)
{
    struct serve *s = c->s;
    if (s->ntracers == SERVE_TRACERS_MAX) {
        return CULE_ELIMIT;
    }
    s->tracers[s->ntracers++] = (struct serve_tracer){c, id};
    cule_link_reply_open(c->link, id, 0, 0, NULL, 0);
    return 0;
}

void serve_trace_forget(struct serve_client *c, uint64_t id)
{
    struct serve *s = c->s;
    for (unsigned i = 0; i < s->ntracers;) {
        if (s->tracers[i].client == c && (id == 0 || s->tracers[i].id == id)) {
            s->tracers[i] = s->tracers[--s->ntracers];
        } else {
            i++;
        }
    }
}

void serve_trace_off(struct serve *s)
{
    for (unsigned i = 0; i < s->ntracers; i++) {
        const struct serve_tracer *t = &s->tracers[i];
        if (cule_link_data(t->client->link, t->id, NULL, 0, true) == CULE_EAGAIN) {
            cule_link_error(t->client->link, t->id, CULE_ECANCELLED, 0, "tracing was turned off");
        }
    }
    s->ntracers = 0;
}

/* Spans of what a server does, for whoever listens; with nobody listening, nothing is done. */
#include "serve.h"

#include <string.h>
#include <unistd.h>

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
    ipc_random(random, sizeof random);
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
    q->span.pid = (uint64_t)getpid();
    q->span.track = q->client->number;
    strncpy(q->span.program, s->own_name, sizeof q->span.program - 1);
}

void serve_span_end(struct serve_req *q, int code)
{
    struct serve *s = q->s;
    struct cule_buf line;
    if (q->span.start_ns == 0 || s->ntracers == 0) {
        return;
    }
    q->span.end_ns = CULE_MAX(cule_wall_ns(), q->span.start_ns);
    q->span.code = code;
    cule_buf_init(&line, 0);
    if (cule_span_line(&q->span, &line) == 0) {
        for (unsigned i = 0; i < s->ntracers; i++) {
            struct serve_tracer *t = &s->tracers[i];
            /* A listener that reads too slowly misses spans; the work does not wait for it. */
            if (cule_link_data(t->client->link, t->id, cule_buf_data(&line), cule_buf_len(&line), false)) {
                s->n.spans_dropped++;
            }
        }
    }
    cule_buf_release(&line);
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

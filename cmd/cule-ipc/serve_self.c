/* What a server answers about itself: the ops of service CULE. */
#include "serve.h"

#include "base/json.h"
#include "base/pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t uptime_ms(const struct serve *s)
{
    return (cule_now_ns() - s->started_ns) / 1000000;
}

static unsigned workers(const struct serve *s, unsigned *of, uint64_t *restarts)
{
    *of = 0;
    *restarts = 0;
    return s->back->workers ? s->back->workers(s, of, restarts) : 0;
}

static void info(struct serve *s, struct cule_json_writer *w)
{
    cule_json_member_str(w, "name", s->own_name);
    cule_json_member_str(w, "program", "cule-ipc serve");
    cule_json_member_str(w, "version", CULE_VERSION);
    cule_json_member_u64(w, "pid", (uint64_t)getpid());
    cule_json_member_u64(w, "uptime_ms", uptime_ms(s));
    cule_json_member_str(w, "mode", s->back->name);
    cule_json_member_str(w, "command", s->command);
    cule_json_key(w, "services");
    cule_json_open(w, '[');
    for (size_t i = 0; i < s->o->services.n; i++) {
        cule_json_put_str(w, s->o->services.v[i]);
    }
    cule_json_close(w, ']');
}

static void health(struct serve *s, struct cule_json_writer *w)
{
    unsigned of;
    uint64_t restarts;
    unsigned up = workers(s, &of, &restarts);
    char why[80];
    const char *state = "ok";
    why[0] = '\0';
    if (s->draining) {
        state = "degraded";
        snprintf(why, sizeof why, "stopping");
    } else if (up < of) {
        state = up ? "degraded" : "failed";
        snprintf(why, sizeof why, "%u of %u workers are up", up, of);
    } else if (s->nqueued >= s->o->queue) {
        state = "degraded";
        snprintf(why, sizeof why, "the queue is full");
    }
    cule_json_member_str(w, "state", state);
    cule_json_member_str(w, "reason", why);
}

struct counter {
    const char *name, *type, *help;
    uint64_t value;
};

enum { COUNTERS = 22 };

static void counters(const struct serve *s, struct counter out[COUNTERS])
{
    struct cule_pool_stats pool;
    unsigned of;
    uint64_t restarts;
    unsigned up = workers(s, &of, &restarts);
    cule_pool_stats(&pool);
    const struct counter all[COUNTERS] = {
        {"requests_total", "counter", "requests received", s->n.requests},
        {"events_total", "counter", "one-way messages received", s->n.events},
        {"replies_total", "counter", "requests that ended in a reply", s->n.replies},
        {"errors_total", "counter", "requests that ended in an error", s->n.errors},
        {"cancelled_total", "counter", "requests given up by their asker", s->n.cancelled},
        {"timeouts_total", "counter", "requests whose deadline passed", s->n.timeouts},
        {"busy_total", "counter", "requests refused because a limit was reached", s->n.busy},
        {"refused_total", "counter", "requests refused for another reason", s->n.refused},
        {"bad_lines_total", "counter", "lines from workers that made no sense", s->n.bad_lines},
        {"spans_dropped_total", "counter", "spans that a slow listener missed", s->n.spans_dropped},
        {"bytes_in_total", "counter", "payload bytes received", s->n.bytes_in},
        {"bytes_out_total", "counter", "payload bytes answered", s->n.bytes_out},
        {"active", "gauge", "requests being worked on", s->nactive},
        {"queued", "gauge", "requests that wait", s->nqueued},
        {"queued_bytes", "gauge", "payload bytes that wait", s->queued_bytes},
        {"links", "gauge", "links that are open", s->nclients},
        {"workers", "gauge", "workers that are up", up},
        {"workers_wanted", "gauge", "workers there should be", of},
        {"worker_restarts_total", "counter", "workers started again", restarts},
        {"latency_p50_us", "gauge", "median time from arrival to end", cule_hist_at(&s->latency, 50) / 1000},
        {"latency_p99_us", "gauge", "99th percentile of it", cule_hist_at(&s->latency, 99) / 1000},
        {"buffer_bytes", "gauge", "bytes held in buffers", pool.held_bytes},
    };
    memcpy(out, all, sizeof all);
}

static int stats(struct serve *s, bool prometheus, struct cule_buf *out)
{
    struct counter all[COUNTERS];
    struct cule_json_writer w;
    int rc = 0;
    counters(s, all);
    for (int i = 0; prometheus && i < COUNTERS && !rc; i++) {
        rc = cule_buf_addf(out, "# HELP cule_serve_%s %s\n# TYPE cule_serve_%s %s\ncule_serve_%s %" PRIu64 "\n",
                           all[i].name, all[i].help, all[i].name, all[i].type, all[i].name, all[i].value);
    }
    if (prometheus) {
        return rc;
    }
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_u64(&w, "uptime_ms", uptime_ms(s));
    for (int i = 0; i < COUNTERS; i++) {
        cule_json_member_u64(&w, all[i].name, all[i].value);
    }
    cule_json_close(&w, '}');
    return cule_json_end(&w);
}

static int object(struct serve *s, struct cule_buf *out, void (*fill)(struct serve *, struct cule_json_writer *))
{
    struct cule_json_writer w;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    fill(s, &w);
    cule_json_close(&w, '}');
    return cule_json_end(&w);
}

/* The ops of CULE; those of the handlers are known to them alone. */
static int ops(struct cule_buf *out)
{
    struct cule_json_writer w;
    cule_json_begin(&w, out);
    cule_json_open(&w, '[');
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        if (o->service == (uint32_t)CULE_S_CULE && o->op != CULE_OP_CULE_AUTH) {
            cule_json_open(&w, '{');
            cule_json_member_str(&w, "service", "CULE");
            cule_json_member_u64(&w, "op", o->op);
            cule_json_member_str(&w, "name", o->name);
            cule_json_close(&w, '}');
        }
    }
    cule_json_close(&w, ']');
    return cule_json_end(&w);
}

static void set_level(struct serve_client *c, const struct cule_msg *m)
{
    struct serve *s = c->s;
    int before = s->level;
    if (m->h.arg0 > 4) {
        cule_link_error(c->link, m->h.id, CULE_EMALFORMED, m->h.arg0,
                        "log level %" PRIu64 " is none: 0 error, 1 warning, 2 info, 3 debug, 4 trace", m->h.arg0);
        return;
    }
    s->level = (int)m->h.arg0;
    cule_link_reply(c->link, m->h.id, (uint64_t)before, 0, NULL, 0);
}

static void answer(struct serve_client *c, const struct cule_msg *m, int rc, const struct cule_buf *body)
{
    if (rc) {
        cule_link_error(c->link, m->h.id, rc, 0, "%s", cule_err_text(rc));
    } else {
        cule_link_reply(c->link, m->h.id, 0, 0, cule_buf_data(body), cule_buf_len(body));
    }
}

void serve_self(struct serve_client *c, struct cule_msg *m)
{
    struct serve *s = c->s;
    struct cule_buf out;
    int rc;
    cule_buf_init(&out, 0);
    ipc_msg_consumed(c->link, m);
    if (m->h.kind != CULE_REQUEST) {
        return;
    }
    switch (m->h.op) {
    case CULE_OP_CULE_INFO: answer(c, m, object(s, &out, info), &out); break;
    case CULE_OP_CULE_HEALTH: answer(c, m, object(s, &out, health), &out); break;
    case CULE_OP_CULE_STATS: answer(c, m, stats(s, m->h.arg0 == 1, &out), &out); break;
    case CULE_OP_CULE_LOG_GET: cule_link_reply(c->link, m->h.id, (uint64_t)s->level, 0, NULL, 0); break;
    case CULE_OP_CULE_LOG_SET: set_level(c, m); break;
    case CULE_OP_CULE_OPS: answer(c, m, ops(&out), &out); break;
    case CULE_OP_CULE_ECHO: cule_link_reply(c->link, m->h.id, m->h.arg0, m->h.arg1, m->body, m->len); break;
    case CULE_OP_CULE_TRACE_ON:
        rc = serve_trace_on(c, m->h.id);
        if (rc) {
            cule_link_error(c->link, m->h.id, rc, 0, "%d listen already", SERVE_TRACERS_MAX);
        }
        break;
    case CULE_OP_CULE_TRACE_OFF:
        serve_trace_off(s);
        cule_link_reply(c->link, m->h.id, 0, 0, NULL, 0);
        break;
    default: cule_link_error(c->link, m->h.id, CULE_ENO_OP, m->h.op, "service CULE has no op 0x%04x here", m->h.op);
    }
    cule_buf_release(&out);
}

/* cule-ipc ping: round trips over a link, with their statistics. */
#include "base/hist.h"
#include "base/json.h"
#include "common.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

struct ping_opts {
    const char *endpoint;
    uint64_t count;
    uint64_t interval_ms;
    bool quiet;
    uint64_t wait_ms;
};

struct ping {
    const struct cule_cli *cli;
    const struct ping_opts *o;
    struct cule_loop *loop;
    struct cule_link *link;
    struct cule_timer *next, *late;
    struct cule_hist hist;
    char endpoint[CULE_ENDPOINT_MAX];
    uint64_t sent;
    bool over;
    int status;
};

static void finish(struct ping *p)
{
    if (!p->over) {
        p->over = true;
        cule_timer_stop(p->next);
        cule_timer_stop(p->late);
        cule_link_close(p->link);
    }
}

static void on_pong(struct cule_link *l, void *arg, uint64_t rtt_ns)
{
    struct ping *p = arg;
    if (rtt_ns == 0 || p->over) {
        return;
    }
    cule_timer_stop(p->late);
    cule_hist_add(&p->hist, rtt_ns);
    if (!p->cli->json && !p->o->quiet) {
        const char *name = cule_link_peer_name(l);
        printf("pong from %s (%s): seq=%" PRIu64 " time=%.3f ms\n", name[0] ? name : "the peer", cule_link_transport(l),
               p->sent, (double)rtt_ns / 1e6);
        fflush(stdout);
    }
    if (p->o->count && p->sent >= p->o->count) {
        finish(p);
    } else {
        cule_timer_start(p->next, p->o->interval_ms, 0);
    }
}

static void send_ping(void *ctx)
{
    struct ping *p = ctx;
    p->sent++;
    if (cule_link_ping(p->link, on_pong, p)) {
        return; /* `closed` tells why */
    }
    cule_timer_start(p->late, p->cli->timeout_ms ? p->cli->timeout_ms : UINT32_MAX, 0);
}

static void on_late(void *ctx)
{
    struct ping *p = ctx;
    p->status = cule_cli_failf(p->cli, CULE_ETIMEOUT, "no pong in time from '%s'", p->endpoint);
    finish(p);
}

static void on_ready(struct cule_link *l, void *ctx)
{
    (void)l;
    struct ping *p = ctx;
    if (p->sent == 0) {
        send_ping(p);
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    struct ping *p = ctx;
    p->link = NULL;
    if (!p->over) {
        struct cule_err err = *why;
        if (err.code == 0) {
            cule_err_set(&err, CULE_ECLOSED, "'%s' closed the link", p->endpoint);
        }
        p->status = cule_cli_fail(p->cli, &err);
    }
    p->over = true;
    cule_loop_stop(p->loop);
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)ctx;
    if (m->h.kind == CULE_REQUEST) {
        cule_link_error(l, m->h.id, CULE_ENO_SERVICE, 0, "a pinger answers no requests");
    }
}

static void on_signal(void *ctx, int signum)
{
    (void)signum;
    finish(ctx);
}

static const struct cule_link_ops ops = {.message = on_message, .ready = on_ready, .closed = on_closed};

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void tell_json(const struct ping *p, struct cule_buf *out)
{
    struct cule_json_writer w;
    const struct cule_hist *h = &p->hist;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "endpoint", p->endpoint);
    cule_json_member_u64(&w, "sent", p->sent);
    cule_json_member_u64(&w, "received", h->count);
    if (h->count) {
        cule_json_member_double(&w, "min_us", (double)h->min / 1e3);
        cule_json_member_double(&w, "mean_us", cule_hist_mean(h) / 1e3);
        cule_json_member_double(&w, "p50_us", (double)cule_hist_at(h, 50) / 1e3);
        cule_json_member_double(&w, "p99_us", (double)cule_hist_at(h, 99) / 1e3);
        cule_json_member_double(&w, "max_us", (double)h->max / 1e3);
        cule_json_member_double(&w, "stddev_us", cule_hist_stddev(h) / 1e3);
    }
    cule_json_close(&w, '}');
    if (cule_json_end(&w) == 0) {
        cule_buf_addc(out, '\n');
    }
}

static void tell(const struct ping *p)
{
    const struct cule_hist *h = &p->hist;
    struct cule_buf out;
    cule_buf_init(&out, 0);
    if (p->cli->json) {
        tell_json(p, &out);
    } else if (p->sent) {
        cule_buf_addf(&out, "%s--- %s\n%" PRIu64 " sent, %" PRIu64 " received, %.0f %% lost\n", p->o->quiet ? "" : "\n",
                      p->endpoint, p->sent, h->count, 100.0 * (double)(p->sent - h->count) / (double)p->sent);
        if (h->count) {
            cule_buf_addf(&out, "round trip min/mean/p50/p99/max = %.3f/%.3f/%.3f/%.3f/%.3f ms\n", ms(h->min),
                          cule_hist_mean(h) / 1e6, ms(cule_hist_at(h, 50)), ms(cule_hist_at(h, 99)), ms(h->max));
        }
    }
    fwrite(cule_buf_len(&out) ? cule_buf_data(&out) : (uint8_t *)"", 1, cule_buf_len(&out), stdout);
    cule_buf_release(&out);
}

static int run(struct cule_cli *cli)
{
    static struct ping p; /* the histogram is large for a stack */
    struct cule_err err = {0};
    struct cule_sigwatch *intr = NULL, *term = NULL;
    p = (struct ping){.cli = cli, .o = cli->opts};
    cule_hist_init(&p.hist);
    const struct cule_link_opts lo = {.name = "cule-ipc ping",
                                      .ops = &ops,
                                      .ctx = &p,
                                      .connect_timeout_ms = cli->timeout_ms,
                                      .wait_ms = p.o->wait_ms};
    int rc = ipc_endpoint(p.o->endpoint, p.endpoint, &err);
    rc = rc ? rc : cule_loop_new(&p.loop, &err);
    rc = rc ? rc : cule_timer_new(p.loop, &p.next, send_ping, &p, &err);
    rc = rc ? rc : cule_timer_new(p.loop, &p.late, on_late, &p, &err);
    rc = rc ? rc : cule_sigwatch_new(p.loop, &intr, SIGINT, on_signal, &p, &err);
    rc = rc ? rc : cule_sigwatch_new(p.loop, &term, SIGTERM, on_signal, &p, &err);
    rc = rc ? rc : cule_link_open(p.loop, p.endpoint, &lo, &p.link, &err);
    if (rc) {
        p.status = cule_cli_fail(cli, &err);
    } else {
        cule_loop_run(p.loop);
        tell(&p);
    }
    cule_link_free(p.link);
    cule_timer_free(p.next);
    cule_timer_free(p.late);
    cule_sigwatch_free(intr);
    cule_sigwatch_free(term);
    if (p.loop) {
        cule_loop_free(p.loop);
    }
    return p.status ? p.status : p.hist.count < p.sent ? 5 : 0;
}

const struct cule_command cule_ipc_ping = {
    .name = "ping",
    .group = "calls",
    .summary = "measure round trips over a link",
    .example = "cule-ipc ping -c 3 unix:/run/app.sock",
    .opts_size = sizeof(struct ping_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_U64(struct ping_opts, count, 'c', "count", "N", "end after N round trips (0: never)", .def = "0"),
            CULE_OPT_DURATION(struct ping_opts, interval_ms, 'i', "interval", "TIME", "wait between them", .def = "1s"),
            CULE_OPT_FLAG(struct ping_opts, quiet, 'q', "quiet", "only the statistics at the end"),
            IPC_WAIT_ROW(struct ping_opts, wait_ms),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_OPTIONAL(struct ping_opts, endpoint, "ENDPOINT", "whom to ping (default: $CULE_BUS)",
                              .complete = CULE_COMPLETE_ENDPOINT),
            CULE_ARG_END,
        },
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .run = run,
};

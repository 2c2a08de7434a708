/* cule-ipc hz: how often, how regularly and how much is published on a pattern. */
#include "base/bytes.h"
#include "base/hist.h"
#include "busask.h"
#include "busrun.h"
#include "cli/tty.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

struct hz_opts {
    BUS_OPTION_FIELDS
    const char *pattern;
    uint64_t interval_ms, count;
};

struct hz {
    struct busrun run;
    const struct hz_opts *o;
    struct cule_timer *timer;
    struct cule_hist gaps; /* of this interval, nanoseconds between arrivals */
    uint64_t messages, bytes, begin_ns, last_ns;
    uint64_t reports;
};

static void on_deliver(void *ctx, const struct busclient_delivery *d)
{
    struct hz *h = ctx;
    uint64_t now = cule_now_ns();
    if (h->last_ns) {
        cule_hist_add(&h->gaps, now - h->last_ns);
    }
    h->last_ns = now;
    h->messages++;
    h->bytes += d->len;
}

static void print(struct hz *h, double seconds)
{
    double rate = (double)h->messages / seconds, bandwidth = (double)h->bytes / seconds;
    double min = h->gaps.count ? (double)h->gaps.min / 1e6 : 0, max = (double)h->gaps.max / 1e6;
    double mean = cule_hist_mean(&h->gaps) / 1e6, dev = cule_hist_stddev(&h->gaps) / 1e6;
    double p99 = (double)cule_hist_at(&h->gaps, 99) / 1e6;
    if (h->run.cli->json) {
        printf("{\"messages\":%" PRIu64 ",\"seconds\":%.3f,\"rate_hz\":%.3f,\"bytes_per_s\":%.1f,\"mean_ms\":%.4f,"
               "\"min_ms\":%.4f,\"max_ms\":%.4f,\"jitter_ms\":%.4f,\"p99_ms\":%.4f}\n",
               h->messages, seconds, rate, bandwidth, mean, min, max, dev, p99);
        return;
    }
    char bw[16];
    if (h->messages == 0) {
        printf("nothing on '%s' in %.1f s\n", h->o->pattern, seconds);
        return;
    }
    printf("%.2f Hz, %s/s; gaps mean %.3f ms, min %.3f, max %.3f, p99 %.3f, jitter %.3f (standard deviation)\n", rate,
           busask_short(bandwidth, true, bw), mean, min, max, p99, dev);
}

static void on_timer(void *ctx)
{
    struct hz *h = ctx;
    uint64_t now = cule_now_ns();
    if (!busclient_is_up(h->run.client)) {
        return;
    }
    print(h, (double)(now - h->begin_ns) / 1e9);
    if (fflush(stdout) != 0) {
        busrun_done(&h->run, 0);
        return;
    }
    cule_hist_init(&h->gaps);
    h->messages = h->bytes = 0;
    h->begin_ns = now;
    if (++h->reports == h->o->count) {
        busclient_close(h->run.client);
    }
}

static void on_up(void *ctx)
{
    struct hz *h = ctx;
    h->begin_ns = cule_now_ns();
    h->last_ns = 0; /* the time without a connection is no gap of the topic's */
    cule_timer_start(h->timer, h->o->interval_ms, h->o->interval_ms);
    busrun_ready(&h->run);
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct hz *h = ctx;
    cule_timer_stop(h->timer);
    busrun_down(&h->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct hz *h = ctx;
    if (why->code) {
        busrun_fail(&h->run, why);
    } else {
        busrun_done(&h->run, 0);
    }
}

static void on_stop(void *ctx)
{
    struct hz *h = ctx;
    busclient_close(h->run.client);
}

static const struct busclient_ops ops = {.up = on_up, .deliver = on_deliver, .down = on_down, .over = on_over};

static int hz_run(struct cule_cli *cli)
{
    static struct hz h;
    h = (struct hz){.o = cli->opts};
    struct busclient_opts c = {.name = "cule-ipc hz", .ops = &ops, .ctx = &h, .reconnect = true};
    const struct busclient_subscribe s = {.pattern = h.o->pattern, .no_retained = true};
    cule_hist_init(&h.gaps);
    if (h.o->interval_ms == 0) {
        return cule_cli_failf(cli, CULE_EUSAGE, "--interval must be above 0");
    }
    if (busrun_begin(&h.run, cli, &h.o->at, on_stop, &h) == 0 && busrun_client(&h.run, &c) == 0 &&
        busclient_subscribe(h.run.client, &s, &h.run.err) == 0 &&
        cule_timer_new(h.run.loop, &h.timer, on_timer, &h, &h.run.err) == 0) {
        busrun_run(&h.run);
    }
    return busrun_end(&h.run);
}

const struct cule_command cule_ipc_hz = {
    .name = "hz",
    .group = "bus",
    .summary = "measure rate, bandwidth and jitter of a topic",
    .example = "cule-ipc hz sensors/imu --count 5",
    .opts_size = sizeof(struct hz_opts),
    .options = (const struct cule_opt[]){BUS_OPTION_ROWS(struct hz_opts),
                                         CULE_OPT_DURATION(struct hz_opts, interval_ms, 'i', "interval", "T",
                                                           "time that one report is about", .def = "1s"),
                                         CULE_OPT_U64(struct hz_opts, count, 'n', "count", "N",
                                                      "end after N reports (0: go on)", .def = "0"),
                                         CULE_OPT_END},
    .args = (const struct cule_arg[]){CULE_ARG(struct hz_opts, pattern, "PATTERN", "topics; + is one level, # all",
                                               .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_END},
    .flags = CULE_CMD_JSON,
    .run = hz_run,
};

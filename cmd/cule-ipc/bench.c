/* cule-ipc bench: round trips and throughput of a carrier or of the bus, with percentiles and a picture. */
#include "bench.h"

#include "base/bytes.h"
#include "base/json.h"
#include "busask.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t bench_fork(struct cule_err *err)
{
    fflush(stdout);
    pid_t parent = getpid(), p = fork();
    if (p < 0) {
        return cule_err_set(err, CULE_ELIMIT, "cannot start a process");
    }
    if (p == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(4);
        }
    }
    return p;
}

void bench_reap(pid_t p)
{
    if (p > 0) {
        kill(p, SIGKILL);
        waitpid(p, NULL, 0);
    }
}

void bench_path(char *out, size_t n, const char *what)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, n, "%s/cule-bench-%s.%d", tmp && *tmp ? tmp : "/tmp", what, (int)getpid());
}

static const struct {
    const char *key;
    double at;
} points[] = {{"p50_us", 50}, {"p90_us", 90}, {"p99_us", 99}, {"p99_9_us", 99.9}, {"p99_99_us", 99.99}};

/* --- JSON --- */

static void json_histogram(struct cule_json_writer *w, const struct cule_hist *h)
{
    uint64_t before = 0;
    cule_json_key(w, "histogram");
    cule_json_open(w, '[');
    for (double p = 5; p <= 100; p += 5) { /* twenty steps of equal count: [us, how many up to there] */
        uint64_t v = cule_hist_at(h, p);
        if (v != before) {
            cule_json_open(w, '[');
            cule_json_put_double(w, (double)v / 1000);
            cule_json_put_u64(w, (uint64_t)(p / 100 * (double)h->count + 0.5));
            cule_json_close(w, ']');
        }
        before = v;
    }
    cule_json_close(w, ']');
}

static void print_json(const struct bench_opts *o, const char *name, const char *kind, const struct bench_result *r,
                       const struct bench_result *ours)
{
    struct cule_buf b;
    struct cule_json_writer w;
    cule_buf_init(&b, 0);
    cule_json_begin(&w, &b);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, kind, name);
    cule_json_member_u64(&w, "size", o->size);
    cule_json_member_u64(&w, "count", r->rtt.count);
    if (r->rtt.count) {
        for (size_t i = 0; i < CULE_COUNT(points); i++) {
            cule_json_member_double(&w, points[i].key, (double)cule_hist_at(&r->rtt, points[i].at) / 1000);
        }
        cule_json_member_double(&w, "max_us", (double)r->rtt.max / 1000);
        cule_json_member_double(&w, "mean_us", cule_hist_mean(&r->rtt) / 1000);
        json_histogram(&w, &r->rtt);
    }
    if (r->messages_per_s > 0) {
        cule_json_member_double(&w, "messages_per_s", r->messages_per_s);
        cule_json_member_double(&w, "bytes_per_s", r->messages_per_s * (double)o->size);
    }
    if (ours && ours->rtt.count && r->rtt.count) {
        cule_json_member_double(&w, "times_ours",
                                (double)cule_hist_at(&r->rtt, 50) / (double)cule_hist_at(&ours->rtt, 50));
    }
    cule_json_close(&w, '}');
    if (cule_json_end(&w) == 0) {
        fwrite(cule_buf_data(&b), 1, cule_buf_len(&b), stdout);
        putchar('\n');
    }
    cule_buf_release(&b);
}

/* --- for people --- */

static void print_text(const struct bench_opts *o, const char *name, const struct bench_result *r,
                       const struct bench_result *ours)
{
    char a[16], c[16];
    if (r->rtt.count) {
        printf("%s, %llu bytes, %llu round trips\n ", name, (unsigned long long)o->size,
               (unsigned long long)r->rtt.count);
        for (size_t i = 0; i < CULE_COUNT(points); i++) {
            printf(" %s %.2f", points[i].key, (double)cule_hist_at(&r->rtt, points[i].at) / 1000);
        }
        printf(" max_us %.2f mean_us %.2f\n", (double)r->rtt.max / 1000, cule_hist_mean(&r->rtt) / 1000);
        if (ours && ours->rtt.count) {
            printf("  %.2f times ours\n", (double)cule_hist_at(&r->rtt, 50) / (double)cule_hist_at(&ours->rtt, 50));
        }
        struct cule_buf b;
        cule_buf_init(&b, 0);
        if (!ours && cule_hist_draw(&r->rtt, 1000, "us", 16, 40, &b) == 0) {
            fwrite(cule_buf_data(&b), 1, cule_buf_len(&b), stdout);
        }
        cule_buf_release(&b);
    }
    if (r->messages_per_s > 0) {
        printf("%s, %llu bytes, %llu messages one way\n  %smessages/s %s/s\n", name, (unsigned long long)o->size,
               (unsigned long long)r->messages, busask_short(r->messages_per_s, false, a),
               busask_short(r->messages_per_s * (double)o->size, true, c));
    }
}

static int bench_run(struct cule_cli *cli)
{
    const struct bench_opts *o = cli->opts;
    static struct bench_result ours, peer;
    struct cule_err err = {0};
    struct bench_opts own = *o;
    if (o->size > BENCH_SIZE_MAX || o->count == 0) {
        return cule_cli_failf(cli, CULE_EUSAGE, "--size is at most %d, --count at least 1", BENCH_SIZE_MAX);
    }
    if (!o->round_trips && !o->throughput) {
        own.round_trips = own.throughput = true;
    }
    cule_hist_init(&ours.rtt);
    if (bench_ours(&own, &ours, &err)) {
        return cule_cli_fail(cli, &err);
    }
    if (cli->json) {
        print_json(&own, own.endpoint, "endpoint", &ours, NULL);
    } else {
        print_text(&own, own.endpoint, &ours, NULL);
    }
    int status = 0;
    char list[256];
    snprintf(list, sizeof list, "%s", o->peers ? o->peers : "");
    for (char *save = NULL, *p = strtok_r(list, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        cule_hist_init(&peer.rtt);
        int rc = bench_peer(p, &own, &peer, &err);
        if (rc == CULE_ENOT_FOUND) {
            cule_cli_warn(cli, "%s", err.text);
        } else if (rc) {
            status = cule_cli_fail(cli, &err);
        } else if (cli->json) {
            print_json(&own, p, "peer", &peer, &ours);
        } else {
            print_text(&own, p, &peer, &ours);
        }
    }
    return status;
}

const struct cule_command cule_ipc_bench = {
    .name = "bench",
    .group = "tools",
    .summary = "measure round trips and throughput, ours and those of peers",
    .about =
        "The endpoint is pipe, unix, ring, tcp or bus, each against a process started for it (bus: with a broker of "
        "its own), or any endpoint where a Cule program answers. --peer names zmq, nng and nats, of which those "
        "that are installed are measured by the same number of round trips (request/reply over their ipc "
        "transport; nats-server on loopback). Repeatable comparisons are tests/bench/run.sh's.",
    .example = "cule-ipc bench --endpoint ring --peer zmq,nng",
    .opts_size = sizeof(struct bench_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_STRING(struct bench_opts, endpoint, 'e', "endpoint", "ENDPOINT", "what to measure", .def = "unix",
                            .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_SIZE(struct bench_opts, size, 's', "size", "SIZE", "payload", .def = "64"),
            CULE_OPT_U64(struct bench_opts, count, 'n', "count", "N", "round trips", .def = "50000"),
            CULE_OPT_FLAG(struct bench_opts, round_trips, 0, "round-trips", "round trips only"),
            CULE_OPT_FLAG(struct bench_opts, throughput, 0, "throughput", "throughput only"),
            CULE_OPT_STRING(struct bench_opts, peers, 0, "peer", "NAMES", "zmq, nng, nats, with commas"),
            CULE_OPT_END,
        },
    .flags = CULE_CMD_JSON,
    .run = bench_run,
};

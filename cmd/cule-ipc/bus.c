/* cule-ipc bus: the broker of a bus, from its options to its end. */
#include "bus.h"

#include "cli/report.h"
#include "io/ready.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    NS_PER_MS = 1000000,
    ACL_MAX_BYTES = 1 << 20,
    WINDOW_FRAMES = 4096,
    CROWD_SPARE = 48, /* descriptors left when one begins to look */
    CROWD_LOOK_MS = 200,
    CROWD_CALM = 25, /* quiet looks after which it may be said again */
};

/* --- turns --- */

uint64_t bus_now(struct broker *b, bool fresh)
{
    uint64_t now = fresh ? cule_now_ns() : cule_loop_now_ns(b->loop);
    b->now_ns = CULE_MAX(now, b->now_ns);
    return b->now_ns;
}

static void on_tick(void *ctx)
{
    struct broker *b = ctx;
    b->tick_ns = 0;
    bus_turn(b);
}

static void set_tick(struct broker *b, uint64_t at_ns)
{
    if (at_ns == UINT64_MAX || (b->tick_ns && b->tick_ns <= at_ns)) {
        return;
    }
    uint64_t now = cule_now_ns();
    b->tick_ns = at_ns;
    cule_timer_start(b->tick, at_ns > now ? (at_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0, 0);
}

static void tell_writable(struct broker *b)
{
    struct cule_list *n;
    while ((n = cule_list_pop(&b->due))) {
        struct bus_peer *p = CULE_LIST_ENTRY(n, struct bus_peer, due);
        uint64_t *ids = p->ids;
        unsigned nids = p->nids;
        bool whole = p->whole;
        p->ids = NULL;
        p->nids = 0;
        p->whole = false;
        if (p->client && whole) {
            cule_bus_writable(b->bus, p->client, 0, bus_now(b, true));
        }
        for (unsigned i = 0; i < nids && p->client; i++) {
            cule_bus_writable(b->bus, p->client, ids[i], bus_now(b, true));
        }
        free(ids);
    }
}

static void end_if_idle(struct broker *b)
{
    size_t queued = 0;
    CULE_LIST_EACH (n, &b->peers) {
        queued += cule_link_queued(CULE_LIST_ENTRY(n, struct bus_peer, node)->link);
    }
    if (b->draining && cule_bus_idle(b->bus) && queued == 0) {
        cule_loop_stop(b->loop);
    }
}

static void on_turn(void *ctx)
{
    struct broker *b = ctx;
    tell_writable(b);
    cule_bus_flush(b->bus, bus_now(b, true));
    set_tick(b, cule_bus_tick(b->bus, bus_now(b, true)));
    end_if_idle(b);
}

void bus_turn(struct broker *b)
{
    cule_loop_defer(b->loop, &b->turn);
}

/* --- signals --- */

static int load_acl(struct broker *b, struct cule_err *err)
{
    struct cule_buf text;
    char spec[4100];
    cule_buf_init(&text, 0);
    snprintf(spec, sizeof spec, "@%s", b->o->acl);
    int rc = ipc_payload(&text, spec, ACL_MAX_BYTES, err);
    if (!rc) {
        rc = cule_buf_add(&text, "", 1);
        rc = rc ? rc : cule_bus_set_acl(b->bus, (const char *)cule_buf_data(&text), err);
        rc = rc ? cule_err_context(err, rc, "'%s'", b->o->acl) : 0;
    }
    cule_buf_release(&text);
    return rc;
}

static void drained(void *ctx)
{
    struct broker *b = ctx;
    cule_cli_warn(b->cli, "ending with messages that nobody took within --drain");
    cule_loop_stop(b->loop);
}

static void on_signal(void *ctx, int signum)
{
    struct broker *b = ctx;
    struct cule_err err;
    if (signum == SIGHUP) {
        if (b->o->acl && load_acl(b, &err)) {
            cule_cli_warn(b->cli, "the rules in force stay: %s", err.text);
        } else if (b->o->acl) {
            cule_cli_note(b->cli, 0, "read '%s' again", b->o->acl);
        }
        return;
    }
    if (b->draining) {
        cule_loop_stop(b->loop); /* asked twice */
        return;
    }
    b->draining = true;
    cule_ready_stopping(getenv("NOTIFY_SOCKET"), NULL);
    for (size_t i = 0; i < b->nlisteners; i++) {
        cule_listener_free(b->listeners[i]);
    }
    b->nlisteners = 0;
    cule_bus_drain(b->bus);
    if (cule_timer_new(b->loop, &b->drain, drained, b, NULL) == 0) {
        cule_timer_start(b->drain, b->o->drain_ms, 0);
    }
    bus_turn(b);
}

/* --- set up --- */

static void raise_files(struct broker *b)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
        b->max_files = r.rlim_cur;
    }
}

static uint64_t paused(const struct broker *b)
{
    uint64_t n = 0;
    for (size_t i = 0; i < b->nlisteners; i++) {
        n += cule_listener_paused_count(b->listeners[i]);
    }
    return n;
}

static void on_crowd(void *ctx)
{
    struct broker *b = ctx;
    uint64_t now = paused(b);
    if (now != b->paused && !b->crowd_told) {
        cule_cli_warn(b->cli, "out of descriptors with %llu clients (limit %llu): others wait until some have gone",
                      (unsigned long long)b->npeers, (unsigned long long)b->max_files);
        b->crowd_told = true;
    }
    b->calm = now != b->paused ? 0 : b->calm + 1;
    b->paused = now;
    if (b->calm > CROWD_CALM && b->npeers + CROWD_SPARE < b->max_files) {
        cule_timer_stop(b->crowd);
        b->crowd_told = false;
    }
}

void bus_crowd(struct broker *b, int change)
{
    b->npeers += (uint64_t)(int64_t)change;
    if (change > 0 && b->npeers + CROWD_SPARE >= b->max_files) {
        b->calm = 0;
        cule_timer_start(b->crowd, CROWD_LOOK_MS, CROWD_LOOK_MS);
    }
}

/* What STATS says beside the bus's own counters. */
static void extra(void *ctx, struct cule_buf *out)
{
    struct broker *b = ctx;
    cule_buf_addf(out, "\"accept_paused\":%llu,", (unsigned long long)paused(b));
    bus_store_stats(b, out);
}

static int make_bus(struct broker *b, struct cule_err *err)
{
    const struct bus_opts *o = b->o;
    struct cule_bus_config c;
    cule_bus_config_init(&c);
    c.name = o->name ? o->name : "cule-ipc bus";
    c.version = CULE_VERSION;
    c.pid = (uint32_t)getpid();
    c.uid = getuid();
    c.log_level = (unsigned)o->level;
    ipc_random(&c.epoch, sizeof c.epoch);
    ipc_random(&c.seed, sizeof c.seed);
    struct cule_bus_limits *l = &c.limits;
    l->clients = (uint32_t)CULE_MIN(o->max_clients, UINT32_MAX);
    l->topics = (uint32_t)CULE_MIN(o->max_topics, UINT32_MAX);
    l->rate = o->max_rate;
    l->uid_rate = o->uid_max_rate;
    l->subscriptions = (uint32_t)CULE_MIN(o->max_subscriptions, UINT32_MAX);
    l->uid_subscriptions = (uint32_t)CULE_MIN(o->uid_max_subscriptions, UINT32_MAX);
    l->queue_bytes = o->max_queue_bytes;
    l->uid_queue_bytes = o->uid_max_queue_bytes;
    l->uid_clients = (uint32_t)CULE_MIN(o->uid_max_clients, UINT32_MAX);
    l->memory = o->max_memory;
    l->queue_messages = (uint32_t)CULE_MIN(o->queue, UINT32_MAX);
    l->queue_bytes_each = o->queue_bytes;
    l->slow_ns = o->slow_ms * NS_PER_MS;
    b->fx = bus_effects;
    if (o->store) {
        int failed = bus_store_open(b, err);
        if (failed) {
            return failed;
        }
        bus_store_effects(&b->fx);
    }
    int rc = cule_bus_new(&b->bus, &c, &b->fx, b);
    if (rc) {
        return cule_err_set(err, rc, "cannot make the bus: %s", cule_err_text(rc));
    }
    cule_bus_set_extra(b->bus, extra);
    cule_bus_set_wall(b->bus, cule_wall_ns() - cule_now_ns());
    for (size_t i = 0; i < o->topics.n && !rc; i++) {
        rc = cule_bus_set_topic(b->bus, o->topics.v[i], err);
        rc = rc == CULE_EMALFORMED ? cule_err_context(err, CULE_EUSAGE, "--topic '%s'", o->topics.v[i]) : rc;
    }
    rc = rc ? rc : o->acl ? load_acl(b, err) : 0;
    return rc ? rc : o->store ? bus_store_start(b, err) : 0;
}

static int listen_all(struct broker *b, struct cule_err *err)
{
    char own[CULE_ENDPOINT_MAX];
    const char *fallback = own;
    size_t n = b->o->listen.n ? b->o->listen.n : 1;
    int rc = b->o->listen.n ? 0 : ipc_endpoint(NULL, own, err);
    b->listeners = calloc(n, sizeof(struct cule_listener *));
    if (!b->listeners) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    struct cule_link_opts lo = {
        .name = b->o->name ? b->o->name : "cule-ipc bus",
        .manual_credit = true,
        .window_frames = WINDOW_FRAMES,
        .message_max = b->o->message_max,
    };
    struct cule_listen_opts how = {.listen_fds = getenv("LISTEN_FDS"),
                                   .listen_pid = getenv("LISTEN_PID"),
                                   .listen_fdnames = getenv("LISTEN_FDNAMES")};
    for (size_t i = 0; i < n && !rc; i++) {
        const char *at = b->o->listen.n ? b->o->listen.v[i] : fallback;
        rc = ipc_make_run_dir(at, err);
        rc = rc ? rc : cule_listen(b->loop, at, &lo, &how, bus_accept, b, &b->listeners[i], err);
        if (!rc) {
            b->nlisteners++;
            cule_cli_note(b->cli, 1, "listening on %s", cule_listener_endpoint(b->listeners[i]));
        }
    }
    return rc;
}

static int start(struct broker *b, struct cule_err *err)
{
    static const int signums[] = {SIGTERM, SIGINT, SIGHUP};
    raise_files(b);
    cule_list_init(&b->peers);
    cule_list_init(&b->due);
    cule_defer_init(&b->turn, on_turn, b);
    int rc = cule_loop_new(&b->loop, err);
    rc = rc ? rc : cule_timer_new(b->loop, &b->tick, on_tick, b, err);
    rc = rc ? rc : cule_timer_new(b->loop, &b->crowd, on_crowd, b, err);
    for (size_t i = 0; i < CULE_COUNT(signums) && !rc; i++) {
        rc = cule_sigwatch_new(b->loop, &b->sigs[i], signums[i], on_signal, b, err);
    }
    rc = rc ? rc : make_bus(b, err);
    rc = rc ? rc : listen_all(b, err);
    return rc ? rc : cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), err);
}

static void finish(struct broker *b)
{
    for (size_t i = 0; i < b->nlisteners; i++) {
        cule_listener_free(b->listeners[i]);
    }
    free(b->listeners);
    CULE_LIST_EACH (n, &b->peers) { /* all from the bus before any link goes: one's end may be told to another */
        struct bus_peer *p = CULE_LIST_ENTRY(n, struct bus_peer, node);
        if (p->client) {
            cule_bus_client_gone(b->bus, p->client, bus_now(b, true));
        }
    }
    CULE_LIST_EACH (n, &b->peers) {
        struct bus_peer *p = CULE_LIST_ENTRY(n, struct bus_peer, node);
        cule_link_free(p->link);
        free(p->ids);
        free(p);
    }
    bus_store_close(b); /* commits what is queued; answers nobody waits for any more */
    cule_bus_free(b->bus);
    cule_defer_cancel(&b->turn);
    cule_loop_free(b->loop);
}

static int bus_run(struct cule_cli *cli)
{
    struct cule_err err = {0};
    struct broker b = {.cli = cli, .o = cli->opts, .store_fd = -1};
    int rc = start(&b, &err);
    if (!rc) {
        cule_loop_run(b.loop);
    }
    finish(&b);
    return rc ? cule_cli_fail(cli, &err) : 0;
}

#define S struct bus_opts
const struct cule_command cule_ipc_bus = {
    .name = "bus",
    .group = "bus",
    .summary = "be the broker of a bus",
    .example = "cule-ipc bus --topic 'log/#:history=1000,overflow=drop-oldest'",
    .opts_size = sizeof(S),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_LIST(S, listen, 'l', "listen", "ENDPOINT",
                          "where clients come in, several times (default: $CULE_BUS, else unix:$CULE_RUN/bus)",
                          .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_LIST(S, topics, 't', "topic", "PATTERN:KEY=VALUE[,...]",
                          "policies of topics: overflow, durability, history, history-bytes, history-age, max-message, "
                          "limit"),
            CULE_OPT_STRING(S, store, 's', "store", "FILE",
                            "keep what is durable in this SQLite file (synchronous=FULL, committed in groups)",
                            .complete = CULE_COMPLETE_FILE),
            CULE_OPT_STRING(S, acl, 0, "acl", "FILE", "who may do what; read again on SIGHUP",
                            .complete = CULE_COMPLETE_FILE),
            CULE_OPT_STRING(S, name, 0, "name", "NAME", "what the broker calls itself"),
            CULE_OPT_U64(S, max_clients, 0, "max-clients", "N", "clients at once (0: no limit)", .def = "0"),
            CULE_OPT_U64(S, max_topics, 0, "max-topics", "N", "topics known at once", .def = "100000"),
            CULE_OPT_U64(S, max_rate, 0, "max-rate", "N", "messages a second of a client (0: no limit)", .def = "0"),
            CULE_OPT_U64(S, max_subscriptions, 0, "max-subscriptions", "N", "subscriptions of a client (0: no limit)",
                         .def = "10000"),
            CULE_OPT_SIZE(S, max_queue_bytes, 0, "max-queue-bytes", "SIZE", "waiting for one client (0: no limit)",
                          .def = "64M"),
            CULE_OPT_SIZE(S, max_memory, 0, "max-memory", "SIZE", "all messages that the bus holds", .def = "1G"),
            CULE_OPT_SIZE(S, message_max, 0, "max-message", "SIZE", "the largest message taken", .def = "16M"),
            CULE_OPT_U64(S, uid_max_clients, 0, "uid-max-clients", "N", "clients of a user (0: no limit)", .def = "0"),
            CULE_OPT_U64(S, uid_max_rate, 0, "uid-max-rate", "N", "messages a second of a user (0: no limit)",
                         .def = "0"),
            CULE_OPT_U64(S, uid_max_subscriptions, 0, "uid-max-subscriptions", "N",
                         "subscriptions of a user (0: no limit)", .def = "0"),
            CULE_OPT_SIZE(S, uid_max_queue_bytes, 0, "uid-max-queue-bytes", "SIZE",
                          "waiting for a user's clients (0: no limit)", .def = "0"),
            CULE_OPT_U64(S, queue, 0, "queue", "N", "messages that may wait for a subscription that does not say",
                         .def = "1024"),
            CULE_OPT_SIZE(S, queue_bytes, 0, "queue-bytes", "SIZE", "the same in bytes", .def = "8M"),
            CULE_OPT_DURATION(S, slow_ms, 0, "slow", "TIME", "a message that waits longer makes a slow handler",
                              .def = "1s"),
            CULE_OPT_DURATION(S, drain_ms, 0, "drain", "TIME", "how long SIGTERM waits for subscribers", .def = "5s"),
            CULE_OPT_CHOICE(S, level, 0, "log-level", "LEVEL", "error|warning|info", "what is told on stderr",
                            .def = "warning"),
            CULE_OPT_END,
        },
    .run = bus_run,
};
#undef S

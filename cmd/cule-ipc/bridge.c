/* cule-ipc bridge: joins a bus to NATS. This file: options, and the bus's side. */
#include "bridge.h"

#include "base/bytes.h"
#include "base/json.h"
#include "common.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

void bridge_wake(struct bridge *b)
{
    uint64_t one = 1;
    ssize_t n = write(b->event, &one, sizeof one); /* full means that it is awake */
    (void)n;
}

static void end_if_idle(struct bridge *b)
{
    if (b->stopping && b->nout == 0 && b->npending == 0) {
        busclient_close(b->run.client);
    }
}

/* --- bus to NATS --- */

static bool hand_over(struct bridge *b, struct bridge_out *o)
{
    if (o->source == b->own) { /* we brought it */
        bridge_count(&b->stats.echoes, 1);
    } else if (cule_mpmc_push(&b->out, o) == 0) {
        b->nout++;
        return true;
    } else { /* cannot be: the bus has at most BRIDGE_INFLIGHT deliveries for each map open; then it comes again */
        free(o);
        return false;
    }
    busclient_ack(b->run.client, o->epoch, o->subscription, o->number);
    free(o);
    return true;
}

static void on_deliver(void *ctx, const struct busclient_delivery *d)
{
    struct bridge *b = ctx;
    uint64_t epoch = busclient_epoch(b->run.client);
    if (b->stopping) {
        return; /* stays with the bus */
    }
    struct bridge_out *o = calloc(1, sizeof *o + d->len);
    if (!o) {
        return;
    }
    o->epoch = epoch;
    o->subscription = d->subscription;
    o->number = d->number;
    o->seq = d->seq;
    o->source = d->source;
    o->priority = d->priority;
    o->redelivered = d->redelivered;
    o->len = d->len;
    memcpy(o->topic, d->topic, d->topic_len);
    if (d->len) {
        memcpy(o->body, d->body, d->len);
    }
    size_t i = 0;
    while (i < b->nmaps &&
           !(b->maps[i].to_nats && bridge_map_subject(&b->maps[i], d->topic, d->topic_len, o->subject))) {
        i++;
    }
    if (i == b->nmaps) {
        bridge_count(&b->stats.unmapped, 1);
        busclient_ack(b->run.client, epoch, d->subscription, d->number);
        free(o);
    } else if (b->own == 0) {
        cule_list_push(&b->early, &o->node);
    } else {
        hand_over(b, o);
    }
}

static void take_done(struct bridge *b)
{
    void *item;
    while (cule_mpmc_pop(&b->done, &item) == 1) {
        struct bridge_out *o = item;
        b->nout--;
        if (o->sent) {
            bridge_count(&b->stats.to_nats, 1);
            busclient_ack(b->run.client, o->epoch, o->subscription, o->number);
        }
        free(o);
    }
}

/* --- NATS to bus --- */

static void take_in(struct bridge *b);

static void on_published(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct bridge_in *in = arg;
    struct bridge *b = in->b;
    struct cule_err err = {0};
    int rc = cule_msg_error(answer, &err);
    if (b->run.over) {
        return;
    }
    if (rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED || rc == CULE_ECANCELLED) {
        in->epoch = 0; /* sent again when the bus is back */
        return;
    }
    if (rc) {
        bridge_count(&b->stats.refused, 1);
        cule_cli_warn(b->run.cli, "the bus did not take a message for '%s': %s", in->topic, err.text);
    } else {
        bridge_count(&b->stats.to_bus, 1);
    }
    cule_list_remove(&in->node);
    b->npending--;
    bridge_nats_taken(b, in, rc == 0 || rc == CULE_EAUTH || rc == CULE_EMALFORMED || rc == CULE_ETOO_BIG);
    take_in(b);
    end_if_idle(b);
}

static int publish(struct bridge *b, struct bridge_in *in)
{
    struct cule_buf body;
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_PUBLISH);
    cule_buf_init(&body, 0);
    int rc = busclient_join(&body, in->topic, strlen(in->topic), in->body, in->len);
    m.h.arg0 = strlen(in->topic);
    m.h.priority = in->priority;
    m.h.flags = CULE_ACK_WANTED;
    m.body = cule_buf_data(&body);
    m.len = cule_buf_len(&body);
    if (rc == 0) {
        in->epoch = busclient_epoch(b->run.client);
        rc = cule_link_call(busclient_link(b->run.client), &m, 0, on_published, in, NULL);
    }
    if (rc) {
        in->epoch = 0;
        b->full = true; /* `writable` or the next look sends it */
    }
    cule_buf_release(&body);
    return rc;
}

/* What could not be sent or was lost with a connection, then what has come since. */
static void take_in(struct bridge *b)
{
    void *item;
    if (!busclient_is_up(b->run.client)) {
        return;
    }
    if (b->full) {
        b->full = false;
        CULE_LIST_EACH (n, &b->pending) {
            struct bridge_in *in = CULE_LIST_ENTRY(n, struct bridge_in, node);
            if (in->epoch == 0 && publish(b, in)) {
                return;
            }
        }
    }
    while (!b->full && b->npending < BRIDGE_INFLIGHT && cule_mpmc_pop(&b->in, &item) == 1) {
        struct bridge_in *in = item;
        cule_list_push(&b->pending, &in->node);
        b->npending++;
        publish(b, in);
    }
}

/* --- events --- */

static void on_event(void *ctx, int events)
{
    struct bridge *b = ctx;
    uint64_t n;
    (void)events;
    if (read(b->event, &n, sizeof n) < 0) {
        return;
    }
    take_done(b);
    take_in(b);
    end_if_idle(b);
}

static void on_writable(void *ctx, uint64_t id)
{
    (void)id;
    take_in(ctx);
}

/* Our own number, by the name that only we have. */
static void on_clients(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct bridge *b = arg;
    struct cule_err err = {0};
    struct cule_json doc;
    uint64_t own = 0;
    int rc = cule_msg_error(answer, &err);
    if (b->run.over || rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED || rc == CULE_ECANCELLED) {
        return;
    }
    cule_json_init(&doc);
    rc = rc ? rc : cule_json_parse(&doc, (const char *)answer->body, answer->len, &err);
    int list = rc ? -1 : cule_json_find(&doc, 0, "clients");
    for (int i = cule_json_first(&doc, list); i >= 0; i = cule_json_next(&doc, i)) {
        if (cule_json_equal(&doc, cule_json_find(&doc, i, "name"), b->name)) {
            cule_json_get_u64(&doc, i, "id", &own, NULL);
        }
    }
    cule_json_release(&doc);
    if (own == 0) {
        if (rc == 0) {
            cule_err_set(&err, rc = CULE_ENOT_FOUND, "'%s' is not among its clients", b->name);
        }
        cule_err_context(&err, rc, "the bus does not tell us our number, without which messages could go in circles");
        busrun_fail(&b->run, &err);
        return;
    }
    b->own = (uint32_t)own;
    CULE_LIST_EACH (n, &b->early) {
        cule_list_remove(n);
        hand_over(b, CULE_LIST_ENTRY(n, struct bridge_out, node));
    }
    busrun_ready(&b->run);
}

static void drop_early(struct bridge *b)
{
    CULE_LIST_EACH (n, &b->early) {
        cule_list_remove(n);
        free(CULE_LIST_ENTRY(n, struct bridge_out, node));
    }
}

static void on_up(void *ctx)
{
    static const char what[] = "{\"what\":\"clients\"}";
    struct bridge *b = ctx;
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_LIST);
    m.body = (const uint8_t *)what;
    m.len = sizeof what - 1;
    int rc = cule_link_call(busclient_link(b->run.client), &m, BUSCLIENT_ASK_MS, on_clients, b, NULL);
    if (rc) {
        struct cule_err err;
        cule_err_set(&err, rc, "cannot ask the bus: %s", cule_err_text(rc));
        busrun_fail(&b->run, &err);
    }
    b->full = true; /* what was under way when the connection broke goes first */
    take_in(b);
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct bridge *b = ctx;
    b->own = 0;
    drop_early(b); /* not acknowledged: the bus has them still */
    CULE_LIST_EACH (n, &b->pending) {
        CULE_LIST_ENTRY(n, struct bridge_in, node)->epoch = 0;
    }
    busrun_down(&b->run, why);
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct bridge *b = ctx;
    if (why->code) {
        busrun_fail(&b->run, why);
    } else {
        busrun_done(&b->run, 0);
    }
}

static void on_stop(void *ctx)
{
    struct bridge *b = ctx;
    b->stopping = true;
    end_if_idle(b);
}

static void on_stats(void *ctx)
{
    struct bridge *b = ctx;
    const struct bridge_stats *s = &b->stats;
    fprintf(stderr,
            "{\"to_nats\":%" PRIu64 ",\"to_bus\":%" PRIu64 ",\"echoes\":%" PRIu64 ",\"unmapped\":%" PRIu64
            ",\"refused\":%" PRIu64 ",\"retries\":%" PRIu64 ",\"waits\":%" PRIu64 ",\"nats_reconnects\":%" PRIu64
            ",\"nats_dropped\":%" PRIu64 ",\"bus_connects\":%" PRIu64 ",\"under_way\":%" PRIu64 "}\n",
            s->to_nats, s->to_bus, s->echoes, s->unmapped, s->refused, s->retries, s->waits, s->nats_reconnects,
            bridge_nats_dropped(b), busclient_stats(b->run.client).connects, b->nout + b->npending);
}

/* --- set up --- */

static int read_maps(struct bridge *b)
{
    if (b->o->maps.n == 0 || b->o->maps.n > BRIDGE_MAPS_MAX) {
        return cule_err_set(&b->run.err, CULE_EUSAGE, "%zu maps given: 1 to %d are allowed (--map 'a/#=site.a.>')",
                            b->o->maps.n, BRIDGE_MAPS_MAX);
    }
    for (size_t i = 0; i < b->o->maps.n; i++) {
        int rc = bridge_map_parse(&b->maps[b->nmaps++], b->o->maps.v[i], &b->run.err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int names(struct bridge *b)
{
    uint64_t r;
    char host[128] = "";
    ipc_random(&r, sizeof r);
    snprintf(b->name, sizeof b->name, "cule-ipc bridge %016" PRIx64, r);
    gethostname(host, sizeof host - 1);
    int n = b->o->origin ? snprintf(b->origin, sizeof b->origin, "%s", b->o->origin)
                         : snprintf(b->origin, sizeof b->origin, "%s:%s", host, b->run.where.endpoint);
    if (n <= 0 || (size_t)n >= sizeof b->origin || strpbrk(b->origin, "\r\n")) {
        return cule_err_set(&b->run.err, CULE_EUSAGE, "--origin is needed: a name for this bus of 1 to %zu bytes",
                            sizeof b->origin - 1);
    }
    return 0;
}

/* One subscription for each map, with a position that the broker keeps while we are away. */
static int subscribe(struct bridge *b, char durable[][BRIDGE_NAME_MAX + 64])
{
    for (size_t i = 0; i < b->nmaps; i++) {
        snprintf(durable[i], sizeof durable[i], "%s:%s", b->o->durable ? b->o->durable : "bridge", b->maps[i].pattern);
        const struct busclient_subscribe s = {
            .pattern = b->maps[i].pattern,
            .group = durable[i],
            .durable = b->o->durable ? durable[i] : NULL,
            .ack = true,
            .no_retained = true,
            .max_inflight = CULE_MAX(BRIDGE_INFLIGHT / b->nmaps, (size_t)1),
            .max_deliver = UINT32_MAX,
        };
        int rc = b->maps[i].to_nats ? busclient_subscribe(b->run.client, &s, &b->run.err) : 0;
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int queues(struct bridge *b)
{
    struct cule_err *err = &b->run.err;
    b->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->event < 0) {
        return cule_err_set(err, CULE_ENOFD, "cannot make an eventfd");
    }
    int rc = cule_mpmc_init(&b->out, BRIDGE_QUEUE, err);
    rc = rc ? rc : cule_mpmc_init(&b->done, BRIDGE_QUEUE, err);
    rc = rc ? rc : cule_mpmc_init(&b->in, BRIDGE_QUEUE, err);
    rc = rc ? rc : cule_watch_new(b->run.loop, &b->watch, b->event, POLLIN, on_event, b, err);
    if (rc == 0 && b->o->stats_ms && (rc = cule_timer_new(b->run.loop, &b->timer, on_stats, b, err)) == 0) {
        cule_timer_start(b->timer, b->o->stats_ms, b->o->stats_ms);
    }
    return rc;
}

static void release(struct bridge *b)
{
    void *item;
    bridge_nats_stop(b);
    drop_early(b);
    while (b->done.cells && cule_mpmc_pop(&b->done, &item) == 1) {
        free(item);
    }
    while (b->out.cells && cule_mpmc_pop(&b->out, &item) == 1) {
        free(item);
    }
    while (b->in.cells && cule_mpmc_pop(&b->in, &item) == 1) {
        bridge_nats_taken(b, item, false);
    }
    CULE_LIST_EACH (n, &b->pending) {
        cule_list_remove(n);
        bridge_nats_taken(b, CULE_LIST_ENTRY(n, struct bridge_in, node), false);
    }
    cule_mpmc_release(&b->out);
    cule_mpmc_release(&b->done);
    cule_mpmc_release(&b->in);
    if (b->event >= 0) {
        close(b->event);
    }
}

static const struct busclient_ops ops = {
    .up = on_up, .deliver = on_deliver, .writable = on_writable, .down = on_down, .over = on_over};

static int bridge_run(struct cule_cli *cli)
{
    static struct bridge b;
    static char durable[BRIDGE_MAPS_MAX][BRIDGE_NAME_MAX + 64];
    b = (struct bridge){.o = cli->opts, .event = -1};
    struct busclient_opts c = {.name = b.name, .ops = &ops, .ctx = &b, .reconnect = true};
    cule_list_init(&b.early);
    cule_list_init(&b.pending);
    if (busrun_begin(&b.run, cli, &b.o->at, on_stop, &b) || read_maps(&b) || names(&b) || queues(&b) ||
        busrun_client(&b.run, &c) || subscribe(&b, durable)) {
        goto out;
    }
    if (bridge_nats_start(&b, &b.run.err) == 0) {
        busrun_run(&b.run);
        if (cli->verbose || b.o->stats_ms) {
            on_stats(&b);
        }
    }
out:
    release(&b);
    return busrun_end(&b.run);
}

const struct cule_command cule_ipc_bridge = {
    .name = "bridge",
    .group = "bus",
    .summary = "join a bus to NATS",
    .about =
        "Each --map names a pattern of topics and the subjects they are in NATS: '=' both ways, '>' only to NATS, "
        "'<' only to the bus. A message of the bus is acknowledged there once NATS has it. Messages do not come "
        "back to the bus they came from: they carry its name (--origin) in the header Cule-Origin. Give --durable "
        "where the bus has a store and nothing may be missed while the bridge is away; --jetstream for the same on "
        "the side of NATS. Requests do not pass.",
    .example = "cule-ipc bridge --nats nats://127.0.0.1:4222 --map 'sensors/#=site1.sensors.>' --map 'cmd/+<cmds.*'",
    .opts_size = sizeof(struct bridge_opts),
    .options =
        (const struct cule_opt[]){
            BUS_OPTION_ROWS(struct bridge_opts),
            CULE_OPT_STRING(struct bridge_opts, nats, 'N', "nats", "URL", "where NATS is; several with commas",
                            .def = "nats://127.0.0.1:4222"),
            CULE_OPT_LIST(struct bridge_opts, maps, 'm', "map", "PATTERN=SUBJECT", "what is what; repeatable"),
            CULE_OPT_STRING(struct bridge_opts, durable, 'd', "durable", "NAME",
                            "let the bus keep our position under NAME while we are away"),
            CULE_OPT_FLAG(struct bridge_opts, jetstream, 'j', "jetstream",
                          "publish to streams and consume from them, acknowledged on both sides"),
            CULE_OPT_STRING(struct bridge_opts, origin, 0, "origin", "NAME",
                            "this bus's name, the same for all its bridges (default: host and endpoint)"),
            CULE_OPT_STRING(struct bridge_opts, creds, 0, "creds", "FILE", "NATS credentials",
                            .complete = CULE_COMPLETE_FILE),
            CULE_OPT_DURATION(struct bridge_opts, stats_ms, 0, "stats-every", "T",
                              "print counters as JSON on stderr every T (0: never)", .def = "0"),
            CULE_OPT_END,
        },
    .run = bridge_run,
};

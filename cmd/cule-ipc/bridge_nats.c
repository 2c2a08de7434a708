/* The NATS side of the bridge: libnats' threads, and one of ours that publishes. */
#include "bridge.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if __has_include(<nats/nats.h>)
#include <nats/nats.h>

#define HEADER_ORIGIN "Cule-Origin"
#define HEADER_PRIORITY "Cule-Priority"
enum { PENDING_MESSAGES = 65536, PENDING_BYTES = 64 * 1024 * 1024, NS_PER_MS = 1000000 };

struct bridge_nats {
    natsConnection *nc;
    jsCtx *js; /* NULL without JetStream */
    natsSubscription *subs[BRIDGE_MAPS_MAX * 2];
    size_t nsubs;
    pthread_t thread;
    bool thread_runs;
    bool stop;             /* atomic */
    uint64_t async_failed; /* JetStream publications refused, atomic */
};

static bool stopped(struct bridge_nats *n)
{
    return __atomic_load_n(&n->stop, __ATOMIC_ACQUIRE);
}

static void pause_ms(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * NS_PER_MS};
    nanosleep(&t, NULL);
}

/* --- from NATS --- */

static void on_nats(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)nc;
    (void)sub;
    struct bridge *b = ctx;
    const char *origin = NULL, *priority = NULL;
    struct bridge_in *in = NULL;
    if (natsMsgHeader_Get(msg, HEADER_ORIGIN, &origin) == NATS_OK && strcmp(origin, b->origin) == 0) {
        bridge_count(&b->stats.echoes, 1);
        goto drop;
    }
    in = calloc(1, sizeof *in);
    if (!in) {
        goto drop;
    }
    size_t i = 0;
    while (i < b->nmaps && !(b->maps[i].to_bus && bridge_map_topic(&b->maps[i], natsMsg_GetSubject(msg), in->topic))) {
        i++;
    }
    if (i == b->nmaps) {
        bridge_count(&b->stats.unmapped, 1);
        goto drop;
    }
    in->b = b;
    in->msg = msg;
    in->body = natsMsg_GetData(msg);
    in->len = (size_t)natsMsg_GetDataLength(msg);
    in->priority = CULE_NORMAL;
    if (natsMsgHeader_Get(msg, HEADER_PRIORITY, &priority) == NATS_OK && cule_priority_parse(priority) >= 0) {
        in->priority = (uint8_t)cule_priority_parse(priority);
    }
    while (cule_mpmc_push(&b->in, in) != 0) { /* the bus is slower: libnats holds what comes meanwhile, to its limit */
        if (stopped(b->nats)) {
            goto drop;
        }
        bridge_count(&b->stats.waits, 1);
        pause_ms(1);
    }
    bridge_wake(b);
    return;
drop:
    if (b->nats->js) {
        natsMsg_Ack(msg, NULL);
    }
    natsMsg_Destroy(msg);
    free(in);
}

void bridge_nats_taken(struct bridge *b, struct bridge_in *in, bool taken)
{
    if (b->nats && b->nats->js && taken) {
        natsMsg_Ack(in->msg, NULL);
    }
    natsMsg_Destroy(in->msg);
    free(in);
}

uint64_t bridge_nats_dropped(struct bridge *b)
{
    uint64_t sum = 0;
    for (size_t i = 0; b->nats && i < b->nats->nsubs; i++) {
        int64_t n = 0;
        if (natsSubscription_GetDropped(b->nats->subs[i], &n) == NATS_OK && n > 0) {
            sum += (uint64_t)n;
        }
    }
    return sum;
}

/* --- to NATS --- */

static natsMsg *message(const struct bridge *b, const struct bridge_out *o)
{
    natsMsg *m = NULL;
    char id[sizeof b->origin + BRIDGE_NAME_MAX + 32];
    bool ok = natsMsg_Create(&m, o->subject, NULL, o->body, (int)o->len) == NATS_OK &&
              natsMsgHeader_Set(m, HEADER_ORIGIN, b->origin) == NATS_OK;
    if (ok && o->priority != CULE_NORMAL) {
        ok = natsMsgHeader_Set(m, HEADER_PRIORITY, cule_priority_name(o->priority)) == NATS_OK;
    }
    if (ok && b->nats->js) { /* the stream drops what it has already */
        snprintf(id, sizeof id, "%s/%s/%" PRIu64, b->origin, o->topic, o->seq);
        ok = natsMsgHeader_Set(m, "Nats-Msg-Id", id) == NATS_OK;
    }
    if (!ok) {
        natsMsg_Destroy(m);
        return NULL;
    }
    return m;
}

/* Publishes a batch and waits until the server has it. */
static bool publish(struct bridge *b, struct bridge_out **batch, size_t n)
{
    struct bridge_nats *s = b->nats;
    bool ok = natsConnection_Status(s->nc) == NATS_CONN_STATUS_CONNECTED;
    uint64_t failed = __atomic_load_n(&s->async_failed, __ATOMIC_ACQUIRE);
    for (size_t i = 0; ok && i < n; i++) {
        natsMsg *m = message(b, batch[i]);
        if (!m) {
            return false;
        }
        if (s->js) {
            ok = js_PublishMsgAsync(s->js, &m, NULL) == NATS_OK;
        } else {
            ok = natsConnection_PublishMsg(s->nc, m) == NATS_OK;
        }
        natsMsg_Destroy(m);
    }
    if (ok && s->js) {
        jsPubOptions wait;
        jsPubOptions_Init(&wait);
        wait.MaxWait = BRIDGE_FLUSH_MS;
        ok = js_PublishAsyncComplete(s->js, &wait) == NATS_OK &&
             __atomic_load_n(&s->async_failed, __ATOMIC_ACQUIRE) == failed;
    } else if (ok) {
        ok = natsConnection_FlushTimeout(s->nc, BRIDGE_FLUSH_MS) == NATS_OK;
    }
    return ok;
}

static void *outward(void *ctx)
{
    struct bridge *b = ctx;
    struct bridge_out *batch[BRIDGE_BATCH];
    for (;;) {
        void *item;
        size_t n = 0;
        if (cule_mpmc_pop_wait(&b->out, &item, -1) != 1) {
            return NULL; /* closed and empty */
        }
        do {
            batch[n++] = item;
        } while (n < BRIDGE_BATCH && cule_mpmc_pop(&b->out, &item) == 1);
        bool ok;
        while (!(ok = publish(b, batch, n)) && !stopped(b->nats)) {
            bridge_count(&b->stats.retries, 1);
            pause_ms(BRIDGE_RETRY_MS);
        }
        for (size_t i = 0; i < n; i++) {
            batch[i]->sent = ok;
            while (cule_mpmc_push(&b->done, batch[i]) != 0) { /* as large as the other: full for an instant at most */
                pause_ms(1);
            }
        }
        bridge_wake(b);
    }
}

/* --- the connection --- */

static void on_disconnected(natsConnection *nc, void *ctx)
{
    (void)nc;
    struct bridge *b = ctx;
    if (!stopped(b->nats)) {
        cule_cli_warn(b->run.cli, "lost NATS at '%s'; trying again", b->o->nats);
    }
}

static void on_reconnected(natsConnection *nc, void *ctx)
{
    (void)nc;
    struct bridge *b = ctx;
    bridge_count(&b->stats.nats_reconnects, 1);
    cule_cli_note(b->run.cli, 0, "connected to NATS at '%s' again", b->o->nats);
}

static void on_publish_failed(jsCtx *js, jsPubAckErr *e, void *ctx)
{
    (void)js;
    struct bridge *b = ctx;
    cule_cli_warn(b->run.cli, "JetStream refused a message: %s", e->ErrText ? e->ErrText : natsStatus_GetText(e->Err));
    bridge_count(&b->nats->async_failed, 1);
}

static natsStatus connect_nats(struct bridge *b)
{
    natsOptions *o = NULL;
    natsStatus s = natsOptions_Create(&o);
    s = s ? s : natsOptions_SetURL(o, b->o->nats);
    s = s ? s : natsOptions_SetName(o, b->name);
    s = s ? s : natsOptions_SetNoEcho(o, true);
    s = s ? s : natsOptions_SetMaxReconnect(o, -1);
    s = s ? s : natsOptions_SetReconnectWait(o, 250);
    s = s ? s : natsOptions_SetReconnectJitter(o, 100, 100);
    s = s ? s : natsOptions_SetPingInterval(o, 10000);
    s = s ? s : natsOptions_SetDisconnectedCB(o, on_disconnected, b);
    s = s ? s : natsOptions_SetReconnectedCB(o, on_reconnected, b);
    if (b->o->creds) {
        s = s ? s : natsOptions_SetUserCredentialsFromFiles(o, b->o->creds, NULL);
    }
    s = s ? s : natsConnection_Connect(&b->nats->nc, o);
    natsOptions_Destroy(o);
    return s;
}

static natsStatus subscribe_one(struct bridge *b, const char *subject)
{
    struct bridge_nats *n = b->nats;
    natsSubscription **sub = &n->subs[n->nsubs];
    natsStatus s;
    if (n->js) {
        jsSubOptions so;
        char durable[sizeof b->origin + BRIDGE_SUBJECT_MAX + 1];
        jsSubOptions_Init(&so);
        so.ManualAck = true;
        so.Config.MaxAckPending = BRIDGE_INFLIGHT;
        snprintf(durable, sizeof durable, "%s-%s", b->origin, subject);
        for (char *c = durable; *c; c++) { /* a consumer's name has none of these */
            if (strchr(".*>/\\ \t:@", *c)) {
                *c = '_';
            }
        }
        so.Config.Durable = durable;
        s = js_Subscribe(sub, n->js, subject, on_nats, b, NULL, &so, NULL);
    } else {
        s = natsConnection_Subscribe(sub, n->nc, subject, on_nats, b);
    }
    if (s == NATS_OK) {
        n->nsubs++;
        s = natsSubscription_SetPendingLimits(*sub, PENDING_MESSAGES, PENDING_BYTES);
    }
    return s;
}

/* "a.>" is also for what the pattern's "a/#" has without a level more: "a". */
static natsStatus subscribe(struct bridge *b, const struct bridge_map *m)
{
    natsStatus s = subscribe_one(b, m->subject);
    size_t n = strlen(m->subject);
    if (s == NATS_OK && !b->nats->js && n > 2 && strcmp(m->subject + n - 2, ".>") == 0) {
        char base[BRIDGE_SUBJECT_MAX];
        snprintf(base, sizeof base, "%.*s", (int)(n - 2), m->subject);
        s = subscribe_one(b, base);
    }
    return s;
}

int bridge_nats_start(struct bridge *b, struct cule_err *err)
{
    struct bridge_nats *n = b->nats = calloc(1, sizeof *n);
    if (!n) {
        return cule_err_set(err, CULE_ENOMEM, "no memory for a connection to NATS");
    }
    natsStatus s = connect_nats(b);
    if (s) {
        return cule_err_set(err, CULE_EIO, "cannot reach NATS at '%s': %s", b->o->nats, natsStatus_GetText(s));
    }
    if (b->o->jetstream) {
        jsOptions jo;
        jsOptions_Init(&jo);
        jo.PublishAsync.ErrHandler = on_publish_failed;
        jo.PublishAsync.ErrHandlerClosure = b;
        if ((s = natsConnection_JetStream(&n->js, n->nc, &jo))) {
            return cule_err_set(err, CULE_EIO, "cannot use JetStream: %s", natsStatus_GetText(s));
        }
    }
    for (size_t i = 0; i < b->nmaps; i++) {
        if (b->maps[i].to_bus && (s = subscribe(b, &b->maps[i]))) {
            return cule_err_set(err, CULE_EIO, "cannot subscribe to '%s' at NATS: %s%s", b->maps[i].subject,
                                natsStatus_GetText(s), n->js ? " (JetStream: is there a stream for it?)" : "");
        }
    }
    natsConnection_FlushTimeout(n->nc, BRIDGE_FLUSH_MS); /* ready means that nothing published from now on is missed */
    if (pthread_create(&n->thread, NULL, outward, b)) {
        return cule_err_set(err, CULE_ELIMIT, "cannot start a thread");
    }
    n->thread_runs = true;
    return 0;
}

void bridge_nats_stop(struct bridge *b)
{
    struct bridge_nats *n = b->nats;
    if (!n) {
        return;
    }
    __atomic_store_n(&n->stop, true, __ATOMIC_RELEASE);
    cule_mpmc_close(&b->out);
    if (n->thread_runs) {
        pthread_join(n->thread, NULL);
    }
    for (size_t i = 0; i < n->nsubs; i++) {
        natsSubscription_Destroy(n->subs[i]);
    }
    jsCtx_Destroy(n->js);
    if (n->nc) {
        natsConnection_FlushTimeout(n->nc, 1000); /* acknowledgements on their way */
    }
    natsConnection_Destroy(n->nc);
    nats_CloseAndWait(2000);
    free(n);
    b->nats = NULL;
}

#else /* built where libnats is not */

int bridge_nats_start(struct bridge *b, struct cule_err *err)
{
    (void)b;
    return cule_err_set(err, CULE_EUNSUPPORTED, "this build has no NATS: build it with libnats-dev installed");
}

void bridge_nats_stop(struct bridge *b)
{
    (void)b;
}

void bridge_nats_taken(struct bridge *b, struct bridge_in *in, bool taken)
{
    (void)b;
    (void)taken;
    free(in);
}

uint64_t bridge_nats_dropped(struct bridge *b)
{
    (void)b;
    return 0;
}

#endif

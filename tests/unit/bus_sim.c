/*
 * Thousands of random steps against the bus's core with a model beside it. What must hold: a subscription sees each
 * topic's messages once and in order within a priority; whatever it does not see was counted as dropped; an
 * acknowledged message never comes again; none that was not is lost; numbers in a history have no holes; and when all
 * have gone nothing is held. A failure prints its seed; CULE_SIM_SEED=N runs that one.
 */
#include "../lib/bus_fake.h"
#include "core/bus/internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { PEERS = 8, SUBS = 4, TOPICS = 6, STEPS = 4000, ROUNDS = 12 };

static const char *const names[TOPICS] = {"plain/a", "plain/b", "hist/a", "hist/b", "block/a", "disk/a"};
static const char *const patterns[] = {"plain/a", "plain/#", "hist/+", "#", "block/a", "disk/a", "+/a"};

struct model_sub {
    bool on, ack;
    uint64_t id;
    uint64_t seen[TOPICS][CULE_PRIORITIES]; /* highest sequence number */
    uint64_t got, expected;
    const struct cule_bus_target *target;
    uint8_t *acked[TOPICS]; /* by sequence number: 1 seen, 2 acknowledged */
};

static struct {
    struct peer peer[PEERS];
    unsigned looked[PEERS]; /* how much of what it got has been looked at */
    struct model_sub sub[PEERS][SUBS];
    uint64_t taken[TOPICS]; /* committed messages */
    uint64_t seed;
    uint64_t x;
} W;

enum { SEQ_MAX = STEPS * 2 };

static unsigned rnd(unsigned n)
{
    W.x ^= W.x << 13;
    W.x ^= W.x >> 7;
    W.x ^= W.x << 17;
    return (unsigned)((W.x >> 11) % n);
}

#define must(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fail_msg("seed %llu: %s", (unsigned long long)W.seed, #cond);                                              \
        }                                                                                                              \
    } while (0)

static int topic_of(const char *name)
{
    for (int i = 0; i < TOPICS; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static struct model_sub *find(int p, uint64_t id)
{
    for (int i = 0; i < SUBS; i++) {
        if (W.sub[p][i].on && W.sub[p][i].id == id) {
            return &W.sub[p][i];
        }
    }
    return NULL;
}

/* Looks at what a peer got since last time. */
static void look(int p)
{
    struct peer *peer = &W.peer[p];
    for (; W.looked[p] < peer->n; W.looked[p]++) {
        struct got *g = &peer->got[W.looked[p]];
        struct model_sub *s = g->kind == CULE_EVENT ? find(p, g->arg0 >> 32) : NULL;
        int t = s ? topic_of(g->topic) : -1;
        if (t < 0) {
            continue;
        }
        must(g->arg1 >= 1 && g->arg1 < SEQ_MAX);
        if (!s->ack) {
            must(g->arg1 > s->seen[t][g->priority]);
            s->seen[t][g->priority] = g->arg1;
            s->got++;
            continue;
        }
        uint8_t *mark = &s->acked[t][g->arg1];
        must(*mark != 2);
        must(*mark == 0 || g->flags & CULE_REDELIVERED);
        s->got += *mark == 0;
        *mark = 1;
    }
    if (peer->n > 20000) {
        peer->n = W.looked[p] = 0;
    }
}

static void forget_sub(struct model_sub *s)
{
    for (int t = 0; t < TOPICS; t++) {
        free(s->acked[t]);
    }
    *s = (struct model_sub){0};
}

static void do_publish(int p)
{
    char body[32];
    int t = (int)rnd(TOPICS);
    snprintf(body, sizeof body, "%d", p);
    put(&W.peer[p], CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, rnd(20) == 0 ? CULE_RETAIN : 0, rnd(CULE_PRIORITIES), names[t],
        body);
}

static void do_subscribe(int p)
{
    struct model_sub *s = &W.sub[p][rnd(SUBS)];
    char json[256];
    if (s->on) {
        look(p);
        uint64_t id = s->id;
        forget_sub(s);
        ask(&W.peer[p], CULE_S_BUS, CULE_OP_BUS_UNSUBSCRIBE, 7, id, 0, "");
        return;
    }
    bool ack = rnd(3) == 0;
    static const char *const how[] = {"drop-oldest", "drop-newest", "block"};
    static const char *const from[] = {"", ",\"from_seq\":0", ",\"last\":3", ",\"since_ms\":1700000000000"};
    snprintf(json, sizeof json,
             "{\"pattern\":\"%s\",\"tagged\":true,\"queue\":%u,\"overflow\":\"%s\"%s%s,\"max_deliver\":1000,"
             "\"ack_wait_ms\":%u,\"max_inflight\":%u}",
             patterns[rnd(7)], 1 + rnd(20), how[rnd(3)], ack ? ",\"ack\":true" : "", from[rnd(4)], 50 + rnd(500),
             1 + rnd(8));
    unsigned at = W.peer[p].n;
    look(p);
    /* Deliveries may follow at once, so the model must know the number before it looks. */
    uint64_t id = sub(&W.peer[p], json);
    must(id != 0);
    must(W.looked[p] >= at);
    s->on = true;
    s->id = id;
    s->ack = ack;
    s->target = cule_bus_sub_find(W.peer[p].client, id)->target;
    for (int t = 0; t < TOPICS && ack; t++) {
        s->acked[t] = calloc(SEQ_MAX, 1);
    }
    look(p);
}

/* Acknowledges or gives back some of what is in flight. */
static void do_ack(int p)
{
    struct peer *peer = &W.peer[p];
    unsigned first = peer->n > 40 ? peer->n - 40 : 0;
    for (unsigned i = first; i < peer->n; i++) {
        struct got g = peer->got[i];
        struct model_sub *s = g.kind == CULE_EVENT && g.flags & CULE_ACK_WANTED ? find(p, g.arg0 >> 32) : NULL;
        if (!s || rnd(3)) {
            continue;
        }
        uint64_t acked = stats().acked;
        if (rnd(4)) {
            ack(peer, &g);
            if (stats().acked == acked + 1) {
                s->acked[topic_of(g.topic)][g.arg1] = 2;
            }
        } else {
            nack(peer, &g, rnd(2) ? "" : "{\"delay_ms\":30}");
        }
        look(p);
    }
}

static void do_reconnect(int p)
{
    look(p);
    for (int i = 0; i < SUBS; i++) {
        forget_sub(&W.sub[p][i]);
    }
    peer_gone(&W.peer[p]);
    peer_init(&W.peer[p], 1000 + (uint32_t)p % 3);
    W.looked[p] = 0;
}

static void step(void)
{
    int p = (int)rnd(PEERS);
    switch (rnd(16)) {
    case 0: do_subscribe(p); break;
    case 1: peer_credit(&W.peer[p], rnd(2) ? 0 : (int64_t)rnd(10)); break;
    case 2: peer_credit(&W.peer[p], -1); break;
    case 3:
    case 4: do_ack(p); break;
    case 5: pass_ms(rnd(100)); break;
    case 6:
        if (rnd(8) == 0) {
            do_reconnect(p);
        }
        break;
    case 7:
        if (rnd(2)) {
            store_run();
        }
        break;
    default: do_publish(p); break;
    }
    for (int i = 0; i < PEERS; i++) {
        look(i);
    }
}

/* Everything that still waits goes out, and then the sums must come right. */
static void settle(void)
{
    for (int k = 0; k < 50; k++) {
        for (int i = 0; i < PEERS; i++) {
            peer_credit(&W.peer[i], -1);
        }
        store_run();
        for (int i = 0; i < PEERS; i++) {
            look(i);
            for (unsigned n = 0; n < W.peer[i].n; n++) {
                struct got g = W.peer[i].got[n];
                struct model_sub *s = g.kind == CULE_EVENT && g.flags & CULE_ACK_WANTED ? find(i, g.arg0 >> 32) : NULL;
                uint64_t acked = stats().acked;
                if (s && s->acked[topic_of(g.topic)][g.arg1] == 1) {
                    ack(&W.peer[i], &g);
                    s->acked[topic_of(g.topic)][g.arg1] += stats().acked > acked;
                    look(i);
                }
            }
        }
        pass_ms(50);
    }
    struct cule_bus_stats t = stats();
    must(t.queued_now == 0);
    must(t.queued_bytes_now == 0);
    must(t.parked_now == 0);
    must(t.inflight_now == 0);
    must(t.critical_passed == 0);
}

static void check_subs(void)
{
    for (int p = 0; p < PEERS; p++) {
        for (int i = 0; i < SUBS; i++) {
            struct model_sub *s = &W.sub[p][i];
            if (!s->on) {
                continue;
            }
            /* What it was delivered, less what came again, is what the model saw. */
            const struct cule_bus_sub *k = cule_bus_sub_find(W.peer[p].client, s->id);
            uint64_t again = k->acking ? k->acking->redelivered : 0;
            must(s->target->delivered - again == s->got);
        }
    }
}

/* From the last of these on, every number is there, up to the newest. */
static void check_history(void)
{
    struct peer p;
    peer_init(&p, 1000);
    for (int t = 0; t < TOPICS; t++) {
        char json[96];
        peer_clear(&p);
        snprintf(json, sizeof json, "{\"pattern\":\"%s\",\"from_seq\":0,\"retained\":false}", names[t]);
        must(sub(&p, json) != 0);
        store_run();
        store_run();
        const struct cule_bus_topic *topic = cule_bus_topic_find(F.bus, names[t], strlen(names[t]));
        uint64_t next = 0;
        for (unsigned i = 0; i < p.n; i++) {
            if (p.got[i].kind == CULE_EVENT) {
                must(next == 0 || p.got[i].arg1 == next);
                next = p.got[i].arg1 + 1;
            }
        }
        must(!next || next == topic->committed + 1);
        must(t != 5 || !topic || !topic->committed || count_of(&p, CULE_EVENT) == topic->committed);
    }
    peer_gone(&p);
}

static void run(uint64_t seed)
{
    struct cule_bus_config k = world_config();
    memset(&W, 0, sizeof W);
    W.seed = seed;
    W.x = seed * 0x9e3779b97f4a7c15u + 1;
    k.limits.slow_ns = 200 * ms;
    world_begin(&k, true);
    must(cule_bus_set_topic(F.bus, "hist/#:history=50", NULL) == 0);
    must(cule_bus_set_topic(F.bus, "block/#:overflow=block", NULL) == 0);
    must(cule_bus_set_topic(F.bus, "disk/#:durability=disk", NULL) == 0);
    for (int i = 0; i < PEERS; i++) {
        peer_init(&W.peer[i], 1000 + (uint32_t)i % 3);
    }
    for (int i = 0; i < STEPS; i++) {
        step();
    }
    settle();
    check_subs();
    check_history();
    for (int i = 0; i < PEERS; i++) {
        for (int n = 0; n < SUBS; n++) {
            forget_sub(&W.sub[i][n]);
        }
        peer_gone(&W.peer[i]);
    }
    struct cule_bus_stats t = stats();
    must(t.subscriptions == 0 && t.clients == 0 && t.queued_now == 0 && t.inflight_now == 0);
    world_end(); /* asserts that no message is held */
}

static void test_random(void **state)
{
    const char *one = getenv("CULE_SIM_SEED");
    (void)state;
    for (uint64_t seed = 1; seed <= ROUNDS && !one; seed++) {
        run(seed);
    }
    if (one) {
        run(strtoull(one, NULL, 10));
    }
}

/* A plain subscriber that never keeps up: what it got and what was dropped are what was published. */
static void test_sums(void **state)
{
    struct cule_bus_config k = world_config();
    (void)state;
    memset(&W, 0, sizeof W);
    W.x = 99;
    world_begin(&k, false);
    struct peer *from = &W.peer[0];
    peer_init(from, 1000);
    for (int i = 1; i < PEERS; i++) {
        peer_init(&W.peer[i], 1000);
        must(sub(&W.peer[i], i & 1 ? "{\"pattern\":\"t\",\"queue\":5}"
                                   : "{\"pattern\":\"t\",\"queue\":5,\"overflow\":\"drop-newest\"}"));
    }
    for (int i = 0; i < 3000; i++) {
        int p = 1 + (int)rnd(PEERS - 1);
        put(from, CULE_EVENT, CULE_OP_BUS_PUBLISH, 0, 0, rnd(CULE_PRIORITIES), "t", "x");
        peer_credit(&W.peer[p], rnd(4));
    }
    for (int i = 1; i < PEERS; i++) {
        peer_credit(&W.peer[i], -1);
        uint64_t dropped = W.peer[i].client->dropped;
        assert_int_equal(count_of(&W.peer[i], CULE_EVENT) + dropped, 3000);
        assert_true(dropped > 0);
    }
    for (int i = 0; i < PEERS; i++) {
        peer_gone(&W.peer[i]);
    }
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums), cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

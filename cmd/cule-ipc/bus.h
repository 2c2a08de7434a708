/* cule-ipc bus: what gives the pure broker (core/bus) its links, clock and signals. */
#ifndef CULE_IPC_BUS_H
#define CULE_IPC_BUS_H

#include "common.h"
#include "core/bus/bus.h"
#include "store/buslog.h"

struct bus_opts {
    struct cule_words listen, topics;
    const char *store, *acl, *name;
    int level;
    uint64_t max_clients, max_topics, max_rate, max_subscriptions, max_queue_bytes, max_memory;
    uint64_t uid_max_clients, uid_max_rate, uid_max_subscriptions, uid_max_queue_bytes;
    uint64_t queue, queue_bytes, slow_ms, drain_ms, message_max;
};

struct broker {
    struct cule_cli *cli;
    const struct bus_opts *o;
    struct cule_loop *loop;
    struct cule_bus *bus;
    struct cule_listener **listeners;
    size_t nlisteners;
    struct cule_list peers, due; /* due: wait for cule_bus_writable */
    struct cule_defer turn;      /* the end of a turn: flush, writable, the next tick */
    struct cule_timer *tick;
    uint64_t now_ns;  /* as last told to the bus, which must never go back */
    uint64_t tick_ns; /* what the timer is set to; 0: off */
    struct cule_sigwatch *sigs[3];
    struct cule_timer *drain; /* the end of a drain */
    bool draining, in_cancel;
    struct cule_bus_effects fx;
    struct cule_buslog *store; /* NULL without --store */
    struct cule_watch *store_watch;
    int store_fd; /* an eventfd: answers of the store are there */
    uint64_t npeers, max_files;
    struct cule_timer *crowd; /* looks at the listeners while descriptors are scarce */
    uint64_t paused;          /* times that accepting had to wait for descriptors, as last seen */
    unsigned calm;            /* looks since then */
    bool crowd_told;
};

/* A client: its link, and what the bus calls it. */
struct bus_peer {
    struct cule_list node;
    struct cule_list due; /* in broker->due */
    struct broker *b;
    struct cule_link *link;
    struct cule_bus_client *client; /* NULL until its HELLO */
    uint64_t *ids;                  /* streams that became writable: nids of them */
    unsigned nids;
    bool whole; /* the link itself became writable */
};

extern const struct cule_bus_effects bus_effects; /* without those of the store */
void bus_accept(struct cule_listener *s, void *ctx, struct cule_link *l);

/* The store. Open before the bus is made, start after it; close before the bus is freed. */
int bus_store_open(struct broker *b, struct cule_err *err);
int bus_store_start(struct broker *b, struct cule_err *err);
void bus_store_effects(struct cule_bus_effects *fx);
void bus_store_close(struct broker *b);
void bus_store_stats(struct broker *b, struct cule_buf *out);

/* Called for each client that came or went: watches for the end of descriptors while it is near. */
void bus_crowd(struct broker *b, int change);

/* At the end of this turn: retry what waits, look at the clock. */
void bus_turn(struct broker *b);

/* The time for the bus: read now, or as read once for this turn of the loop. */
uint64_t bus_now(struct broker *b, bool fresh);

#endif

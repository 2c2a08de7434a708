/*
 * cule-ipc bridge in three parts: bridge.c (options, the bus side, in the loop), bridge_nats.c (libnats and its
 * threads), bridge_map.c (names). They meet in three bounded queues and one eventfd that wakes the loop.
 *
 *   bus -> NATS   deliveries of an ack subscription go to the outward thread, which publishes them in batches and
 *                 flushes (JetStream: waits for the stream's acknowledgement); only then are they acknowledged on the
 *                 bus. A batch that fails is tried again until it gets through.
 *   NATS -> bus   libnats' delivery thread queues messages, and waits when the queue is full; the loop publishes them
 *                 as requests. JetStream messages are acknowledged when the bus has acknowledged them.
 *
 * Loops: the NATS connection takes no echo; a message that came from this bus over any bridge says so in its header
 * Cule-Origin and is not taken back; what this bridge published on the bus is told by its source.
 */
#ifndef CULE_IPC_BRIDGE_H
#define CULE_IPC_BRIDGE_H

#include "bridge_map.h"
#include "busrun.h"
#include "io/mpmc.h"

#include <pthread.h>

enum {
    BRIDGE_QUEUE = 2048,    /* each direction; a power of two */
    BRIDGE_INFLIGHT = 1024, /* bus: unacknowledged deliveries, and publications under way */
    BRIDGE_BATCH = 256,
    BRIDGE_FLUSH_MS = 5000,
    BRIDGE_RETRY_MS = 100,
};

struct bridge_opts {
    BUS_OPTION_FIELDS
    const char *nats, *durable, *origin, *creds;
    struct cule_words maps;
    bool jetstream;
    uint64_t stats_ms;
};

/* A message on its way to NATS. */
struct bridge_out {
    struct cule_list node;
    uint64_t epoch, subscription, number, seq;
    uint32_t source;
    uint8_t priority;
    bool redelivered, sent;
    char topic[BRIDGE_NAME_MAX + 1];
    char subject[BRIDGE_SUBJECT_MAX];
    size_t len;
    char body[];
};

/* A message on its way to the bus. */
struct bridge_in {
    struct cule_list node;
    struct bridge *b;
    void *msg; /* natsMsg, ours until it is acknowledged */
    const char *body;
    size_t len;
    uint64_t epoch; /* of the connection it is under way on; 0: none */
    uint8_t priority;
    char topic[BRIDGE_NAME_MAX + 1];
};

/* Counted by several threads. */
struct bridge_stats {
    uint64_t to_nats, to_bus, echoes, unmapped, refused, retries, waits, nats_reconnects;
};

struct bridge_nats; /* bridge_nats.c's own */

struct bridge {
    struct busrun run;
    const struct bridge_opts *o;
    struct bridge_map maps[BRIDGE_MAPS_MAX];
    size_t nmaps;
    char name[64], origin[256];
    struct cule_mpmc out, done, in; /* bridge_out to NATS, bridge_out back, bridge_in to the bus */
    int event;                      /* eventfd */
    struct cule_watch *watch;
    struct cule_timer *timer;
    struct cule_list early;   /* bridge_out that came before we knew our own number */
    struct cule_list pending; /* bridge_in under way to the bus */
    uint64_t npending, nout;  /* nout: bridge_out with the outward thread */
    uint32_t own;             /* our number on the bus; 0: not known yet */
    bool stopping, full;
    struct bridge_stats stats;
    struct bridge_nats *nats;
};

static inline void bridge_count(uint64_t *counter, uint64_t n)
{
    __atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

/* --- bridge_nats.c --- */
/* Connects (blocking), subscribes and starts the outward thread. */
int bridge_nats_start(struct bridge *b, struct cule_err *err);
/* Ends thread and connection; queues are left as they are. Harmless when not started. */
void bridge_nats_stop(struct bridge *b);
/* The bus has it: JetStream is told; frees the message. taken false: it is left to be delivered again. */
void bridge_nats_taken(struct bridge *b, struct bridge_in *in, bool taken);
/* Messages that libnats dropped because its own limit was reached. */
uint64_t bridge_nats_dropped(struct bridge *b);

/* Makes the loop look into the queues; from any thread. */
void bridge_wake(struct bridge *b);

#endif

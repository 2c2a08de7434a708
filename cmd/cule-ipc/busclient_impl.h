/* The bus client's state, shared by busclient.c (the connection) and busclient_resume.c (what to ask for again). */
#ifndef CULE_IPC_BUSCLIENT_IMPL_H
#define CULE_IPC_BUSCLIENT_IMPL_H

#include "busclient.h"

enum busclient_state { /* in the order of a connection's life */
                       BUSCLIENT_CONNECTING,
                       BUSCLIENT_AUTH,
                       BUSCLIENT_INFO,
                       BUSCLIENT_LISTING,
                       BUSCLIENT_SUBSCRIBING,
                       BUSCLIENT_UP,
                       BUSCLIENT_WAITING,
                       BUSCLIENT_CLOSING,
                       BUSCLIENT_OVER,
};

struct busclient_sub {
    struct busclient_subscribe s;
    uint64_t number;        /* by which the broker knows it */
    uint64_t first_wall_ms; /* when it was first asked for, since the epoch; 0 never */
    bool subscribed;        /* it was, once */
};

struct busclient {
    struct cule_loop *loop;
    struct busclient_opts o;
    struct cule_link *link; /* NULL without a connection */
    struct cule_timer *timer;
    enum busclient_state state;
    uint64_t epoch;
    uint64_t retry_ms;
    struct busclient_sub *subs;
    size_t nsubs, next_sub;
    struct busclient_seen *seen;
    bool positions;     /* every subscription is one that resumes by position */
    bool refused;       /* trying again would not help */
    bool closing_clean; /* the caller asked for the end */
    bool leaving;       /* unsubscribed: the loss of the connection is the end */
    struct cule_err why;
    char broker[64];   /* which broker it was last; empty: not known */
    bool other_broker; /* it is another one, and positions have not been checked since */
    struct busclient_stats stats;
};

/* A connection before this one was up and there are positions that may be void now. */
bool busclient_resume_needed(const struct busclient *c);
/* LIST's answer: forgets positions that the broker does not hold to any more. */
void busclient_resume_listing(struct busclient *c, const uint8_t *json, size_t n);
/* INFO's answer: notes which broker this is. */
void busclient_resume_info(struct busclient *c, const uint8_t *json, size_t n);
/* The JSON of a SUBSCRIBE, the first or a later one. */
int busclient_resume_json(const struct busclient *c, const struct busclient_sub *s, struct cule_buf *out);

#endif

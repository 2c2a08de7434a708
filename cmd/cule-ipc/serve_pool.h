/*
 * A pool of persistent workers: started, watched, started again with a growing pause when they end. What they speak is
 * the business of serve_lines.c and serve_frames.c.
 */
#ifndef CULE_IPC_SERVE_POOL_H
#define CULE_IPC_SERVE_POOL_H

#include "serve.h"

struct worker {
    struct serve *s;
    struct cule_proc *proc; /* NULL while it is down */
    struct serve_log log;
    struct cule_timer *again; /* starts it after a pause; kills it when it does not go */
    uint64_t born_ns;
    uint64_t backoff_ms;
    uint64_t started; /* times */
    unsigned open;    /* requests it works on */
    bool up;          /* takes requests */
    bool hung;        /* it has closed its output: its end is expected */
    void *speech;     /* the protocol's state while it is up */
};

struct pool_ops {
    /* Starts the process with its plumbing: w->proc and w->speech. The log's writing end is err_fd. */
    int (*start)(struct worker *w, int err_fd, struct cule_err *err);
    /* Ends what is open on it, each with ERROR handler and this text, and frees w->speech. */
    void (*down)(struct worker *w, const char *why);
    /* No more requests will come: tell it by closing its input. */
    void (*finish)(struct worker *w);
};

struct pool {
    const struct pool_ops *ops;
    struct worker *workers;
    unsigned n;
    uint64_t each; /* requests that one works on at once */
    uint64_t restarts;
    bool stopping;
};

int pool_start(struct serve *s, const struct pool_ops *ops, struct cule_err *err);
void pool_stop(struct serve *s);
void pool_release(struct serve *s);
bool pool_has_room(struct serve *s);
unsigned pool_workers(const struct serve *s, unsigned *of, uint64_t *restarts);

/* The worker that is up and has the least to do; NULL: all are full. */
struct worker *pool_pick(struct serve *s);
/* It cannot be used any more (its output has ended, it talks nonsense): deals with what is open, kills its tree, and
 * has it started again. */
void pool_lost(struct worker *w, const char *why);
/* It has closed its output. Mostly it is about to end, and how tells more than that; where it does not, it is lost. */
void pool_hangup(struct worker *w);
/* For pool_ops.start. */
void pool_on_exit(void *ctx, struct cule_proc *p, const struct cule_exit *how);

#endif

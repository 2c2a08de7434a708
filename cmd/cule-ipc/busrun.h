/* The frame of a bus subcommand that runs in a loop: loop, signals, where the bus is, how it ends. */
#ifndef CULE_IPC_BUSRUN_H
#define CULE_IPC_BUSRUN_H

#include "busclient.h"

enum { BUSRUN_GRACE_MS = 5000 }; /* from SIGTERM to the end, whatever is still under way */

struct busrun {
    const struct cule_cli *cli;
    struct cule_loop *loop;
    struct busclient *client;
    struct busclient_where where;
    struct cule_sigwatch *term, *intr;
    struct cule_timer *grace;
    void (*stop)(void *ctx); /* SIGTERM or SIGINT, once; the second ends at once */
    void *ctx;
    struct cule_err err; /* what to report at the end */
    int status;
    bool over, stopping, ready_told;
};

/* 0, or the failure in r->err; busrun_end is due in each case. */
int busrun_begin(struct busrun *r, const struct cule_cli *cli, const struct busclient_at *at, void (*stop)(void *ctx),
                 void *ctx);
/* Makes the client. o->where is set here. */
int busrun_client(struct busrun *r, struct busclient_opts *o);
/* Starts the client and runs the loop until busrun_done or busrun_fail. */
int busrun_run(struct busrun *r);
/* Frees everything, reports r->err and returns the exit status. */
int busrun_end(struct busrun *r);

/* End the loop: with a status; with an error, of which the first counts. */
void busrun_done(struct busrun *r, int status);
void busrun_fail(struct busrun *r, const struct cule_err *err);
/* Tells whoever waits ($CULE_READY_FD, $NOTIFY_SOCKET), once. */
void busrun_ready(struct busrun *r);
/* For `down` of most commands: a warning. */
void busrun_down(struct busrun *r, const struct cule_err *why);

#endif

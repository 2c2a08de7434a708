/* What every bus subcommand with a loop does at its beginning and its end. */
#include "busrun.h"

#include "io/ready.h"

#include <signal.h>
#include <stdlib.h>

static void on_grace(void *ctx)
{
    struct busrun *r = ctx;
    struct cule_err err;
    cule_err_set(&err, CULE_ETIMEOUT, "stopped by a signal with work still under way after %d ms", BUSRUN_GRACE_MS);
    busrun_fail(r, &err);
}

static void on_signal(void *ctx, int signum)
{
    struct busrun *r = ctx;
    if (r->stopping) {
        busrun_done(r, 128 + signum);
        return;
    }
    r->stopping = true;
    cule_timer_start(r->grace, BUSRUN_GRACE_MS, 0);
    if (r->stop) {
        r->stop(r->ctx);
    } else {
        busrun_done(r, 0);
    }
}

int busrun_begin(struct busrun *r, const struct cule_cli *cli, const struct busclient_at *at, void (*stop)(void *ctx),
                 void *ctx)
{
    *r = (struct busrun){.cli = cli, .stop = stop, .ctx = ctx};
    int rc = busclient_where(&r->where, at, &r->err);
    if (rc == 0) {
        rc = cule_loop_new(&r->loop, &r->err);
    }
    if (rc == 0) {
        rc = cule_sigwatch_new(r->loop, &r->term, SIGTERM, on_signal, r, &r->err);
    }
    if (rc == 0) {
        rc = cule_sigwatch_new(r->loop, &r->intr, SIGINT, on_signal, r, &r->err);
    }
    if (rc == 0) {
        rc = cule_timer_new(r->loop, &r->grace, on_grace, r, &r->err);
    }
    return rc;
}

int busrun_client(struct busrun *r, struct busclient_opts *o)
{
    o->where = &r->where;
    return busclient_new(r->loop, o, &r->client, &r->err);
}

int busrun_run(struct busrun *r)
{
    int rc = busclient_start(r->client, &r->err);
    if (rc == 0 && !r->over) {
        rc = cule_loop_run(r->loop);
    }
    return rc;
}

int busrun_end(struct busrun *r)
{
    busclient_free(r->client);
    if (r->loop) {
        cule_loop_free(r->loop);
    }
    if (r->err.code) {
        return cule_cli_fail(r->cli, &r->err);
    }
    return r->status;
}

void busrun_done(struct busrun *r, int status)
{
    if (!r->over) {
        r->over = true;
        r->status = status;
    }
    cule_loop_stop(r->loop);
}

void busrun_fail(struct busrun *r, const struct cule_err *err)
{
    if (!r->over) {
        r->over = true;
        r->err = *err;
    }
    cule_loop_stop(r->loop);
}

void busrun_ready(struct busrun *r)
{
    struct cule_err err;
    if (r->ready_told) {
        return;
    }
    r->ready_told = true;
    if (cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
        cule_cli_warn(r->cli, "%s", err.text);
    }
    unsetenv("CULE_READY_FD"); /* closed now: commands that we run must not take its number for theirs */
}

void busrun_down(struct busrun *r, const struct cule_err *why)
{
    cule_cli_warn(r->cli, "%s; trying again", why->text);
}

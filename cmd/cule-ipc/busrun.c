/* What every bus subcommand with a loop does at its beginning and its end. */
#include "busrun.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

int busrun_begin(struct busrun *r, const struct cule_cli *cli, const char *bus, const char *token_file,
                 void (*stop)(void *ctx), void *ctx)
{
    *r = (struct busrun){.cli = cli, .stop = stop, .ctx = ctx};
    int rc = busclient_where(&r->where, bus, token_file, &r->err);
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

static void notify(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof a.sun_path) {
        return;
    }
    memcpy(a.sun_path, path, n);
    if (a.sun_path[0] == '@') {
        a.sun_path[0] = '\0';
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&a, size);
        close(fd);
    }
}

void busrun_ready(struct busrun *r)
{
    if (r->ready_told) {
        return;
    }
    r->ready_told = true;
    const char *fd = getenv("CULE_READY_FD");
    char *end;
    if (fd && *fd) {
        errno = 0;
        long n = strtol(fd, &end, 10);
        if (errno || *end || n < 3 || n > 1 << 20) {
            cule_cli_warn(r->cli, "CULE_READY_FD is '%s', which is no descriptor above 2: not told that we are ready",
                          fd);
        } else if (write((int)n, "\n", 1) != 1) {
            cule_cli_warn(r->cli, "cannot write to descriptor %ld of CULE_READY_FD: %s", n, strerror(errno));
        } else {
            close((int)n);
        }
    }
    const char *sock = getenv("NOTIFY_SOCKET");
    if (sock) {
        notify(sock);
    }
}

void busrun_down(struct busrun *r, const struct cule_err *why)
{
    cule_cli_warn(r->cli, "%s; trying again", why->text);
}

/* cule-ipc relay: two endpoints joined. */
#include "relay_frames.h"

#include "io/ready.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct relay_opts {
    struct cule_words listen;
    struct cule_words connect;
    struct cule_words ends;
    uint64_t max;
    uint64_t grace_ms;
};

/* One of the two sides. */
struct side {
    const char *endpoint;
    bool listens;
    struct cule_endpoint ep;
    struct cule_watch *watch;
    int fd;
    struct relay_end waiting; /* accepted, while the other side, which listens too, has nobody yet */
    bool has_waiting;
};

struct relay {
    const struct cule_cli *cli;
    const struct relay_opts *o;
    struct cule_loop *loop;
    struct side side[2];
    struct relay_frames *frames; /* where bytes cannot pass as they are */
    struct cule_timer *grace;
    uint64_t open;
    bool stopping;
    int status;
};

static void pair_over(void *ctx, struct relay_pair *p, const struct cule_err *why)
{
    struct relay *r = ctx;
    uint64_t asked, answered;
    relay_pair_count(p, &asked, &answered);
    if (why->code) {
        bool serves = r->side[0].listens || r->side[1].listens;
        if (serves) {
            cule_cli_warn(r->cli, "a connection ended: %s", why->text);
        } else {
            r->status = cule_cli_fail(r->cli, why);
        }
    }
    cule_cli_note(r->cli, 1, "passed %llu bytes one way and %llu the other", (unsigned long long)asked,
                  (unsigned long long)answered);
    r->open--;
    if (r->open == 0 && (r->stopping || (!r->side[0].listens && !r->side[1].listens))) {
        cule_loop_stop(r->loop);
    }
}

static const struct relay_pair_ops pair_ops = {.over = pair_over};

/* a and b are this function's to close. */
static int join(struct relay *r, struct relay_end *a, struct relay_end *b, struct cule_err *err)
{
    struct relay_pair *p;
    int rc = relay_pair_new(r->loop, a, b, &pair_ops, r, &p, err);
    if (rc) {
        relay_end_close(a);
        relay_end_close(b);
    } else {
        r->open++;
    }
    return rc;
}

/* Somebody has come in by side i. */
static void came_in(struct relay *r, unsigned i, struct relay_end *in)
{
    struct side *other = &r->side[1 - i];
    struct relay_end out = {0};
    struct cule_err err = {0};
    if (other->listens) {
        if (!other->has_waiting) {
            r->side[i].waiting = *in;
            r->side[i].has_waiting = true;
            cule_watch_set(r->side[i].watch, 0); /* the backlog holds the next ones */
            return;
        }
        out = other->waiting;
        other->has_waiting = false;
        cule_watch_set(other->watch, POLLIN);
    } else if (relay_end_open(r->loop, other->endpoint, &out, &err)) {
        cule_cli_warn(r->cli, "cannot reach '%s': %s", other->endpoint, err.text);
        relay_end_close(in);
        return;
    }
    if (join(r, i == 0 ? in : &out, i == 0 ? &out : in, &err)) {
        cule_cli_warn(r->cli, "cannot join a connection: %s", err.text);
    }
}

static void accept_one(struct relay *r, unsigned i)
{
    struct relay_end in;
    struct cule_err err = {0};
    int fd = accept4(r->side[i].fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    if (r->open >= r->o->max) {
        cule_cli_warn(r->cli, "a connection refused: %llu are open (--max)", (unsigned long long)r->open);
        close(fd);
    } else if (relay_end_fd(fd, fd, &in, &err)) {
        cule_cli_warn(r->cli, "a connection refused: %s", err.text);
        close(fd);
    } else {
        came_in(r, i, &in);
    }
}

static void on_accept_0(void *ctx, int events)
{
    (void)events;
    accept_one(ctx, 0);
}

static void on_accept_1(void *ctx, int events)
{
    (void)events;
    accept_one(ctx, 1);
}

/* --- starting --- */

static int take_side(struct relay *r, unsigned *n, const char *endpoint, bool listens, struct cule_err *err)
{
    if (*n == 2) {
        return cule_err_set(err, CULE_EUSAGE, "a relay joins two endpoints, '%s' is a third", endpoint);
    }
    struct side *s = &r->side[(*n)++];
    s->endpoint = endpoint;
    s->listens = listens;
    s->fd = -1;
    return cule_endpoint_parse(&s->ep, endpoint, err);
}

static int take_sides(struct relay *r, struct cule_err *err)
{
    unsigned n = 0;
    int rc = 0;
    for (size_t i = 0; i < r->o->listen.n && !rc; i++) {
        rc = take_side(r, &n, r->o->listen.v[i], true, err);
    }
    for (size_t i = 0; i < r->o->connect.n && !rc; i++) {
        rc = take_side(r, &n, r->o->connect.v[i], false, err);
    }
    for (size_t i = 0; i < r->o->ends.n && !rc; i++) {
        rc = take_side(r, &n, r->o->ends.v[i], false, err);
    }
    if (!rc && n != 2) {
        rc = cule_err_set(err, CULE_EUSAGE, "a relay joins two endpoints; %u given", n);
    }
    return rc;
}

static int listen_on(struct relay *r, unsigned i, struct cule_err *err)
{
    struct side *s = &r->side[i];
    const struct cule_listen_opts lo = {.listen_fds = getenv("LISTEN_FDS"),
                                        .listen_pid = getenv("LISTEN_PID"),
                                        .listen_fdnames = getenv("LISTEN_FDNAMES")};
    char bound[CULE_ENDPOINT_MAX];
    int rc = ipc_make_run_dir(s->ep.text, err);
    rc = rc ? rc : cule_endpoint_listen(&s->ep, &lo, &s->fd, err);
    rc = rc ? rc : cule_watch_new(r->loop, &s->watch, s->fd, POLLIN, i ? on_accept_1 : on_accept_0, r, err);
    if (!rc) {
        cule_endpoint_bound(&s->ep, s->fd, bound, sizeof bound);
        cule_cli_note(r->cli, 1, "listening on '%s'", bound);
    }
    return rc;
}

static bool plain(const struct side *s)
{
    return s->ep.type != CULE_EP_RING && s->ep.type != CULE_EP_TLS;
}

static void frames_over(void *ctx, const struct cule_err *why)
{
    struct relay *r = ctx;
    if (why && why->code) {
        r->status = cule_cli_fail(r->cli, why);
    }
    cule_loop_stop(r->loop);
}

static int start(struct relay *r, struct cule_err *err)
{
    struct relay_end a = {0}, b = {0};
    int rc = 0;
    if (!plain(&r->side[0]) || !plain(&r->side[1])) {
        struct relay_frames_opts fo = {.cli = r->cli, .over = frames_over, .ctx = r, .max = r->o->max};
        for (unsigned i = 0; i < 2; i++) {
            fo.endpoint[i] = r->side[i].endpoint;
            fo.listens[i] = r->side[i].listens;
        }
        return relay_frames_new(r->loop, &fo, &r->frames, err);
    }
    for (unsigned i = 0; i < 2 && !rc; i++) {
        rc = r->side[i].listens ? listen_on(r, i, err) : 0;
    }
    if (rc || r->side[0].listens || r->side[1].listens) {
        return rc;
    }
    rc = relay_end_open(r->loop, r->side[0].endpoint, &a, err);
    rc = rc ? rc : relay_end_open(r->loop, r->side[1].endpoint, &b, err);
    if (rc) {
        relay_end_close(&a);
        return rc;
    }
    return join(r, &a, &b, err);
}

static void stop_listening(struct relay *r)
{
    for (unsigned i = 0; i < 2; i++) {
        struct side *s = &r->side[i];
        if (s->watch) {
            cule_watch_free(s->watch);
            cule_endpoint_unlisten(&s->ep, s->fd);
            close(s->fd);
            s->watch = NULL;
        }
        if (s->has_waiting) {
            relay_end_close(&s->waiting);
            s->has_waiting = false;
        }
    }
}

static void on_grace(void *ctx)
{
    struct relay *r = ctx;
    cule_cli_warn(r->cli, "%llu connections cut after the grace of SIGTERM", (unsigned long long)r->open);
    cule_loop_stop(r->loop);
}

static void on_signal(void *ctx, int signum)
{
    struct relay *r = ctx;
    if (r->stopping || signum == SIGINT || r->frames || r->open == 0) {
        cule_loop_stop(r->loop);
        return;
    }
    r->stopping = true;
    stop_listening(r);
    cule_timer_start(r->grace, r->o->grace_ms, 0);
}

static int run(struct cule_cli *cli)
{
    struct relay *r = calloc(1, sizeof *r);
    struct cule_err err = {0};
    struct cule_sigwatch *term = NULL, *intr = NULL;
    if (!r) {
        return cule_cli_failf(cli, CULE_ENOMEM, "out of memory");
    }
    r->cli = cli;
    r->o = cli->opts;
    int rc = take_sides(r, &err);
    rc = rc ? rc : cule_loop_new(&r->loop, &err);
    rc = rc ? rc : cule_sigwatch_new(r->loop, &term, SIGTERM, on_signal, r, &err);
    rc = rc ? rc : cule_sigwatch_new(r->loop, &intr, SIGINT, on_signal, r, &err);
    rc = rc ? rc : cule_timer_new(r->loop, &r->grace, on_grace, r, &err);
    rc = rc ? rc : start(r, &err);
    if (!rc && cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
        cule_cli_warn(cli, "%s", err.text);
    }
    if (rc) {
        r->status = cule_cli_fail(cli, &err);
    } else {
        cule_loop_run(r->loop);
    }
    stop_listening(r);
    relay_frames_free(r->frames);
    cule_sigwatch_free(term);
    cule_sigwatch_free(intr);
    cule_timer_free(r->grace);
    cule_loop_free(r->loop);
    int status = r->status;
    free(r);
    return status;
}

const struct cule_command cule_ipc_relay = {
    .name = "relay",
    .group = "tools",
    .summary = "join two endpoints",
    .about = "Bytes pass as they are, so that the two sides speak to each other, descriptors too where both are Unix "
             "sockets. With ring: or tls: on a side frames are passed instead and ids rewritten. A side that listens "
             "gets a connection of its own to the other for each that comes in.",
    .example = "cule-ipc relay --listen tcp:127.0.0.1:7000 unix:/run/app.sock",
    .opts_size = sizeof(struct relay_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_LIST(struct relay_opts, listen, 'l', "listen", "ENDPOINT", "a side that listens",
                          .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_LIST(struct relay_opts, connect, 'c', "connect", "ENDPOINT", "a side that connects",
                          .complete = CULE_COMPLETE_ENDPOINT),
            CULE_OPT_U64(struct relay_opts, max, 0, "max", "N", "at most N connections at once", .def = "1024"),
            CULE_OPT_DURATION(struct relay_opts, grace_ms, 0, "grace", "TIME",
                              "how long connections may go on after SIGTERM", .def = "5s"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_ANY(struct relay_opts, ends, "ENDPOINT", "sides that connect", .complete = CULE_COMPLETE_ENDPOINT),
            CULE_ARG_END,
        },
    .run = run,
};

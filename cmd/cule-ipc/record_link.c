/* Recording by standing in a link: what passes is decoded on the side and written with its time. */
#include "record.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECORD_CHILD_MS = 5000 };

/* One link that passes through us. */
struct conn {
    struct cule_list node;
    struct record *r;
    struct relay_pair *pair;
    struct cule_decoder d[2]; /* [1]: what the answering side sent */
    uint64_t link;
};

static int take_frames(struct conn *c, bool answer, uint64_t now)
{
    struct cule_decoder *d = &c->d[answer];
    struct cule_frame f;
    const uint8_t *payload;
    int rc;
    while ((rc = cule_decoder_next(d, &f, &payload, NULL)) > 0) {
        if (rc == CULE_DECODED_GAP) {
            c->r->skipped += d->gap_bytes;
            cule_cli_warn(c->r->cli, "link %" PRIu64 ": %" PRIu64 " bytes passed that are no frame, not recorded",
                          c->link, d->gap_bytes);
            continue;
        }
        int full = recorder_add(&c->r->out, now, c->link, answer, &f, payload);
        if (full) {
            return full;
        }
    }
    return rc;
}

static int tap(void *ctx, bool answer, const uint8_t *p, size_t n, struct cule_err *err)
{
    struct conn *c = ctx;
    cule_decoder_feed(&c->d[answer], p, n);
    int rc = take_frames(c, answer, cule_wall_ns());
    rc = rc < 0 ? cule_err_set(err, rc, "cannot record: %s", cule_err_text(rc)) : record_flush(c->r);
    return rc;
}

static void conn_free(struct conn *c)
{
    cule_list_remove(&c->node);
    cule_decoder_release(&c->d[0]);
    cule_decoder_release(&c->d[1]);
    free(c);
}

/* The started program's end is ours: a filter that hides it would break `set -e`. */
static void take_status(struct record *r, struct relay_pair *p)
{
    struct cule_exit how;
    struct cule_proc *proc = relay_pair_proc(p);
    if (!proc || r->status) {
        return;
    }
    if (cule_proc_wait(proc, cule_now_ns() + (uint64_t)RECORD_CHILD_MS * 1000000, &how)) {
        cule_cli_warn(r->cli, "'%s' does not end although its input has; it is ended", r->o->command.v[0]);
        r->status = 4;
    } else if (how.signum) {
        r->status = 128 + how.signum;
    } else {
        r->status = how.code;
    }
}

static void over(void *ctx, struct relay_pair *p, const struct cule_err *why)
{
    struct conn *c = ctx;
    struct record *r = c->r;
    for (int i = 0; i < 2; i++) { /* a frame cut short by the end is what RESYNC calls a gap */
        cule_decoder_end(&c->d[i], NULL);
        take_frames(c, i, cule_wall_ns());
    }
    record_flush(r);
    if (why->code) {
        cule_cli_warn(r->cli, "link %" PRIu64 " ended: %s", c->link, why->text);
        r->status = r->fd < 0 ? cule_err_exit(why->code) : r->status;
    }
    take_status(r, p);
    conn_free(c);
    r->nconns--;
    if (r->nconns == 0 && (r->stopping || r->fd < 0)) {
        cule_loop_stop(r->loop);
    }
}

static const struct relay_pair_ops pair_ops = {.tap = tap, .over = over};

/* in is this function's to close. */
static int stand_between(struct record *r, struct relay_end *in, struct cule_err *err)
{
    struct relay_end out = {0};
    struct conn *c = calloc(1, sizeof *c);
    int rc = c ? 0 : cule_err_set(err, CULE_ENOMEM, "out of memory");
    if (!rc) {
        c->r = r;
        c->link = r->next_link++;
        cule_list_init(&c->node);
        cule_decoder_init(&c->d[0], CULE_DECODE_RESYNC);
        cule_decoder_init(&c->d[1], CULE_DECODE_RESYNC);
        rc = r->o->command.n ? relay_end_command(r->loop, r->o->command.v, &out, err)
                             : relay_end_open(r->loop, r->o->connect, &out, err);
    }
    rc = rc ? rc : relay_pair_new(r->loop, in, &out, &pair_ops, c, &c->pair, err);
    if (rc) {
        relay_end_close(in);
        relay_end_close(&out);
        if (c) {
            conn_free(c);
        }
        return rc;
    }
    cule_list_push(&r->conns, &c->node);
    r->nconns++;
    return 0;
}

static void on_accept(void *ctx, int events)
{
    (void)events;
    struct record *r = ctx;
    struct relay_end in;
    struct cule_err err = {0};
    int fd = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    int rc = r->nconns >= r->o->max ? cule_err_set(&err, CULE_EBUSY, "%" PRIu64 " links are open (--max)", r->nconns)
                                    : relay_end_fd(fd, fd, &in, &err);
    if (rc) {
        close(fd);
    } else {
        rc = stand_between(r, &in, &err);
    }
    if (rc) {
        cule_cli_warn(r->cli, "a connection refused: %s", err.text);
    }
}

static void tap_message(void *ctx, uint64_t link, bool answer, const struct cule_msg *m)
{
    struct record *r = ctx;
    int rc = recorder_add_message(&r->out, cule_wall_ns(), link, answer, m);
    if (rc) {
        r->failed = true;
        r->status = cule_cli_failf(r->cli, rc, "cannot record: %s", cule_err_text(rc));
        cule_loop_stop(r->loop);
        return;
    }
    record_flush(r);
}

static void frames_over(void *ctx, const struct cule_err *why)
{
    struct record *r = ctx;
    if (why && why->code && !r->status) {
        r->status = cule_cli_fail(r->cli, why);
    }
    cule_loop_stop(r->loop);
}

static bool needs_frames(const char *endpoint)
{
    return endpoint && (strncmp(endpoint, "ring:", 5) == 0 || strncmp(endpoint, "tls:", 4) == 0);
}

static int start_listening(struct record *r, struct cule_err *err)
{
    const struct cule_listen_opts lo = {.listen_fds = getenv("LISTEN_FDS"),
                                        .listen_pid = getenv("LISTEN_PID"),
                                        .listen_fdnames = getenv("LISTEN_FDNAMES")};
    int rc = cule_endpoint_parse(&r->ep, r->o->listen, err);
    rc = rc ? rc : ipc_make_run_dir(r->ep.text, err);
    rc = rc ? rc : cule_endpoint_listen(&r->ep, &lo, &r->fd, err);
    return rc ? rc : cule_watch_new(r->loop, &r->watch, r->fd, POLLIN, on_accept, r, err);
}

int record_link_start(struct record *r, struct cule_err *err)
{
    const struct record_opts *o = r->o;
    struct relay_end in;
    if (needs_frames(o->listen) || needs_frames(o->connect)) {
        const struct relay_frames_opts fo = {.cli = r->cli,
                                             .endpoint = {o->listen ? o->listen : "-", o->connect},
                                             .listens = {o->listen != NULL, false},
                                             .command = o->command.n ? o->command.v : NULL,
                                             .max = o->max,
                                             .over = frames_over,
                                             .tap = tap_message,
                                             .ctx = r};
        return relay_frames_new(r->loop, &fo, &r->frames, err);
    }
    if (o->listen && strcmp(o->listen, "-") != 0) {
        return start_listening(r, err);
    }
    int rc = relay_end_fd(STDIN_FILENO, STDOUT_FILENO, &in, err);
    return rc ? rc : stand_between(r, &in, err);
}

void record_link_stop_listening(struct record *r)
{
    if (r->watch) {
        cule_watch_free(r->watch);
        cule_endpoint_unlisten(&r->ep, r->fd);
        close(r->fd);
        r->watch = NULL;
    }
}

void record_link_release(struct record *r)
{
    record_link_stop_listening(r);
    relay_frames_free(r->frames);
    CULE_LIST_EACH (n, &r->conns) {
        struct conn *c = CULE_LIST_ENTRY(n, struct conn, node);
        relay_pair_free(c->pair);
        conn_free(c);
    }
}

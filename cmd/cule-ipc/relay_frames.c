/* Two endpoints joined frame by frame. */
#include "relay_frames.h"

#include <stdlib.h>
#include <unistd.h>

/* A link of each side. */
struct couple {
    struct cule_list node;
    struct relay_frames *r;
    struct forward_port port[2];
    uint64_t number;
    bool closing;
    struct cule_err why;
    struct cule_proc *proc;
};

struct relay_frames {
    struct cule_loop *loop;
    struct relay_frames_opts o;
    struct cule_listener *listener;
    struct cule_list couples;
    uint64_t count, next_number;
};

static struct couple *couple_of(struct forward_port *p, unsigned i)
{
    return CULE_CONTAINER(p - i, struct couple, port[0]);
}

/* --- callbacks: one set for each side, so that a link knows which it is --- */

static void tap_message(struct couple *c, unsigned i, const struct cule_msg *m)
{
    if (c->r->o.tap) {
        c->r->o.tap(c->r->o.ctx, c->number, i == 1, m);
    }
}

/* An answer to a request of side 1 comes from side 0 and goes the asker's way. */
static void tap_forward(void *ctx, bool answer, const struct cule_msg *m)
{
    struct forward_port *p = ctx;
    struct couple *c = p->number & 1 ? couple_of(p, 1) : couple_of(p, 0);
    unsigned i = (unsigned)(p->number & 1);
    tap_message(c, answer ? 1 - i : i, m);
}

static void message(struct couple *c, unsigned i, struct cule_msg *m)
{
    struct forward_port *from = &c->port[i];
    struct forward_port *to = &c->port[1 - i];
    if (forward_message(from, m)) {
        return;
    }
    if (m->h.kind == CULE_REQUEST) {
        forward_request(from, to, m, NULL, NULL, NULL, NULL);
    } else if (m->h.kind == CULE_EVENT || m->h.kind == CULE_MARK) {
        int rc = forward_event(from, to, m);
        if (rc) {
            cule_cli_warn(c->r->o.cli, "an event was dropped: %s", cule_err_text(rc));
        }
    }
}

static void finish(struct couple *c)
{
    struct relay_frames *r = c->r;
    bool single = !r->o.listens[0] && !r->o.listens[1];
    struct cule_err why = c->why;
    cule_list_remove(&c->node);
    forward_port_release(&c->port[0]);
    forward_port_release(&c->port[1]);
    cule_proc_free(c->proc);
    free(c);
    r->count--;
    if (single) {
        r->o.over(r->o.ctx, &why);
    } else if (why.code) {
        cule_cli_warn(r->o.cli, "a connection ended: %s", why.text);
    }
}

static void closed(struct couple *c, unsigned i, const struct cule_err *why)
{
    struct forward_port *all[] = {&c->port[0], &c->port[1]};
    forward_port_gone(&c->port[i], all, 2);
    if (!c->closing && why->code) {
        c->why = *why;
    }
    c->closing = true;
    if (c->port[1 - i].link) {
        cule_link_close(c->port[1 - i].link);
    } else {
        finish(c);
    }
}

#define SIDE(i)                                                                                                        \
    static void message_##i(struct cule_link *l, void *ctx, struct cule_msg *m)                                        \
    {                                                                                                                  \
        (void)l;                                                                                                       \
        message(ctx, i, m);                                                                                            \
    }                                                                                                                  \
    static void writable_##i(struct cule_link *l, void *ctx, uint64_t id)                                              \
    {                                                                                                                  \
        (void)l;                                                                                                       \
        forward_writable(&((struct couple *)ctx)->port[i], id);                                                        \
    }                                                                                                                  \
    static void closed_##i(struct cule_link *l, void *ctx, const struct cule_err *why)                                 \
    {                                                                                                                  \
        (void)l;                                                                                                       \
        closed(ctx, i, why);                                                                                           \
    }                                                                                                                  \
    static const struct cule_link_ops ops_##i = {                                                                      \
        .message = message_##i, .writable = writable_##i, .closed = closed_##i};
SIDE(0)
SIDE(1)
#undef SIDE

/* --- making --- */

static struct couple *couple_new(struct relay_frames *r)
{
    struct couple *c = calloc(1, sizeof *c);
    if (c) {
        c->r = r;
        c->number = r->next_number++;
        cule_list_push(&r->couples, &c->node);
        r->count++;
    }
    return c;
}

static void set_port(struct couple *c, unsigned i, struct cule_link *l, bool connected)
{
    forward_port_init(&c->port[i], l, connected, c->number * 2 + i);
    if (c->r->o.tap) {
        c->port[i].tap = tap_forward;
        c->port[i].tap_ctx = &c->port[i];
    }
}

static int start_command(struct couple *c, const struct cule_link_opts *lo, struct cule_link **l, struct cule_err *err)
{
    int sv[2];
    int rc = cule_socketpair(sv, err);
    if (rc) {
        return rc;
    }
    const struct cule_spawn s = {.argv = c->r->o.command, .in = sv[1], .out = sv[1], .err = -1, .group = true};
    rc = cule_spawn(c->r->loop, &s, &c->proc, NULL, NULL, err);
    close(sv[1]);
    rc = rc ? cule_err_context(err, rc, "cannot start '%s'", c->r->o.command[0])
            : cule_link_open_fd(c->r->loop, sv[0], sv[0], lo, l, err);
    if (rc) {
        close(sv[0]);
    }
    return rc;
}

/* Connects side i of a couple. */
static int connect_side(struct couple *c, unsigned i, struct cule_err *err)
{
    struct cule_link *l;
    const struct cule_link_opts lo = {
        .name = "cule-ipc relay", .ops = i ? &ops_1 : &ops_0, .ctx = c, .manual_credit = true};
    int rc = i == 1 && c->r->o.command ? start_command(c, &lo, &l, err)
                                       : cule_link_open(c->r->loop, c->r->o.endpoint[i], &lo, &l, err);
    if (rc == 0) {
        set_port(c, i, l, true);
    }
    return rc;
}

static void on_accept(struct cule_listener *s, void *ctx, struct cule_link *l)
{
    (void)s;
    struct relay_frames *r = ctx;
    unsigned i = r->o.listens[0] ? 0 : 1;
    struct cule_err err = {0};
    struct couple *c = r->count < r->o.max ? couple_new(r) : NULL;
    if (!c) {
        cule_err_set(&err, CULE_EBUSY, "the relay has %llu connections open (--max)", (unsigned long long)r->count);
        cule_link_abort(l, &err);
        return;
    }
    forward_port_init(&c->port[1 - i], NULL, false, 0);
    set_port(c, i, l, false);
    cule_link_set_ctx(l, i ? &ops_1 : &ops_0, c);
    if (connect_side(c, 1 - i, &err)) {
        cule_cli_warn(r->o.cli, "cannot reach '%s': %s", r->o.endpoint[1 - i] ? r->o.endpoint[1 - i] : "the program",
                      err.text);
        cule_link_abort(l, &err);
    }
}

int relay_frames_new(struct cule_loop *loop, const struct relay_frames_opts *o, struct relay_frames **out,
                     struct cule_err *err)
{
    if (o->listens[0] && o->listens[1]) {
        return cule_err_set(err, CULE_EUNSUPPORTED, "with ring: or tls: only one side can listen");
    }
    struct relay_frames *r = calloc(1, sizeof *r);
    if (!r) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    r->loop = loop;
    r->o = *o;
    cule_list_init(&r->couples);
    int rc = 0;
    if (o->listens[0] || o->listens[1]) {
        const struct cule_link_opts lo = {.name = "cule-ipc relay", .manual_credit = true};
        const struct cule_listen_opts fds = {.listen_fds = getenv("LISTEN_FDS"),
                                             .listen_pid = getenv("LISTEN_PID"),
                                             .listen_fdnames = getenv("LISTEN_FDNAMES")};
        rc = ipc_make_run_dir(o->endpoint[o->listens[0] ? 0 : 1], err);
        rc =
            rc ? rc : cule_listen(loop, o->endpoint[o->listens[0] ? 0 : 1], &lo, &fds, on_accept, r, &r->listener, err);
    } else {
        struct couple *c = couple_new(r);
        rc = c ? 0 : cule_err_set(err, CULE_ENOMEM, "out of memory");
        if (c) {
            forward_port_init(&c->port[0], NULL, true, 0);
            forward_port_init(&c->port[1], NULL, true, 1);
            rc = connect_side(c, 0, err);
            rc = rc ? rc : connect_side(c, 1, err);
        }
    }
    if (rc) {
        relay_frames_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

void relay_frames_free(struct relay_frames *r)
{
    if (!r) {
        return;
    }
    cule_listener_free(r->listener);
    CULE_LIST_EACH (n, &r->couples) {
        struct couple *c = CULE_LIST_ENTRY(n, struct couple, node);
        for (unsigned i = 0; i < 2; i++) {
            struct forward_port *all[] = {&c->port[0], &c->port[1]};
            struct cule_link *l = c->port[i].link;
            if (l) {
                forward_port_gone(&c->port[i], all, 2);
                cule_link_free(l);
            }
        }
        forward_port_release(&c->port[0]);
        forward_port_release(&c->port[1]);
        cule_proc_free(c->proc);
        free(c);
    }
    free(r);
}

/* A link's life: its making, its turns on a loop, its deadlines, and its end. */
#include "io/link_impl.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

/* --- making and ending --- */

static void on_defer(void *ctx);

int cule_link_alloc(struct cule_loop *loop, const struct cule_link_opts *o, const struct link_shape *shape,
                    struct cule_link **out, struct cule_err *err)
{
    struct cule_link *l = calloc(1, sizeof *l);
    if (!l) {
        return cule_err_set(err, CULE_ENOMEM, "cannot open a link: out of memory");
    }
    bool duplex = shape->duplex && !o->one_way;
    struct cule_session_config cfg = {
        .name = o->name,
        .message_max = o->message_max ? o->message_max : CULE_MESSAGE_MAX,
        .window_frames = o->window_frames ? o->window_frames : CULE_LINK_WINDOW_FRAMES,
        .window_bytes = o->window_bytes ? o->window_bytes : CULE_LINK_WINDOW_BYTES,
        .stream_bytes = o->stream_bytes ? o->stream_bytes : CULE_LINK_STREAM_BYTES,
        .queue_bytes = o->queue_bytes ? o->queue_bytes : CULE_LINK_QUEUE_BYTES,
        .calls_max = o->calls_max ? o->calls_max : CULE_LINK_CALLS_MAX,
        .duplex = duplex,
        .server = o->is_server,
        .hello_first = duplex && shape->socket,
        .resync = !shape->socket,
        .manual_credit = o->manual_credit,
        .hello_to_message = o->nested_hello,
        .can_pass_fds = shape->can_pass_fds,
    };
    l->ops = o->ops;
    l->ctx = o->ctx;
    l->loop = loop;
    l->ring_sock = -1;
    l->ping_ns = o->ping_ms * NS_PER_MS;
    cule_session_init(&l->s, &cfg, &cule_link_session_ops, l);
    l->s.now_ns = l->last_in_ns = cule_now_ns();
    uint64_t limit_ms = o->connect_timeout_ms ? o->connect_timeout_ms : CULE_LINK_CONNECT_MS;
    l->limit_ns = l->s.now_ns + limit_ms * NS_PER_MS;
    l->state = LINK_CONNECTING;
    cule_defer_init(&l->defer, on_defer, l);
    cule_list_init(&l->kept);
    *out = l;
    return 0;
}

static void stop_watching(struct cule_link *l)
{
    cule_watch_free(l->rwatch);
    cule_watch_free(l->wwatch);
    l->rwatch = l->wwatch = NULL;
}

void cule_link_die(struct cule_link *l, int code, const char *text)
{
    if (l->state == LINK_DEAD) {
        return;
    }
    l->state = LINK_DEAD;
    if (code) {
        cule_err_set(&l->why, code, "%s", text && *text ? text : cule_err_text(code));
    }
    if (l->loop) {
        stop_watching(l);
        cule_loop_defer(l->loop, &l->defer);
    }
}

/* A command that has taken its goodbye may end by itself; its tree does not outlive the link for long. */
static void end_command(struct cule_link *l)
{
    if (l->proc && l->loop) {
        cule_proc_kill(l->proc, LINK_KILL_MS);
    } else if (l->proc) {
        cule_proc_kill_wait(l->proc, LINK_KILL_MS, cule_now_ns() + 2ull * LINK_KILL_MS * NS_PER_MS);
    }
    cule_proc_free(l->proc);
}

void cule_link_release(struct cule_link *l)
{
    l->s.dead = true;
    cule_session_release(&l->s);
    stop_watching(l);
    cule_defer_cancel(&l->defer);
    cule_timer_free(l->timer);
    cule_fdq_release(&l->fds);
    cule_link_drop_kept(l); /* some lie in the ring, which goes next */
    if (l->carrier) {
        l->carrier->ops->close(l->carrier);
    }
    cule_ring_close(l->ring);
    if (l->ring_sock >= 0) {
        close(l->ring_sock);
    }
    if (l->tls_config) {
        cule_tls_hook_get(NULL)->config_free(l->tls_config);
    }
    end_command(l);
    free(l->ring_peer);
    free(l->rbuf);
    free(l);
}

void cule_link_disown(struct cule_link *l)
{
    stop_watching(l);
    if (l->carrier) {
        l->carrier->rfd = l->carrier->wfd = -1; /* its close then closes nothing */
    }
    l->ring_sock = -1;
    cule_link_release(l);
}

void cule_link_free(struct cule_link *l)
{
    if (l) {
        assert(!l->in_callback);
        cule_link_release(l);
    }
}

static void bury(struct cule_link *l)
{
    const char *text = l->why.code ? l->why.text : "closed by the peer";
    cule_session_end(&l->s, l->why.code ? l->why.code : CULE_ECLOSED, text);
    const struct cule_link_ops *ops = l->ops;
    if (ops && ops->closed) {
        ops->closed(l, l->ctx, &l->why);
    }
    cule_link_release(l);
}

/* --- time --- */

static void on_timer(void *ctx)
{
    struct cule_link *l = ctx;
    l->timer_ns = 0;
    l->in_callback = true;
    cule_link_tick(l, cule_now_ns());
    l->in_callback = false;
    cule_loop_defer(l->loop, &l->defer);
}

static void limit_passed(struct cule_link *l)
{
    l->limit_ns = 0;
    if (l->state == LINK_CONNECTING) {
        cule_link_die(l, CULE_ETIMEOUT, "no connection in time");
    } else if (l->finished) {
        cule_link_die(l, 0, NULL);
    } else if (l->state == LINK_CLOSING) {
        cule_link_die(l, CULE_ETIMEOUT, "the peer does not take what is sent");
    } else if (!l->s.hello_in && l->s.cfg.hello_first) {
        cule_link_die(l, CULE_ETIMEOUT, "the peer sent no hello in time");
    }
}

/* Nothing is read while paused, so silence tells nothing then. */
static bool pings(const struct cule_link *l)
{
    return l->ping_ns && l->state == LINK_OPEN && !l->paused && l->s.cfg.duplex;
}

static void look_for_life(struct cule_link *l, uint64_t now)
{
    uint64_t silent = now > l->last_in_ns ? now - l->last_in_ns : 0;
    if (silent >= 2 * l->ping_ns && l->ping_out) {
        cule_link_die(l, CULE_ETIMEOUT, "the peer is silent");
    } else if (silent >= l->ping_ns && !l->ping_out) {
        struct cule_frame f;
        cule_frame_init(&f, CULE_PING);
        f.priority = CULE_CRITICAL;
        l->ping_out = true;
        l->last_in_ns = now - l->ping_ns; /* from now on as long again, however late we are */
        cule_session_queue(&l->s, &f, NULL);
    }
}

void cule_link_tick(struct cule_link *l, uint64_t now)
{
    if (l->state == LINK_DEAD) {
        return;
    }
    cule_session_tick(&l->s, now);
    if (l->limit_ns && now >= l->limit_ns) {
        limit_passed(l);
    }
    if (pings(l)) {
        look_for_life(l, now);
    }
}

uint64_t cule_link_due(const struct cule_link *l)
{
    uint64_t at = cule_session_deadline(&l->s);
    if (l->limit_ns && l->limit_ns < at) {
        at = l->limit_ns;
    }
    if (pings(l)) {
        uint64_t ping = l->last_in_ns + l->ping_ns * (l->ping_out ? 2 : 1);
        at = CULE_MIN(at, ping);
    }
    return at;
}

/* A timer that is set too early wakes once for nothing, which is cheaper than moving it at each request. */
static void set_timer(struct cule_link *l)
{
    uint64_t at = cule_link_due(l);
    if (at == UINT64_MAX && l->timer_ns == 0) {
        cule_timer_free(l->timer); /* an idle link holds none */
        l->timer = NULL;
    }
    if (at == UINT64_MAX || (l->timer_ns && l->timer_ns <= at)) {
        return;
    }
    if (!l->timer && cule_timer_new(l->loop, &l->timer, on_timer, l, NULL)) {
        cule_link_die(l, CULE_ENOMEM, "out of memory");
        return;
    }
    uint64_t now = cule_now_ns();
    l->timer_ns = at;
    cule_timer_start(l->timer, at > now ? (at - now + NS_PER_MS - 1) / NS_PER_MS : 0, 0);
}

/* --- turns --- */

static void on_event(void *ctx, int events);

static int watch(struct cule_link *l, struct cule_watch **w, int fd, int events)
{
    if (*w) {
        return cule_watch_set(*w, events);
    }
    return events && fd >= 0 ? cule_watch_new(l->loop, w, fd, events, on_event, l, NULL) : 0;
}

static int watch_ring(struct cule_link *l)
{
    if (!l->ring) {
        return watch(l, &l->wwatch, l->ring_sock, POLLIN);
    }
    int fd = cule_ring_fd(l->ring);
    int sock = cule_ring_socket(l->ring);
    int rc = watch(l, &l->wwatch, sock, POLLIN);
    if (rc == 0 && fd != sock) {
        rc = watch(l, &l->rwatch, fd, POLLIN);
    }
    unsigned want = (l->paused ? 0 : CULE_RING_READABLE) | (l->want_write ? CULE_RING_WRITABLE : 0);
    if (rc == 0 && want && cule_ring_arm(l->ring, want) != 0) {
        cule_loop_defer(l->loop, &l->defer); /* there is work, or an end, at once */
        l->defer_ring = true;
    }
    return rc;
}

static int watch_carrier(struct cule_link *l)
{
    struct cule_carrier *c = l->carrier;
    bool read = !l->paused && !l->eof && (l->state == LINK_OPEN || l->state == LINK_CLOSING);
    bool write = l->want_write;
    int events = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
    if (c->ops->poll_events) {
        bool opening = l->state == LINK_CONNECTING;
        events = c->ops->poll_events(c, read || opening, write || (opening && c->connecting));
    }
    if (l->state == LINK_HALF) {
        events |= POLLPRI; /* so that the peer's end is noticed at all */
    }
    if (c->rfd == c->wfd) {
        return watch(l, &l->rwatch, c->rfd, events);
    }
    int rc = watch(l, &l->rwatch, c->rfd, events & POLLIN);
    return rc ? rc : watch(l, &l->wwatch, c->wfd, events & ~POLLIN);
}

void cule_link_update(struct cule_link *l)
{
    if (l->state == LINK_DEAD) {
        return;
    }
    int rc = l->carrier ? watch_carrier(l) : watch_ring(l);
    if (rc) {
        cule_link_die(l, rc, "cannot watch the link's descriptor");
        return;
    }
    set_timer(l);
}

static void now_open(struct cule_link *l)
{
    l->state = LINK_OPEN;
    l->last_in_ns = cule_now_ns();
    /* The same limit goes on for the peer's HELLO. */
    if (!l->s.cfg.hello_first) {
        l->limit_ns = 0;
    }
    if (l->close_wanted) {
        l->state = LINK_CLOSING;
    }
}

int cule_link_handshake(struct cule_link *l)
{
    struct cule_err err = {0};
    int rc = l->carrier->ops->handshake ? l->carrier->ops->handshake(l->carrier, &err) : 1;
    if (rc < 0) {
        cule_link_die(l, rc, err.text);
    } else if (rc > 0) {
        now_open(l);
    }
    return rc;
}

static void attach_ring(struct cule_link *l)
{
    struct cule_err err = {0};
    struct cule_ring_opts o = {.trust_same_uid = l->ring_trust};
    int rc = cule_ring_attach(&l->ring, l->ring_sock, &o, 0, &err);
    if (rc == CULE_ETIMEOUT) {
        return;
    }
    if (rc < 0) {
        cule_link_die(l, rc, err.text);
        return;
    }
    l->ring_sock = -1; /* the ring owns it */
    now_open(l);
}

static void read_turn(struct cule_link *l)
{
    for (int round = 0; round < LINK_READ_ROUNDS && !l->paused && !l->eof; round++) {
        if (l->state != LINK_OPEN && l->state != LINK_CLOSING) {
            return;
        }
        int n = cule_link_read_some(l);
        bool more =
            l->carrier && l->carrier->ops->pending && l->state != LINK_DEAD && l->carrier->ops->pending(l->carrier);
        if (n <= 0 || (!more && l->carrier && (size_t)n < LINK_READ_BYTES)) {
            return; /* a short read has emptied it; if not, the level-triggered poll tells */
        }
    }
}

static void ring_turn(struct cule_link *l)
{
    int rc = cule_ring_disarm(l->ring);
    read_turn(l);
    if (rc < 0 && l->state != LINK_DEAD && !l->paused && cule_link_read_some(l) <= 0) {
        cule_link_die(l, rc == CULE_ECLOSED ? 0 : rc, cule_ring_why(l->ring)->text);
    }
}

static void carrier_turn(struct cule_link *l, int events)
{
    struct cule_carrier *c = l->carrier;
    if (l->state == LINK_HALF) {
        struct pollfd p = {.fd = c->wfd};
        if (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR))) {
            cule_link_die(l, CULE_ECLOSED, "closed by the peer");
        }
    } else if ((events & ~POLLOUT) || c->ops->pending) {
        read_turn(l); /* TLS may have wanted to write in order to read */
    }
}

static void on_event(void *ctx, int events)
{
    struct cule_link *l = ctx;
    if (l->state == LINK_DEAD) {
        return;
    }
    l->in_callback = true;
    if (events & ~POLLIN) {
        l->want_write = false;
    }
    cule_session_tick(&l->s, cule_now_ns());
    if (l->state == LINK_CONNECTING && l->carrier) {
        cule_link_handshake(l);
    } else if (l->state == LINK_CONNECTING) {
        attach_ring(l);
    } else if (l->state == LINK_DEAD) {
        /* a deadline's callback aborted it */
    } else if (l->ring) {
        ring_turn(l);
    } else {
        carrier_turn(l, events);
    }
    if (l->s.bye_in && (l->state == LINK_OPEN || l->state == LINK_HALF)) {
        cule_link_die(l, 0, NULL);
    }
    l->in_callback = false;
    cule_loop_defer(l->loop, &l->defer);
}

/* The end of a turn: write what was gathered, look whether the link is done, and say what to wait for. */
static void on_defer(void *ctx)
{
    struct cule_link *l = ctx;
    if (l->ring && l->defer_ring && l->state != LINK_DEAD) {
        l->defer_ring = false;
        on_event(l, POLLIN);
        cule_defer_cancel(&l->defer);
    }
    l->in_callback = true;
    if (l->s.hello_in && l->state == LINK_OPEN) {
        l->limit_ns = 0;
    }
    if (!l->want_write || !l->carrier || l->carrier->ops->pending) {
        cule_link_write_some(l); /* a carrier that took nothing more will tell when it does */
    }
    if (l->state == LINK_OPEN || l->state == LINK_HALF) {
        if (l->muted && !l->muted_told) {
            l->s.want_room = true; /* so that who waits for room learns of the end by its next send */
            l->muted_told = true;
        }
        cule_session_notify(&l->s);
    }
    if (l->state == LINK_HALF && l->s.requests == 0) {
        cule_link_close(l);
    }
    if (l->state == LINK_CLOSING && l->s.queued == 0 && !l->finished) {
        if (l->s.bye_out || !l->s.cfg.duplex || l->muted) {
            cule_link_finish(l);
        } else {
            cule_session_bye(&l->s);
            cule_link_write_some(l);
        }
    }
    if (l->state == LINK_DEAD) {
        bury(l);
        return;
    }
    cule_link_update(l);
    l->in_callback = false;
}

int cule_link_start(struct cule_link *l, struct cule_err *err)
{
    int rc = cule_session_start(&l->s);
    if (rc) {
        return cule_err_set(err, rc, "cannot open a link: out of memory");
    }
    l->greeting = l->s.queued;
    if (l->carrier && l->state == LINK_CONNECTING && !(l->loop && l->carrier->connecting)) {
        rc = cule_link_handshake(l);
        if (rc < 0) {
            return cule_err_set(err, rc, "%s", l->why.text);
        }
    }
    if (l->loop) {
        cule_loop_defer(l->loop, &l->defer);
    }
    return 0;
}

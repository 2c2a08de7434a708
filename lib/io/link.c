/* A link's life on a loop: reading, writing, deadlines, and its end. */
#include "io/link_impl.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

/* --- what the session asks of us --- */

static void on_message(struct cule_link *l, struct cule_msg *m)
{
    if (!l->loop) {
        cule_link_keep(l, m);
    } else if (l->ops && l->ops->message) {
        l->ops->message(l, l->ctx, m);
    }
}

static void on_ready(struct cule_link *l)
{
    if (l->ops && l->ops->ready) {
        l->ops->ready(l, l->ctx);
    }
}

static void on_writable(struct cule_link *l, uint64_t id)
{
    if (l->ops && l->ops->writable) {
        l->ops->writable(l, l->ctx, id);
    }
}

static void on_skipped(struct cule_link *l, uint64_t bytes)
{
    l->skipped_bytes += bytes;
    if (l->ops && l->ops->skipped) {
        l->ops->skipped(l, l->ctx, bytes);
    }
}

static unsigned take_fds(struct cule_link *l, int *fds, unsigned n)
{
    unsigned got = 0;
    while (got < n) {
        int fd = cule_fdq_pop(&l->fds);
        if (fd < 0) {
            break;
        }
        fds[got++] = fd;
    }
    return got;
}

static void close_fds(struct cule_link *l, const int *fds, unsigned n)
{
    (void)l;
    for (unsigned i = 0; i < n; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static void on_output(struct cule_link *l)
{
    if (!l->loop) {
        return; /* written by whoever waits */
    }
    if (l->s.queued >= LINK_FLUSH_BYTES && !l->in_flush && l->state != LINK_CONNECTING && !l->want_write) {
        cule_link_write_some(l);
    }
    cule_loop_defer(l->loop, &l->defer);
}

static const struct cule_session_ops session_ops = {
    .message = on_message,
    .ready = on_ready,
    .writable = on_writable,
    .skipped = on_skipped,
    .take_fds = take_fds,
    .close_fds = close_fds,
    .output = on_output,
};

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
    cule_session_init(&l->s, &cfg, &session_ops, l);
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
    if (l->why.code == 0 && code) {
        struct cule_err was = l->why;
        cule_err_set(&l->why, code, "%s", text ? text : cule_err_text(code));
        l->why.sys = was.sys;
    }
    if (l->loop) {
        stop_watching(l);
        cule_loop_defer(l->loop, &l->defer);
    }
}

void cule_link_release(struct cule_link *l)
{
    l->s.dead = true;
    cule_session_release(&l->s);
    stop_watching(l);
    cule_defer_cancel(&l->defer);
    cule_timer_free(l->timer);
    cule_fdq_release(&l->fds);
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
    cule_proc_free(l->proc);
    cule_link_drop_kept(l);
    free(l->rbuf);
    free(l);
}

void cule_link_free(struct cule_link *l)
{
    if (l) {
        assert(!l->in_read && !l->in_flush);
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

/* --- reading --- */

/* One per thread: links read in turn, and what a frame cut short leaves behind the decoder keeps. */
static uint8_t *shared_buffer(void)
{
    static _Thread_local uint8_t *buffer;
    if (!buffer) {
        buffer = malloc(LINK_READ_BYTES);
    }
    return buffer;
}

int cule_link_step_all(struct cule_link *l)
{
    struct cule_err err = {0};
    int rc = 0;
    l->in_read = true;
    while (l->state != LINK_DEAD && (rc = cule_session_step(&l->s, &err)) > 0) {
        if (l->next_done) {
            break; /* cule_link_next has its message; the rest stays fed */
        }
    }
    l->in_read = false;
    if (rc < 0 && l->state != LINK_DEAD) {
        cule_link_write_some(l); /* the ERROR that says why */
        cule_link_die(l, rc, err.text);
    }
    return rc;
}

/* Is the other end wholly gone, or has it only finished sending? */
static bool peer_gone(const struct cule_link *l)
{
    struct pollfd p = {.fd = l->carrier->wfd, .events = 0};
    if (p.fd < 0 || strcmp(l->carrier->ops->name, "tcp") == 0 || strcmp(l->carrier->ops->name, "tls") == 0) {
        return true;
    }
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

void cule_link_on_eof(struct cule_link *l)
{
    struct cule_err err = {0};
    int rc = cule_session_eof(&l->s, &err);
    if (l->s.cfg.resync) {
        cule_link_step_all(l);
    }
    if (l->state == LINK_DEAD) {
        return;
    }
    if (l->fds.count) {
        cule_link_die(l, CULE_EMALFORMED, "descriptors came that no frame claimed");
    } else if (rc < 0) {
        cule_link_die(l, rc, err.text);
    } else if (peer_gone(l) || l->state == LINK_CLOSING) {
        cule_link_die(l, 0, NULL);
    } else if (l->s.requests) {
        l->state = LINK_HALF;
    } else {
        cule_link_close(l);
    }
}

static int read_ring(struct cule_link *l)
{
    struct cule_frame f;
    const void *payload = NULL;
    struct cule_err err = {0};
    int done = 0;
    int rc = 0;
    l->in_read = true;
    while (l->state != LINK_DEAD && done < 4096 && (rc = cule_ring_recv(l->ring, &f, &payload)) > 0) {
        done++;
        rc = cule_session_frame(&l->s, &f, payload ? payload : (const uint8_t *)"", &err);
        cule_ring_release(l->ring);
        if (rc < 0 || l->next_done) {
            break;
        }
    }
    l->in_read = false;
    if (rc < 0 && l->state != LINK_DEAD) {
        bool hangup = rc == CULE_ECLOSED;
        if (!hangup) {
            cule_link_write_some(l);
        }
        cule_link_die(l, hangup ? 0 : rc, err.code ? err.text : cule_ring_why(l->ring)->text);
    }
    return rc < 0 ? rc : done;
}

int cule_link_read_some(struct cule_link *l)
{
    if (l->ring) {
        return read_ring(l);
    }
    uint8_t *buf = l->loop ? shared_buffer() : l->rbuf;
    size_t cap = l->loop ? LINK_READ_BYTES : l->rbuf_cap;
    struct cule_err err = {0};
    if (!buf) {
        cule_link_die(l, CULE_ENOMEM, "out of memory");
        return CULE_ENOMEM;
    }
    const struct cule_carrier_ops *ops = l->carrier->ops;
    ssize_t n = l->wait_ms ? ops->read_wait(l->carrier, buf, cap, &l->fds, l->wait_ms, &err)
                           : ops->read(l->carrier, buf, cap, &l->fds, &err);
    if (n == CULE_EAGAIN) {
        return 0;
    }
    if (n < 0) {
        cule_link_die(l, (int)n, err.text);
        return (int)n;
    }
    if (n == 0) {
        cule_link_on_eof(l);
        return CULE_ECLOSED;
    }
    l->ping_out = false;
    l->last_in_ns = l->s.now_ns;
    cule_session_feed(&l->s, buf, (size_t)n);
    l->fed = true;
    int rc = cule_link_step_all(l);
    if (l->fed && rc == 0) {
        l->fed = false;
    }
    return rc < 0 ? rc : (int)n;
}

/* --- writing --- */

static void write_ring(struct cule_link *l)
{
    size_t size;
    const uint8_t *at;
    while (l->state != LINK_DEAD && (at = cule_session_head(&l->s, &size))) {
        struct cule_frame f;
        if (cule_frame_decode(&f, false, at, NULL)) {
            cule_link_die(l, CULE_EMALFORMED, "a frame to send does not hold");
            return;
        }
        int rc = cule_ring_push(l->ring, &f, at + CULE_HEADER_SIZE);
        if (rc == CULE_EAGAIN) {
            l->want_write = true;
            break;
        }
        if (rc < 0) {
            cule_link_die(l, rc == CULE_ECLOSED ? 0 : rc, cule_err_text(rc));
            return;
        }
        cule_session_wrote(&l->s, size);
    }
    cule_ring_flush(l->ring);
}

static void write_carrier(struct cule_link *l)
{
    while (l->state != LINK_DEAD) {
        struct iovec iov[CULE_SESSION_IOV_MAX];
        const int *fds;
        unsigned nfds;
        struct cule_err err = {0};
        int n = cule_session_output(&l->s, iov, &fds, &nfds);
        if (n == 0) {
            return;
        }
        ssize_t w = l->carrier->ops->write(l->carrier, iov, n, fds, nfds, &err);
        if (w == CULE_EAGAIN) {
            l->want_write = true;
            return;
        }
        if (w < 0) {
            cule_link_die(l, (int)w, err.text);
            return;
        }
        cule_session_wrote(&l->s, (size_t)w);
    }
}

void cule_link_write_some(struct cule_link *l)
{
    if (l->in_flush || l->state == LINK_DEAD || l->state == LINK_CONNECTING) {
        return;
    }
    l->in_flush = true;
    l->want_write = false;
    if (l->ring) {
        write_ring(l);
    } else {
        write_carrier(l);
    }
    l->in_flush = false;
}

/* --- turns --- */

static void on_timer(void *ctx)
{
    struct cule_link *l = ctx;
    l->timer_ns = 0;
    cule_link_tick(l);
    cule_loop_defer(l->loop, &l->defer);
}

void cule_link_tick(struct cule_link *l)
{
    uint64_t now = cule_now_ns();
    if (l->state == LINK_DEAD) {
        return;
    }
    cule_session_tick(&l->s, now);
    if (l->limit_ns && now >= l->limit_ns) {
        l->limit_ns = 0;
        if (l->state == LINK_CONNECTING) {
            cule_link_die(l, CULE_ETIMEOUT, "no connection in time");
        } else if (l->state == LINK_CLOSING) {
            cule_link_die(l, 0, NULL);
        } else if (!l->s.hello_in && l->s.cfg.hello_first) {
            cule_link_die(l, CULE_ETIMEOUT, "the peer sent no hello in time");
        }
    }
    if (l->ping_ns && l->state == LINK_OPEN && now - l->last_in_ns >= l->ping_ns) {
        if (now - l->last_in_ns >= 2 * l->ping_ns) {
            cule_link_die(l, CULE_ETIMEOUT, "the peer is silent");
        } else if (!l->ping_out) {
            struct cule_frame f;
            cule_frame_init(&f, CULE_PING);
            f.priority = CULE_CRITICAL;
            l->ping_out = true;
            cule_session_queue(&l->s, &f, NULL);
        }
    }
}

/* A timer that is set too early wakes once for nothing, which is cheaper than moving it at each request. */
static void set_timer(struct cule_link *l)
{
    uint64_t at = cule_session_deadline(&l->s);
    if (l->limit_ns && l->limit_ns < at) {
        at = l->limit_ns;
    }
    if (l->ping_ns && l->state == LINK_OPEN) {
        uint64_t ping = l->last_in_ns + l->ping_ns * (l->ping_out ? 2 : 1);
        at = CULE_MIN(at, ping);
    }
    if (at == UINT64_MAX || (l->timer_ns && l->timer_ns <= at)) {
        return;
    }
    if (!l->timer && cule_timer_new(l->loop, &l->timer, on_timer, l, NULL)) {
        return; /* tried again at the next turn */
    }
    uint64_t now = cule_now_ns();
    l->timer_ns = at;
    cule_timer_start(l->timer, at > now ? (at - now + NS_PER_MS - 1) / NS_PER_MS : 0, 0);
}

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
        l->defer_writable = true;
    }
    return rc;
}

static int watch_carrier(struct cule_link *l)
{
    struct cule_carrier *c = l->carrier;
    bool read = !l->paused && (l->state == LINK_OPEN || l->state == LINK_CLOSING);
    bool write = l->want_write;
    int events = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
    if (c->ops->poll_events) {
        bool opening = l->state == LINK_CONNECTING;
        events = c->ops->poll_events(c, read || opening, write || (opening && c->connecting));
    }
    if (c->rfd == c->wfd) {
        return watch(l, &l->rwatch, c->rfd, events);
    }
    int rc = watch(l, &l->rwatch, c->rfd, events & POLLIN);
    return rc ? rc : watch(l, &l->wwatch, c->wfd, events & POLLOUT);
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

int cule_link_handshake(struct cule_link *l)
{
    struct cule_err err = {0};
    int rc = l->carrier->ops->handshake ? l->carrier->ops->handshake(l->carrier, &err) : 1;
    if (rc < 0) {
        cule_link_die(l, rc, err.text);
    } else if (rc > 0) {
        l->state = LINK_OPEN;
        l->peer = l->carrier->peer;
        /* The same limit goes on for the peer's HELLO. */
        if (!l->s.cfg.hello_first) {
            l->limit_ns = 0;
        }
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
    l->state = LINK_OPEN;
}

static void read_turn(struct cule_link *l)
{
    for (int round = 0; round < LINK_READ_ROUNDS && !l->paused; round++) {
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

static void on_event(void *ctx, int events)
{
    struct cule_link *l = ctx;
    if (l->state == LINK_DEAD) {
        return;
    }
    cule_session_tick(&l->s, cule_now_ns());
    if (l->state == LINK_CONNECTING) {
        if (l->carrier) {
            cule_link_handshake(l);
        } else {
            attach_ring(l);
        }
    } else if (l->ring) {
        int rc = cule_ring_disarm(l->ring);
        read_turn(l);
        if (rc < 0 && l->state != LINK_DEAD && cule_link_read_some(l) <= 0) {
            cule_link_die(l, rc == CULE_ECLOSED ? 0 : rc, cule_ring_why(l->ring)->text);
        }
    } else if (events & ~POLLOUT || (l->carrier->ops->pending && l->carrier->ops->pending(l->carrier))) {
        read_turn(l);
        if (l->state == LINK_OPEN && l->s.bye_in) {
            cule_link_die(l, 0, NULL);
        }
    } else if (l->carrier->ops->pending) {
        read_turn(l); /* TLS may have wanted to write in order to read */
    }
    if (l->ring && l->state == LINK_OPEN && l->s.bye_in) {
        cule_link_die(l, 0, NULL);
    }
    cule_loop_defer(l->loop, &l->defer);
}

/* The end of a turn: write what was gathered, look whether the link is done, and say what to wait for. */
static void on_defer(void *ctx)
{
    struct cule_link *l = ctx;
    if (l->ring && l->defer_writable && l->state != LINK_DEAD) {
        l->defer_writable = false;
        on_event(l, POLLIN);
    }
    if (l->state != LINK_DEAD && l->state != LINK_CONNECTING) {
        cule_link_write_some(l);
    }
    if (l->state == LINK_HALF && l->s.requests == 0) {
        cule_link_close(l);
    }
    if (l->state == LINK_CLOSING && l->s.queued == 0) {
        if (l->s.bye_out || !l->s.cfg.duplex) {
            if (l->carrier && l->carrier->ops->finish) {
                l->carrier->ops->finish(l->carrier);
            }
            cule_link_die(l, 0, NULL);
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
}

int cule_link_start(struct cule_link *l, struct cule_err *err)
{
    int rc = cule_session_start(&l->s);
    if (rc) {
        return cule_err_set(err, rc, "cannot open a link: out of memory");
    }
    if (l->carrier && l->state == LINK_CONNECTING) {
        if (l->carrier->connecting || l->carrier->ops->handshake) {
            if (l->loop && l->carrier->connecting) {
                cule_loop_defer(l->loop, &l->defer);
                return 0;
            }
            rc = cule_link_handshake(l);
            if (rc < 0) {
                return cule_err_set(err, rc, "%s", l->why.text);
            }
        } else {
            cule_link_handshake(l);
        }
    }
    if (l->loop) {
        cule_loop_defer(l->loop, &l->defer);
    }
    return 0;
}

/* What a link reads and writes: between the carrier or ring and the session. */
#include "io/link_impl.h"

#include "base/pool.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

/* Clearing all of its text would cost more than some frames do. */
static void no_error(struct cule_err *err)
{
    err->code = err->sys = 0;
    err->text[0] = 0;
}

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
    l->stop = l->stop || l->opening; /* what follows is for the first call to take */
    if (l->loop && l->ops && l->ops->ready) {
        l->ops->ready(l, l->ctx);
    }
}

static void on_writable(struct cule_link *l, uint64_t id)
{
    if (l->loop && l->ops && l->ops->writable && l->state < LINK_CLOSING) {
        l->ops->writable(l, l->ctx, id);
    }
}

static void on_skipped(struct cule_link *l, uint64_t bytes)
{
    l->skipped_bytes += bytes;
    if (l->loop && l->ops && l->ops->skipped) {
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
    if (l->s.queued >= LINK_FLUSH_BYTES && !l->want_write) {
        cule_link_write_some(l);
    }
    cule_loop_defer(l->loop, &l->defer);
}

/* What fails here fails again when the queue is written, which sees to it. */
static size_t write_now(struct cule_link *l, const struct iovec *iov, int n)
{
    if (!l->carrier || l->in_flush || l->want_write || l->muted || l->state < LINK_OPEN || l->state > LINK_CLOSING) {
        return 0;
    }
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        total += iov[i].iov_len;
    }
    ssize_t w = l->carrier->ops->write(l->carrier, iov, n, NULL, 0, NULL);
    l->want_write = w == CULE_EAGAIN || (w >= 0 && (size_t)w < total);
    return w > 0 ? (size_t)w : 0;
}

const struct cule_session_ops cule_link_session_ops = {
    .message = on_message,
    .ready = on_ready,
    .writable = on_writable,
    .skipped = on_skipped,
    .take_fds = take_fds,
    .close_fds = close_fds,
    .output = on_output,
    .write = write_now,
};

/* --- reading --- */

int cule_link_step_all(struct cule_link *l)
{
    struct cule_err err;
    no_error(&err);
    int rc = 0;
    bool outer = l->in_callback;
    l->in_callback = true;
    while (l->state != LINK_DEAD && !l->stop && (rc = cule_session_step(&l->s, &err)) > 0) {
    }
    l->in_callback = outer;
    if (rc < 0 && l->state != LINK_DEAD) {
        cule_link_write_some(l); /* the ERROR that says why */
        cule_link_die(l, rc, err.text);
    }
    return l->stop && rc >= 0 ? 1 : rc;
}

static bool over_inet(const struct cule_link *l)
{
    const char *name = l->carrier ? l->carrier->ops->name : "";
    return strcmp(name, "tcp") == 0 || strcmp(name, "tls") == 0;
}

/* Is the other end wholly gone, or has it only finished sending? TCP cannot tell. */
static bool peer_gone(const struct cule_link *l)
{
    struct pollfd p = {.fd = l->carrier->wfd, .events = 0};
    if (p.fd < 0 || l->muted || over_inet(l)) {
        return true;
    }
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

/* The stream has ended and everything in it has been dealt with. */
static void after_eof(struct cule_link *l)
{
    struct cule_err err;
    no_error(&err);
    if (l->fds.count) {
        cule_link_die(l, CULE_EMALFORMED, "descriptors came that no frame claimed");
    } else if (l->state == LINK_CLOSING) {
        if (l->muted || l->finished || peer_gone(l)) {
            cule_link_die(l, 0, NULL);
        }
    } else if (cule_session_finished(&l->s, &err) < 0) {
        cule_link_die(l, CULE_ETRUNCATED, err.text);
    } else if (peer_gone(l) || l->s.bye_in) {
        cule_link_die(l, 0, NULL);
    } else {
        l->state = LINK_HALF;
        cule_session_half(&l->s);
        if (l->loop && l->s.requests == 0) {
            cule_link_close(l);
        }
    }
}

static int on_eof(struct cule_link *l)
{
    struct cule_err err;
    no_error(&err);
    int rc = 0;
    if (!l->eof && !l->finished) {
        l->eof = true;
        rc = cule_session_eof(&l->s, &err);
        l->fed = l->s.cfg.resync;
    }
    if (rc < 0) {
        cule_link_die(l, rc, err.text);
        return rc;
    }
    if (l->fed) {
        rc = cule_link_step_all(l); /* the end may have made frames of what was left */
        l->fed = rc > 0;
    }
    if (!l->fed && l->state != LINK_DEAD) {
        after_eof(l);
    }
    return CULE_ECLOSED;
}

static int read_ring(struct cule_link *l)
{
    struct cule_frame f;
    const void *payload = NULL;
    struct cule_err err;
    no_error(&err);
    int done = 0;
    int rc = 0;
    bool outer = l->in_callback;
    l->in_callback = true;
    while (l->state != LINK_DEAD && !l->stop && done < 4096 && (rc = cule_ring_recv(l->ring, &f, &payload)) > 0) {
        done++;
        rc = cule_session_frame(&l->s, &f, payload ? payload : (const uint8_t *)"", &err);
        if (l->stop) {
            l->ring_lent = true; /* the message holds until the caller's next call */
        } else {
            cule_ring_release(l->ring);
        }
        if (rc < 0) {
            break;
        }
    }
    l->in_callback = outer;
    if (done) {
        l->ping_out = false;
        l->last_in_ns = l->s.now_ns;
    }
    if (rc < 0 && l->state != LINK_DEAD) {
        bool hangup = rc == CULE_ECLOSED;
        if (!hangup) {
            cule_link_write_some(l);
        }
        cule_link_die(l, hangup ? 0 : rc, err.code ? err.text : cule_ring_why(l->ring)->text);
    }
    return rc < 0 ? rc : done;
}

/* Deals with n bytes that were read, or n <= 0 for why there are none. */
static int take_in(struct cule_link *l, uint8_t *buf, ssize_t n, struct cule_err *err)
{
    if (!l->loop) {
        l->s.now_ns = cule_now_ns(); /* the read may have waited */
    }
    if (n == CULE_EAGAIN) {
        return 0;
    }
    /* A Unix socket gives everything first, then a reset where the peer had not read everything: an end as any other.
     * TCP may have thrown away what was still to be read. */
    if (n == 0 || (n == CULE_ECLOSED && !over_inet(l))) {
        return on_eof(l);
    }
    if (n < 0) {
        bool over = n == CULE_ECLOSED && (l->finished || l->s.bye_in);
        cule_link_die(l, over ? 0 : (int)n, err->text);
        return (int)n;
    }
    l->ping_out = false;
    l->last_in_ns = l->s.now_ns;
    if (l->finished) {
        return (int)n;
    }
    cule_session_feed(&l->s, buf, (size_t)n);
    int rc = cule_link_step_all(l);
    l->fed = rc > 0;
    return rc < 0 ? rc : (int)n;
}

/* On a loop, links read in turn into one pooled block; what a cut frame leaves behind the decoder keeps. */
static int read_on_loop(struct cule_link *l)
{
    struct cule_err err;
    no_error(&err);
    size_t cap;
    uint8_t *buf = cule_pool_get(LINK_READ_BYTES, &cap);
    if (!buf) {
        cule_link_die(l, CULE_ENOMEM, "out of memory");
        return CULE_ENOMEM;
    }
    int rc = take_in(l, buf, l->carrier->ops->read(l->carrier, buf, LINK_READ_BYTES, &l->fds, &err), &err);
    cule_pool_put(buf, cap);
    return rc;
}

int cule_link_read_some(struct cule_link *l)
{
    struct cule_err err;
    no_error(&err);
    if (l->ring) {
        return read_ring(l);
    }
    if (l->loop) {
        return read_on_loop(l);
    }
    if (l->eof) {
        return on_eof(l);
    }
    const struct cule_carrier_ops *ops = l->carrier->ops;
    ssize_t n = l->wait_ms ? ops->read_wait(l->carrier, l->rbuf, l->rbuf_cap, &l->fds, l->wait_ms, &err)
                           : ops->read(l->carrier, l->rbuf, l->rbuf_cap, &l->fds, &err);
    return take_in(l, l->rbuf, n, &err);
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
        if (rc == CULE_ECLOSED) {
            l->muted = true; /* what the peer sent before is still read, and tells of its end */
            return;
        }
        if (rc < 0) {
            cule_link_die(l, rc, cule_err_text(rc));
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
        struct cule_err err;
        no_error(&err);
        int n = cule_session_output(&l->s, iov, &fds, &nfds);
        if (n == 0) {
            return;
        }
        ssize_t w = l->carrier->ops->write(l->carrier, iov, n, fds, nfds, &err);
        if (w == CULE_EAGAIN) {
            l->want_write = true;
            return;
        }
        /* A socket's peer that is gone may have left answers that are still to be read. */
        if (w == CULE_ECLOSED && l->carrier->rfd == l->carrier->wfd && !l->eof) {
            l->muted = true;
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
    if (l->muted) {
        cule_session_mute(&l->s);
    } else if (l->ring) {
        write_ring(l);
    } else {
        write_carrier(l);
    }
    if (l->muted) {
        cule_session_mute(&l->s);
    }
    l->in_flush = false;
}

void cule_link_finish(struct cule_link *l)
{
    if (l->carrier && l->carrier->ops->finish && !l->finished && !l->muted) {
        l->carrier->ops->finish(l->carrier);
    }
    /* TCP would answer unread bytes with a reset, which can overtake what was sent. */
    if (over_inet(l) && !l->eof && !l->muted) {
        l->finished = true;
    } else if (l->muted && !l->s.bye_in && !l->s.bye_out) {
        cule_link_die(l, CULE_ECLOSED, "closed by the peer before it took what was sent");
    } else {
        cule_link_die(l, 0, NULL);
    }
}

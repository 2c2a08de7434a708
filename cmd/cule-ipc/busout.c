/* Standard output that never blocks the loop. */
#include "busout.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void flush(struct busout *o);
static int idle_events(const struct busout *o);

static void broken(struct busout *o, int code, int sys)
{
    o->broken = true;
    if (code == CULE_ECLOSED) {
        cule_err_set(&o->err, code, "the reader of standard output went away");
    } else {
        cule_err_sys(&o->err, code, sys, "cannot write to standard output");
    }
    cule_buf_clear(&o->buf);
    cule_watch_free(o->watch);
    o->watch = NULL;
    o->waiting = false;
}

/* What left while the caller was adding counts too. */
static void tell(struct busout *o)
{
    if (o->taken != o->told || o->broken) {
        o->told = o->taken;
        o->moved(o->ctx);
    }
}

/* POLLERR on a pipe or socket: its reader is gone, which we want to know even with nothing to write. */
static void on_event(void *ctx, int events)
{
    struct busout *o = ctx;
    if (events & (POLLERR | POLLHUP)) {
        broken(o, CULE_ECLOSED, EPIPE);
        o->moved(o->ctx);
        return;
    }
    if (events & POLLOUT) {
        o->waiting = false;
        flush(o);
        tell(o);
    }
}

static void end_of_turn(void *ctx)
{
    struct busout *o = ctx;
    flush(o);
    tell(o);
}

int busout_init(struct busout *o, struct cule_loop *loop, int fd, void (*moved)(void *ctx), void *ctx,
                struct cule_err *err)
{
    struct stat st;
    *o = (struct busout){.loop = loop, .fd = fd, .moved = moved, .ctx = ctx};
    cule_buf_init(&o->buf, BUSOUT_MAX);
    cule_defer_init(&o->defer, end_of_turn, o);
    if (fstat(fd, &st) != 0) {
        return cule_err_sys(err, CULE_EIO, errno, "standard output cannot be used");
    }
    o->socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (own >= 0) {
            o->fd = own;
            o->opened = true;
        }
    }
    if (S_ISREG(st.st_mode) || (S_ISCHR(st.st_mode) && !isatty(fd))) {
        return 0; /* always takes what it is given */
    }
    return cule_watch_new(loop, &o->watch, o->fd, idle_events(o), on_event, o, err);
}

void busout_release(struct busout *o)
{
    if (!o->loop) {
        return;
    }
    cule_defer_cancel(&o->defer);
    cule_watch_free(o->watch);
    o->watch = NULL;
    cule_buf_release(&o->buf);
    if (o->opened) {
        close(o->fd);
        o->opened = false;
    }
}

/* One write: bytes taken, 0 when the reader takes none now, -1 broken. */
static ssize_t put(struct busout *o)
{
    size_t n = cule_buf_len(&o->buf);
    ssize_t w;
    do {
        w = o->socket ? send(o->fd, cule_buf_data(&o->buf), n, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(o->fd, cule_buf_data(&o->buf), n);
    } while (w < 0 && errno == EINTR);
    if (w >= 0) {
        cule_buf_take(&o->buf, (size_t)w);
        o->taken += (uint64_t)w;
        return w;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    broken(o, errno == EPIPE || errno == ECONNRESET ? CULE_ECLOSED : CULE_EIO, errno);
    return -1;
}

/* A pipe tells of its reader's death by POLLERR, which comes with any interest; a socket would report POLLRDHUP for
 * ever once its other end only stopped writing. */
static int idle_events(const struct busout *o)
{
    return o->socket ? 0 : POLLRDHUP;
}

static void flush(struct busout *o)
{
    while (!o->broken && !o->waiting && cule_buf_len(&o->buf) > 0) {
        if (put(o) == 0) {
            o->waiting = true;
        }
    }
    if (o->watch) {
        cule_watch_set(o->watch, o->waiting ? POLLOUT : idle_events(o));
    }
}

void busout_kick(struct busout *o)
{
    if (o->broken) {
        cule_buf_clear(&o->buf);
    } else if (!o->waiting && cule_buf_len(&o->buf) >= BUSOUT_EAGER) {
        flush(o);
    }
    if (!o->waiting) {
        cule_loop_defer(o->loop, &o->defer);
    }
}

int busout_drain(struct busout *o, uint64_t timeout_ms, struct cule_err *err)
{
    uint64_t end = cule_now_ns() + timeout_ms * 1000000u;
    while (!o->broken && cule_buf_len(&o->buf) > 0) {
        uint64_t now = cule_now_ns();
        struct pollfd p = {.fd = o->fd, .events = POLLOUT};
        if (now >= end) {
            return cule_err_set(err, CULE_ETIMEOUT, "standard output took nothing for %llu ms",
                                (unsigned long long)timeout_ms);
        }
        if (put(o) == 0) {
            poll(&p, 1, (int)CULE_MIN((end - now) / 1000000u + 1, 1000u));
        }
    }
    if (o->broken) {
        if (err) {
            *err = o->err;
        }
        return o->err.code;
    }
    return 0;
}

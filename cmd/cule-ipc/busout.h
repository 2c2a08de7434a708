/*
 * Standard output for commands that must not block in their loop: bytes are gathered and written at the end of the
 * turn, as much as the reader takes, and the rest when it takes more. The descriptor's own flags are left alone, since
 * they are shared with whoever started us: a pipe is opened anew, a socket is written with MSG_DONTWAIT.
 */
#ifndef CULE_IPC_BUSOUT_H
#define CULE_IPC_BUSOUT_H

#include "base/buf.h"
#include "io/loop.h"

enum {
    BUSOUT_EAGER = 128 * 1024, /* more than this is written at once, not at the end of the turn */
    BUSOUT_FULL = 512 * 1024,  /* with more than this waiting the caller should take no more in */
    BUSOUT_MAX = 64 * 1024 * 1024,
};

struct busout {
    struct cule_buf buf;
    struct cule_loop *loop;
    struct cule_watch *watch;
    struct cule_defer defer;
    int fd;
    bool opened; /* fd is ours to close */
    bool socket;
    bool waiting;   /* for the reader */
    bool broken;    /* nothing goes out any more */
    uint64_t taken; /* bytes that left, ever */
    uint64_t told;  /* of them when `moved` ran last */
    /* More went out, or it is broken with the reason in err (CULE_ECLOSED: the reader went away). */
    void (*moved)(void *ctx);
    void *ctx;
    struct cule_err err;
};

int busout_init(struct busout *o, struct cule_loop *loop, int fd, void (*moved)(void *ctx), void *ctx,
                struct cule_err *err);
void busout_release(struct busout *o);
/* After adding to o->buf. */
void busout_kick(struct busout *o);
/* What waits, in bytes. */
static inline size_t busout_waiting(const struct busout *o)
{
    return cule_buf_len(&o->buf);
}
/* Writes what is left, blocking to the deadline; for the way out. 0, CULE_ETIMEOUT, CULE_ECLOSED, CULE_EIO. */
int busout_drain(struct busout *o, uint64_t timeout_ms, struct cule_err *err);

#endif

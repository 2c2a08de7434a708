/*
 * The event loop: descriptors, timers, signals, work put off to the end of a turn. Stands on libuv, which
 * nobody outside lib/io sees. One loop per thread; nothing here is thread-safe but cule_loop_wake.
 *
 * Handles belong to the loop and are closed with their _free call, after which their callback never runs
 * again. A callback may free its own handle. A loop runs until cule_loop_stop, or until no handle keeps it.
 */
#ifndef CULE_IO_LOOP_H
#define CULE_IO_LOOP_H

#include "base/err.h"
#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct cule_loop;
struct cule_watch;
struct cule_timer;
struct cule_sigwatch;

int cule_loop_new(struct cule_loop **out, struct cule_err *err);
/* Closes every handle that is left and frees the loop. */
void cule_loop_free(struct cule_loop *loop);
/* 0 once stopped or out of work. */
int cule_loop_run(struct cule_loop *loop);
/* One turn; waits at most timeout_ms for something to happen (0: not at all). */
int cule_loop_turn(struct cule_loop *loop, uint64_t timeout_ms);
void cule_loop_stop(struct cule_loop *loop);
/* Makes the loop take a turn; callable from another thread. */
void cule_loop_wake(struct cule_loop *loop);

/* CLOCK_MONOTONIC and CLOCK_REALTIME, nanoseconds. */
uint64_t cule_now_ns(void);
uint64_t cule_wall_ns(void);
/* The monotonic clock as read once for this turn of the loop. */
uint64_t cule_loop_now_ns(struct cule_loop *loop);

/* Descriptors. events is an or of POLLIN, POLLOUT, POLLPRI, POLLRDHUP; what fn gets may add POLLERR and POLLHUP.
 * Level-triggered. A descriptor that cannot be polled (a regular file) is reported ready on every turn. The watch does
 * not own fd, which must stay open until cule_watch_free. */
typedef void cule_watch_fn(void *ctx, int events);
int cule_watch_new(struct cule_loop *loop, struct cule_watch **out, int fd, int events, cule_watch_fn *fn, void *ctx,
                   struct cule_err *err);
int cule_watch_set(struct cule_watch *w, int events); /* 0 events: paused */
void cule_watch_free(struct cule_watch *w);           /* NULL is fine */

/* Timers. `unref` lets the loop end while only this one is left. */
typedef void cule_timer_fn(void *ctx);
int cule_timer_new(struct cule_loop *loop, struct cule_timer **out, cule_timer_fn *fn, void *ctx, struct cule_err *err);
void cule_timer_start(struct cule_timer *t, uint64_t after_ms,
                      uint64_t repeat_ms); /* repeat 0: once; starting again moves it */
void cule_timer_stop(struct cule_timer *t);
void cule_timer_unref(struct cule_timer *t);
void cule_timer_free(struct cule_timer *t);

/* Signals, delivered in the loop. The handle does not keep the loop running. */
typedef void cule_sigwatch_fn(void *ctx, int signum);
int cule_sigwatch_new(struct cule_loop *loop, struct cule_sigwatch **out, int signum, cule_sigwatch_fn *fn, void *ctx,
                      struct cule_err *err);
void cule_sigwatch_free(struct cule_sigwatch *s);

/* Work for the end of this turn, before the loop sleeps: how links gather a batch into one write. The caller owns the
 * node (zeroed, then cule_defer_init) and cancels it before its memory goes. Putting off twice runs once. */
struct cule_defer {
    struct cule_list node;
    void (*fn)(void *ctx);
    void *ctx;
};
void cule_defer_init(struct cule_defer *d, void (*fn)(void *ctx), void *ctx);
void cule_loop_defer(struct cule_loop *loop, struct cule_defer *d);
void cule_defer_cancel(struct cule_defer *d);

#endif

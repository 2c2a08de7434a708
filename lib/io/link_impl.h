/* What the files of the link share; nobody else includes it. */
#ifndef CULE_IO_LINK_IMPL_H
#define CULE_IO_LINK_IMPL_H

#include "io/link.h"
#include "io/ring.h"
#include "io/spawn.h"
#include "io/tls_hook.h"

enum link_state {
    LINK_CONNECTING, /* connect or handshake under way */
    LINK_OPEN,
    LINK_HALF,    /* the peer sends no more; its open requests are still answered */
    LINK_CLOSING, /* flushing, then BYE, then the end */
    LINK_DEAD,    /* `closed` is due */
};

/* A message that came while cule_link_ask waited for something else. */
struct kept {
    struct cule_list node;
    struct cule_msg m;
    uint8_t bytes[];
};

struct cule_link {
    struct cule_session s;
    const struct cule_link_ops *ops;
    void *ctx;
    struct cule_loop *loop;
    struct cule_carrier *carrier; /* NULL for a ring */
    struct cule_ring *ring;
    struct cule_watch *rwatch; /* also for writing when it is one descriptor; the doorbell of a ring */
    struct cule_watch *wwatch; /* the second descriptor; the socket of a ring */
    struct cule_defer defer;   /* flush, or the end */
    struct cule_timer *timer;  /* deadlines, connect timeout, linger, ping; made on first need */
    struct cule_fdq fds;
    struct cule_proc *proc;      /* exec: */
    struct cule_peer *ring_peer; /* a carrier knows its own */
    struct cule_err why;
    enum link_state state;
    bool paused, want_write, defer_ring;
    bool in_flush;     /* inside the carrier's or ring's write */
    bool in_callback;  /* somewhere below one of our callbacks: freeing is then a bug */
    bool close_wanted; /* while still connecting */
    bool finished;     /* everything is written; the peer's end is waited for, what it sends is thrown away */
    bool muted;        /* the peer takes nothing any more; what it sent is still read */
    bool muted_told;
    bool eof;
    bool ring_trust;
    bool ring_lent; /* a frame whose message the caller still has */
    bool ping_out;
    int ring_sock;     /* before the hand-over */
    size_t greeting;   /* bytes of our HELLO and first grants */
    uint64_t limit_ns; /* connect or linger deadline */
    uint64_t timer_ns; /* what the timer is set to; 0: off */
    uint64_t ping_ns;  /* interval; 0: none */
    uint64_t last_in_ns;
    uint64_t skipped_bytes;
    void *tls_config; /* client: freed with the link */
    /* without a loop */
    uint8_t *rbuf;
    size_t rbuf_cap;
    uint32_t spin_us, unspun; /* how long the next wait may spin; waits without */
    int wait_ms;              /* what a read may block: milliseconds, -1 without a deadline, 0 not at all */
    bool fed;                 /* rbuf, or the decoder at the end of the stream, holds bytes not stepped through */
    bool stop;                /* the caller has what it waits for: no further steps */
    bool draining, opening;
    struct cule_list kept;
    unsigned nkept;
    struct kept *current;       /* what the last call returned */
    struct cule_msg *next_into; /* cule_link_next: where the next message goes */
};

enum { LINK_KEPT_MAX = 1024, LINK_READ_BYTES = 64 * 1024, LINK_READ_ROUNDS = 1, LINK_FLUSH_BYTES = 256 * 1024 };
enum { LINK_KILL_MS = 1000 }; /* what a command started for exec: has to end by itself */

extern const struct cule_session_ops cule_link_session_ops;

/* What kind of carrier a link is made for. */
struct link_shape {
    bool duplex;
    bool socket; /* one stream both ways: HELLO comes first, and a bad header ends it */
    bool can_pass_fds;
};
int cule_link_alloc(struct cule_loop *loop, const struct cule_link_opts *o, const struct link_shape *shape,
                    struct cule_link **out, struct cule_err *err);
/* Queues HELLO and begins. On failure the caller releases l. */
int cule_link_start(struct cule_link *l, struct cule_err *err);
/* The end: `closed` runs at the end of the turn. The first cause wins. */
void cule_link_die(struct cule_link *l, int code, const char *text);
/* Reads what is there. Returns bytes or frames dealt with, 0 nothing, negative: the link has died. */
int cule_link_read_some(struct cule_link *l);
int cule_link_step_all(struct cule_link *l);
void cule_link_write_some(struct cule_link *l);
void cule_link_update(struct cule_link *l); /* watches and timer to what is wanted now */
void cule_link_tick(struct cule_link *l, uint64_t now);
int cule_link_handshake(struct cule_link *l);
/* When the link must next be looked at though nothing comes: UINT64_MAX never. */
uint64_t cule_link_due(const struct cule_link *l);
/* Everything is on its way: ends, or waits for the peer's end where closing now could take back what was sent. */
void cule_link_finish(struct cule_link *l);
/* Opening failed: frees the link and leaves its descriptors to the caller. */
void cule_link_disown(struct cule_link *l);
void cule_link_release(struct cule_link *l);

/* Without a loop: a message for cule_link_next, now or later. */
void cule_link_keep(struct cule_link *l, struct cule_msg *m);
void cule_link_drop_kept(struct cule_link *l);
/* cule_link_call with the clock read already. */
int cule_link_call_now(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, cule_answer_fn *fn, void *arg,
                       uint64_t *id);
/* What cule_link_close is without a loop. */
void cule_link_close_wait(struct cule_link *l);
int cule_link_wait_ready(struct cule_link *l, struct cule_err *err);
/* Both ends of ring:. The socket is theirs from the call on, closed on failure. */
int cule_link_attach_ring(struct cule_loop *loop, int sock, bool trust, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err);
int cule_link_create_ring(struct cule_loop *loop, int sock, bool trust, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err);

#endif

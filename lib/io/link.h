/*
 * A link: one connection that speaks frames, with everything that cule-frame(5) asks of an end of it. HELLO, credit,
 * priorities, requests with exactly one terminal answer, streams both ways, cancel, deadlines, ping, descriptors, all
 * over any carrier or a shared-memory ring.
 *
 * Two ways to drive the same link:
 *   with a loop      callbacks run as messages arrive; nothing ever blocks
 *   without a loop   cule_link_next and cule_link_ask block, each to a deadline (plain C programs, benchmarks)
 *
 * Ownership: the caller of cule_link_open or the accept callback owns the link until its `closed` callback has run or
 * it has called cule_link_free. Callbacks run from the loop and from cule_link_cancel alone: a send never
 * leads to `writable` before it has returned. A message passed to a callback, its body and its descriptors are the
 * link's and are gone when the callback returns; descriptors that are wanted are taken with cule_msg_take_fd. Functions
 * that can fail return 0 or a negative CULE_E... code.
 */
#ifndef CULE_IO_LINK_H
#define CULE_IO_LINK_H

#include "io/carrier.h"
#include "io/endpoint.h"
#include "io/loop.h"
#include "wire/message.h"
#include "wire/ops.h"
#include "wire/session.h"

struct cule_link;

/*
 * What arrives that is not an answer to a call of ours. m->h.kind tells:
 *   REQUEST  answer it once: cule_link_reply, cule_link_error, now or later, by m->h.id. With OPEN in its flags DATA of
 *            the same id follows.
 *   DATA     more of a request's stream; the last one without OPEN.
 *   EVENT    one-way.
 *   CANCEL   request id is void: the asker gave it up (arg0 CANCELLED's code), its deadline passed (TIMEOUT), its
 * stream came broken or was cut off, or the link or the asker is gone (CLOSED, PEER_RESTARTED). Stop; no answer is
 *            expected, for the link has sent one where somebody is there to read it. A late answer is dropped in
 *            silence.
 *   HELLO    a later one: the peer was replaced; its requests are void (CANCEL has been delivered for each).
 *   MARK     as it comes. On one-way links (pipes, files) every other kind too.
 */
struct cule_link_ops {
    void (*message)(struct cule_link *l, void *ctx, struct cule_msg *m);
    /* The peer's HELLO is in (duplex only). May be NULL. */
    void (*ready)(struct cule_link *l, void *ctx);
    /* After a send that said CULE_EAGAIN: there is credit and room again. id 0: try everything again, streams too;
     * else that stream. It may come early, when the send says CULE_EAGAIN again. Also when the peer has stopped taking
     * anything: sends are CULE_ECLOSED then. May be NULL. */
    void (*writable)(struct cule_link *l, void *ctx, uint64_t id);
    /* Bytes that were no frame were skipped on a pipe or file (RESYNC). May be NULL. */
    void (*skipped)(struct cule_link *l, void *ctx, uint64_t bytes);
    /* The end: once, last. why->code is 0 for a clean one: BYE, the end of the stream between messages, or our own
     * cule_link_close when everything could be written. The link is freed on return. */
    void (*closed)(struct cule_link *l, void *ctx, const struct cule_err *why);
};

/* Defaults of what one side of a link grants, holds and takes. Each can be set in the options. */
enum {
    CULE_LINK_WINDOW_FRAMES = 1024,          /* per priority */
    CULE_LINK_WINDOW_BYTES = 1024 * 1024,    /* per priority */
    CULE_LINK_STREAM_BYTES = 256 * 1024,     /* per stream */
    CULE_LINK_QUEUE_BYTES = 4 * 1024 * 1024, /* unsent, all priorities; beyond it a send is CULE_EAGAIN, and the peer
                                                is granted nothing */
    CULE_LINK_CALLS_MAX = 65536,             /* open requests in each direction */
    CULE_LINK_LINGER_MS = 2000,              /* how long cule_link_close waits to get rid of what is queued */
    CULE_LINK_CONNECT_MS = 10000,
};

struct cule_tls_config;
struct cule_link_opts {
    const char *name; /* in our HELLO; at most 255 bytes */
    const struct cule_link_ops *ops;
    void *ctx;
    uint32_t window_frames;      /* 0: default; UINT32_MAX: grant nothing, so the peer is without limit */
    uint64_t window_bytes;       /* 0: default */
    uint64_t stream_bytes;       /* 0: default; UINT64_MAX: streams without limit */
    uint64_t message_max;        /* 0: CULE_MESSAGE_MAX */
    uint64_t queue_bytes;        /* 0: default */
    uint32_t calls_max;          /* 0: default */
    uint64_t connect_timeout_ms; /* 0: default */
    uint64_t wait_ms;   /* while nobody listens there, try again for that long; the opening call blocks meanwhile */
    uint64_t ping_ms;   /* a PING after that long without a byte; the link ends when as long again passes. 0: never */
    bool manual_credit; /* what the application is given is granted again only by cule_link_consumed */
    bool one_way;       /* no HELLO, whatever the carrier (a pipe never has one); and no checks of who may send what */
    bool is_server;     /* even ids; set by cule_listener for what it accepts */
    bool nested_hello;  /* unused by most: deliver the first HELLO to `message` too (recorders) */
};

/*
 * Opens a link to an endpoint: -, unix:, ring:, tcp:, tls:, fd:, exec: (started now, its tree is killed when the link
 * goes: SIGTERM, a second later SIGKILL), file: (read). With a loop this returns at once and messages may be queued; a
 * failure to connect comes as `closed`. Without a loop (NULL) it blocks until the peer's HELLO is in or the connect
 * timeout has passed.
 */
int cule_link_open(struct cule_loop *loop, const char *endpoint, const struct cule_link_opts *o, struct cule_link **out,
                   struct cule_err *err);
/* The same over descriptors, which the link owns from success on (rfd == wfd for a socket; -1 for a direction that is
 * not there), or over a carrier. */
int cule_link_open_fd(struct cule_loop *loop, int rfd, int wfd, const struct cule_link_opts *o, struct cule_link **out,
                      struct cule_err *err);
int cule_link_open_carrier(struct cule_loop *loop, struct cule_carrier *c, const struct cule_link_opts *o,
                           struct cule_link **out, struct cule_err *err);

/* A file written to (recording) or standard output as a one-way link: sends only. cule_link_open on file: reads. */
int cule_link_open_writer(struct cule_loop *loop, const char *endpoint, const struct cule_link_opts *o,
                          struct cule_link **out, struct cule_err *err);

/*
 * Sends a message as it stands: m->h.kind, id, service, op, arguments, flags, priority, deadline; body in frames of at
 * most 64 KiB. length, magic, MORE are filled in. TRACE is set when m->trace is. Descriptors (m->fds) are duplicated,
 * the caller keeps its own. CULE_EAGAIN: no credit or the queue is full, nothing was queued, `writable` will tell.
 * CULE_ETOO_BIG: the peer does not take that much. On a duplex link REQUEST is for cule_link_call (CULE_EUSAGE here);
 * REPLY, ERROR, DATA and CANCEL are held to the exchange of their id, as cule_link_reply, cule_link_data and
 * cule_link_cancel do; HELLO, CREDIT, PING, PONG and BYE are the link's own.
 */
int cule_link_send(struct cule_link *l, const struct cule_msg *m);
/* The same without asking for credit or room (answers that must get out, a bus's own control): use sparingly. */
int cule_link_send_free(struct cule_link *l, const struct cule_msg *m);
/* Bytes of frames already encoded (whole frames, checks in place), all of one priority: how a broker sends one encoding
 * to many. Counts as `frames` frames. */
int cule_link_send_raw(struct cule_link *l, unsigned priority, const void *frames_bytes, size_t n, unsigned frames);

/* Would a send of n payload bytes at this priority go now? */
bool cule_link_can_send(const struct cule_link *l, unsigned priority, size_t n);

/*
 * Asks. *m is a REQUEST (its id is chosen here); fn gets the answers: REPLY or ERROR without OPEN is the last, DATA and
 * REPLY with OPEN come before it. It is called exactly once with a last answer, also when the link dies (ERROR with
 * CULE_ECLOSED or CULE_EPEER_RESTARTED) or timeout_ms passes (CULE_ETIMEOUT, and the peer gets a CANCEL). timeout_ms 0:
 * no deadline of ours; m->h.deadline_ms is then passed on as it is. *id may be NULL.
 */
/* cule_answer_fn: void (*)(struct cule_link *l, void *arg, struct cule_msg *answer) */
int cule_link_call(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, cule_answer_fn *fn, void *arg,
                   uint64_t *id);
/* Gives up a request: fn gets ERROR cancelled, now. */
int cule_link_cancel(struct cule_link *l, uint64_t id);
/* More of our request's stream (the REQUEST had OPEN), or of our answer's (the REPLY had OPEN). `last` ends this side.
 */
int cule_link_data(struct cule_link *l, uint64_t id, const void *body, size_t n, bool last);

/* Terminal answers to the request with that id. Priority is the request's. An id that is not open (cancelled, timed
 * out) is 0: nothing is sent. CULE_ETOO_BIG leaves the request open, for an ERROR. Answers ask for no room: who answers
 * much looks at cule_link_queued. */
int cule_link_reply(struct cule_link *l, uint64_t id, uint64_t arg0, uint64_t arg1, const void *body, size_t n);
int cule_link_error(struct cule_link *l, uint64_t id, int code, uint64_t detail, const char *fmt, ...)
    CULE_PRINTF(5, 6);
/* A REPLY with OPEN: DATA follows with cule_link_data, the last one with last = true. */
int cule_link_reply_open(struct cule_link *l, uint64_t id, uint64_t arg0, uint64_t arg1, const void *body, size_t n);
/* Milliseconds left for a request of the peer's: UINT32_MAX without a deadline, 0 passed or not open. What a hop
 * forwards. */
uint32_t cule_link_left_ms(struct cule_link *l, uint64_t id);

/* EVENT, in one line. */
int cule_link_event(struct cule_link *l, uint32_t service, uint32_t op, uint64_t arg0, uint64_t arg1, const void *body,
                    size_t n);

/* Round trip of a PING; fn gets nanoseconds, or 0 when the link died first. */
/* cule_pong_fn: void (*)(struct cule_link *l, void *arg, uint64_t rtt_ns) */
int cule_link_ping(struct cule_link *l, cule_pong_fn *fn, void *arg);

/* Credit by hand: what the application has dealt with. For each REQUEST, EVENT and DATA message it was given: one frame
 * and m->h.length bytes of m->h.priority, and for DATA with OPEN m->len bytes of its stream. (Frames of a message
 * before its last, and what never reached the application, the link gives back itself; claims beyond what came are
 * cut.) */
void cule_link_consumed(struct cule_link *l, unsigned priority, uint32_t frames, uint64_t bytes);
void cule_link_stream_consumed(struct cule_link *l, uint64_t id, uint64_t bytes);
/* Stops and resumes reading the carrier altogether. */
void cule_link_pause(struct cule_link *l, bool on);

/* Sends what is queued now rather than at the end of the turn. */
void cule_link_flush(struct cule_link *l);
/* Bytes queued and not yet taken by the carrier. */
size_t cule_link_queued(const struct cule_link *l);
/* Flushes, says BYE, and closes; `closed` runs (later, never inside this call). Calls still open get CULE_ECLOSED. What
 * cannot be written within CULE_LINK_LINGER_MS is lost, and `closed` says CULE_ETIMEOUT. Without a loop it does all
 * that now, blocking for so long at most; cule_link_free still follows. */
void cule_link_close(struct cule_link *l);
/* At once, without a goodbye; why (NULL: clean) goes to `closed`, and as an ERROR to the peer if there is one. Also
 * later, never inside. */
void cule_link_abort(struct cule_link *l, const struct cule_err *why);
/* Frees it now; no callback runs, nothing is flushed. Not from inside a callback of this link: use abort there. */
void cule_link_free(struct cule_link *l);

/* --- without a loop --- */
/* Messages come from cule_link_next; the callbacks in the options are not called. */
/* The next message that is no answer to cule_link_ask. 1, or CULE_ETIMEOUT, CULE_ECLOSED (a clean end), or what ended
 * the link. *m holds until the next call of these. timeout_ms 0: for ever. After CULE_ECLOSED requests that were read
 * may still be answered if the peer has only stopped sending (`cat requests | server`): then drain or close. */
int cule_link_next(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, struct cule_err *err);
/* Asks and waits: 0 with *answer (kind REPLY; its stream, if OPEN, by further cule_link_next: DATA of that id), holding
 * until the next call; an ERROR answer is its code with its text in *err. Messages that come meanwhile are kept for
 * cule_link_next, at most 1024 of them. timeout_ms 0: for ever. */
int cule_link_ask(struct cule_link *l, struct cule_msg *m, uint64_t timeout_ms, struct cule_msg *answer,
                  struct cule_err *err);
/* Writes what is queued; blocks to the deadline (0: for ever). Messages that come meanwhile are kept. */
int cule_link_drain(struct cule_link *l, uint64_t timeout_ms, struct cule_err *err);

/* --- what is known --- */
void *cule_link_ctx(const struct cule_link *l);
void cule_link_set_ctx(struct cule_link *l, const struct cule_link_ops *ops, void *ctx);
struct cule_loop *cule_link_loop(const struct cule_link *l);
const struct cule_peer *cule_link_peer(const struct cule_link *l);
const char *cule_link_peer_name(const struct cule_link *l); /* from its HELLO, made printable; "" before */
const char *cule_link_transport(const struct cule_link *l); /* "unix", "ring", "tcp", "tls", "pipe", "file" */
uint64_t cule_link_peer_message_max(const struct cule_link *l);
bool cule_link_is_ready(const struct cule_link *l);
pid_t cule_link_exec_pid(const struct cule_link *l); /* exec: the command's process; 0 otherwise */

struct cule_link_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    uint64_t again;         /* sends refused for want of credit or room */
    uint64_t skipped_bytes; /* resync */
    uint64_t body_errors;   /* bad bodies answered with ERROR */
    uint64_t queue_high_water_bytes;
    uint64_t critical_waits;         /* critical frames that found another frame part-written */
    uint64_t ring_frames, ring_slow; /* ring: frames sent, and those that needed a wake call */
};
void cule_link_stats(const struct cule_link *l, struct cule_link_stats *out);

/* --- accepting --- */
struct cule_listener;
/* A link has come in. Set its ops and ctx with cule_link_set_ctx before returning; refuse it with cule_link_abort. */
typedef void cule_accept_fn(struct cule_listener *s, void *ctx, struct cule_link *l);
/* Listens on an endpoint: unix, ring, tcp, tls, fd; or takes `-` (one link over stdin and stdout, at once in the first
 * turn). o is the pattern for each link. Out of descriptors, accepting pauses and resumes by itself (counted). */
int cule_listen(struct cule_loop *loop, const char *endpoint, const struct cule_link_opts *o,
                const struct cule_listen_opts *lo, cule_accept_fn *fn, void *ctx, struct cule_listener **out,
                struct cule_err *err);
/* The endpoint as bound, with the port that port 0 became. */
const char *cule_listener_endpoint(const struct cule_listener *s);
uint64_t cule_listener_paused_count(const struct cule_listener *s);
/* Stops accepting and removes the socket file; links stay. */
void cule_listener_free(struct cule_listener *s);

/* --- messages --- */
/* A message of this kind with all else zero and priority normal. */
struct cule_msg cule_msg_make(enum cule_kind kind, uint32_t service, uint32_t op);
/* Takes descriptor i out of a message: the caller closes it. -1 if there is none (any more). */
int cule_msg_take_fd(struct cule_msg *m, unsigned i);
/* The code of an ERROR (negative CULE_E..., CULE_EIO for a code unknown here), 0 for anything else; its text in *err.
 */
int cule_msg_error(const struct cule_msg *m, struct cule_err *err);

#endif

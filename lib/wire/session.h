/*
 * The protocol of one link, without descriptors and without a clock: bytes in, messages out; messages in, bytes
 * out. lib/io/link.h drives it over a carrier, a simulator could drive two against each other.
 *
 * It keeps the open requests of both sides (exchanges) with their deadlines, what each side may still send
 * (credit), and a queue of encoded frames per priority. Times are nanoseconds of any one monotonic clock.
 *
 * Rules it adds to cule-frame(5)'s layout:
 *   Credit is asked for when a message begins; a message that began may overdraw it. Charged are REQUEST, EVENT and
 * DATA frames, and those of a REPLY after its first, by the bytes in their length field. While more than queue_bytes
 * wait to be written nothing is granted again, so that a peer which does not read its answers runs out of credit; one
 * that goes on all the same, by more than a window and the frames of a message, ends the link. A REPLY, an ERROR or a
 * CANCEL for an id that is not open is ignored. A frame of an open exchange whose body does not hold ends the exchange
 * on both sides. Frames of one priority leave in the order they were sent; a higher priority leaves first, at every
 * frame boundary.
 *   A later HELLO is answered with one of ours that has CULE_FEATURE_AGAIN: "you are new to me, I am not new to you".
 * It voids what was open of its sender's and its grants, and is not answered.
 *
 * Callbacks run inside cule_session_step, _frame, _tick, _notify, _half, _end and _cancel alone: never inside a call
 * that sends.
 *
 * struct cule_link is opaque here: it is what the callbacks are given.
 */
#ifndef CULE_WIRE_SESSION_H
#define CULE_WIRE_SESSION_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "wire/decode.h"
#include "wire/message.h"

#include <sys/uio.h>

struct cule_link;

typedef void cule_answer_fn(struct cule_link *l, void *arg, struct cule_msg *answer);
typedef void cule_pong_fn(struct cule_link *l, void *arg, uint64_t rtt_ns);

struct cule_session_ops {
    void (*message)(struct cule_link *l, struct cule_msg *m);
    void (*ready)(struct cule_link *l);
    void (*writable)(struct cule_link *l, uint64_t id);
    void (*skipped)(struct cule_link *l, uint64_t bytes);
    /* The next n received descriptors; returns how many there were. */
    unsigned (*take_fds)(struct cule_link *l, int *fds, unsigned n);
    void (*close_fds)(struct cule_link *l, const int *fds, unsigned n);
    /* Something was queued: arrange for cule_session_output. */
    void (*output)(struct cule_link *l);
    /* Writes at once what it can: large messages go from where they lie while nothing is queued. The bytes taken, from
     * 0 on. NULL: everything goes through the queue. */
    size_t (*write)(struct cule_link *l, const struct iovec *iov, int n);
};

enum {
    CULE_SESSION_IOV_MAX = 8,
    CULE_FEATURE_FDS = 1 << 0,   /* HELLO arg0: descriptors can travel */
    CULE_FEATURE_TRACE = 1 << 1, /* TRACE prefixes are understood */
    CULE_FEATURE_AGAIN = 1 << 2, /* an answer to a later HELLO: this side was not replaced */
    /* This side grants credit, for each class directly behind its HELLO: until then nothing charged is sent to it. */
    CULE_FEATURE_CREDIT = 1 << 3,
};

struct cule_session_config {
    const char *name;
    uint64_t message_max, window_bytes, stream_bytes, queue_bytes;
    uint32_t window_frames, calls_max;
    bool duplex;      /* HELLO, credit, requests with answers */
    bool server;      /* even ids */
    bool hello_first; /* HELLO must come before requests (sockets and rings; two pipes may do without) */
    bool resync;      /* pipes and files */
    bool manual_credit;
    bool hello_to_message;
    bool can_pass_fds;
};

/* One direction and priority of a link's credit. */
struct cule_credit {
    uint64_t granted_frames, granted_bytes; /* so far, over the life of the link */
    uint64_t used_frames, used_bytes;
    uint64_t due_frames, due_bytes;   /* receiving: dealt with and not granted again yet */
    uint64_t back_frames, back_bytes; /* receiving: dealt with in all; never more than was used */
    bool limited;                     /* a grant was ever made */
};

struct cule_session_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    uint64_t again, body_errors, critical_waits, queue_high_water_bytes;
};

/* Descriptors that wait in a queue for their frame to be written. */
struct cule_outfds {
    struct cule_list node;
    uint64_t offset; /* of the frame, in bytes ever queued on its lane */
    unsigned nfds;
    int fds[];
};

struct cule_lane {
    struct cule_buf bytes; /* whole encoded frames */
    uint64_t taken;        /* bytes ever written from this lane */
    struct cule_list fds;
};

struct cule_session {
    const struct cule_session_ops *ops;
    struct cule_link *link;
    struct cule_session_config cfg;
    struct cule_decoder decoder;
    struct cule_assembler assembler;
    struct cule_lane lane[CULE_PRIORITIES];
    size_t part_left; /* bytes of a frame that is part-written, of lane part_lane */
    unsigned part_lane;
    size_t queued; /* bytes in all lanes */
    struct cule_credit send[CULE_PRIORITIES], recv[CULE_PRIORITIES];
    struct cule_map exchanges;
    struct cule_list opened;     /* the same, oldest first */
    struct cule_exchange *spare; /* the last that ended, for the next that begins */
    struct cule_heap deadlines;
    struct cule_list pings;
    uint64_t next_id;
    uint64_t now_ns; /* as last told by the driver */
    uint64_t peer_message_max;
    uint64_t peer_features;
    unsigned calls, requests; /* open exchanges: ours, the peer's */
    bool hello_in, ready_due, bye_in, bye_out, dead;
    bool want_room;      /* a send found the queue full */
    uint8_t want_credit; /* bit per priority: a send found none */
    bool half;           /* the peer sends no more */
    bool grants_held;    /* until the queue is shorter */
    bool delivered;      /* what came in has reached the application, which gives its credit back */
    char *peer_name;     /* NULL before HELLO */
    struct cule_session_stats stats;
};

void cule_session_init(struct cule_session *s, const struct cule_session_config *cfg,
                       const struct cule_session_ops *ops, struct cule_link *link);
/* Queues HELLO and the first grants (duplex). 0 or CULE_ENOMEM. */
int cule_session_start(struct cule_session *s);
/* The peer sends no more but may still read: calls and pings of ours end with CULE_ECLOSED, requests whose stream was
 * cut off are cancelled, and what we send needs no credit any more, for none would come. */
void cule_session_half(struct cule_session *s);
/* Ends what is open: each call of ours gets ERROR code, each request of the peer's a CANCEL. No callback after release.
 */
void cule_session_end(struct cule_session *s, int code, const char *text);
void cule_session_release(struct cule_session *s);

/* --- in --- */
/* A chunk; its memory must stay until cule_session_step answered 0, and the clock must have been set (tick). */
void cule_session_feed(struct cule_session *s, const void *p, size_t n);
/* Deals with one frame: 1 done, 0 more bytes are needed, negative: the link cannot go on (an ERROR that says so has
 * been queued). */
int cule_session_step(struct cule_session *s, struct cule_err *err);
/* A frame that came whole (a ring): 0 or negative as above. */
int cule_session_frame(struct cule_session *s, const struct cule_frame *f, const uint8_t *payload,
                       struct cule_err *err);
/* The stream's end: 0 or CULE_ETRUNCATED inside a frame. In RESYNC mode step again until 0. Then finished tells whether
 * it ended between messages: 0 or CULE_ETRUNCATED. */
int cule_session_eof(struct cule_session *s, struct cule_err *err);
int cule_session_finished(const struct cule_session *s, struct cule_err *err);

/* --- out --- */
/* What to write now: the number of iov filled (0: nothing), and descriptors that go with its first byte. */
int cule_session_output(struct cule_session *s, struct iovec iov[CULE_SESSION_IOV_MAX], const int **fds,
                        unsigned *nfds);
void cule_session_wrote(struct cule_session *s, size_t n);
/* The frame at the head, for carriers that take whole frames (a ring): NULL when there is none. Then cule_session_wrote
 * its size. */
const uint8_t *cule_session_head(struct cule_session *s, size_t *size);
/* After writing, and not from inside a sender's call: tells `writable` when the queue has got short again. */
void cule_session_notify(struct cule_session *s);
/* Nothing will be written any more: what waits is dropped. */
void cule_session_mute(struct cule_session *s);

/* --- time --- */
/* Sets the clock and ends what is overdue. */
void cule_session_tick(struct cule_session *s, uint64_t now_ns);
/* When to tick next; UINT64_MAX: no deadline. */
uint64_t cule_session_deadline(const struct cule_session *s);

/* --- as cule_link_* of the same name --- */
bool cule_session_can_send(const struct cule_session *s, unsigned priority);
/* m->fds become the session's on success. `force`: ask neither credit nor room. */
int cule_session_send(struct cule_session *s, const struct cule_msg *m, bool force);
int cule_session_send_raw(struct cule_session *s, unsigned priority, const void *bytes, size_t n, unsigned frames);
int cule_session_call(struct cule_session *s, struct cule_msg *m, uint64_t timeout_ms, cule_answer_fn *fn, void *arg,
                      uint64_t *id);
/* Later answers of an open call of ours go to fn. */
void cule_session_redirect(struct cule_session *s, uint64_t id, cule_answer_fn *fn, void *arg);
int cule_session_cancel(struct cule_session *s, uint64_t id);
int cule_session_data(struct cule_session *s, uint64_t id, const void *body, size_t n, bool last);
/* The same with a DATA message as it stands: without OPEN in its flags it is the last. */
int cule_session_data_msg(struct cule_session *s, const struct cule_msg *m);
/* A REPLY or ERROR to a request of the peer's; with OPEN the exchange goes on. */
int cule_session_answer(struct cule_session *s, struct cule_msg *m);
uint32_t cule_session_left_ms(const struct cule_session *s, uint64_t id);
int cule_session_ping(struct cule_session *s, cule_pong_fn *fn, void *arg);
void cule_session_consumed(struct cule_session *s, unsigned priority, uint64_t frames, uint64_t bytes);
void cule_session_stream_consumed(struct cule_session *s, uint64_t id, uint64_t bytes);
void cule_session_bye(struct cule_session *s);

/* Between the session's own files. */
struct cule_exchange {
    struct cule_list node; /* first: in session.opened, or in the list of those being ended */
    uint64_t id;
    struct cule_heap_node deadline;
    uint64_t deadline_ns; /* 0: none */
    cule_answer_fn *fn;   /* ours */
    void *arg;
    struct cule_credit send, recv; /* bytes of DATA alone */
    uint8_t priority;
    bool ours;
    bool send_open; /* we may send DATA */
    bool recv_open; /* the peer may */
    bool granted;   /* the first grant of this stream was made */
    bool want_writable;
};
int cule_session_on_message(struct cule_session *s, struct cule_msg *m, struct cule_err *err);
/* An ERROR as the peer would have sent it, for our own callback; a CANCEL to the handler, after an ERROR to the peer
 * where there is a text. The exchange is gone before anybody hears of it. */
void cule_session_free_exchange(struct cule_session *s, struct cule_exchange *x);
void cule_session_end_call(struct cule_session *s, struct cule_exchange *x, int code, const char *text);
void cule_session_end_request(struct cule_session *s, struct cule_exchange *x, int code, const char *text);
void cule_session_send_cancel(struct cule_session *s, const struct cule_exchange *x, int code);
/* What came for an exchange could not be taken: its end. */
void cule_session_bad_message(struct cule_session *s, const struct cule_frame *h, int code, const char *text);
void cule_session_on_credit(struct cule_session *s, const struct cule_frame *f);
void cule_session_on_pong(struct cule_session *s, const struct cule_frame *f);
/* Tells `ready` once the peer has greeted us and has granted what it said it would. */
void cule_session_maybe_ready(struct cule_session *s);
int cule_session_greet(struct cule_session *s, bool again);
int cule_session_restarted(struct cule_session *s, bool again);
void cule_session_drop_assemblies(struct cule_session *s);
void cule_session_drop_queues(struct cule_session *s);
int cule_session_grant(struct cule_session *s, unsigned priority, uint64_t id, uint64_t frames, uint64_t bytes);
void cule_session_regrant(struct cule_session *s);
bool cule_session_overdrawn(const struct cule_session *s, unsigned priority);
bool cule_session_has_credit(const struct cule_credit *c);
/* A message whole frames of which are written at once, and only the rest queued. CULE_EUNSUPPORTED: not this one. */
int cule_session_direct(struct cule_session *s, const struct cule_msg *m);
void cule_session_queued(struct cule_session *s, unsigned priority, size_t bytes, unsigned frames);
int cule_session_queue(struct cule_session *s, const struct cule_frame *f, const void *payload);
void cule_session_report(struct cule_session *s, uint64_t id, unsigned priority, uint32_t service, int code,
                         const char *text);

#endif

/*
 * cule-ipc serve: requests answered by other programs. The front (serve.c, serve_queue.c, serve_self.c) keeps links,
 * admission, deadlines and counters; a back end (serve_each.c, serve_lines.c, serve_frames.c) has programs do the work.
 *
 * A request belongs to the front's tables from serve_take until serve_end. A back end that has begun one calls
 * serve_end exactly once for it, whatever happens; a request whose asker is gone or has given up is `void`: what it
 * answers then goes nowhere, but its slot stays taken until the back end lets go of it.
 */
#ifndef CULE_IPC_SERVE_H
#define CULE_IPC_SERVE_H

#include "base/hist.h"
#include "common.h"
#include "io/spawn.h"
#include "relay_forward.h"

enum {
    SERVE_STREAM_BYTES = 64 * 1024, /* an answer larger than this is streamed */
    SERVE_TEXT_MAX = 1000,          /* of an ERROR: the tail of what a handler wrote to stderr */
    SERVE_BACKOFF_MIN_MS = 100,     /* until a worker that ended is started again, doubling */
    SERVE_BACKOFF_MAX_MS = 10000,
    SERVE_STEADY_MS = 10000, /* a worker that lived so long starts from the minimum again */
    SERVE_TRACERS_MAX = 16,
    SERVE_SPANS_BYTES = 16 * 1024, /* of spans that go out as one piece */
    SERVE_SPAN_BYTES = 1024,       /* one of them at most */
    SERVE_NAME_MAX = 32,
};

struct serve_opts {
    struct cule_words listen;
    const char *each;
    const char *lines;
    const char *frames;
    struct cule_words services;
    uint64_t concurrency, workers, queue, queue_bytes;
    bool stream;
    bool forward_cancel;
    const char *name;
    int level;
    uint64_t grace_ms, kill_grace_ms;
};

struct serve;
struct serve_req;

struct serve_client {
    struct cule_list node;
    struct serve *s;
    struct cule_link *link;
    struct forward_port port; /* --frames: its side of the forwarding */
    struct cule_map reqs;     /* id -> struct serve_req */
    uint64_t number;
};

enum serve_state { SERVE_QUEUED, SERVE_ACTIVE };

struct serve_req {
    struct cule_list node; /* in a queue, or among the active ones */
    struct serve *s;
    struct serve_client *client; /* NULL once void */
    struct ipc_msg *k;           /* the message; its h.id is the asker's */
    enum serve_state state;
    struct cule_timer *timer; /* our own deadline, for requests without one */
    uint64_t start_ns;
    struct cule_span span; /* start_ns 0: nobody listens */
    struct cule_trace trace;
    bool traced;
    int given_up;          /* CULE_ECANCELLED, CULE_ETIMEOUT: why it is void */
    bool body_open;        /* more of the request's stream is to come */
    bool replied;          /* REPLY with OPEN has gone out */
    struct cule_buf early; /* of the stream, while it is queued */
    void *work;            /* the back end's */
};

struct serve_backend {
    const char *name;
    unsigned concurrency; /* default of --concurrency */
    bool forwards;        /* takes over streams, cancels and answers by relay_forward */
    int (*start)(struct serve *s, struct cule_err *err);
    bool (*has_room)(struct serve *s);
    /* Begins; ends by itself in serve_end, perhaps at once. */
    void (*begin)(struct serve *s, struct serve_req *q);
    /* More of the request's stream: n may be 0; last ends it. The back end gives back credit. NULL: forwards. */
    void (*data)(struct serve_req *q, const uint8_t *p, size_t n, bool last);
    /* Stop working on it. */
    void (*cancel)(struct serve_req *q);
    /* The asker's link takes more of its answer. */
    void (*writable)(struct serve_req *q);
    /* Workers that are up, of how many; NULL: no workers. */
    unsigned (*workers)(const struct serve *s, unsigned *of, uint64_t *restarts);
    /* No more requests will come: let workers go. Then, from the end of the program, everything. */
    void (*stop)(struct serve *s);
    void (*release)(struct serve *s);
};

struct serve_counts {
    uint64_t requests, events, replies, errors, cancelled, timeouts, busy, refused;
    uint64_t bytes_in, bytes_out, spans_dropped, bad_lines;
};

struct serve_tracer {
    struct serve_client *client;
    uint64_t id;
};

struct serve {
    struct cule_cli *cli;
    const struct serve_opts *o;
    const struct serve_backend *back;
    void *pool; /* the back end's */
    const char *command;
    char name[SERVE_NAME_MAX]; /* of the handler, for prefixes */
    const char *own_name;      /* of the server, in HELLO and info */
    struct cule_loop *loop;
    struct cule_listener **listeners;
    size_t nlisteners;
    struct cule_list clients;
    size_t nclients;
    uint64_t next_number, next_seq;
    struct cule_list queue[CULE_PRIORITIES];
    struct cule_list active;
    uint64_t nqueued, nactive, queued_bytes;
    uint64_t concurrency; /* in all */
    struct cule_defer pump;
    struct cule_timer *grace;
    struct serve_tracer tracers[SERVE_TRACERS_MAX];
    unsigned ntracers;
    struct cule_buf spans; /* of this turn, lines of JSON */
    uint64_t nspans;
    struct cule_defer tell_spans;
    uint64_t random[2]; /* of span ids; [0] 0: not seeded yet */
    uint64_t pid;
    struct serve_counts n;
    struct cule_hist latency;
    uint64_t started_ns;
    int level;
    bool draining, stdio;
    int status;
    char **env; /* the handlers' environment, without what is ours */
    size_t nenv;
};

extern const struct serve_backend serve_each, serve_lines, serve_frames;

/* --- serve_queue.c: admission and ends --- */
void serve_take(struct serve_client *c, struct cule_msg *m);        /* REQUEST or EVENT */
void serve_take_data(struct serve_client *c, struct cule_msg *m);   /* DATA of one */
void serve_take_cancel(struct serve_client *c, struct cule_msg *m); /* CANCEL of one */
void serve_client_gone(struct serve_client *c);                     /* all its requests are void */
void serve_pump_init(struct serve *s);
void serve_pump(struct serve *s); /* begin what is queued, at the end of the turn */
void serve_cancel_all(struct serve *s);
bool serve_idle(const struct serve *s);

/* --- for back ends --- */
/* Answers. Each returns 0 or CULE_EAGAIN for the stream (then nothing was sent and `writable` will come); a void
 * request takes everything. */
int serve_stream(struct serve_req *q, uint64_t arg0, uint64_t arg1, const void *p, size_t n, bool last);
void serve_reply(struct serve_req *q, uint64_t arg0, uint64_t arg1, const void *p, size_t n);
void serve_error(struct serve_req *q, int code, uint64_t detail, const char *fmt, ...) CULE_PRINTF(4, 5);
/* It is over: code 0 or the error's. Frees q. */
void serve_end(struct serve_req *q, int code);
/* The request's stream was dealt with: n bytes. */
void serve_consumed(struct serve_req *q, size_t n);

/* --- serve_self.c: what every service answers; serve_trace.c: spans --- */
void serve_self(struct serve_client *c, struct cule_msg *m);
void serve_span_start(struct serve_req *q);
void serve_span_end(struct serve_req *q, int code);
void serve_spans_init(struct serve *s);
void serve_spans_release(struct serve *s);
int serve_trace_on(struct serve_client *c, uint64_t id);
void serve_trace_off(struct serve *s);
void serve_trace_forget(struct serve_client *c, uint64_t id); /* id 0: all of that client's */

/* --- serve.c --- */
void serve_pump_done(struct serve *s); /* a pump is over: is the drain? */
/* A line on stderr at that level (0 error to 4 trace). */
void serve_say(const struct serve *s, int level, const char *fmt, ...) CULE_PRINTF(3, 4);

/* --- serve_log.c: what handlers write to stderr, line by line with a prefix --- */
struct serve_log {
    const struct serve *s;
    struct cule_watch *watch;
    int fd;
    pid_t pid;
    size_t len, tail_len;
    char line[1024];
    char tail[SERVE_TEXT_MAX]; /* the last bytes of it */
};
/* A pipe whose writing end is *wfd (the caller closes it after the spawn). */
int serve_log_open(struct serve_log *g, struct serve *s, int *wfd, struct cule_err *err);
/* What is left, and the end. */
void serve_log_close(struct serve_log *g);
/* The tail, trimmed of white space around it. */
const char *serve_log_text(const struct serve_log *g, size_t *n);

/* --- serve_env.c --- */
/* The environment of a handler for one request; NULL: no memory. serve_env_free. */
char **serve_env_make(const struct serve_req *q, const struct cule_msg *m, const char *topic, size_t topic_len);
void serve_env_free(char **env);
int serve_env_base(struct serve *s); /* fills s->env; 0 or CULE_ENOMEM */
void serve_env_release(struct serve *s);

#endif

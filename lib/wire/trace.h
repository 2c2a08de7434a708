/*
 * Traces: who asked whom, and for how long. The identifiers are those of W3C Trace Context (level 1), the 32 bytes are
 * the prefix of a frame with TRACE, the spans are what CULE's trace-on streams as JSON lines and `cule-ipc trace`
 * turns into Chrome's trace events.
 *
 * A frame carries the span of whoever sent it; the receiver's own span has that one as its parent. Whoever has nobody
 * to report a span to passes the prefix on as it came, so that no span is missing between those that are reported.
 *
 * No clock and no randomness here: both are passed in.
 */
#ifndef CULE_WIRE_TRACE_H
#define CULE_WIRE_TRACE_H

#include "base/buf.h"
#include "wire/frame.h"

enum {
    CULE_TRACEPARENT_SIZE = 56, /* "00-" 32 "-" 16 "-" 2 and the NUL */
    CULE_TRACE_SAMPLED = 1,
    CULE_SPAN_NAME_MAX = 64,
    CULE_SPAN_PROGRAM_MAX = 64,
};

struct cule_trace {
    uint8_t id[16];  /* never all zero */
    uint8_t span[8]; /* never all zero */
    uint64_t flags;  /* the low byte is W3C's trace-flags, the rest is 0 */
};

/* The prefix of a payload. get: 0, or CULE_EMALFORMED when an id is all zero. */
void cule_trace_put(const struct cule_trace *t, uint8_t out[CULE_TRACE_SIZE]);
int cule_trace_get(struct cule_trace *t, const uint8_t in[CULE_TRACE_SIZE]);

/* "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01". A later version with more behind it is read as this one,
 * as the specification asks; version ff, upper case and zero ids are CULE_EMALFORMED. */
int cule_traceparent_parse(struct cule_trace *t, const char *text, struct cule_err *err);
const char *cule_traceparent_format(const struct cule_trace *t, char out[CULE_TRACEPARENT_SIZE]);

/* A new trace, sampled, and a child of a span in the same trace, from random bytes. */
void cule_trace_root(struct cule_trace *t, const uint8_t random[24]);
void cule_trace_child(struct cule_trace *child, const struct cule_trace *parent, const uint8_t random[8]);

/* n bytes in lower-case hex, with a NUL. */
const char *cule_trace_hex(const uint8_t *p, size_t n, char *out);

struct cule_span {
    struct cule_trace trace;   /* this span; all zero: not part of a trace */
    uint8_t parent[8];         /* all zero: none */
    uint64_t start_ns, end_ns; /* since the epoch */
    uint32_t service, op;
    uint64_t pid;   /* 0 unknown */
    uint64_t track; /* what it stands beside in a view: the link's number, for one */
    int code;       /* 0, or the CULE_E... code that it ended with */
    bool client;    /* as seen by whoever asked */
    char program[CULE_SPAN_PROGRAM_MAX];
};

/* Fills name with "stor/read", "stor/0x4001". */
const char *cule_span_name(const struct cule_span *s, char out[CULE_SPAN_NAME_MAX]);

/* Appends a JSON line with its newline, and reads one (n bytes, with or without the newline). 0, CULE_ENOMEM,
 * CULE_ELIMIT; CULE_EMALFORMED. */
int cule_span_line(const struct cule_span *s, struct cule_buf *out);
int cule_span_parse(struct cule_span *s, const char *line, size_t n, struct cule_err *err);

/*
 * Chrome's trace event format (JSON object format): begin, spans, end. `complete` events, one process to each program
 * and pid, with flow arrows from a span to its children where both are there. The writer keeps what it needs of the
 * spans for the arrows.
 */
struct cule_chrome {
    struct cule_buf *out;
    bool first;
    struct cule_chrome_span *spans;
    size_t count, size;
    struct cule_chrome_process *processes;
    size_t nprocesses;
};
int cule_chrome_begin(struct cule_chrome *c, struct cule_buf *out);
int cule_chrome_span(struct cule_chrome *c, const struct cule_span *s);
int cule_chrome_end(struct cule_chrome *c); /* closes the JSON; the memory is freed in any case */
void cule_chrome_release(struct cule_chrome *c);

#endif

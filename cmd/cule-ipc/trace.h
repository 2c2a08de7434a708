/* The parts of `cule-ipc trace`. */
#ifndef CULE_IPC_TRACE_H
#define CULE_IPC_TRACE_H

#include "common.h"

enum { TRACE_FLUSH = 256 * 1024 };

struct trace_opts {
    struct cule_words from;
    const char *to;
    uint64_t for_ms, count;
    bool lines, all;
};

struct trace_run {
    struct cule_cli *cli;
    const struct trace_opts *o;
    struct cule_chrome chrome;
    struct cule_buf out;
    int fd;
    uint64_t spans, untraced;
    bool live;
    int status;
};

/* Writes a span, if it is wanted. */
int trace_span(struct trace_run *t, const struct cule_span *s, struct cule_err *err);
int trace_flush(struct trace_run *t, struct cule_err *err);

/* trace_recording.c: the spans of a file. trace_live.c: those of the programs named, until the end. */
int trace_recording(struct trace_run *t, const char *path, struct cule_err *err);
int trace_live(struct trace_run *t, struct cule_err *err);

#endif

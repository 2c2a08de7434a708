/*
 * JSON lines between serve and its workers.
 *
 * To a worker: each request as decode writes it ({"kind":"request","service":…,"op":…,"id":"7",…,"payload_text":…}),
 * under an id of the server's own. The rest of a request's stream follows as lines of kind data with that id, "flags":
 * ["open"] on all but the last; with --forward-cancel a line of kind cancel tells that nobody waits any more.
 *
 * From a worker, in any order:
 *   {"id":"7","payload_text":…}            the answer; payload_json, payload_b64, arg0, arg1 as in decode
 *   {"id":"7",…,"more":true}               a part of it, more lines follow
 *   {"id":"7","error":"text","code":C}     it failed; C is a code's name or number, handler where left out; "detail":N
 */
#ifndef CULE_IPC_SERVE_LINES_H
#define CULE_IPC_SERVE_LINES_H

#include "serve_pool.h"
#include "wire/mirror.h"

enum { LINES_LINE_MAX = 64 * 1024 * 1024, LINES_WAIT_BYTES = 1024 * 1024 };

struct lines_speech;

struct lines_task {
    struct serve_req *q;
    struct lines_speech *x;
    uint64_t number;
    struct cule_buf waits; /* of its answer's stream: the asker's link takes no more now */
    bool answered;         /* the last line is in; only `waits` is to be sent */
    struct cule_timer *patience;
};

struct lines_speech {
    struct worker *w; /* NULL once it is down */
    int in, out;
    struct cule_watch *in_watch, *out_watch;
    struct cule_buf to, from;
    size_t searched;       /* of `from`: no newline there */
    struct cule_map tasks; /* number -> struct lines_task */
    struct cule_mirror mirror;
    struct lines_task *paused; /* whose answer has to be taken before more is read */
    struct cule_defer gone;
    bool finishing, last_words;
};

/* serve_lines_answer.c: deals with one line. */
void lines_answer(struct lines_speech *x, const char *line, size_t n);
/* Sends what waits. */
void lines_flush(struct lines_task *t);

/* serve_lines.c */
void lines_feed(struct lines_speech *x);
void lines_resume(struct lines_speech *x);
void lines_done(struct lines_task *t, int code);

#endif

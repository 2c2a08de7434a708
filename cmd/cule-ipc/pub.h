/*
 * cule-ipc pub in three parts: pub.c (options, the run), pub_in.c (messages from standard input or the command line),
 * pub_out.c (messages to the bus: batches of events, or requests whose acknowledgement is waited for).
 */
#ifndef CULE_IPC_PUB_H
#define CULE_IPC_PUB_H

#include "base/list.h"
#include "busline.h"
#include "busrun.h"
#include "wire/decode.h"

enum pub_format { PUB_RAW, PUB_LINES, PUB_JSON, PUB_FRAMES };

enum {
    PUB_READ_BYTES = 256 * 1024,
    PUB_BATCH_BYTES = 128 * 1024, /* events handed to the link at once */
    PUB_BATCH_FRAMES = 512,
    PUB_UNACKED_MAX = 1024, /* --ack: publications under way */
    PUB_UNACKED_BYTES = 4 * 1024 * 1024,
};

struct pub_opts {
    BUS_OPTION_FIELDS
    const char *topic, *text, *payload;
    int format, priority;
    bool retain, ack, null_ended, no_reconnect;
    double rate;
    uint64_t repeat;
};

struct pub_message {
    const char *topic;
    size_t topic_len;
    const void *body;
    size_t len;
    uint8_t priority;
    bool retain;
};

struct pub {
    struct busrun run;
    const struct pub_opts *o;
    /* in */
    struct cule_watch *in;        /* NULL: all of it is read */
    struct cule_buf lines;        /* read and not taken yet */
    size_t scanned;               /* bytes of it that hold no end of line */
    struct cule_decoder *decoder; /* frames */
    struct cule_assembler *assembler;
    struct busline_in *line_in; /* JSON lines */
    struct pub_message held;    /* frames: decoded and not yet taken; topic NULL: none */
    struct cule_buf body;       /* one shot */
    uint64_t left;              /* of --repeat */
    bool one_shot, eof, stopped;
    uint64_t next_ns; /* --rate: when the next message may go */
    struct cule_timer *pace;
    /* out */
    struct cule_buf batch;
    unsigned batch_frames;
    size_t batch_last; /* where its last frame begins */
    unsigned batches;  /* sent, and their last message not answered */
    uint8_t batch_priority;
    uint8_t header[CULE_HEADER_SIZE];
    struct cule_list unacked; /* struct pub_unacked */
    size_t unacked_count, unacked_bytes;
    bool full; /* the bus takes no more now */
    uint64_t published, acked, failed, lost;
    struct cule_err first_failure;
};

/* --- pub_in.c --- */
int pub_in_begin(struct pub *p, struct cule_err *err);
void pub_in_release(struct pub *p);
/* Takes messages in while the bus takes them. */
void pub_in_pump(struct pub *p);

/* --- pub_out.c --- */
int pub_out_begin(struct pub *p, struct cule_err *err);
void pub_out_release(struct pub *p);
/* Publishes. 0; CULE_EAGAIN: not taken, come again when the bus has room; another code ends the run. */
int pub_out_put(struct pub *p, const struct pub_message *m);
/* Hands over what is gathered. 0 or CULE_EAGAIN. */
int pub_out_flush(struct pub *p);
/* Nothing more will come: waits for the bus to have taken all of it, then ends the run. */
void pub_out_finish(struct pub *p);
/* The connection is there (again); is gone; takes more. */
void pub_out_up(struct pub *p);
void pub_out_down(struct pub *p);

#endif

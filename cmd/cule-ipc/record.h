/* The parts of `cule-ipc record`: standing in a link, and tapping a topic. */
#ifndef CULE_IPC_RECORD_H
#define CULE_IPC_RECORD_H

#include "busclient.h"
#include "record_file.h"
#include "relay_frames.h"

struct record_opts {
    const char *to;
    const char *listen;
    const char *connect;
    const char *topic;
    struct busclient_at at;
    bool append;
    uint64_t max;
    uint64_t grace_ms;
    struct cule_words command;
};

struct record {
    struct cule_cli *cli;
    const struct record_opts *o;
    struct cule_loop *loop;
    struct recorder out;
    struct cule_timer *grace;
    /* standing in links of plain bytes */
    struct cule_endpoint ep;
    struct cule_watch *watch;
    int fd; /* that listens; -1 */
    struct cule_list conns;
    uint64_t nconns, next_link;
    uint64_t skipped; /* bytes that passed and were no frames */
    /* standing in links of frames */
    struct relay_frames *frames;
    bool stopping;
    bool failed; /* the recording cannot be written */
    int status;
};

/* Frames were added: hands them to the kernel. A failure ends the recording, and the program, with a message. */
int record_flush(struct record *r);

/* record_link.c: from start to the end of the loop. */
int record_link_start(struct record *r, struct cule_err *err);
void record_link_stop_listening(struct record *r);
void record_link_release(struct record *r);

/* record_topic.c: runs without the loop; the exit status. */
int record_topic(struct record *r);

#endif

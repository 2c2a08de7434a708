/*
 * Recordings: a HELLO, then for each frame a MARK and the frame as it passed. The MARK's arg0 is the time in
 * nanoseconds since the epoch, arg1 the link's number times two, plus one for what the answering side sent.
 *
 * A recorded frame that is itself a MARK is put inside its MARK (NESTED), so that the file still reads as pairs after
 * some bytes of it are lost. A tap's stream (DATA, each with a MARK and a frame inside, NESTED) reads as a recording
 * too, and frames without marks as one link's, in one go.
 */
#ifndef CULE_IPC_RECORD_FILE_H
#define CULE_IPC_RECORD_FILE_H

#include "common.h"

/* One recorded frame. */
struct recorded {
    struct cule_frame f;
    const uint8_t *payload; /* with what cule_frame_tail counts; holds until the next read */
    uint64_t time_ns;       /* 0: not marked */
    uint64_t link;
    bool answer; /* sent by the side that answers */
    bool bad;    /* its body does not hold */
};

struct recording {
    struct ipc_frames in;
    struct cule_frame mark; /* its frame is still to come */
    bool marked;
    const uint8_t *nested; /* frames left of a NESTED payload */
    size_t nested_len;
    uint64_t frames;
    bool first; /* the file's own HELLO may come */
};

int recording_open(struct recording *r, const char *path, struct cule_err *err);
void recording_close(struct recording *r);
/* 1, 0 at the end, or CULE_ETRUNCATED, CULE_EIO, CULE_ENOMEM. What does not hold is skipped and counted in r->in.d. */
int recording_next(struct recording *r, struct recorded *x, struct cule_err *err);

/* --- writing --- */

struct recorder {
    struct cule_buf buf;
    uint64_t frames;
    int fd;
    bool owns_fd;
};

/* path "-": standard output. Writes the HELLO; append: only where the file is empty. */
int recorder_open(struct recorder *w, const char *path, bool append, const char *name, struct cule_err *err);
/* The same without a HELLO, for frames without marks. */
int recorder_open_plain(struct recorder *w, const char *path, bool append, struct cule_err *err);
/* Adds a frame; tail are the cule_frame_tail(f) bytes behind its header. 0 or CULE_ENOMEM. */
int recorder_add(struct recorder *w, uint64_t time_ns, uint64_t link, bool answer, const struct cule_frame *f,
                 const uint8_t *tail);
/* A whole message, as its frames would have passed. */
int recorder_add_message(struct recorder *w, uint64_t time_ns, uint64_t link, bool answer, const struct cule_msg *m);
/* Hands what was added to the kernel, where it survives a kill -9 of ours. */
int recorder_flush(struct recorder *w, struct cule_err *err);
/* Flushes and closes; fsyncs a file. */
int recorder_close(struct recorder *w, struct cule_err *err);

#endif

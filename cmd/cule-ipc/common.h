/*
 * What several subcommands share: where to go, what to send, how to write out; frames from a descriptor one after the
 * other; messages that outlive their callback.
 */
#ifndef CULE_IPC_COMMON_H
#define CULE_IPC_COMMON_H

#include "io/link.h"
#include "ipc.h"
#include "wire/trace.h"

/* --- words of the command line --- */

/* Whether a word can only be an endpoint: "-", ":PORT", or one of the types and a colon. */
bool ipc_is_endpoint(const char *word);

/* --wait: programs of one script start together; who asks need not sleep until the other listens. */
#define IPC_WAIT_ROW(S, f)                                                                                             \
    CULE_OPT_DURATION(S, f, 0, "wait", "TIME", "while nobody listens there, try again for TIME", .def = "0")

/* The endpoint given, or $CULE_BUS, or unix:$CULE_RUN/bus. Checked. */
int ipc_endpoint(const char *given, char out[CULE_ENDPOINT_MAX], struct cule_err *err);

/* Before listening: makes the run directory where the endpoint lies in it. */
int ipc_make_run_dir(const char *endpoint, struct cule_err *err);

/* Service and op by name or number. */
int ipc_op(const char *service, const char *op, uint32_t *s, uint32_t *o, struct cule_err *err);

/* TEXT, - (standard input to its end), @FILE; "@@x" is the text "@x", "\-" the text "-". At most max bytes, else
 * CULE_ETOO_BIG. NULL: nothing. */
int ipc_payload(struct cule_buf *out, const char *spec, size_t max, struct cule_err *err);

/* A capability handle in hex or decimal. */
int ipc_cap(const char *text, uint64_t *cap, struct cule_err *err);

/* Paths to open for reading, or N of `fd:N`; on success *fds is malloced and all of them are open. */
int ipc_open_fds(const struct cule_words *paths, int **fds, unsigned *n, struct cule_err *err);
void ipc_close_fds(int *fds, unsigned n);

/* Random bytes from the kernel. */
void ipc_random(void *p, size_t n);

/* --- writing --- */

/* Writes all of it, whatever the descriptor's blocking mode. 0, CULE_ECLOSED (the reader went away), CULE_EDISK,
 * CULE_EIO. */
int ipc_write_all(int fd, const void *p, size_t n, struct cule_err *err);

/* Reads what is there, at least a byte: the count, 0 at the end, or CULE_EIO; whatever the descriptor's blocking mode.
 */
ssize_t ipc_read(int fd, void *p, size_t n, const char *name, struct cule_err *err);

/* --- frames from a descriptor, blocking --- */

struct ipc_frames {
    struct cule_decoder d;
    struct cule_err why; /* of the last gap or bad body */
    const char *name;    /* for messages */
    uint8_t *buf;
    int fd;
    int notify;                                   /* inotify while following, else -1 */
    bool owns_fd;                                 /* opened here */
    bool eof;                                     /* the end has been told to the decoder */
    bool follow;                                  /* at the end of the file wait for more */
    uint64_t last;                                /* offset of the frame returned last */
    int (*idle)(void *ctx, struct cule_err *err); /* before a read that may block: write out what was gathered */
    void *ctx;
};

/* path NULL or "-": standard input. */
int ipc_frames_open(struct ipc_frames *in, const char *path, bool follow, struct cule_err *err);
void ipc_frames_close(struct ipc_frames *in);
/* One of enum cule_decoded (after a gap in->d.gap_offset and gap_bytes tell it, after a bad body in->why), 0 at the
 * end, CULE_ETRUNCATED where it ends inside a frame, CULE_EIO, CULE_ENOMEM. Frame and payload hold until the next call.
 */
int ipc_frames_next(struct ipc_frames *in, struct cule_frame *f, const uint8_t **payload, struct cule_err *err);

/* Reports skipped bytes and bad bodies on stderr, once in all: the exit status, 0 or 3. */
int ipc_frames_report(const struct cule_cli *cli, const struct ipc_frames *in);

/* Appends a frame as it came: the header and the cule_frame_tail(f) bytes at tail. 0, CULE_ENOMEM or CULE_ELIMIT. */
int ipc_add_frame(struct cule_buf *out, const struct cule_frame *f, const uint8_t *tail);

/* --- messages kept --- */

struct ipc_msg {
    struct cule_list node;
    struct cule_msg m; /* body, trace and fds point into this block; the descriptors are ours */
    size_t size;
    uint8_t trace[CULE_TRACE_SIZE];
    uint8_t bytes[];
};
/* A copy; descriptors are taken out of m. NULL: no memory, and nothing was taken. */
struct ipc_msg *ipc_msg_keep(struct cule_msg *m);
void ipc_msg_free(struct ipc_msg *k);

/* Frames and bytes that a message is charged with, for cule_link_consumed. */
void ipc_msg_consumed(struct cule_link *l, const struct cule_msg *m);

#endif

/*
 * Messages: one frame, or several with MORE on all but the last, put together by (source, priority, kind, id);
 * and the way back. No descriptors are opened or closed here: those that came along are numbers to pass on.
 *
 * Rules beyond cule-frame(5)'s layout that this module holds the peer to: descriptors and the trace prefix come
 * with a message's first frame; later frames of it have nfds 0 and no TRACE.
 */
#ifndef CULE_WIRE_MESSAGE_H
#define CULE_WIRE_MESSAGE_H

#include "base/buf.h"
#include "wire/frame.h"

struct cule_msg {
    struct cule_frame h;  /* the first frame's, MORE cleared, OPEN the last's, length the whole payload's */
    const uint8_t *body;  /* the payload behind the trace prefix */
    size_t len;           /* bytes at body */
    const uint8_t *trace; /* 32 bytes, or NULL without TRACE */
    int *fds;             /* descriptors, whoever has the message owns them; NULL when there are none */
    unsigned nfds;
};

/* --- together ----------------------------------------------------------------------------------------------- */

struct cule_assembly; /* one message being put together */

struct cule_assembler {
    /* Limits, set by the caller after init where the defaults do not suit. */
    size_t message_max; /* bytes of one message, CULE_MESSAGE_MAX unless set */
    size_t total_max;   /* bytes of all unfinished messages, 4 * CULE_MESSAGE_MAX unless set */
    unsigned open_max;  /* unfinished messages at once, 256 unless set */
    /* Called with the descriptors of a message that is given up; NULL: they are forgotten. */
    void (*drop_fds)(void *ctx, const int *fds, unsigned nfds);
    void *ctx;
    /* For the caller to read. */
    size_t total;     /* bytes held in unfinished messages */
    unsigned open;    /* unfinished messages, those being thrown away not counted */
    uint64_t refused; /* messages thrown away */
    /* The rest is the assembler's own. */
    struct cule_assembly *list;
    size_t list_size; /* bytes at list */
    unsigned count;
    unsigned last;        /* where the last frame went: streams come in runs */
    struct cule_buf done; /* the message returned last, when it came in several frames */
    int *done_fds;
    size_t done_fds_size;
};

void cule_assembler_init(struct cule_assembler *a);
/* Drops everything unfinished and the message returned last. */
void cule_assembler_release(struct cule_assembler *a);

/*
 * Takes a frame whose header and body hold. fds is copied where it must be kept.
 *
 * 1: *m is a message. One of a single frame passes through: its body points where payload does and m->fds is fds.
 *    Otherwise body and fds hold until the next push or release.
 * 0: the message goes on.
 * Negative: the message is refused, once; the rest of its frames is taken in silence. m->h is its first header,
 *    so that it can be answered, and its descriptors went to drop_fds. CULE_ETOO_BIG (beyond message_max),
 *    CULE_ELIMIT (open_max, total_max), CULE_ENOMEM, CULE_EMALFORMED (descriptors or TRACE inside it).
 *    CULE_EREFUSED is the end of the link: so many messages are being refused that no more can be told apart.
 */
int cule_assembler_push(struct cule_assembler *a, const struct cule_frame *f, const uint8_t *payload, int *fds,
                        unsigned nfds, struct cule_msg *m, struct cule_err *err);

/* Whether a frame would go on with an unfinished message rather than begin one. Those being thrown away count. */
bool cule_assembler_has(struct cule_assembler *a, const struct cule_frame *f);

/* A frame whose body does not hold: the message it belongs to is thrown away, with the frames of it that are still to
 * come. 1 when that message had not been refused before, so that it is answered once; else 0; or CULE_EREFUSED as
 * above. */
int cule_assembler_spoil(struct cule_assembler *a, const struct cule_frame *f);

/* Gives up what is unfinished under that id from that source, of any kind or priority (a CANCEL came). Returns how
 * many messages that was. */
unsigned cule_assembler_abort(struct cule_assembler *a, uint32_t source, uint64_t id);

/* Takes over the memory behind the message returned last, so that it outlives the next push. False when the
 * message was a single frame, whose bytes are the caller's anyway. */
bool cule_assembler_keep(struct cule_assembler *a, struct cule_buf *out);

/* --- apart -------------------------------------------------------------------------------------------------- */

/* Cuts a message into frames, each of at most `max` bytes of payload. */
struct cule_split {
    struct cule_frame h;
    const uint8_t *trace;
    const uint8_t *body;
    size_t left;
    uint32_t max;
    bool first;
    bool done;
};

/* m is read during the init alone, but body and trace must stay. max is 40 to CULE_PAYLOAD_MAX, 0 for that. */
void cule_split_init(struct cule_split *s, const struct cule_msg *m, uint32_t max);

/*
 * The next frame: *f its header (MORE, OPEN, nfds and length set), *trace the 32 bytes that its payload begins with
 * or NULL, *part and *n the payload behind them. False when there is none left. A message without a body is one
 * frame. Padding and payload CRC are for whoever writes.
 */
bool cule_split_next(struct cule_split *s, struct cule_frame *f, const uint8_t **trace, const uint8_t **part,
                     size_t *n);

/* Appends one frame, header to padding and CRC. 0, CULE_ENOMEM or CULE_ELIMIT, then with nothing added. */
int cule_frame_add(struct cule_buf *b, const struct cule_frame *f, bool nested, const void *payload);

/* Appends all frames of a message (h.length and h.flags & MORE are not looked at; TRACE is set by m->trace). The
 * same errors; nothing is added then. */
int cule_msg_add(struct cule_buf *b, const struct cule_msg *m);

#endif

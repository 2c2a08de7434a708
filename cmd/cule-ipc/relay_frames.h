/*
 * Two endpoints joined frame by frame, where one of them is a ring or TLS: each connection that comes in gets one to
 * the other side. Requests pass both ways.
 */
#ifndef CULE_IPC_RELAY_FRAMES_H
#define CULE_IPC_RELAY_FRAMES_H

#include "relay_bytes.h"
#include "relay_forward.h"

struct relay_frames;

struct relay_frames_opts {
    const struct cule_cli *cli; /* for warnings */
    const char *endpoint[2];
    bool listens[2]; /* both: CULE_EUNSUPPORTED */
    uint64_t max;
    const char *const *command; /* the second side is this program; endpoint[1] is NULL */
    /* The only pair has ended (neither side listens). why NULL or code 0: clean. */
    void (*over)(void *ctx, const struct cule_err *why);
    /* Frames that pass. May be NULL. */
    void (*tap)(void *ctx, uint64_t link, bool answer, const struct cule_msg *m);
    void *ctx;
};

int relay_frames_new(struct cule_loop *loop, const struct relay_frames_opts *o, struct relay_frames **out,
                     struct cule_err *err);
void relay_frames_free(struct relay_frames *r);

#endif

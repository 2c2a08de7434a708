/*
 * Two carriers joined: what comes in at one goes out at the other, both ways, bytes as they are. HELLO, credit, ids and
 * deadlines pass untouched, so the two ends speak to each other as if they were connected directly. Descriptors pass
 * where both ends are Unix sockets. With no tap and at most one Unix socket the bytes never enter this process
 * (splice).
 *
 * An end of stream is passed on once everything before it has been; when both directions have ended, or one fails, the
 * pair ends and `over` is called.
 */
#ifndef CULE_IPC_RELAY_BYTES_H
#define CULE_IPC_RELAY_BYTES_H

#include "common.h"
#include "io/spawn.h"

/* One end: where it goes, and what to let go of with it. */
struct relay_end {
    struct cule_carrier *carrier;
    struct cule_proc *proc; /* exec: ended with its tree; NULL otherwise */
};

/* Opens an endpoint as a carrier without waiting for a connect: -, unix:, tcp:, fd:, exec:, file: (read). ring:, tls:
 * and quic: are CULE_EUNSUPPORTED, they carry no plain bytes. */
int relay_end_open(struct cule_loop *loop, const char *endpoint, struct relay_end *out, struct cule_err *err);
/* A program with a socketpair as its stdin and stdout. */
int relay_end_command(struct cule_loop *loop, const char *const *argv, struct relay_end *out, struct cule_err *err);
int relay_end_fd(int rfd, int wfd, struct relay_end *out, struct cule_err *err);
void relay_end_close(struct relay_end *e);

struct relay_pair;
struct relay_pair_ops {
    /* Bytes that came from the asking side (answer false) or the answering one, before they are passed on. A negative
     * code ends the pair. May be NULL. */
    int (*tap)(void *ctx, bool answer, const uint8_t *p, size_t n, struct cule_err *err);
    /* Called once, from the loop; the pair is freed on return. why->code 0: both directions ended clean. */
    void (*over)(void *ctx, struct relay_pair *p, const struct cule_err *why);
};

/* Takes over both ends on success. a is the asking side. */
int relay_pair_new(struct cule_loop *loop, const struct relay_end *a, const struct relay_end *b,
                   const struct relay_pair_ops *ops, void *ctx, struct relay_pair **out, struct cule_err *err);
/* Ends it without calling over. */
void relay_pair_free(struct relay_pair *p);
/* The program that was started for the answering end, or NULL. */
struct cule_proc *relay_pair_proc(const struct relay_pair *p);
/* Bytes passed so far, from the asker and from the answerer. */
void relay_pair_count(const struct relay_pair *p, uint64_t *asked, uint64_t *answered);

#endif

/*
 * A command run for one message: the payload on its standard input, variables in its environment, its output gathered
 * if wanted, its whole tree killed when its time is up. One object per run; it frees itself after `done`.
 */
#ifndef CULE_IPC_BUSJOB_H
#define CULE_IPC_BUSJOB_H

#include "base/buf.h"
#include "io/spawn.h"

enum { BUSJOB_ENV_MAX = 12, BUSJOB_GRACE_MS = 1000 };

struct busjob;

struct busjob_end {
    struct cule_exit how;
    bool timed_out, killed, too_much; /* too_much: more output than out_max, and killed for it */
    struct cule_buf *out;             /* what it wrote; NULL without capture */
};

struct busjob_spec {
    const char *const *argv; /* or */
    const char *shell;
    const char *env[BUSJOB_ENV_MAX]; /* "NAME=value", ended by NULL */
    const void *payload;             /* copied */
    size_t len;
    bool capture; /* standard output comes to us; else it is ours */
    size_t out_max;
    uint64_t timeout_ms; /* 0: none */
    void (*done)(void *ctx, struct busjob *j, const struct busjob_end *end);
    void *ctx;
};

int busjob_start(struct cule_loop *loop, const struct busjob_spec *s, struct busjob **out, struct cule_err *err);
/* Kills the tree, at once or after SIGTERM and a grace; `done` follows. */
void busjob_kill(struct busjob *j, uint64_t grace_ms);
/* Kills and frees without `done`: for the way out. */
void busjob_drop(struct busjob *j);
/* "exit status 3", "signal 9", "no end within 500 ms" */
const char *busjob_text(const struct busjob_end *end, char *out, size_t n);

#endif

/* A progress bar on stderr, only where that is a terminal. The caller's clock says how often it is redrawn. */
#ifndef CULE_CLI_PROGRESS_H
#define CULE_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct cule_progress {
    const char *what; /* "replaying" */
    uint64_t total;   /* 0: not known, a count is shown without a bar */
    uint64_t drawn_ms;
    bool on; /* stderr is a terminal */
    bool shown;
};

void cule_progress_init(struct cule_progress *p, const char *what, uint64_t total);

/* Draws at most ten times a second of now_ms (any monotonic clock). */
void cule_progress_set(struct cule_progress *p, uint64_t done, uint64_t now_ms);

/* Takes the bar off the screen. */
void cule_progress_end(struct cule_progress *p);

#endif

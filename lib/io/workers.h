/*
 * Worker threads inside a process: tasks go into one bounded queue, or, when a worker submits, into its own deque,
 * from which idle workers steal. Who finds nothing sleeps; an idle pool costs nothing. Tasks run in no promised order
 * and must not block for long. Signals are blocked in the workers.
 */
#ifndef CULE_IO_WORKERS_H
#define CULE_IO_WORKERS_H

#include "base/err.h"

#include <stdint.h>

enum { CULE_WORKERS_MAX = 256, CULE_WORKERS_TASKS = 4096 };

struct cule_workers;

struct cule_workers_stats {
    uint64_t executed;
    uint64_t own;      /* of these, taken from the worker's own deque */
    uint64_t stolen;   /* ... from another's */
    uint64_t injected; /* ... from the common queue */
    uint64_t sleeps;
};

/* n threads (0: as many as this process may use processors) and room for max_tasks tasks that have not begun to run
 * (0: CULE_WORKERS_TASKS; rounded up to a power of two). 0, CULE_EUSAGE, CULE_ENOMEM, CULE_ELIMIT (threads). */
int cule_workers_start(struct cule_workers **out, unsigned n, unsigned max_tasks, struct cule_err *err);

/* Has fn(arg) run by some worker, once. 0, CULE_EAGAIN (max_tasks wait already; never blocks) or CULE_ECLOSED after
 * stop has begun, except for a worker, which may still submit. From any thread. */
int cule_workers_submit(struct cule_workers *w, void (*fn)(void *arg), void *arg);

/* Runs what was submitted to its end, joins the threads and frees w, which may be NULL. Fills *stats unless NULL.
 * Not from a worker; nobody else may be submitting any more. */
void cule_workers_stop(struct cule_workers *w, struct cule_workers_stats *stats);

/* As far as the counts can be said while the workers run. */
void cule_workers_stats(const struct cule_workers *w, struct cule_workers_stats *out);

#endif

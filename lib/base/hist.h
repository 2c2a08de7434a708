/*
 * A histogram of durations or sizes with a bounded relative error: log-linear buckets, 64 to each power of two, so a
 * percentile is at most 1.6 % above the value that was added. 30 KiB, no allocation, not thread-safe. The technique
 * is that of HdrHistogram. Any unit; the caller keeps to one.
 */
#ifndef CULE_BASE_HIST_H
#define CULE_BASE_HIST_H

#include "base/buf.h"

#include <stdint.h>

enum {
    CULE_HIST_SUB_BITS = 6,
    CULE_HIST_SUB = 1 << CULE_HIST_SUB_BITS,
    CULE_HIST_BUCKETS = (64 - CULE_HIST_SUB_BITS + 1) * CULE_HIST_SUB,
};

struct cule_hist {
    uint64_t count;
    uint64_t min; /* UINT64_MAX while empty */
    uint64_t max;
    double sum;
    double sum_squares;
    uint64_t bucket[CULE_HIST_BUCKETS];
};

void cule_hist_init(struct cule_hist *h);
void cule_hist_add(struct cule_hist *h, uint64_t value);
/* Adds all that `from` holds. */
void cule_hist_merge(struct cule_hist *h, const struct cule_hist *from);

/* The smallest value v such that `percent` of all values are at most v, rounded up to the end of its bucket, never
 * above max. 0 while empty. percent is 0 to 100. */
uint64_t cule_hist_at(const struct cule_hist *h, double percent);
double cule_hist_mean(const struct cule_hist *h);
double cule_hist_stddev(const struct cule_hist *h);

/*
 * Appends a picture, one line for each of at most `rows` ranges of equal ratio between the 0.1 and the 99.9 percentile
 * and one for what lies above: "     12.50 us |##########          |  41.2 %". Values are divided by `unit` and named
 * unit_name; bars are at most `width` characters. 0, CULE_ENOMEM or CULE_ELIMIT.
 */
int cule_hist_draw(const struct cule_hist *h, double unit, const char *unit_name, unsigned rows, unsigned width,
                   struct cule_buf *out);

#endif

/* Log-linear histograms: one bucket per leading bits of a value. */
#include "base/hist.h"

#include "base/bytes.h"
#include "base/err.h"

#include <math.h>
#include <string.h>

/* Values below 64 have a bucket each; above, the six bits behind the leading one choose among 64 of its power. */
static unsigned bucket_of(uint64_t value)
{
    if (value < CULE_HIST_SUB) {
        return (unsigned)value;
    }
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - CULE_HIST_SUB_BITS;
    return (shift + 1) * CULE_HIST_SUB + (unsigned)((value >> shift) & (CULE_HIST_SUB - 1));
}

/* The largest value that falls into a bucket. */
static uint64_t bucket_end(unsigned b)
{
    if (b < CULE_HIST_SUB) {
        return b;
    }
    unsigned shift = b / CULE_HIST_SUB - 1;
    uint64_t base = (uint64_t)(CULE_HIST_SUB + b % CULE_HIST_SUB) << shift;
    return base + (((uint64_t)1 << shift) - 1);
}

void cule_hist_init(struct cule_hist *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void cule_hist_add(struct cule_hist *h, uint64_t value)
{
    h->bucket[bucket_of(value)]++;
    h->count++;
    h->sum += (double)value;
    h->sum_squares += (double)value * (double)value;
    h->min = CULE_MIN(h->min, value);
    h->max = CULE_MAX(h->max, value);
}

void cule_hist_merge(struct cule_hist *h, const struct cule_hist *from)
{
    for (unsigned i = 0; i < CULE_HIST_BUCKETS; i++) {
        h->bucket[i] += from->bucket[i];
    }
    h->count += from->count;
    h->sum += from->sum;
    h->sum_squares += from->sum_squares;
    h->min = CULE_MIN(h->min, from->min);
    h->max = CULE_MAX(h->max, from->max);
}

uint64_t cule_hist_at(const struct cule_hist *h, double percent)
{
    if (h->count == 0) {
        return 0;
    }
    double want = ceil(percent / 100.0 * (double)h->count);
    uint64_t rank = want < 1 ? 1 : (uint64_t)want;
    uint64_t seen = 0;
    for (unsigned i = 0; i < CULE_HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank) {
            return CULE_MIN(bucket_end(i), h->max);
        }
    }
    return h->max;
}

double cule_hist_mean(const struct cule_hist *h)
{
    return h->count == 0 ? 0 : h->sum / (double)h->count;
}

double cule_hist_stddev(const struct cule_hist *h)
{
    if (h->count < 2) {
        return 0;
    }
    double mean = cule_hist_mean(h);
    double var = h->sum_squares / (double)h->count - mean * mean;
    return var > 0 ? sqrt(var) : 0;
}

/* How many values lie at or below v, by whole buckets. */
static uint64_t count_to(const struct cule_hist *h, uint64_t v)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < CULE_HIST_BUCKETS && bucket_end(i) <= v; i++) {
        n += h->bucket[i];
    }
    return n;
}

static int draw_row(struct cule_buf *out, double value, const char *unit_name, uint64_t n, uint64_t most,
                    uint64_t count, unsigned width)
{
    int rc = cule_buf_addf(out, "%12.2f %s |", value, unit_name);
    unsigned bar = most ? (unsigned)((double)n * width / (double)most + 0.5) : 0;
    for (unsigned i = 0; i < width && rc == 0; i++) {
        rc = cule_buf_addc(out, i < bar ? '#' : ' ');
    }
    if (rc == 0) {
        rc = cule_buf_addf(out, "| %6.2f %%\n", 100.0 * (double)n / (double)count);
    }
    return rc;
}

int cule_hist_draw(const struct cule_hist *h, double unit, const char *unit_name, unsigned rows, unsigned width,
                   struct cule_buf *out)
{
    enum { ROWS_MAX = 64 };
    uint64_t end[ROWS_MAX + 1];
    uint64_t n[ROWS_MAX + 1];
    if (h->count == 0 || rows == 0) {
        return 0;
    }
    rows = CULE_MIN(rows, (unsigned)ROWS_MAX);
    double low = (double)CULE_MAX(cule_hist_at(h, 0.1), 1);
    double high = (double)CULE_MAX(cule_hist_at(h, 99.9), 1);
    unsigned used = 0;
    uint64_t before = 0, most = 0;
    for (unsigned i = 0; i < rows; i++) {
        double at = rows == 1 ? high : low * pow(high / low, (double)i / (rows - 1));
        uint64_t v = bucket_end(bucket_of((uint64_t)at)); /* whole buckets only, so that no value counts twice */
        if (used > 0 && end[used - 1] >= v) {
            continue;
        }
        uint64_t upto = count_to(h, v);
        end[used] = v;
        n[used] = upto - before;
        most = CULE_MAX(most, n[used]);
        before = upto;
        used++;
    }
    if (before < h->count) {
        end[used] = h->max;
        n[used] = h->count - before;
        most = CULE_MAX(most, n[used]);
        used++;
    }
    int rc = 0;
    for (unsigned i = 0; i < used && rc == 0; i++) {
        rc = draw_row(out, (double)CULE_MIN(end[i], h->max) / unit, unit_name, n[i], most, h->count, width);
    }
    return rc;
}

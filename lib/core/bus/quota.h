/* Token buckets: so many messages per second, with bursts of up to a second's worth. Pure. */
#ifndef CULE_CORE_BUS_QUOTA_H
#define CULE_CORE_BUS_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

struct cule_bus_bucket {
    uint64_t filled_ns; /* up to when it has been filled; 0: never used, so full */
    uint64_t credit_ns; /* time saved up, at most a second */
};

/* Takes one token; false when there is none. rate 0: without limit. */
static inline bool cule_bus_bucket_take(struct cule_bus_bucket *k, uint64_t rate, uint64_t now_ns)
{
    const uint64_t second = 1000000000;
    if (rate == 0) {
        return true;
    }
    uint64_t cost = rate > second ? 1 : second / rate;
    uint64_t gained = k->filled_ns ? now_ns - k->filled_ns : second;
    k->credit_ns = gained >= second - k->credit_ns ? second : k->credit_ns + gained;
    k->filled_ns = now_ns ? now_ns : 1;
    if (k->credit_ns < cost) {
        return false;
    }
    k->credit_ns -= cost;
    return true;
}

#endif

/*
 * Buffer pools: blocks in power-of-two size classes, kept on per-thread free lists, with high-water marks.
 * What the library buffers (links, messages, the bus) comes from here, so the marks tell what it holds.
 * A block returned by one thread may have been taken by another. Classes run from 256 bytes to 1 MiB;
 * larger blocks go straight to malloc but are counted all the same.
 */
#ifndef CULE_BASE_POOL_H
#define CULE_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

enum {
    CULE_POOL_SHIFT_MIN = 8,                /* smallest block: 256 bytes */
    CULE_POOL_SHIFT_MAX = 20,               /* largest pooled block: 1 MiB */
    CULE_POOL_KEEP_BYTES = 4 * 1024 * 1024, /* free bytes one thread keeps before it gives back to malloc */
};
#define CULE_POOL_CLASSES (CULE_POOL_SHIFT_MAX - CULE_POOL_SHIFT_MIN + 1)

struct cule_pool_stats {
    uint64_t held_bytes;       /* handed out now, all threads */
    uint64_t high_water_bytes; /* the most that were ever handed out at once, to 64 KiB for each thread */
    uint64_t gets;
    uint64_t misses; /* gets that went to malloc */
};

/* A block of at least n bytes (n > 0); *cap is its true size and must be passed back. NULL: no memory. */
void *cule_pool_get(size_t n, size_t *cap);
void cule_pool_put(void *block, size_t cap);

void cule_pool_stats(struct cule_pool_stats *out);

/* Gives this thread's free blocks back to malloc; the end of a thread does so by itself. */
void cule_pool_trim(void);

#endif

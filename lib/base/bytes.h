/* Little-endian loads and stores on unaligned bytes, and small integer helpers. */
#ifndef CULE_BASE_BYTES_H
#define CULE_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CULE_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CULE_MIN(a, b) ((a) < (b) ? (a) : (b))
#define CULE_MAX(a, b) ((a) > (b) ? (a) : (b))
#define CULE_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define CULE_LE16(v) (v)
#define CULE_LE32(v) (v)
#define CULE_LE64(v) (v)
#else
#define CULE_LE16(v) __builtin_bswap16(v)
#define CULE_LE32(v) __builtin_bswap32(v)
#define CULE_LE64(v) __builtin_bswap64(v)
#endif

static inline uint16_t cule_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return CULE_LE16(v);
}

static inline uint32_t cule_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return CULE_LE32(v);
}

static inline uint64_t cule_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return CULE_LE64(v);
}

static inline void cule_put16(void *p, uint16_t v)
{
    v = CULE_LE16(v);
    memcpy(p, &v, sizeof v);
}

static inline void cule_put32(void *p, uint32_t v)
{
    v = CULE_LE32(v);
    memcpy(p, &v, sizeof v);
}

static inline void cule_put64(void *p, uint64_t v)
{
    v = CULE_LE64(v);
    memcpy(p, &v, sizeof v);
}

/* n rounded up to a multiple of 8; n must be below SIZE_MAX - 7. */
static inline size_t cule_pad8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

#endif

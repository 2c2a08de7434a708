/* CRC32C: the processor's instruction three ways interleaved, or slicing by eight; resolved once. */
#include "wire/crc32c.h"

#include "base/bytes.h"

#include <pthread.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

enum { POLY = 0x82f63b78 };

/* --- by tables ------------------------------------------------------------------------------------------- */

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_fill(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) {
            c = (c >> 1) ^ ((c & 1) ? (uint32_t)POLY : 0);
        }
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int k = 1; k < 8; k++) {
            table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
        }
    }
}

uint32_t cule_crc32c_portable(uint32_t crc, const void *buf, size_t n)
{
    const uint8_t *p = buf;
    uint32_t c = ~crc;
    pthread_once(&table_once, table_fill);
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v = cule_get64(p) ^ c;
        c = table[7][v & 0xff] ^ table[6][v >> 8 & 0xff] ^ table[5][v >> 16 & 0xff] ^ table[4][v >> 24 & 0xff] ^
            table[3][v >> 32 & 0xff] ^ table[2][v >> 40 & 0xff] ^ table[1][v >> 48 & 0xff] ^ table[0][v >> 56];
    }
    for (; n; n--) {
        c = (c >> 8) ^ table[0][(c ^ *p++) & 0xff];
    }
    return ~c;
}

static uint32_t header_portable(const uint8_t h[64])
{
    static const uint8_t zero[4];
    uint32_t c = cule_crc32c_portable(0, h, 28);
    c = cule_crc32c_portable(c, zero, sizeof zero);
    return cule_crc32c_portable(c, h + 32, 32);
}

/* --- by the instruction ---------------------------------------------------------------------------------- */

#if defined(__x86_64__)

#define TARGET __attribute__((target("sse4.2,pclmul")))
static const char native_name[] = "sse4.2";

static int native_usable(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

TARGET static inline uint64_t step8(uint64_t c, uint64_t v)
{
    return _mm_crc32_u64(c, v);
}

TARGET static inline uint64_t step1(uint64_t c, uint8_t v)
{
    return _mm_crc32_u8((uint32_t)c, v);
}

/* Carry-less product of a CRC and a constant, still to be reduced by one step8. */
TARGET static inline uint64_t product(uint64_t c, uint32_t k)
{
    return (uint64_t)_mm_cvtsi128_si64(
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)c), _mm_cvtsi64_si128((long long)k), 0));
}

/*
 * Three lanes of LANE bytes go side by side, since the instruction takes one cycle to issue and three to
 * answer. A lane's CRC is moved past n bytes by multiplying with x^(8n-33) mod P; step8 adds 32 to that
 * exponent and the reflected product 1. The two constants are those for one lane and for two.
 */
#define LANES(name, LANE, ONE, TWO)                                                                                    \
    TARGET static inline uint64_t name(uint64_t c, const uint8_t *p)                                                   \
    {                                                                                                                  \
        uint64_t b = 0;                                                                                                \
        uint64_t d = 0;                                                                                                \
        for (size_t i = 0; i < (LANE); i += 8) {                                                                       \
            c = step8(c, cule_get64(p + i));                                                                           \
            b = step8(b, cule_get64(p + (LANE) + i));                                                                  \
            d = step8(d, cule_get64(p + 2 * (size_t)(LANE) + i));                                                      \
        }                                                                                                              \
        return step8(0, product(c, TWO) ^ product(b, ONE)) ^ d;                                                        \
    }
enum { LONG_LANE = 1024, SHORT_LANE = 128 };
LANES(long_lanes, LONG_LANE, 0x170076fa, 0xa51b6135)
LANES(short_lanes, SHORT_LANE, 0x0d3b6092, 0xb9e02b86)

TARGET static inline uint64_t bulk(uint64_t c, const uint8_t **p, size_t *n)
{
    for (; *n >= 3 * (size_t)LONG_LANE; *n -= 3 * (size_t)LONG_LANE, *p += 3 * (size_t)LONG_LANE) {
        c = long_lanes(c, *p);
    }
    for (; *n >= 3 * (size_t)SHORT_LANE; *n -= 3 * (size_t)SHORT_LANE, *p += 3 * (size_t)SHORT_LANE) {
        c = short_lanes(c, *p);
    }
    return c;
}

#elif defined(__aarch64__)

#define TARGET __attribute__((target("+crc")))
static const char native_name[] = "armv8";

static int native_usable(void)
{
    return (getauxval(AT_HWCAP) & 1ul << 7) != 0; /* HWCAP_CRC32 */
}

TARGET static inline uint64_t step8(uint64_t c, uint64_t v)
{
    return __builtin_aarch64_crc32cx((uint32_t)c, CULE_LE64(v));
}

TARGET static inline uint64_t step1(uint64_t c, uint8_t v)
{
    return __builtin_aarch64_crc32cb((uint32_t)c, v);
}

TARGET static inline uint64_t bulk(uint64_t c, const uint8_t **p, size_t *n)
{
    (void)p;
    (void)n;
    return c;
}

#endif

#ifdef TARGET
TARGET static uint32_t crc_native(uint32_t crc, const void *buf, size_t n)
{
    const uint8_t *p = buf;
    uint64_t c = bulk((uint32_t)~crc, &p, &n);
    for (; n >= 8; n -= 8, p += 8) {
        c = step8(c, cule_get64(p));
    }
    for (; n; n--) {
        c = step1(c, *p++);
    }
    return ~(uint32_t)c;
}

TARGET static uint32_t header_native(const uint8_t h[64])
{
    uint64_t c = step8(0xffffffff, cule_get64(h));
    c = step8(c, cule_get64(h + 8));
    c = step8(c, cule_get64(h + 16));
    c = step8(c, cule_get32(h + 24));
    c = step8(c, cule_get64(h + 32));
    c = step8(c, cule_get64(h + 40));
    c = step8(c, cule_get64(h + 48));
    c = step8(c, cule_get64(h + 56));
    return ~(uint32_t)c;
}
#else
static const char native_name[] = "portable";
#define crc_native cule_crc32c_portable
#define header_native header_portable
static int native_usable(void)
{
    return 0;
}
#endif

/* --- the choice ------------------------------------------------------------------------------------------ */

typedef uint32_t crc_fn(uint32_t, const void *, size_t);
static uint32_t crc_resolve(uint32_t crc, const void *p, size_t n);
static uint32_t header_resolve(const uint8_t h[64]);

static crc_fn *crc_chosen = crc_resolve;
uint32_t (*cule_crc32c_header_fn)(const uint8_t header[64]) = header_resolve;

/* Threads that come here at once store the same values, so no order between them matters. */
static void resolve(void)
{
    int native = native_usable();
    __atomic_store_n(&crc_chosen, native ? crc_native : cule_crc32c_portable, __ATOMIC_RELAXED);
    __atomic_store_n(&cule_crc32c_header_fn, native ? header_native : header_portable, __ATOMIC_RELAXED);
}

static uint32_t crc_resolve(uint32_t crc, const void *p, size_t n)
{
    resolve();
    return cule_crc32c(crc, p, n);
}

static uint32_t header_resolve(const uint8_t h[64])
{
    resolve();
    return cule_crc32c_header(h);
}

uint32_t cule_crc32c(uint32_t crc, const void *p, size_t n)
{
    return __atomic_load_n(&crc_chosen, __ATOMIC_RELAXED)(crc, p, n);
}

const char *cule_crc32c_name(void)
{
    return native_usable() ? native_name : "portable";
}

/*
 * CRC32C (Castagnoli, reflected polynomial 0x82f63b78, as in RFC 3720 B.4): by the processor's instruction
 * where it has one, else by tables; chosen at the first call, from any thread.
 */
#ifndef CULE_WIRE_CRC32C_H
#define CULE_WIRE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of n more bytes after those that gave crc; start with 0. "123456789" gives 0xe3069283. */
uint32_t cule_crc32c(uint32_t crc, const void *p, size_t n);

/* The same by tables alone, for comparison. */
uint32_t cule_crc32c_portable(uint32_t crc, const void *p, size_t n);

/* What cule_crc32c uses on this machine: "sse4.2", "armv8" or "portable". */
const char *cule_crc32c_name(void);

/* Points at the resolver until the first use; go through cule_crc32c_header. */
extern uint32_t (*cule_crc32c_header_fn)(const uint8_t header[64]);

/* The check of a frame's header: the CRC of its 64 bytes with bytes 28 to 31 taken as 0. */
static inline uint32_t cule_crc32c_header(const uint8_t header[64])
{
    return __atomic_load_n(&cule_crc32c_header_fn, __ATOMIC_RELAXED)(header);
}

#endif

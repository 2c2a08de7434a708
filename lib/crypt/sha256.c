/* SHA-256. */
#include "crypt/sha256.h"

#include <sodium.h>

_Static_assert(CULE_SHA256_SIZE == crypto_hash_sha256_BYTES, "the size is SHA-256's");

void cule_sha256(const void *p, size_t n, uint8_t out[CULE_SHA256_SIZE])
{
    crypto_hash_sha256(out, p, n);
}

/* SHA-256 (FIPS 180-4), by libsodium. */
#ifndef CULE_CRYPT_SHA256_H
#define CULE_CRYPT_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { CULE_SHA256_SIZE = 32 };

void cule_sha256(const void *p, size_t n, uint8_t out[CULE_SHA256_SIZE]);

#endif

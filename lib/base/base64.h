/* Base64, RFC 4648 section 4, with padding, strict: one text for one run of bytes. */
#ifndef CULE_BASE_BASE64_H
#define CULE_BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Characters for n bytes, no NUL. */
static inline size_t cule_base64_size(size_t n)
{
    return (n + 2) / 3 * 4;
}

/* Writes cule_base64_size(n) characters; returns that. */
size_t cule_base64_encode(char *out, const void *p, size_t n);

/* Decodes n characters to at most n / 4 * 3 bytes; returns how many, or CULE_EMALFORMED for a length that is no
 * multiple of 4, a foreign character, misplaced padding, or bits set that the padding cuts off. */
ssize_t cule_base64_decode(void *out, const char *text, size_t n);

#endif

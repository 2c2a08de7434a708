/* UTF-8 as RFC 3629 has it: no surrogates, nothing overlong, nothing above U+10FFFF. */
#ifndef CULE_BASE_UTF8_H
#define CULE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the n bytes are UTF-8. NUL is a character like others. */
bool cule_utf8_valid(const void *p, size_t n);

/* The character at p: its bytes, 1 to 4, and *c; 0 where none begins there within n bytes. */
unsigned cule_utf8_next(const void *p, size_t n, uint32_t *c);

/* Writes a character (not a surrogate, at most U+10FFFF); returns its bytes, 1 to 4. */
unsigned cule_utf8_put(uint32_t c, char out[4]);

#endif

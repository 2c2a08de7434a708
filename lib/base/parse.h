/*
 * Numbers, durations and sizes in text. The whole text must be one: nothing before, behind or between.
 * Each returns 0, CULE_EMALFORMED, or CULE_ELIMIT where the value does not fit; *out is set on 0 alone.
 */
#ifndef CULE_BASE_PARSE_H
#define CULE_BASE_PARSE_H

#include <stddef.h>
#include <stdint.h>

/* Decimal, or hexadecimal behind 0x. No sign, no octal: "010" is ten. */
int cule_parse_u64(const char *text, uint64_t *out);

/* The same over n bytes that need no NUL. */
int cule_parse_u64_n(const char *text, size_t n, uint64_t *out);

/* "250ms", "5s", "2m", "1h", "7d"; a bare number is seconds; decimals are allowed ("1.5s", "0.25"). In milliseconds,
 * rounded up, so that nothing above zero becomes zero. */
int cule_parse_duration_ms(const char *text, uint64_t *out);

/* "4096", "64K", "16M", "1G", "2T", each also as "KiB" and so on: powers of 1024; "B" alone is bytes. */
int cule_parse_size(const char *text, uint64_t *out);

#endif

/* Base64 to and from bytes. */
#include "base/base64.h"

#include "base/bytes.h"
#include "base/err.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* One more than the value of each character, 0 for what is none: one less of that is beyond 63, so that the values
 * of a whole text are or-ed and looked at once. */
static const uint8_t values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64};

static inline uint32_t value(uint8_t c)
{
    return values[c] - 1u;
}

size_t cule_base64_encode(char *out, const void *at, size_t n)
{
    const uint8_t *p = at;
    char *o = out;
    for (; n >= 3; n -= 3, p += 3, o += 4) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        o[0] = alphabet[v >> 18];
        o[1] = alphabet[v >> 12 & 63];
        o[2] = alphabet[v >> 6 & 63];
        o[3] = alphabet[v & 63];
    }
    if (n) {
        uint32_t v = (uint32_t)p[0] << 16 | (n == 2 ? (uint32_t)p[1] << 8 : 0);
        o[0] = alphabet[v >> 18];
        o[1] = alphabet[v >> 12 & 63];
        o[2] = n == 2 ? alphabet[v >> 6 & 63] : '=';
        o[3] = '=';
        o += 4;
    }
    return (size_t)(o - out);
}

ssize_t cule_base64_decode(void *out, const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text;
    uint8_t *o = out;
    uint32_t seen = 0;
    if (n % 4) {
        return CULE_EMALFORMED;
    }
    if (n == 0) {
        return 0;
    }
    size_t cut = p[n - 1] != '=' ? 0 : p[n - 2] != '=' ? 1 : 2;
    for (size_t left = cut ? n - 4 : n; left; left -= 4, p += 4, o += 3) {
        uint32_t a = value(p[0]);
        uint32_t b = value(p[1]);
        uint32_t c = value(p[2]);
        uint32_t d = value(p[3]);
        seen |= a | b | c | d;
        uint32_t v = a << 18 | b << 12 | c << 6 | d;
        o[0] = (uint8_t)(v >> 16);
        o[1] = (uint8_t)(v >> 8);
        o[2] = (uint8_t)v;
    }
    if (cut) {
        uint32_t a = value(p[0]);
        uint32_t b = value(p[1]);
        uint32_t c = cut == 1 ? value(p[2]) : 0;
        seen |= a | b | c;
        *o++ = (uint8_t)(a << 2 | b >> 4);
        if (cut == 1) {
            *o++ = (uint8_t)(b << 4 | c >> 2);
        }
        /* The bits that no byte takes must be zero. */
        seen |= (cut == 1 ? c & 3 : b & 15) << 6;
    }
    return seen > 63 ? CULE_EMALFORMED : o - (uint8_t *)out;
}

/* UTF-8: check, read and write characters. */
#include "base/utf8.h"

#include "base/bytes.h"

#include <assert.h>

unsigned cule_utf8_next(const void *at, size_t n, uint32_t *c)
{
    const uint8_t *p = at;
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0) {
        return 0;
    }
    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    unsigned size = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (size == 0 || size > n) {
        return 0;
    }
    uint32_t v = p[0] & (0x7fu >> size);
    for (unsigned i = 1; i < size; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        v = v << 6 | (p[i] & 0x3f);
    }
    if (v < least[size] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) {
        return 0;
    }
    *c = v;
    return size;
}

bool cule_utf8_valid(const void *at, size_t n)
{
    const uint8_t *p = at;
    if (n == 0) {
        return true;
    }
    const uint8_t *end = p + n;
    while (p < end) {
        if (end - p >= 8 && !(cule_get64(p) & 0x8080808080808080)) {
            p += 8;
            continue;
        }
        uint32_t c;
        unsigned size = cule_utf8_next(p, (size_t)(end - p), &c);
        if (size == 0) {
            return false;
        }
        p += size;
    }
    return true;
}

unsigned cule_utf8_put(uint32_t c, char out[4])
{
    assert(c <= 0x10ffff && (c < 0xd800 || c >= 0xe000));
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

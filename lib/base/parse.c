/* Numbers, durations and sizes in text. */
#include "base/parse.h"

#include "base/bytes.h"
#include "base/err.h"

static int digit_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 99;
}

/* Digits from *p up to end; *p is moved behind them. At least one is needed. */
static int digits(const char **p, const char *end, unsigned base, uint64_t *out)
{
    const char *at = *p;
    uint64_t v = 0;
    int rc = 0;
    for (; at < end && (unsigned)digit_of(*at) < base; at++) {
        if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, (unsigned)digit_of(*at), &v)) {
            rc = CULE_ELIMIT;
        }
    }
    if (at == *p) {
        return CULE_EMALFORMED;
    }
    *p = at;
    *out = v;
    return rc;
}

int cule_parse_u64_n(const char *text, size_t n, uint64_t *out)
{
    const char *end = text + n;
    unsigned base = 10;
    uint64_t v;
    if (n > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    int rc = digits(&text, end, base, &v);
    if (text != end) {
        return CULE_EMALFORMED;
    }
    if (rc == 0) {
        *out = v;
    }
    return rc;
}

int cule_parse_u64(const char *text, uint64_t *out)
{
    return cule_parse_u64_n(text, strlen(text), out);
}

int cule_parse_duration_ms(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const char *end = text + strlen(text);
    uint64_t whole;
    uint64_t part = 0;    /* the decimals, the first nine of them */
    uint64_t part_of = 1; /* 10 to their number */
    unsigned beyond = 0;  /* whether a later one is not zero */
    int rc = digits(&text, end, 10, &whole);
    if (rc == CULE_EMALFORMED) {
        return rc;
    }
    if (*text == '.') {
        const char *first = ++text;
        for (; digit_of(*text) < 10; text++) {
            if (part_of < 1000000000) {
                part = part * 10 + (unsigned)digit_of(*text);
                part_of *= 10;
            } else {
                beyond |= *text != '0';
            }
        }
        if (text == first) {
            return CULE_EMALFORMED;
        }
    }
    for (size_t i = 0; i < CULE_COUNT(units); i++) {
        if (strcmp(text, units[i].name) == 0) {
            uint64_t ms = (part * units[i].ms + beyond + part_of - 1) / part_of;
            if (rc || __builtin_mul_overflow(whole, units[i].ms, &whole) || __builtin_add_overflow(whole, ms, &whole)) {
                return CULE_ELIMIT;
            }
            *out = whole;
            return 0;
        }
    }
    return CULE_EMALFORMED;
}

int cule_parse_size(const char *text, uint64_t *out)
{
    static const char letters[] = "KMGT";
    uint64_t v;
    unsigned shift = 0;
    int rc = digits(&text, text + strlen(text), 10, &v);
    if (rc == CULE_EMALFORMED) {
        return rc;
    }
    const char *letter = *text ? strchr(letters, *text) : NULL;
    if (letter) {
        shift = 10 * (unsigned)(letter - letters + 1);
        text++;
        if (text[0] == 'i' && text[1] == 'B') {
            text += 2;
        }
    } else if (*text == 'B') {
        text++;
    }
    if (*text) {
        return CULE_EMALFORMED;
    }
    if (rc || v > UINT64_MAX >> shift) {
        return CULE_ELIMIT;
    }
    *out = v << shift;
    return 0;
}

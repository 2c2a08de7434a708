/* Nearness of names, by edit distance with swaps. */
#include "cli/suggest.h"

#include "base/bytes.h"

#include <string.h>

enum { NAME_MAX_LEN = 63 };

size_t cule_suggest_distance(const char *a, const char *b)
{
    size_t na = CULE_MIN(strlen(a), (size_t)NAME_MAX_LEN);
    size_t nb = CULE_MIN(strlen(b), (size_t)NAME_MAX_LEN);
    size_t rows[3][NAME_MAX_LEN + 1];
    size_t *two = rows[0], *one = rows[1], *now = rows[2];

    for (size_t j = 0; j <= nb; j++) {
        one[j] = j;
        two[j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t d = one[j - 1] + (a[i - 1] != b[j - 1]);
            d = CULE_MIN(d, one[j] + 1);
            d = CULE_MIN(d, now[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                d = CULE_MIN(d, two[j - 2] + 1);
            }
            now[j] = d;
        }
        size_t *old = two;
        two = one;
        one = now;
        now = old;
    }
    return one[nb];
}

void cule_suggest_init(struct cule_suggest *s, const char *typed)
{
    s->typed = typed;
    s->best = NULL;
    /* A name is near when at most a third of it, and at least one letter, would have to change. */
    s->distance = strlen(typed) / 3 + 1;
}

void cule_suggest_offer(struct cule_suggest *s, const char *name)
{
    size_t typed = strlen(s->typed);
    size_t d = cule_suggest_distance(s->typed, name);

    if (typed >= 2 && strncmp(s->typed, name, typed) == 0) {
        d = 1; /* the beginning of a name is as good as one wrong letter */
    }
    if (d <= s->distance && (!s->best || d < s->distance)) {
        s->best = name;
        s->distance = d;
    }
}

/* "did you mean": the nearest of several names to a mistyped one. */
#ifndef CULE_CLI_SUGGEST_H
#define CULE_CLI_SUGGEST_H

#include <stddef.h>

struct cule_suggest {
    const char *typed;
    const char *best; /* NULL: nothing near enough */
    size_t distance;
};

void cule_suggest_init(struct cule_suggest *s, const char *typed);
void cule_suggest_offer(struct cule_suggest *s, const char *name); /* name must outlive s */

/* Insertions, deletions, replacements and swaps of neighbours between a and b; names beyond 63 bytes are cut. */
size_t cule_suggest_distance(const char *a, const char *b);

#endif

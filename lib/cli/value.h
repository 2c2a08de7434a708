/* Inside lib/cli: a value's text into the field that an option is bound to. */
#ifndef CULE_CLI_VALUE_H
#define CULE_CLI_VALUE_H

#include "cli/opt.h"

/* Stores text (NULL for FLAG and COUNTER) into the field at base + o->offset.
 * 0, CULE_EUSAGE with the cause, or CULE_ENOMEM. REST is not for this function. */
int cule_value_store(void *base, const struct cule_opt *o, const char *text, struct cule_err *err);

/* Appends one word, keeping the NULL after the last. 0 or CULE_ENOMEM. */
int cule_words_add(struct cule_words *w, const char *word);
void cule_words_release(struct cule_words *w);

/* The index of text among "a|b|c", or -1. */
int cule_choice_index(const char *choices, const char *text);

/* Copies the i-th choice into out (cut at n bytes with the NUL); false past the last. */
bool cule_choice_at(const char *choices, int i, char *out, size_t n);

#endif

/* Inside lib/cli: the words that are no options, given to a command's positional arguments. */
#ifndef CULE_CLI_ARGS_H
#define CULE_CLI_ARGS_H

#include "cli/opt.h"

/* How many of a command's arguments take a word each before its command line may begin by itself
 * (CULE_ARG_KIND_COMMAND after ONEs only); SIZE_MAX where it begins at "--" alone, or there is none. */
size_t cule_args_before_command(const struct cule_command *c);

/* The argument that takes a command line, or NULL. */
const struct cule_arg *cule_args_command(const struct cule_command *c);

/* Distributes words, and tail (the command line, n words of argv), over the fields of opts.
 * 0, CULE_EUSAGE with the cause, or CULE_ENOMEM. */
int cule_args_assign(const struct cule_command *c, void *opts, const struct cule_words *words, char **tail,
                     size_t ntail, struct cule_err *err);

/* Frees what cule_args_assign allocated in opts. */
void cule_args_release(const struct cule_command *c, void *opts);

#endif

/* The tables of list and top. */
#ifndef CULE_IPC_BUSLIST_H
#define CULE_IPC_BUSLIST_H

#include "base/bytes.h"
#include "busask.h"

#include <stdio.h>

/* Prints doc's array `part` (clients, topics, subscriptions) to out, aligned and coloured as suits the descriptor fd;
 * with a sort_key the rows with the largest number there come first. */
int buslist_table(const struct cule_json *doc, const char *part, const char *sort_key, FILE *out, int fd);

#endif

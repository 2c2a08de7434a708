/* The tables of list and top. */
#ifndef CULE_IPC_BUSLIST_H
#define CULE_IPC_BUSLIST_H

#include "base/bytes.h"
#include "busask.h"

#include <stdio.h>

/* Prints doc's array `part` (clients, topics, subscriptions) to out, aligned and coloured as suits the descriptor fd. */
int buslist_table(const struct cule_json *doc, const char *part, FILE *out, int fd);

#endif

/* What the subcommands of cule-ipc share. */
#ifndef CULE_IPC_H
#define CULE_IPC_H

#include "cli/opt.h"
#include "cli/report.h"

extern const struct cule_program cule_ipc;

/* Prints candidates for a completion that needs the program's own knowledge: services, ops, topics, endpoints. */
int cule_ipc_complete(struct cule_cli *cli, enum cule_complete what, const char *prefix);

#endif

/* --help, --version and --dump-options: what the option tables say, for people and for generators. */
#ifndef CULE_CLI_HELP_H
#define CULE_CLI_HELP_H

#include "cli/opt.h"

#include <stdio.h>

/* The help of a command, or of the program where c is NULL, folded to width columns. */
void cule_cli_help(FILE *out, const struct cule_program *p, const struct cule_command *c, int width);

/* The SYNOPSIS line, "cule-ipc call [options] [ENDPOINT] SERVICE OP", without a newline. */
void cule_cli_usage(FILE *out, const struct cule_program *p, const struct cule_command *c);

/*
 * The tables as TSV, "-" for an empty field, hidden rows included (flags say so):
 *   program NAME VERSION SUMMARY
 *   command NAME GROUP FLAGS SUMMARY
 *   option COMMAND SHORT LONG TYPE ARG COMPLETE CHOICES DEFAULT FLAGS HELP    (COMMAND "-": taken before a subcommand)
 *   arg COMMAND KIND NAME COMPLETE HELP
 */
void cule_cli_dump(FILE *out, const struct cule_program *p);

#endif

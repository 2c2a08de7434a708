/*
 * What a program tells its user on stderr. One line a message: "cule-ipc: cause"; with --json one object,
 * {"error":"not_found","code":16,"message":"…"}. Exit statuses come from lib/base/err.def.
 */
#ifndef CULE_CLI_REPORT_H
#define CULE_CLI_REPORT_H

#include "base/buf.h"
#include "cli/opt.h"

/* Reports *err and returns its exit status. */
int cule_cli_fail(const struct cule_cli *cli, const struct cule_err *err);

/* The same for a code and a message put together here. */
int cule_cli_failf(const struct cule_cli *cli, int code, const char *fmt, ...) CULE_PRINTF(3, 4);

/* "cule-ipc: warning: …"; the program goes on. */
void cule_cli_warn(const struct cule_cli *cli, const char *fmt, ...) CULE_PRINTF(2, 3);

/* "cule-ipc: …" when -v was given at least level times; level 0 always. */
void cule_cli_note(const struct cule_cli *cli, unsigned level, const char *fmt, ...) CULE_PRINTF(3, 4);

/* Appends text as a JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. 0 or CULE_ENOMEM, CULE_ELIMIT.
 */
int cule_cli_json_string(struct cule_buf *out, const char *text);

#endif

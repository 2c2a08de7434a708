/*
 * Telling whoever waits that a program is ready: one newline on the descriptor of CULE_READY_FD, and READY=1 on the
 * socket of NOTIFY_SOCKET (sd_notify(3)). The caller passes the variables' values; NULL or "" is unset.
 */
#ifndef CULE_IO_READY_H
#define CULE_IO_READY_H

#include "base/err.h"

/* Closes the descriptor. 0, CULE_EUSAGE where a value makes no sense, or CULE_EIO where it could not be told. */
int cule_ready(const char *ready_fd, const char *notify_socket, struct cule_err *err);

/* The same socket told that the program is ending (STOPPING=1). */
int cule_ready_stopping(const char *notify_socket, struct cule_err *err);

#endif

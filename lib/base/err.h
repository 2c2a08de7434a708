/*
 * Errors: one table of codes (err.def) and a caller-supplied place for the detail.
 *
 * A function that can fail returns 0 (or a count) or a negative CULE_E... code. Where the caller wants the
 * cause it passes a struct cule_err, which the function fills before it returns; NULL is always allowed.
 * The library never prints, exits or reads the environment.
 */
#ifndef CULE_BASE_ERR_H
#define CULE_BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

enum {
#define CULE_ERROR(name, code, exit, text) CULE_E##name = -(code),
#include "err.def"
#undef CULE_ERROR
};

enum { CULE_ERR_TEXT_MAX = 256 };

struct cule_err {
    int code;                     /* a CULE_E... code, 0 when unset */
    int sys;                      /* errno at the time, or 0 */
    char text[CULE_ERR_TEXT_MAX]; /* lower case, no full stop, cause first, subject quoted */
};

#define CULE_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Fills *err (which may be NULL) and returns code, so that `return cule_err_set(...)` reads well. */
int cule_err_set(struct cule_err *err, int code, const char *fmt, ...) CULE_PRINTF(3, 4);

/* The same with errno's value kept and its strerror text appended after ": ". */
int cule_err_sys(struct cule_err *err, int code, int sys, const char *fmt, ...) CULE_PRINTF(4, 5);

/* Puts "context: " before what *err says already. Returns err->code (or code if err is NULL). */
int cule_err_context(struct cule_err *err, int code, const char *fmt, ...) CULE_PRINTF(3, 4);

/* The table's text, its name in lower case ("not_found"), and the exit status of a code.
 * Each takes the code with either sign. An unknown code reads "unknown error", "unknown", status 4. */
const char *cule_err_text(int code);
const char *cule_err_name(int code);
int cule_err_exit(int code);

/* The negative code for an errno: EMFILE is CULE_ENOFD, ENOMEM CULE_ENOMEM, EPIPE CULE_ECLOSED, ... */
int cule_err_from_errno(int sys);

/* The negative code of a name as cule_err_name gives it; 0 when there is none. */
int cule_err_by_name(const char *name);

#endif

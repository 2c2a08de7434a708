/* Errors: the table's look-ups and the filling of struct cule_err. */
#include "base/err.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct row {
    int code;
    int exit;
    const char *name;
    const char *text;
};

static const struct row rows[] = {
#define CULE_ERROR(name, code, exit, text) {code, exit, #name, text},
#include "base/err.def"
#undef CULE_ERROR
};

enum { NROWS = sizeof rows / sizeof rows[0], NAME_MAX_LEN = 24 };

static const struct row *find(int code)
{
    int c = code < 0 ? -code : code;
    for (int i = 0; i < NROWS; i++) {
        if (rows[i].code == c) {
            return &rows[i];
        }
    }
    return NULL;
}

static void vset(struct cule_err *err, int code, int sys, const char *fmt, va_list ap)
{
    err->code = code;
    err->sys = sys;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
}

int cule_err_set(struct cule_err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vset(err, code, 0, fmt, ap);
        va_end(ap);
    }
    return code;
}

int cule_err_sys(struct cule_err *err, int code, int sys, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vset(err, code, sys, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->text);
        char why[96];
        snprintf(err->text + n, sizeof err->text - n, ": %s", strerror_r(sys, why, sizeof why));
    }
    return code;
}

int cule_err_context(struct cule_err *err, int code, const char *fmt, ...)
{
    if (!err) {
        return code;
    }
    char was[CULE_ERR_TEXT_MAX];
    memcpy(was, err->text, sizeof was);
    va_list ap;
    va_start(ap, fmt);
    vset(err, code, err->sys, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %.*s", (int)sizeof was - 1, was);
    return code;
}

const char *cule_err_text(int code)
{
    const struct row *r = find(code);
    return r ? r->text : "unknown error";
}

/* Names are lowered once, on first use; racing threads write the same bytes. */
const char *cule_err_name(int code)
{
    static char lower[NROWS][NAME_MAX_LEN];
    const struct row *r = find(code);
    if (!r) {
        return "unknown";
    }
    char *at = lower[r - rows];
    for (size_t i = 0; i < NAME_MAX_LEN - 1 && r->name[i]; i++) {
        at[i] = (char)tolower((unsigned char)r->name[i]);
    }
    return at;
}

int cule_err_exit(int code)
{
    const struct row *r = find(code);
    return code == 0 ? 0 : r ? r->exit : 4;
}

int cule_err_from_errno(int sys)
{
    switch (sys) {
    case EMFILE:
    case ENFILE: return CULE_ENOFD;
    case ENOMEM:
    case ENOBUFS: return CULE_ENOMEM;
    case EPIPE:
    case ECONNRESET: return CULE_ECLOSED;
    case ETIMEDOUT: return CULE_ETIMEOUT;
    case EACCES:
    case EPERM: return CULE_EREFUSED;
    case EMSGSIZE: return CULE_ETOO_BIG;
    default: return CULE_EIO;
    }
}

int cule_err_by_name(const char *name)
{
    for (int i = 0; i < NROWS; i++) {
        if (strcasecmp(rows[i].name, name) == 0) {
            return -rows[i].code;
        }
    }
    return 0;
}

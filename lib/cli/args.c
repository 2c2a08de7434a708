/* Positional arguments: which word is which. */
#include "cli/args.h"

#include "cli/value.h"

#include <stdint.h>

static bool takes_command(const struct cule_arg *a)
{
    return a->kind == CULE_ARG_KIND_COMMAND || a->kind == CULE_ARG_KIND_COMMAND_OPTIONAL;
}

const struct cule_arg *cule_args_command(const struct cule_command *c)
{
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        if (takes_command(a)) {
            return a;
        }
    }
    return NULL;
}

size_t cule_args_before_command(const struct cule_command *c)
{
    size_t n = 0;
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++, n++) {
        if (takes_command(a)) {
            return n;
        }
        if (a->kind != CULE_ARG_KIND_ONE) {
            return SIZE_MAX;
        }
    }
    return SIZE_MAX;
}

static int missing(const struct cule_arg *a, struct cule_err *err)
{
    return cule_err_set(err, CULE_EUSAGE, "%s is missing", a->name);
}

static int add_words(struct cule_words *to, const char *const *v, size_t n, struct cule_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (cule_words_add(to, v[i]) < 0) {
            return cule_err_set(err, CULE_ENOMEM, "out of memory");
        }
    }
    return 0;
}

/* The first required argument that a shortage of words leaves empty, counted from the left. */
static int shortage(const struct cule_command *c, size_t have, struct cule_err *err)
{
    for (const struct cule_arg *a = c->args; a->kind != CULE_ARG_KIND_END; a++) {
        if ((a->kind == CULE_ARG_KIND_ONE || a->kind == CULE_ARG_KIND_MANY) && have-- == 0) {
            return missing(a, err);
        }
    }
    return 0;
}

static int assign_one(const struct cule_arg *a, void *opts, const struct cule_words *words, size_t *at, size_t *extra,
                      struct cule_err *err)
{
    void *field = (char *)opts + a->offset;
    size_t n = 0;

    switch (a->kind) {
    case CULE_ARG_KIND_OPTIONAL:
        if (*extra == 0) {
            return 0;
        }
        --*extra;
        *(const char **)field = words->v[(*at)++];
        return 0;
    case CULE_ARG_KIND_ONE: *(const char **)field = words->v[(*at)++]; return 0;
    case CULE_ARG_KIND_MANY: n = 1; /* fall through */
    case CULE_ARG_KIND_ANY: {
        n += *extra;
        *extra = 0;
        int rc = n ? add_words(field, words->v + *at, n, err) : 0;
        *at += n;
        return rc;
    }
    default: return 0;
    }
}

int cule_args_assign(const struct cule_command *c, void *opts, const struct cule_words *words, char **tail,
                     size_t ntail, struct cule_err *err)
{
    size_t need = 0, extra, at = 0;

    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        need += a->kind == CULE_ARG_KIND_ONE || a->kind == CULE_ARG_KIND_MANY;
    }
    if (words->n < need) {
        return shortage(c, words->n, err);
    }
    extra = words->n - need;
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        int rc;
        if (takes_command(a)) {
            if (ntail == 0 && a->kind == CULE_ARG_KIND_COMMAND) {
                return missing(a, err);
            }
            rc = add_words((struct cule_words *)(void *)((char *)opts + a->offset), (const char *const *)tail, ntail,
                           err);
        } else {
            rc = assign_one(a, opts, words, &at, &extra, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    if (extra > 0) {
        return cule_err_set(err, CULE_EUSAGE, "unexpected argument '%s'", words->v[at]);
    }
    return 0;
}

void cule_args_release(const struct cule_command *c, void *opts)
{
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        if (a->kind == CULE_ARG_KIND_MANY || a->kind == CULE_ARG_KIND_ANY || takes_command(a)) {
            cule_words_release((struct cule_words *)(void *)((char *)opts + a->offset));
        }
    }
}

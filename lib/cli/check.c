/* Holds option tables against the house's rules, so that a wrong table fails in a test and not at a user. */
#include "base/bytes.h"
#include "cli/args.h"
#include "cli/opt.h"
#include "cli/value.h"

#include <ctype.h>
#include <string.h>

static int bad(struct cule_err *err, const char *command, const char *what, const char *why)
{
    return cule_err_set(err, CULE_EMALFORMED, "option table of '%s': '%s' %s", command, what, why);
}

static bool is_name(const char *s)
{
    if (!s || !islower((unsigned char)*s)) {
        return false;
    }
    for (; *s; s++) {
        if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && *s != '-') {
            return false;
        }
    }
    return true;
}

/* Help is one line, begins in lower case (or with a name) and has no full stop. */
static bool is_help(const char *s)
{
    static const char *const names[] = {"Chrome ", "Prometheus ", "Python ", "Unix "};
    size_t n = s ? strlen(s) : 0;
    if (n == 0 || s[n - 1] == '.' || strpbrk(s, "\n\t")) {
        return false;
    }
    for (size_t i = 0; i < CULE_COUNT(names); i++) {
        if (strncmp(s, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return !(isupper((unsigned char)s[0]) && islower((unsigned char)s[1]));
}

static int check_default(const struct cule_command *c, const struct cule_opt *o, struct cule_err *err)
{
    union {
        uint64_t u64;
        double real;
        const char *string;
        int choice;
    } v;
    struct cule_opt probe = *o;

    if (!o->def) {
        return 0;
    }
    if (o->type < CULE_TYPE_STRING || o->type > CULE_TYPE_CHOICE) {
        return bad(err, c->name, o->name, "cannot have a default");
    }
    probe.offset = 0;
    return cule_value_store(&v, &probe, o->def, err);
}

static int check_option(const struct cule_command *c, const struct cule_opt *o, struct cule_err *err)
{
    if (!is_name(o->name)) {
        return bad(err, c->name, o->name ? o->name : "?", "is no long name");
    }
    if (!is_help(o->help)) {
        return bad(err, c->name, o->name, "needs one line of help in lower case without a full stop");
    }
    if (cule_opt_takes_value(o->type) != (o->arg_name != NULL)) {
        return bad(err, c->name, o->name, "needs an argument's name exactly where it takes one");
    }
    if ((o->type == CULE_TYPE_CHOICE) != (o->choices != NULL)) {
        return bad(err, c->name, o->name, "needs choices exactly where it is a choice");
    }
    for (const struct cule_opt *p = c->options; p < o; p++) {
        if (strcmp(p->name, o->name) == 0 || (o->short_name && p->short_name == o->short_name)) {
            return bad(err, c->name, o->name, "is there twice");
        }
    }
    for (const struct cule_opt *p = cule_cli_common; p->type; p++) {
        if (strcmp(p->name, o->name) == 0 || (o->short_name && p->short_name == o->short_name)) {
            return bad(err, c->name, o->name, "is one of the common options");
        }
    }
    return check_default(c, o, err);
}

static int check_args(const struct cule_command *c, struct cule_err *err)
{
    const struct cule_arg *many = NULL;

    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        if (!a->name || !is_help(a->help)) {
            return bad(err, c->name, a->name ? a->name : "?", "needs one line of help");
        }
        if (a == cule_args_command(c) && a[1].kind != CULE_ARG_KIND_END) {
            return bad(err, c->name, a->name, "is a command line and must be the last argument");
        }
        if (a->kind == CULE_ARG_KIND_MANY || a->kind == CULE_ARG_KIND_ANY) {
            if (many) {
                return bad(err, c->name, a->name, "takes many words, as another argument does");
            }
            many = a;
        }
    }
    return 0;
}

static int check_command(const struct cule_program *p, const struct cule_command *c, struct cule_err *err)
{
    size_t n = 0;
    if (!is_name(c->name) || !is_help(c->summary) || !c->run || (p->commands && !c->group)) {
        return bad(err, p->name, c->name ? c->name : "?", "needs a name, a group, a summary and a run function");
    }
    for (const struct cule_opt *o = c->options; o && o->type; o++, n++) {
        int rc = check_option(c, o, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (n > 64) {
        return bad(err, p->name, c->name, "has more than 64 options");
    }
    if ((n > 0 || (c->args && c->args->kind)) && c->opts_size == 0) {
        return bad(err, p->name, c->name, "has options and no opts_size");
    }
    return check_args(c, err);
}

int cule_cli_check(const struct cule_program *p, struct cule_err *err)
{
    if (!p->commands) {
        return check_command(p, p->sole, err);
    }
    for (const struct cule_command *const *c = p->commands; *c; c++) {
        int rc = check_command(p, *c, err);
        if (rc < 0) {
            return rc;
        }
        if (cule_cli_find(p, (*c)->name) != *c) {
            return bad(err, p->name, (*c)->name, "is there twice");
        }
    }
    return 0;
}

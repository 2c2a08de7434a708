/* Prints help, synopsis and the option tables. */
#include "cli/help.h"

#include "base/bytes.h"

#include <string.h>

enum { LEFT = 28, WIDTH_MIN = 50 };

/* Prints text folded to width at the column it stands in; further lines begin at that column. */
static void fold(FILE *out, const char *text, int column, int width)
{
    int at = column;
    while (*text) {
        int n = (int)strcspn(text, " \n");
        if (at > column && at + 1 + n > width) {
            fprintf(out, "\n%*s", column, "");
            at = column;
        } else if (at > column) {
            putc(' ', out);
            at++;
        }
        fwrite(text, 1, (size_t)n, out);
        at += n;
        text += n;
        if (*text == '\n') {
            fprintf(out, "\n%*s", column, "");
            at = column;
        }
        text += *text != '\0';
    }
    putc('\n', out);
}

static void row(FILE *out, const char *left, const char *text, int width)
{
    int n = fprintf(out, "  %s", left);
    if (n + 2 > LEFT) {
        fprintf(out, "\n%*s", LEFT, "");
    } else {
        fprintf(out, "%*s", LEFT - n, "");
    }
    fold(out, text, LEFT, width);
}

static void option_row(FILE *out, const struct cule_opt *o, const char *def, int width)
{
    char left[96], text[512];
    int n;

    if (o->short_name) {
        n = snprintf(left, sizeof left, "-%c, --%s", o->short_name, o->name);
    } else {
        n = snprintf(left, sizeof left, "    --%s", o->name);
    }
    if (cule_opt_takes_value(o->type) && (size_t)n < sizeof left) {
        snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg_name);
    }
    n = snprintf(text, sizeof text, "%s", o->help);
    if (o->choices && (size_t)n < sizeof text) {
        n += snprintf(text + n, sizeof text - (size_t)n, ": %s", o->choices);
    }
    if (def && (size_t)n < sizeof text) {
        n += snprintf(text + n, sizeof text - (size_t)n, " (default %s)", def);
    }
    if (o->type == CULE_TYPE_LIST && (size_t)n < sizeof text) {
        snprintf(text + n, sizeof text - (size_t)n, "; may be repeated");
    }
    row(out, left, text, width);
}

static void arg_usage(FILE *out, const struct cule_arg *a)
{
    switch (a->kind) {
    case CULE_ARG_KIND_ONE: fprintf(out, " %s", a->name); break;
    case CULE_ARG_KIND_OPTIONAL: fprintf(out, " [%s]", a->name); break;
    case CULE_ARG_KIND_MANY: fprintf(out, " %s...", a->name); break;
    case CULE_ARG_KIND_ANY: fprintf(out, " [%s...]", a->name); break;
    case CULE_ARG_KIND_COMMAND: fprintf(out, " -- %s...", a->name); break;
    case CULE_ARG_KIND_COMMAND_OPTIONAL: fprintf(out, " [-- %s...]", a->name); break;
    case CULE_ARG_KIND_END: break;
    }
}

void cule_cli_usage(FILE *out, const struct cule_program *p, const struct cule_command *c)
{
    if (!c) {
        fprintf(out, "%s SUBCOMMAND [options] [arguments]", p->name);
        return;
    }
    fprintf(out, "%s", p->name);
    if (p->commands) {
        fprintf(out, " %s", c->name);
    }
    fputs(" [options]", out);
    for (const struct cule_opt *o = c->options; o && o->type; o++) {
        if (o->flags & CULE_OPT_REQUIRED) {
            fprintf(out, " --%s %s", o->name, o->arg_name ? o->arg_name : "");
        }
    }
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        arg_usage(out, a);
    }
}

static void command_help(FILE *out, const struct cule_command *c, int width)
{
    bool any = false;

    putc('\n', out);
    fold(out, c->summary, 0, width);
    if (c->about) {
        putc('\n', out);
        fold(out, c->about, 0, width);
    }
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        if (a == c->args) {
            fputs("\narguments:\n", out);
        }
        row(out, a->name, a->help, width);
    }
    for (const struct cule_opt *o = c->options; o && o->type; o++) {
        if (!(o->flags & CULE_OPT_HIDDEN)) {
            fputs(any ? "" : "\noptions:\n", out);
            any = true;
            option_row(out, o, o->def, width);
        }
    }
    fputs("\ncommon options:\n", out);
    for (const struct cule_opt *o = cule_cli_common; o->type; o++) {
        if (!(o->flags & CULE_OPT_HIDDEN) && cule_cli_takes(c, o)) {
            option_row(out, o, strcmp(o->name, "timeout") == 0 ? c->timeout : NULL, width);
        }
    }
    if (c->example) {
        fprintf(out, "\nexample:\n  %s\n", c->example);
    }
}

/* Whether an earlier command already opened this one's group. */
static bool group_seen(const struct cule_command *const *all, const struct cule_command *const *c)
{
    for (; all < c; all++) {
        if (!((*all)->flags & CULE_CMD_HIDDEN) && strcmp((*all)->group, (*c)->group) == 0) {
            return true;
        }
    }
    return false;
}

static void program_help(FILE *out, const struct cule_program *p, int width)
{
    putc('\n', out);
    fold(out, p->summary, 0, width);
    for (const struct cule_command *const *c = p->commands; *c; c++) {
        if (((*c)->flags & CULE_CMD_HIDDEN) || group_seen(p->commands, c)) {
            continue;
        }
        fprintf(out, "\n%s:\n", (*c)->group);
        for (const struct cule_command *const *d = c; *d; d++) {
            if (!((*d)->flags & CULE_CMD_HIDDEN) && strcmp((*d)->group, (*c)->group) == 0) {
                row(out, (*d)->name, (*d)->summary, width);
            }
        }
    }
    fputs("\ncommon options:\n", out);
    for (const struct cule_opt *o = cule_cli_common; o->type; o++) {
        if (!(o->flags & CULE_OPT_HIDDEN)) {
            option_row(out, o, NULL, width);
        }
    }
    fprintf(out, "\n%s help SUBCOMMAND, or man %s, tells more.\n", p->name, p->name);
}

void cule_cli_help(FILE *out, const struct cule_program *p, const struct cule_command *c, int width)
{
    width = CULE_MAX(width, (int)WIDTH_MIN);
    if (!p->commands) {
        c = p->sole;
    }
    fputs("usage: ", out);
    cule_cli_usage(out, p, c);
    putc('\n', out);
    if (c) {
        command_help(out, c, width);
    } else {
        program_help(out, p, width);
    }
}

static const char *or_dash(const char *s)
{
    return s && *s ? s : "-";
}

static void dump_option(FILE *out, const char *command, const struct cule_opt *o, const char *def)
{
    static const char *const types[] = {"end",      "flag", "counter", "string", "u64", "size",
                                        "duration", "real", "choice",  "list",   "rest"};
    char letter[2] = {o->short_name, '\0'};

    fprintf(out, "option\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", command, or_dash(letter), o->name, types[o->type],
            or_dash(o->arg_name), cule_complete_name(o->complete), or_dash(o->choices), or_dash(def),
            o->flags & CULE_OPT_HIDDEN     ? "hidden"
            : o->flags & CULE_OPT_REQUIRED ? "required"
                                           : "-",
            o->help);
}

static void dump_common(FILE *out, const char *name, const struct cule_command *c)
{
    for (const struct cule_opt *o = cule_cli_common; o->type; o++) {
        if (cule_cli_takes(c, o) && !(o->flags & CULE_OPT_HIDDEN)) {
            dump_option(out, name, o, c && strcmp(o->name, "timeout") == 0 ? c->timeout : NULL);
        }
    }
}

static void dump_command(FILE *out, const struct cule_command *c)
{
    static const char *const kinds[] = {"end", "one", "optional", "many", "any", "command", "command-optional"};

    fprintf(out, "command\t%s\t%s\t%s\t%s\n", c->name, or_dash(c->group), c->flags & CULE_CMD_HIDDEN ? "hidden" : "-",
            c->summary);
    for (const struct cule_opt *o = c->options; o && o->type; o++) {
        dump_option(out, c->name, o, o->def);
    }
    dump_common(out, c->name, c);
    for (const struct cule_arg *a = c->args; a && a->kind != CULE_ARG_KIND_END; a++) {
        fprintf(out, "arg\t%s\t%s\t%s\t%s\t%s\n", c->name, kinds[a->kind], a->name, cule_complete_name(a->complete),
                a->help);
    }
}

void cule_cli_dump(FILE *out, const struct cule_program *p)
{
    fprintf(out, "program\t%s\t%s\t%s\n", p->name, CULE_VERSION, p->summary);
    if (!p->commands) {
        dump_command(out, p->sole);
        return;
    }
    dump_common(out, "-", NULL);
    for (const struct cule_command *const *c = p->commands; *c; c++) {
        dump_command(out, *c);
    }
}

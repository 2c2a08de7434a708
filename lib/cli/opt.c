/* Reads argv against a program's option tables. */
#include "cli/opt.h"

#include "base/bytes.h"
#include "base/parse.h"
#include "cli/args.h"
#include "cli/suggest.h"
#include "cli/value.h"

#include <stdlib.h>
#include <string.h>

struct reader {
    struct cule_cli *cli;
    struct cule_err *err;
    char **argv;
    int argc;
    int i;                   /* the word after the one being read */
    struct cule_words words; /* that are no options */
    char **tail;             /* a command line, passed on unread */
    size_t ntail;
    bool done; /* all further words are in tail or in a REST option */
};

static int usage(struct reader *r, const char *fmt, const char *what, const char *near)
{
    char text[CULE_ERR_TEXT_MAX];
    struct cule_err cause;

    cule_err_set(&cause, CULE_EUSAGE, fmt, what);
    memcpy(text, cause.text, sizeof text);
    if (near) {
        return cule_err_set(r->err, CULE_EUSAGE, "%.120s; did you mean '%s'?", text, near);
    }
    return cule_err_set(r->err, CULE_EUSAGE, "%s", text);
}

static int unknown_option(struct reader *r, const char *word)
{
    char name[64], best[80];
    struct cule_suggest s;

    size_t n = CULE_MIN(strcspn(word + 2, "="), sizeof name - 1);
    memcpy(name, word + 2, n);
    name[n] = '\0';
    cule_suggest_init(&s, name);
    for (const struct cule_opt *o = r->cli->command ? r->cli->command->options : NULL; o && o->type; o++) {
        if (!(o->flags & CULE_OPT_HIDDEN)) {
            cule_suggest_offer(&s, o->name);
        }
    }
    for (const struct cule_opt *o = cule_cli_common; o->type; o++) {
        if (!(o->flags & CULE_OPT_HIDDEN) && cule_cli_takes(r->cli->command, o)) {
            cule_suggest_offer(&s, o->name);
        }
    }
    memcpy(best, "--", 3);
    if (s.best) {
        strncat(best, s.best, sizeof best - 3);
    }
    return usage(r, "unknown option '--%s'", name, s.best ? best : NULL);
}

/* An option common to all commands; its field stands in struct cule_cli. */
static int take_common(struct reader *r, const struct cule_opt *o, const char *value)
{
    struct cule_cli *cli = r->cli;

    if (strcmp(o->name, "help") == 0) {
        cli->want = CULE_WANT_HELP;
    } else if (strcmp(o->name, "version") == 0) {
        cli->want = CULE_WANT_VERSION;
    } else if (strcmp(o->name, "dump-options") == 0) {
        cli->want = CULE_WANT_DUMP;
    } else {
        if (strcmp(o->name, "timeout") == 0) {
            cli->timeout_given = true;
        }
        return cule_value_store(cli, o, value, r->err);
    }
    return 0;
}

static int take_rest(struct reader *r, const struct cule_opt *o, const char *first)
{
    struct cule_words *w = (struct cule_words *)(void *)((char *)r->cli->opts + o->offset);

    if (!first && r->i >= r->argc) {
        return cule_err_set(r->err, CULE_EUSAGE, "--%s needs %s", o->name, o->arg_name);
    }
    if (first && cule_words_add(w, first) < 0) {
        return cule_err_set(r->err, CULE_ENOMEM, "out of memory");
    }
    while (r->i < r->argc) {
        if (cule_words_add(w, r->argv[r->i++]) < 0) {
            return cule_err_set(r->err, CULE_ENOMEM, "out of memory");
        }
    }
    r->done = true;
    return 0;
}

/* Stores an option that was found; value is what was attached to it, or NULL. */
static int take(struct reader *r, const struct cule_opt *o, bool common, const char *value)
{
    if (o->type == CULE_TYPE_REST) {
        r->cli->given |= (uint64_t)1 << (o - r->cli->command->options);
        return take_rest(r, o, value);
    }
    if (cule_opt_takes_value(o->type) && !value) {
        if (r->i >= r->argc) {
            return cule_err_set(r->err, CULE_EUSAGE, "--%s needs %s", o->name, o->arg_name);
        }
        value = r->argv[r->i++];
    }
    if (common) {
        return take_common(r, o, value);
    }
    r->cli->given |= (uint64_t)1 << (o - r->cli->command->options);
    return cule_value_store(r->cli->opts, o, value, r->err);
}

static const struct cule_opt *find_in(const struct cule_opt *o, const char *name, size_t n, char letter)
{
    for (; o && o->type; o++) {
        if (name ? strncmp(o->name, name, n) == 0 && !o->name[n] : o->short_name == letter) {
            return o;
        }
    }
    return NULL;
}

/* By long name (n bytes) or, where name is NULL, by letter. */
static const struct cule_opt *find(struct reader *r, const char *name, size_t n, char letter, bool *common)
{
    const struct cule_command *c = r->cli->command;
    const struct cule_opt *o = c ? find_in(c->options, name, n, letter) : NULL;

    *common = false;
    if (o) {
        return o;
    }
    o = find_in(cule_cli_common, name, n, letter);
    *common = true;
    return o && cule_cli_takes(c, o) ? o : NULL;
}

static int read_long(struct reader *r, const char *word)
{
    const char *name = word + 2;
    size_t n = strcspn(name, "=");
    const char *value = name[n] ? name + n + 1 : NULL;
    bool common;
    const struct cule_opt *o = find(r, name, n, 0, &common);

    if (!o) {
        return unknown_option(r, word);
    }
    if (value && !cule_opt_takes_value(o->type)) {
        return cule_err_set(r->err, CULE_EUSAGE, "--%s takes no value", o->name);
    }
    return take(r, o, common, value);
}

static int read_short(struct reader *r, const char *word)
{
    for (const char *p = word + 1; *p; p++) {
        bool common;
        const struct cule_opt *o = find(r, NULL, 0, *p, &common);
        if (!o) {
            char letter[2] = {*p, '\0'};
            return usage(r, "unknown option '-%s'", letter, NULL);
        }
        bool valued = cule_opt_takes_value(o->type);
        int rc = take(r, o, common, valued && p[1] ? p + 1 : NULL);
        if (rc < 0 || valued) {
            return rc;
        }
    }
    return 0;
}

static int set_defaults(struct reader *r)
{
    struct cule_cli *cli = r->cli;
    const struct cule_command *c = cli->command;

    cli->opts = calloc(1, c->opts_size ? c->opts_size : 1);
    if (!cli->opts) {
        return cule_err_set(r->err, CULE_ENOMEM, "out of memory");
    }
    for (const struct cule_opt *o = c->options; o && o->type; o++) {
        if (o->type == CULE_TYPE_CHOICE) {
            *(int *)(void *)((char *)cli->opts + o->offset) = -1;
        }
        if (o->def) {
            int rc = cule_value_store(cli->opts, o, o->def, r->err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    if (c->timeout && !cli->timeout_given && cule_parse_duration_ms(c->timeout, &cli->timeout_ms) < 0) {
        return cule_err_set(r->err, CULE_EUSAGE, "'%s' is no time for --timeout", c->timeout);
    }
    return 0;
}

static int no_command(struct reader *r, const char *word)
{
    struct cule_suggest s;
    cule_suggest_init(&s, word);
    for (const struct cule_command *const *c = r->cli->program->commands; c && *c; c++) {
        if (!((*c)->flags & CULE_CMD_HIDDEN)) {
            cule_suggest_offer(&s, (*c)->name);
        }
    }
    cule_suggest_offer(&s, "help");
    return usage(r, "unknown subcommand '%s'", word, s.best);
}

/* The first word of a program with subcommands. */
static int read_command(struct reader *r, const char *word)
{
    struct cule_cli *cli = r->cli;

    if (strcmp(word, "__complete") == 0) {
        cli->want = CULE_WANT_COMPLETE;
        cli->complete_kind = r->i < r->argc ? r->argv[r->i++] : "";
        cli->complete_prefix = r->i < r->argc ? r->argv[r->i++] : "";
        r->done = true;
        return 0;
    }
    bool help = strcmp(word, "help") == 0;
    if (help) {
        cli->want = CULE_WANT_HELP;
        if (r->i >= r->argc) {
            r->done = true;
            return 0;
        }
        word = r->argv[r->i++];
        if (word[0] == '-') {
            r->i--;
            return 0;
        }
    }
    cli->command = cule_cli_find(cli->program, word);
    if (!cli->command) {
        return help && strcmp(word, "help") == 0 ? 0 : no_command(r, word);
    }
    if (help) {
        r->done = true;
        return 0;
    }
    return set_defaults(r);
}

static void take_tail(struct reader *r)
{
    r->tail = r->argv + r->i;
    r->ntail = (size_t)(r->argc - r->i);
    r->done = true;
}

static int read_plain(struct reader *r, const char *word)
{
    const struct cule_command *c = r->cli->command;

    if (!c) {
        return read_command(r, word);
    }
    if (r->words.n == cule_args_before_command(c)) {
        r->i--;
        take_tail(r);
        return 0;
    }
    if (cule_words_add(&r->words, word) < 0) {
        return cule_err_set(r->err, CULE_ENOMEM, "out of memory");
    }
    return 0;
}

static int read_all(struct reader *r)
{
    bool plain = false;
    while (r->i < r->argc && !r->done) {
        const char *word = r->argv[r->i++];
        int rc = 0;
        if (plain || word[0] != '-' || !word[1]) {
            rc = read_plain(r, word);
        } else if (strcmp(word, "--") == 0) {
            plain = true;
            if (r->cli->command && cule_args_command(r->cli->command)) {
                take_tail(r);
            }
        } else {
            rc = word[1] == '-' ? read_long(r, word) : read_short(r, word);
        }
        if (rc < 0) {
            return rc;
        }
        if (r->cli->want == CULE_WANT_VERSION || (r->cli->want == CULE_WANT_HELP && r->cli->command)) {
            return 0; /* the rest does not matter */
        }
    }
    return 0;
}

static int finish(struct reader *r)
{
    struct cule_cli *cli = r->cli;
    const struct cule_command *c = cli->command;

    if (cli->want != CULE_WANT_RUN) {
        return 0;
    }
    if (!c) {
        return cule_err_set(r->err, CULE_EUSAGE, "a subcommand is missing; see %s --help", cli->program->name);
    }
    for (const struct cule_opt *o = c->options; o && o->type; o++) {
        if ((o->flags & CULE_OPT_REQUIRED) && !cule_cli_given(cli, o->name)) {
            return cule_err_set(r->err, CULE_EUSAGE, "--%s is missing", o->name);
        }
    }
    return cule_args_assign(c, cli->opts, &r->words, r->tail, r->ntail, r->err);
}

int cule_cli_parse(struct cule_cli *cli, const struct cule_program *p, int argc, char **argv, struct cule_err *err)
{
    struct reader r = {.cli = cli, .err = err, .argv = argv, .argc = argc, .i = 1};
    int rc = 0;

    memset(cli, 0, sizeof *cli);
    cli->program = p;
    if (!p->commands) {
        cli->command = p->sole;
        rc = set_defaults(&r);
    }
    if (rc == 0) {
        rc = read_all(&r);
    }
    if (rc == 0) {
        rc = finish(&r);
    }
    cule_words_release(&r.words);
    return rc;
}

void cule_cli_release(struct cule_cli *cli)
{
    const struct cule_command *c = cli->command;

    if (c && cli->opts) {
        for (const struct cule_opt *o = c->options; o && o->type; o++) {
            if (o->type == CULE_TYPE_LIST || o->type == CULE_TYPE_REST) {
                cule_words_release((struct cule_words *)(void *)((char *)cli->opts + o->offset));
            }
        }
        cule_args_release(c, cli->opts);
    }
    free(cli->opts);
    cli->opts = NULL;
}

/*
 * Option tables: one table per program drives parsing, --help, the completions and the tests that hold the
 * man page to it. lib/cli is the one library folder that prints and looks at the terminal; it is for programs.
 *
 * A program is a list of subcommands. Each names its options (bound to fields of a struct of its own), its
 * positional arguments, one line of summary and a run function:
 *
 *     struct greet_opts {
 *         bool loud;
 *         uint64_t times;
 *         const char *who;
 *     };
 *
 *     static int greet(struct cule_cli *cli)
 *     {
 *         const struct greet_opts *o = cli->opts;
 *         struct cule_err err;
 *         if (o->times > 100) {
 *             cule_err_set(&err, CULE_ELIMIT, "cannot greet '%s' more than 100 times", o->who);
 *             return cule_cli_fail(cli, &err); // "hello: cannot greet …" on stderr; status 6
 *         }
 *         for (uint64_t i = 0; i < o->times; i++) {
 *             printf("hello %s%s\n", o->who, o->loud ? "!" : "");
 *         }
 *         return 0; // the exit status; cule_cli_main reports what could not be written to stdout
 *     }
 *
 *     const struct cule_command hello_greet = {
 *         .name = "greet",
 *         .group = "greetings",
 *         .summary = "greet somebody",
 *         .opts_size = sizeof(struct greet_opts),
 *         .options = (const struct cule_opt[]){
 *             CULE_OPT_FLAG(struct greet_opts, loud, 'l', "loud", "greet loudly"),
 *             CULE_OPT_U64(struct greet_opts, times, 'n', "times", "N", "greet N times", .def = "1"),
 *             CULE_OPT_END,
 *         },
 *         .args = (const struct cule_arg[]){
 *             CULE_ARG(struct greet_opts, who, "WHO", "whom to greet"),
 *             CULE_ARG_END,
 *         },
 *         .run = greet,
 *     };
 *
 *     static const struct cule_command *const commands[] = {&hello_greet, NULL};
 *     static const struct cule_program hello = {.name = "hello", .summary = "greets", .commands = commands};
 *     int main(int argc, char **argv) { return cule_cli_main(&hello, argc, argv); }
 *
 * Accepted forms: --name=value, --name value, -n value, -nvalue, -abc for flags, "--" ends the options, and
 * options may follow positional arguments. Every option has a long form. The options that all commands share
 * are defined once, here: -h/--help, -V/--version, -v/--verbose (cli->verbose), and where the command asks
 * for them --json (CULE_CMD_JSON, cli->json) and --timeout (.timeout, cli->timeout_ms).
 *
 * Reserved short letters: -h, -v, -V. All strings point into argv or the table and are never freed.
 */
#ifndef CULE_CLI_OPT_H
#define CULE_CLI_OPT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cule_cli;

/* What an option takes, and the type of the field that it writes. */
enum cule_opt_type {
    CULE_TYPE_END = 0,
    CULE_TYPE_FLAG,     /* bool */
    CULE_TYPE_COUNTER,  /* unsigned: how often it was given */
    CULE_TYPE_STRING,   /* const char * */
    CULE_TYPE_U64,      /* uint64_t: decimal or 0x hex */
    CULE_TYPE_SIZE,     /* uint64_t, bytes: "64", "64K", "1M" */
    CULE_TYPE_DURATION, /* uint64_t, milliseconds: "250ms", "5s", "2m", bare seconds; the field's name ends in _ms */
    CULE_TYPE_REAL,     /* double, finite and not negative */
    CULE_TYPE_CHOICE,   /* int: the index in choices; -1 when neither given nor defaulted */
    CULE_TYPE_LIST,     /* struct cule_words: repeatable, values in order */
    CULE_TYPE_REST,     /* struct cule_words: all words that follow, options too; NULL after the last */
};

/* What the shells offer as completion of a value. */
enum cule_complete {
    CULE_COMPLETE_NONE = 0,
    CULE_COMPLETE_FILE,
    CULE_COMPLETE_DIR,
    CULE_COMPLETE_COMMAND,    /* a program in PATH */
    CULE_COMPLETE_ENDPOINT,   /* live: cule_program.complete is asked */
    CULE_COMPLETE_TOPIC,      /* live */
    CULE_COMPLETE_SERVICE,    /* live */
    CULE_COMPLETE_OP,         /* live */
    CULE_COMPLETE_SUBCOMMAND, /* the program's own subcommands */
    CULE_COMPLETE_LAST = CULE_COMPLETE_SUBCOMMAND,
};

struct cule_words {
    const char **v; /* n words, and NULL after the last; NULL when n is 0 */
    size_t n;
};

enum {
    CULE_OPT_REQUIRED = 1 << 0, /* the command cannot run without it */
    CULE_OPT_HIDDEN = 1 << 1,   /* neither in --help nor in completions */
};

struct cule_opt {
    char short_name; /* 0: none */
    enum cule_opt_type type;
    const char *name;     /* the long form without dashes */
    const char *arg_name; /* "FILE", "N"; NULL where no value is taken */
    const char *help;     /* lower case, no full stop */
    size_t offset;        /* of the field in the command's struct */
    const char *choices;  /* CHOICE: "lines|json|frames" */
    const char *def;      /* parsed as if it had been given; shown in --help; not for LIST and REST */
    enum cule_complete complete;
    unsigned flags;
};

/* The offset of a field, refused by the compiler when the field's type is not T. */
#define CULE_OPT_FIELD(S, field, T)                                                                                    \
    (offsetof(S, field) +                                                                                              \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((S *)0)->field), T) ? 1 : -1])) /* field has type T */
#define CULE_OPT_ROW(S, f, T, ty, s, n, a, h, ...)                                                                     \
    {                                                                                                                  \
        .short_name = (s), .type = (ty), .name = (n), .arg_name = (a), .help = (h), .offset = CULE_OPT_FIELD(S, f, T), \
        __VA_ARGS__                                                                                                    \
    }

/* (struct, field, 's' or 0, "long-name"[, "ARG"][, "choices"], "help"[, .def = "…", .complete = …, .flags = …]) */
#define CULE_OPT_FLAG(S, f, s, n, h, ...) CULE_OPT_ROW(S, f, bool, CULE_TYPE_FLAG, s, n, NULL, h, __VA_ARGS__)
#define CULE_OPT_COUNTER(S, f, s, n, h, ...) CULE_OPT_ROW(S, f, unsigned, CULE_TYPE_COUNTER, s, n, NULL, h, __VA_ARGS__)
#define CULE_OPT_STRING(S, f, s, n, a, h, ...)                                                                         \
    CULE_OPT_ROW(S, f, const char *, CULE_TYPE_STRING, s, n, a, h, __VA_ARGS__)
#define CULE_OPT_U64(S, f, s, n, a, h, ...) CULE_OPT_ROW(S, f, uint64_t, CULE_TYPE_U64, s, n, a, h, __VA_ARGS__)
#define CULE_OPT_SIZE(S, f, s, n, a, h, ...) CULE_OPT_ROW(S, f, uint64_t, CULE_TYPE_SIZE, s, n, a, h, __VA_ARGS__)
#define CULE_OPT_DURATION(S, f, s, n, a, h, ...)                                                                       \
    CULE_OPT_ROW(S, f, uint64_t, CULE_TYPE_DURATION, s, n, a, h, __VA_ARGS__)
#define CULE_OPT_REAL(S, f, s, n, a, h, ...) CULE_OPT_ROW(S, f, double, CULE_TYPE_REAL, s, n, a, h, __VA_ARGS__)
#define CULE_OPT_CHOICE(S, f, s, n, a, c, h, ...)                                                                      \
    CULE_OPT_ROW(S, f, int, CULE_TYPE_CHOICE, s, n, a, h, .choices = (c), __VA_ARGS__)
#define CULE_OPT_LIST(S, f, s, n, a, h, ...)                                                                           \
    CULE_OPT_ROW(S, f, struct cule_words, CULE_TYPE_LIST, s, n, a, h, __VA_ARGS__)
#define CULE_OPT_REST(S, f, s, n, a, h, ...)                                                                           \
    CULE_OPT_ROW(S, f, struct cule_words, CULE_TYPE_REST, s, n, a, h, __VA_ARGS__)
/* clang-format off */
#define CULE_OPT_END {.type = CULE_TYPE_END}
/* clang-format on */

/*
 * Positional arguments, in order. An optional one may stand anywhere: it is filled only when there are more
 * words than the others need, so "call [ENDPOINT] SERVICE OP" works. At most one takes many words.
 */
enum cule_arg_kind {
    CULE_ARG_KIND_END = 0,
    CULE_ARG_KIND_ONE,      /* const char *, must be there */
    CULE_ARG_KIND_OPTIONAL, /* const char *, NULL when left out */
    CULE_ARG_KIND_MANY,     /* struct cule_words: one or more */
    CULE_ARG_KIND_ANY,      /* struct cule_words: zero or more */
    /* struct cule_words, last in the table: a command line, passed on unread. It begins after "--"; where all
     * arguments before it are of kind ONE it also begins by itself after them ("work TOPIC CMD -x"). */
    CULE_ARG_KIND_COMMAND,
    CULE_ARG_KIND_COMMAND_OPTIONAL, /* the same, may be left out */
};

struct cule_arg {
    enum cule_arg_kind kind;
    const char *name; /* "SERVICE" */
    const char *help;
    size_t offset;
    enum cule_complete complete;
};

#define CULE_ARG_ROW(S, f, T, k, n, h, ...)                                                                            \
    {                                                                                                                  \
        .kind = (k), .name = (n), .help = (h), .offset = CULE_OPT_FIELD(S, f, T), __VA_ARGS__                          \
    }
/* (struct, field, "NAME", "help"[, .complete = …]) */
#define CULE_ARG(S, f, n, h, ...) CULE_ARG_ROW(S, f, const char *, CULE_ARG_KIND_ONE, n, h, __VA_ARGS__)
#define CULE_ARG_OPTIONAL(S, f, n, h, ...) CULE_ARG_ROW(S, f, const char *, CULE_ARG_KIND_OPTIONAL, n, h, __VA_ARGS__)
#define CULE_ARG_MANY(S, f, n, h, ...) CULE_ARG_ROW(S, f, struct cule_words, CULE_ARG_KIND_MANY, n, h, __VA_ARGS__)
#define CULE_ARG_ANY(S, f, n, h, ...) CULE_ARG_ROW(S, f, struct cule_words, CULE_ARG_KIND_ANY, n, h, __VA_ARGS__)
#define CULE_ARG_COMMAND(S, f, n, h, ...)                                                                              \
    CULE_ARG_ROW(S, f, struct cule_words, CULE_ARG_KIND_COMMAND, n, h, __VA_ARGS__)
#define CULE_ARG_COMMAND_OPTIONAL(S, f, n, h, ...)                                                                     \
    CULE_ARG_ROW(S, f, struct cule_words, CULE_ARG_KIND_COMMAND_OPTIONAL, n, h, __VA_ARGS__)
/* clang-format off */
#define CULE_ARG_END {.kind = CULE_ARG_KIND_END}
/* clang-format on */

enum {
    CULE_CMD_JSON = 1 << 0,   /* takes --json */
    CULE_CMD_HIDDEN = 1 << 1, /* not listed */
};

struct cule_command {
    const char *name;               /* "call"; for a program without subcommands, the program's */
    const char *group;              /* heading in --help, "frames" */
    const char *summary;            /* one line, lower case, no full stop */
    const char *about;              /* further lines for --help, or NULL */
    const char *example;            /* one command line for --help, or NULL */
    const struct cule_opt *options; /* ended by CULE_OPT_END; NULL: none. At most 64 */
    const struct cule_arg *args;    /* ended by CULE_ARG_END; NULL: none */
    size_t opts_size;               /* of the struct that the fields stand in; it starts as zeros */
    const char *timeout;            /* takes --timeout, with this default ("0": none); NULL: does not */
    unsigned flags;
    int (*run)(struct cule_cli *cli); /* the exit status */
};

struct cule_program {
    const char *name; /* "cule-ipc" */
    const char *summary;
    const struct cule_command *const *commands; /* NULL-terminated, in the order of --help; or NULL */
    const struct cule_command *sole;            /* for a program without subcommands */
    /* Prints candidates for a live completion, one on a line, on stdout; NULL: none. Must be quick. */
    int (*complete)(struct cule_cli *cli, enum cule_complete what, const char *prefix);
};

enum cule_cli_want {
    CULE_WANT_RUN = 0,
    CULE_WANT_HELP,
    CULE_WANT_VERSION,
    CULE_WANT_DUMP,     /* --dump-options, hidden */
    CULE_WANT_COMPLETE, /* __complete KIND PREFIX, hidden */
};

struct cule_cli {
    const struct cule_program *program;
    const struct cule_command *command; /* NULL: none named (help, version, dump) */
    void *opts;                         /* the command's struct, opts_size bytes, filled */
    uint64_t given;                     /* bit i: options[i] was on the command line */
    enum cule_cli_want want;
    bool json;
    bool timeout_given;
    unsigned verbose;
    uint64_t timeout_ms; /* 0: none */
    const char *complete_kind;
    const char *complete_prefix;
};

/*
 * The whole of main: parses, answers --help and the like, runs the command, flushes stdout.
 * Returns the exit status. A reader that went away (EPIPE) is status 4 without a message.
 */
int cule_cli_main(const struct cule_program *p, int argc, char **argv);

/* The parts of it. Parse returns 0, CULE_EUSAGE with the cause in *err, or CULE_ENOMEM; release is due in each case. */
int cule_cli_parse(struct cule_cli *cli, const struct cule_program *p, int argc, char **argv, struct cule_err *err);
void cule_cli_release(struct cule_cli *cli);

/* Whether the option of that long name was on the command line (and not only defaulted). */
bool cule_cli_given(const struct cule_cli *cli, const char *name);

/* NULL when there is none of that name. */
const struct cule_command *cule_cli_find(const struct cule_program *p, const char *name);

/* The options that every command shares, ended by CULE_OPT_END; which of them a command takes. */
extern const struct cule_opt cule_cli_common[];
bool cule_cli_takes(const struct cule_command *c, const struct cule_opt *common);

/* Whether the type takes a value. */
bool cule_opt_takes_value(enum cule_opt_type type);

/* "file", "topic", …: as dumped and as __complete takes it; NULL when out of range. */
const char *cule_complete_name(enum cule_complete what);

/* Holds a program's tables against the rules (unique names, help without a full stop, an argument's place, …).
 * 0, or CULE_EMALFORMED with the offender in *err. --dump-options calls it first. */
int cule_cli_check(const struct cule_program *p, struct cule_err *err);

#endif

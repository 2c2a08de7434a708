/* Option tables: every form that a command line may take, and what is said about the wrong ones. */
#include "cli/opt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct all_opts {
    bool loud;
    unsigned deep;
    const char *text;
    uint64_t count;
    uint64_t size;
    uint64_t wait_ms;
    double speed;
    int format;
    int bare;
    struct cule_words listen;
    struct cule_words each;
    const char *endpoint;
    const char *service;
    struct cule_words more;
};

static int nothing(struct cule_cli *cli)
{
    (void)cli;
    return 0;
}

static const struct cule_command c_all = {
    .name = "all",
    .group = "things",
    .summary = "has an option of every type",
    .opts_size = sizeof(struct all_opts),
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .options =
        (const struct cule_opt[]){
            CULE_OPT_FLAG(struct all_opts, loud, 'l', "loud", "be loud"),
            CULE_OPT_COUNTER(struct all_opts, deep, 'd', "deep", "go deeper"),
            CULE_OPT_STRING(struct all_opts, text, 't', "text", "TEXT", "a text", .def = "none"),
            CULE_OPT_U64(struct all_opts, count, 'n', "count", "N", "a number", .def = "7"),
            CULE_OPT_SIZE(struct all_opts, size, 0, "size", "BYTES", "a size"),
            CULE_OPT_DURATION(struct all_opts, wait_ms, 0, "wait", "TIME", "a time", .def = "250ms"),
            CULE_OPT_REAL(struct all_opts, speed, 0, "speed", "FACTOR", "a factor", .def = "1"),
            CULE_OPT_CHOICE(struct all_opts, format, 'f', "format", "FORMAT", "lines|json|frames", "a choice",
                            .def = "json"),
            CULE_OPT_CHOICE(struct all_opts, bare, 0, "bare", "WHICH", "a|b", "a choice without a default"),
            CULE_OPT_LIST(struct all_opts, listen, 0, "listen", "ENDPOINT", "a list"),
            CULE_OPT_REST(struct all_opts, each, 0, "each", "CMD", "the rest of the line"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG_OPTIONAL(struct all_opts, endpoint, "ENDPOINT", "where"),
            CULE_ARG(struct all_opts, service, "SERVICE", "what"),
            CULE_ARG_END,
        },
    .run = nothing,
};

struct work_opts {
    bool quick;
    const char *topic;
    struct cule_words command;
};

static const struct cule_command c_work = {
    .name = "work",
    .group = "things",
    .summary = "takes a command line",
    .opts_size = sizeof(struct work_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_FLAG(struct work_opts, quick, 'q', "quick", "be quick"),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG(struct work_opts, topic, "TOPIC", "from where"),
            CULE_ARG_COMMAND(struct work_opts, command, "CMD", "what to run"),
            CULE_ARG_END,
        },
    .run = nothing,
};

struct many_opts {
    const char *first;
    struct cule_words rest;
    const char *last;
    const char *must;
};

static const struct cule_command c_many = {
    .name = "many",
    .group = "others",
    .summary = "takes words in the middle",
    .opts_size = sizeof(struct many_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_STRING(struct many_opts, must, 'm', "must", "X", "has to be there", .flags = CULE_OPT_REQUIRED),
            CULE_OPT_END,
        },
    .args =
        (const struct cule_arg[]){
            CULE_ARG(struct many_opts, first, "FIRST", "the first"),
            CULE_ARG_ANY(struct many_opts, rest, "REST", "what is between"),
            CULE_ARG(struct many_opts, last, "LAST", "the last"),
            CULE_ARG_END,
        },
    .run = nothing,
};

static const struct cule_command *const commands[] = {&c_all, &c_work, &c_many, NULL};
static const struct cule_program program = {.name = "cule-test", .summary = "is tested", .commands = commands};

enum { WORDS_MAX = 32, LINE_MAX_BYTES = 512 };

/* Parses a line of words separated by blanks ("@" is an empty word); the words live until the next call. */
static int parse(struct cule_cli *cli, struct cule_err *err, const char *line)
{
    static char buffer[LINE_MAX_BYTES];
    static char empty[1];
    static char *argv[WORDS_MAX];
    int argc = 0;
    char *save = NULL;

    assert_true(strlen(line) < sizeof buffer);
    memcpy(buffer, line, strlen(line) + 1);
    argv[argc++] = buffer;
    for (char *w = strtok_r(buffer, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        assert_true(argc < WORDS_MAX - 1);
        argv[argc++] = strcmp(w, "@") == 0 ? empty : w;
    }
    argv[argc] = NULL;
    memset(err, 0, sizeof *err);
    return cule_cli_parse(cli, &program, argc, argv, err);
}

static void refused(const char *line, const char *text)
{
    struct cule_cli cli;
    struct cule_err err;

    assert_int_equal(parse(&cli, &err, line), CULE_EUSAGE);
    assert_string_equal(err.text, text);
    cule_cli_release(&cli);
}

static void test_defaults(void **state)
{
    (void)state;
    struct cule_cli cli;
    struct cule_err err;

    assert_int_equal(parse(&cli, &err, "all bus"), 0);
    const struct all_opts *o = cli.opts;
    assert_false(o->loud);
    assert_string_equal(o->text, "none");
    assert_int_equal(o->count, 7);
    assert_int_equal(o->wait_ms, 250);
    assert_true(o->speed > 0.99 && o->speed < 1.01);
    assert_int_equal(o->format, 1);
    assert_int_equal(o->bare, -1);
    assert_int_equal(o->listen.n, 0);
    assert_null(o->endpoint);
    assert_string_equal(o->service, "bus");
    assert_int_equal(cli.timeout_ms, 5000);
    assert_false(cli.timeout_given);
    assert_false(cule_cli_given(&cli, "count"));
    cule_cli_release(&cli);
}

static void test_forms(void **state)
{
    (void)state;
    struct cule_cli cli;
    struct cule_err err;

    assert_int_equal(
        parse(&cli, &err, "all -lddt hello --count=0x10 unix:/x --size 64K --wait=2m -ffra bus --speed 2.5") == 0,
        0); /* "fra" is no choice */
    cule_cli_release(&cli);
    assert_int_equal(parse(&cli, &err,
                           "all -lddthello --count=0x10 unix:/x --size 64K --wait=2m -fframes bus --speed 2.5 "
                           "--listen a --listen=b --json --timeout 1 -vv --text=@ --bare b"),
                     0);
    const struct all_opts *o = cli.opts;
    assert_true(o->loud);
    assert_int_equal(o->deep, 2);
    assert_string_equal(o->text, "@");
    assert_int_equal(o->count, 16);
    assert_int_equal(o->size, 65536);
    assert_int_equal(o->wait_ms, 120000);
    assert_int_equal(o->format, 2);
    assert_int_equal(o->bare, 1);
    assert_true(o->speed > 2.49 && o->speed < 2.51);
    assert_int_equal(o->listen.n, 2);
    assert_string_equal(o->listen.v[1], "b");
    assert_null(o->listen.v[2]);
    assert_string_equal(o->endpoint, "unix:/x");
    assert_string_equal(o->service, "bus");
    assert_true(cli.json);
    assert_int_equal(cli.verbose, 2);
    assert_int_equal(cli.timeout_ms, 1000);
    assert_true(cule_cli_given(&cli, "count"));
    assert_false(cule_cli_given(&cli, "each"));
    cule_cli_release(&cli);
}

static void test_dashes(void **state)
{
    (void)state;
    struct cule_cli cli;
    struct cule_err err;

    assert_int_equal(parse(&cli, &err, "all -- --loud"), 0);
    assert_string_equal(((struct all_opts *)cli.opts)->service, "--loud");
    assert_false(((struct all_opts *)cli.opts)->loud);
    cule_cli_release(&cli);
    /* A lone dash is a word, and a value may begin with one or be empty. */
    assert_int_equal(parse(&cli, &err, "all - --text - -t @ x"), 0);
    assert_string_equal(((struct all_opts *)cli.opts)->endpoint, "-");
    assert_string_equal(((struct all_opts *)cli.opts)->text, "");
    cule_cli_release(&cli);
    assert_int_equal(parse(&cli, &err, "--json -v --timeout 9s all x"), 0);
    assert_true(cli.json);
    assert_int_equal(cli.timeout_ms, 9000);
    cule_cli_release(&cli);
}

static void test_command_lines(void **state)
{
    (void)state;
    struct cule_cli cli;
    struct cule_err err;
    const char *const lines[] = {"work t ls -l --help", "work -q t -- ls -l --help", "work t -q -- ls -l --help"};

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(parse(&cli, &err, lines[i]), 0);
        const struct work_opts *o = cli.opts;
        assert_int_equal(cli.want, CULE_WANT_RUN);
        assert_int_equal(o->quick, i > 0);
        assert_string_equal(o->topic, "t");
        assert_int_equal(o->command.n, 3);
        assert_string_equal(o->command.v[1], "-l");
        assert_null(o->command.v[3]);
        cule_cli_release(&cli);
    }
    assert_int_equal(parse(&cli, &err, "all x --each wc -l -- y"), 0);
    assert_int_equal(((struct all_opts *)cli.opts)->each.n, 4);
    assert_string_equal(((struct all_opts *)cli.opts)->each.v[2], "--");
    cule_cli_release(&cli);
}

static void test_words_between(void **state)
{
    (void)state;
    struct cule_cli cli;
    struct cule_err err;

    assert_int_equal(parse(&cli, &err, "many a b c d -m x"), 0);
    const struct many_opts *o = cli.opts;
    assert_string_equal(o->first, "a");
    assert_int_equal(o->rest.n, 2);
    assert_string_equal(o->rest.v[0], "b");
    assert_string_equal(o->last, "d");
    cule_cli_release(&cli);
    assert_int_equal(parse(&cli, &err, "many a b -m x"), 0);
    assert_int_equal(((struct many_opts *)cli.opts)->rest.n, 0);
    assert_string_equal(((struct many_opts *)cli.opts)->last, "b");
    cule_cli_release(&cli);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("", "a subcommand is missing; see cule-test --help");
    refused("wrok t", "unknown subcommand 'wrok'; did you mean 'work'?");
    refused("zzzzzz", "unknown subcommand 'zzzzzz'");
    refused("help wrk", "unknown subcommand 'wrk'; did you mean 'work'?");
    refused("all", "SERVICE is missing");
    refused("all a b c", "unexpected argument 'c'");
    refused("all x --fromat=json", "unknown option '--fromat'; did you mean '--format'?");
    refused("all x --tim 4", "unknown option '--tim'; did you mean '--timeout'?");
    refused("all x -z", "unknown option '-z'");
    refused("all x -lz", "unknown option '-z'");
    refused("all x --loud=yes", "--loud takes no value");
    refused("all x --text", "--text needs TEXT");
    refused("all x -t", "--text needs TEXT");
    refused("all x --each", "--each needs CMD");
    refused("all x --count -1", "'-1' is no number for --count");
    refused("all x --count 18446744073709551616", "'18446744073709551616' is no number for --count");
    refused("all x --size 3x", "'3x' is no size (bytes, or with K, M, G) for --size");
    refused("all x --wait soon", "'soon' is no time (as in 250ms, 5s or 2m) for --wait");
    refused("all x --timeout soon", "'soon' is no time (as in 250ms, 5s or 2m) for --timeout");
    refused("all x --speed nan", "'nan' is no number for --speed");
    refused("all x --format jsom", "'jsom' is no FORMAT for --format; did you mean 'json'?");
    refused("all x --format qqq", "'qqq' is no FORMAT for --format; one of lines|json|frames");
    refused("work t", "CMD is missing");
    refused("work t --", "CMD is missing");
    refused("work t --json -- ls", "unknown option '--json'");
    refused("many a b", "--must is missing");
    refused("many a --must x", "LAST is missing");
}

static void test_wants(void **state)
{
    (void)state;
    struct cule_cli cli;
    struct cule_err err;
    const struct {
        const char *line;
        enum cule_cli_want want;
        const struct cule_command *command;
    } rows[] = {
        {"--help", CULE_WANT_HELP, NULL},         {"help", CULE_WANT_HELP, NULL},
        {"help work", CULE_WANT_HELP, &c_work},   {"work --help", CULE_WANT_HELP, &c_work},
        {"--help work", CULE_WANT_HELP, &c_work}, {"work -h --nonsense", CULE_WANT_HELP, &c_work},
        {"help --help", CULE_WANT_HELP, NULL},    {"help help", CULE_WANT_HELP, NULL},
        {"--version", CULE_WANT_VERSION, NULL},   {"work -V", CULE_WANT_VERSION, &c_work},
        {"--dump-options", CULE_WANT_DUMP, NULL}, {"__complete topic a/", CULE_WANT_COMPLETE, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(parse(&cli, &err, rows[i].line), 0);
        assert_int_equal(cli.want, rows[i].want);
        assert_ptr_equal(cli.command, rows[i].command);
        cule_cli_release(&cli);
    }
    assert_int_equal(parse(&cli, &err, "__complete topic a/"), 0);
    assert_string_equal(cli.complete_kind, "topic");
    assert_string_equal(cli.complete_prefix, "a/");
    cule_cli_release(&cli);
}

static void test_sole(void **state)
{
    (void)state;
    const struct cule_program sole = {.name = "cule-one", .summary = "has no subcommands", .sole = &c_all};
    char name[] = "cule-one", flag[] = "-l", word[] = "help";
    char *argv[] = {name, flag, word, NULL};
    struct cule_cli cli;
    struct cule_err err = {0};

    assert_int_equal(cule_cli_parse(&cli, &sole, 3, argv, &err), 0);
    assert_true(((struct all_opts *)cli.opts)->loud);
    assert_string_equal(((struct all_opts *)cli.opts)->service, "help");
    cule_cli_release(&cli);
}

static void check_fails(const struct cule_opt *options, const struct cule_arg *args, const char *part)
{
    const struct cule_command c = {
        .name = "bad",
        .group = "things",
        .summary = "is wrong",
        .options = options,
        .args = args,
        .opts_size = sizeof(struct all_opts),
        .run = nothing,
    };
    const struct cule_program p = {.name = "cule-bad", .summary = "is wrong", .sole = &c};
    struct cule_err err = {0};

    assert_true(cule_cli_check(&p, &err) < 0);
    if (!strstr(err.text, part)) {
        fail_msg("'%s' does not say '%s'", err.text, part);
    }
}

#define OPTIONS(...) ((const struct cule_opt[]){__VA_ARGS__, CULE_OPT_END})
#define ARGS(...) ((const struct cule_arg[]){__VA_ARGS__, CULE_ARG_END})

static void test_check(void **state)
{
    (void)state;
    struct cule_err err = {0};

    assert_int_equal(cule_cli_check(&program, &err), 0);
    check_fails(OPTIONS(CULE_OPT_FLAG(struct all_opts, loud, 0, "loud", "Be loud")), NULL, "lower case");
    check_fails(OPTIONS(CULE_OPT_FLAG(struct all_opts, loud, 0, "loud", "be loud.")), NULL, "full stop");
    check_fails(OPTIONS(CULE_OPT_FLAG(struct all_opts, loud, 0, "Loud", "be loud")), NULL, "no long name");
    check_fails(OPTIONS(CULE_OPT_FLAG(struct all_opts, loud, 'v', "loud", "be loud")), NULL, "common options");
    check_fails(OPTIONS(CULE_OPT_FLAG(struct all_opts, loud, 0, "json", "be loud")), NULL, "common options");
    check_fails(
        OPTIONS(CULE_OPT_FLAG(struct all_opts, loud, 0, "x", "be"), CULE_OPT_FLAG(struct all_opts, loud, 0, "x", "be")),
        NULL, "twice");
    check_fails(OPTIONS(CULE_OPT_U64(struct all_opts, count, 0, "count", "N", "a number", .def = "many")), NULL,
                "'many' is no number");
    check_fails(OPTIONS(CULE_OPT_CHOICE(struct all_opts, format, 0, "x", "X", NULL, "a choice")), NULL, "choices");
    check_fails(
        NULL,
        ARGS(CULE_ARG_COMMAND(struct all_opts, each, "CMD", "what"), CULE_ARG(struct all_opts, text, "X", "what")),
        "last argument");
    check_fails(
        NULL, ARGS(CULE_ARG_ANY(struct all_opts, each, "A", "what"), CULE_ARG_ANY(struct all_opts, more, "B", "what")),
        "many words");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_forms),         cmocka_unit_test(test_dashes),
        cmocka_unit_test(test_command_lines), cmocka_unit_test(test_words_between), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_wants),         cmocka_unit_test(test_sole),          cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests_name("cli_opt", tests, NULL, NULL);
}

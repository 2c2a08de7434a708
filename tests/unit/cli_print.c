/* What programs print: nearness of names, tables, JSON strings, choices, help. */
#include "cli/help.h"
#include "cli/report.h"
#include "cli/suggest.h"
#include "cli/table.h"
#include "cli/tty.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(cule_suggest_distance("", ""), 0);
    assert_int_equal(cule_suggest_distance("", "abc"), 3);
    assert_int_equal(cule_suggest_distance("abc", ""), 3);
    assert_int_equal(cule_suggest_distance("call", "cal"), 1);
    assert_int_equal(cule_suggest_distance("call", "clal"), 1); /* a swap is one slip */
    assert_int_equal(cule_suggest_distance("kitten", "sitting"), 3);
    char a[200], b[200];
    memset(a, 'a', 199);
    memset(b, 'b', 199);
    a[199] = b[199] = '\0';
    assert_int_equal(cule_suggest_distance(a, b), 63);
}

static const char *nearest(const char *typed)
{
    static const char *const names[] = {"call", "serve", "record", "replay", "sub", "pub", "log-level"};
    struct cule_suggest s;
    cule_suggest_init(&s, typed);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cule_suggest_offer(&s, names[i]);
    }
    return s.best;
}

static void test_suggest(void **state)
{
    (void)state;
    assert_string_equal(nearest("cal"), "call");
    assert_string_equal(nearest("seve"), "serve");
    assert_string_equal(nearest("rec"), "record"); /* a beginning */
    assert_string_equal(nearest("loglevel"), "log-level");
    assert_null(nearest("quux"));
    assert_null(nearest("x"));
}

static void table_is(bool aligned, int width, const char *want)
{
    struct cule_table t;
    char *text = NULL;
    size_t n = 0;

    cule_table_init(&t, "topic:<  rate:>  note:<");
    cule_table_row(&t, "%s\t%d\t%s", "a", 5, "short");
    cule_table_row(&t, "%s\t%d\t%s", "caf\xc3\xa9/long", 1234, "bad\nbyte");
    FILE *out = open_memstream(&text, &n);
    assert_int_equal(cule_table_print(&t, out, aligned, false, width), 0);
    fclose(out);
    assert_string_equal(text, want);
    assert_int_equal(t.rows, 2);
    free(text);
    cule_table_release(&t);
}

static void test_table(void **state)
{
    (void)state;
    table_is(true, 0, "topic      rate  note\na             5  short\ncaf\xc3\xa9/long  1234  bad?byte\n");
    table_is(true, 21, "topic      rate  note\na             5  shor\ncaf\xc3\xa9/long  1234  bad?\n");
    table_is(false, 10, "topic\trate\tnote\na\t5\tshort\ncaf\xc3\xa9/long\t1234\tbad?byte\n");
}

static void json_is(const char *text, const char *want)
{
    struct cule_buf b;
    cule_buf_init(&b, 0);
    assert_int_equal(cule_cli_json_string(&b, text), 0);
    assert_int_equal(cule_buf_addc(&b, '\0'), 0);
    assert_string_equal((const char *)cule_buf_data(&b), want);
    cule_buf_release(&b);
}

static void test_json(void **state)
{
    (void)state;
    json_is("", "\"\"");
    json_is("a \"b\" \\ \n \x01", "\"a \\\"b\\\" \\\\ \\u000a \\u0001\"");
    json_is("caf\xc3\xa9 \xf0\x9f\x90\x82", "\"caf\xc3\xa9 \xf0\x9f\x90\x82\"");
    json_is("\xff|\xc3|\xed\xa0\x80", "\"\xef\xbf\xbd|\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    json_is("\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\""); /* cut short */
}

struct long_opts {
    bool flag;
    bool hidden;
    struct cule_words list;
};

static int nothing(struct cule_cli *cli)
{
    (void)cli;
    return 0;
}

static const struct cule_command c_long = {
    .name = "long",
    .group = "things",
    .summary = "does long things",
    .opts_size = sizeof(struct long_opts),
    .options =
        (const struct cule_opt[]){
            CULE_OPT_FLAG(struct long_opts, flag, 'f', "flag-with-a-very-long-name-indeed",
                          "says what takes more than one line of an ordinary terminal to say, and then some"),
            CULE_OPT_FLAG(struct long_opts, hidden, 0, "secret", "is not shown", .flags = CULE_OPT_HIDDEN),
            CULE_OPT_LIST(struct long_opts, list, 0, "list", "X", "a list"),
            CULE_OPT_END,
        },
    .run = nothing,
};
static const struct cule_command *const commands[] = {&c_long, NULL};
static const struct cule_program program = {.name = "cule-test", .summary = "is tested", .commands = commands};

static void test_help(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    cule_cli_help(out, &program, &c_long, 60);
    fclose(out);
    assert_non_null(strstr(text, "usage: cule-test long [options]\n"));
    assert_non_null(strstr(text, "-f, --flag-with-a-very-long-name-indeed\n"));
    assert_non_null(strstr(text, "a list; may be repeated"));
    assert_non_null(strstr(text, "--help"));
    assert_null(strstr(text, "secret"));
    assert_null(strstr(text, "--json")); /* not taken by this command */
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        assert_true(strcspn(line, "\n") <= 60);
    }
    free(text);
}

static void test_tty(void **state)
{
    (void)state;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_false(cule_tty_is(fds[0]));
    assert_false(cule_tty_colour(fds[1]));
    unsetenv("COLUMNS");
    assert_int_equal(cule_tty_width(fds[1], 77), 77);
    setenv("COLUMNS", "120", 1);
    assert_int_equal(cule_tty_width(fds[1], 77), 120);
    setenv("COLUMNS", "nonsense", 1);
    assert_int_equal(cule_tty_width(fds[1], 77), 77);
    assert_string_equal(cule_colour(false, CULE_COLOUR_RED), "");
    struct cule_cli cli = {.program = &program};
    struct cule_err err;
    assert_int_equal(cule_tty_frames_in(&cli, fds[0], &err), 0);
    assert_int_equal(cule_tty_frames_out(&cli, fds[1], &err), 0);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance), cmocka_unit_test(test_suggest), cmocka_unit_test(test_table),
        cmocka_unit_test(test_json),     cmocka_unit_test(test_help),    cmocka_unit_test(test_tty),
    };
    return cmocka_run_group_tests_name("cli_print", tests, NULL, NULL);
}

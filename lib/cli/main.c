/* The main of every program: parse, answer for help and version, run, and see that stdout was written. */
#include "cli/help.h"
#include "cli/report.h"
#include "cli/tty.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HELP_WIDTH_MAX = 100 };

static int help_width(void)
{
    int w = cule_tty_width(STDOUT_FILENO, 80);
    return w < HELP_WIDTH_MAX ? w : HELP_WIDTH_MAX;
}

/* Whether --json stands before "--", for errors found before it could be parsed. */
static bool json_asked(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

static int complete(struct cule_cli *cli)
{
    for (int i = 0; cule_complete_name((enum cule_complete)i); i++) {
        if (strcmp(cule_complete_name((enum cule_complete)i), cli->complete_kind) == 0) {
            return cli->program->complete ? cli->program->complete(cli, (enum cule_complete)i, cli->complete_prefix)
                                          : 0;
        }
    }
    return cule_cli_failf(cli, CULE_EUSAGE, "'%s' is no kind of completion", cli->complete_kind);
}

static int dump(struct cule_cli *cli)
{
    struct cule_err err;
    if (cule_cli_check(cli->program, &err) < 0) {
        return cule_cli_fail(cli, &err);
    }
    cule_cli_dump(stdout, cli->program);
    return 0;
}

static int run(struct cule_cli *cli)
{
    switch (cli->want) {
    case CULE_WANT_HELP: cule_cli_help(stdout, cli->program, cli->command, help_width()); return 0;
    case CULE_WANT_VERSION: printf("%s %s\n", cli->program->name, CULE_VERSION); return 0;
    case CULE_WANT_DUMP: return dump(cli);
    case CULE_WANT_COMPLETE: return complete(cli);
    case CULE_WANT_RUN: break;
    }
    return cli->command->run(cli);
}

/* A full disk must not look like success; a reader that went away is no news to anybody. */
static int finish_stdout(const struct cule_cli *cli, int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return status;
    }
    if (errno == EPIPE || errno == EBADF || errno == 0) {
        return status ? status : cule_err_exit(CULE_EIO);
    }
    int rc = cule_cli_failf(cli, CULE_EIO, "cannot write to standard output: %s", strerror(errno));
    return status ? status : rc;
}

int cule_cli_main(const struct cule_program *p, int argc, char **argv)
{
    struct cule_cli cli;
    struct cule_err err = {0};
    int status;

    int rc = cule_cli_parse(&cli, p, argc, argv, &err);
    if (rc < 0) {
        cli.json = cli.json || json_asked(argc, argv);
        status = cule_cli_fail(&cli, &err);
        if (rc == CULE_EUSAGE && argc <= 1) {
            cule_cli_help(stderr, p, NULL, help_width());
        }
    } else {
        status = run(&cli);
        status = finish_stdout(&cli, status);
    }
    cule_cli_release(&cli);
    return status;
}

/* What the terminal is and can. */
#include "cli/tty.h"

#include "base/bytes.h"
#include "cli/help.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { SIDE_MAX = 10000 };

bool cule_tty_is(int fd)
{
    return isatty(fd) == 1;
}

/* A side of the screen from the environment: users and tests set it. 0: not set to anything sensible. */
static int side(const char *variable)
{
    const char *s = getenv(variable);
    long n = s ? strtol(s, NULL, 10) : 0;
    return n > 0 && n < SIDE_MAX ? (int)n : 0;
}

int cule_tty_width(int fd, int otherwise)
{
    struct winsize w;
    int n = side("COLUMNS");
    if (n > 0) {
        return n;
    }
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : otherwise;
}

int cule_tty_height(int fd, int otherwise)
{
    struct winsize w;
    int n = side("LINES");
    if (n > 0) {
        return n;
    }
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_row > 0 ? w.ws_row : otherwise;
}

bool cule_tty_colour(int fd)
{
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return !(no && *no) && term && *term && strcmp(term, "dumb") != 0 && cule_tty_is(fd);
}

const char *cule_colour(bool on, enum cule_colour c)
{
    static const char *const codes[] = {"\033[0m",  "\033[1m",  "\033[2m", "\033[31m",
                                        "\033[32m", "\033[33m", "\033[34m"};
    return on && (size_t)c < CULE_COUNT(codes) ? codes[c] : "";
}

int cule_tty_frames_in(const struct cule_cli *cli, int fd, struct cule_err *err)
{
    if (!cule_tty_is(fd)) {
        return 0;
    }
    cule_cli_help(stderr, cli->program, cli->command, cule_tty_width(STDERR_FILENO, 80));
    return cule_err_set(err, CULE_EUSAGE, "frames are expected on standard input, and it is a terminal");
}

int cule_tty_frames_out(const struct cule_cli *cli, int fd, struct cule_err *err)
{
    (void)cli;
    if (!cule_tty_is(fd)) {
        return 0;
    }
    return cule_err_set(err, CULE_EUSAGE,
                        "raw frames are not written to a terminal; pipe them into 'cule-ipc decode' or a file");
}

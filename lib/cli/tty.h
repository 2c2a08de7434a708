/* Terminals: whether there is one, its width, colour, and frames that must not meet one. */
#ifndef CULE_CLI_TTY_H
#define CULE_CLI_TTY_H

#include "cli/opt.h"

bool cule_tty_is(int fd);

/* Columns of the terminal at fd ($COLUMNS first), or otherwise where it is none. */
int cule_tty_width(int fd, int otherwise);
int cule_tty_height(int fd, int otherwise);

/* Whether to colour what goes to fd: a terminal, TERM neither unset nor "dumb", NO_COLOR unset or empty. */
bool cule_tty_colour(int fd);

enum cule_colour {
    CULE_COLOUR_PLAIN = 0,
    CULE_COLOUR_BOLD,
    CULE_COLOUR_DIM,
    CULE_COLOUR_RED,
    CULE_COLOUR_GREEN,
    CULE_COLOUR_YELLOW,
    CULE_COLOUR_BLUE,
};

/* The escape sequence, or "" where on is false. PLAIN resets. */
const char *cule_colour(bool on, enum cule_colour c);

/*
 * Frames and terminals. Call before reading or writing frames on a standard descriptor.
 *
 * frames_in: where fd is a terminal, prints how the command is used and returns CULE_EUSAGE with the cause, so
 * that the program ends with help and does not hang. frames_out: refuses a terminal with CULE_EUSAGE and says
 * what to do instead. Both 0 where fd is no terminal.
 */
int cule_tty_frames_in(const struct cule_cli *cli, int fd, struct cule_err *err);
int cule_tty_frames_out(const struct cule_cli *cli, int fd, struct cule_err *err);

#endif

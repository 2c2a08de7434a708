/*
 * A live view that is redrawn in place, for top and the like. What one picture consists of is printed to
 * cule_screen_begin's stream; cule_screen_end shows it in one write, so nothing flickers. On a terminal the
 * alternate screen is used and left on close; elsewhere pictures follow each other, separated by an empty line.
 */
#ifndef CULE_CLI_SCREEN_H
#define CULE_CLI_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct cule_screen {
    int fd;
    bool live; /* fd is a terminal */
    bool open;
    bool drawn;
    FILE *page; /* the picture being drawn, or NULL */
    char *text;
    size_t len;
};

void cule_screen_open(struct cule_screen *s, int fd);

/* NULL when there is no memory. */
FILE *cule_screen_begin(struct cule_screen *s);

/* Lines beyond the terminal's height are left out. 0, CULE_ENOMEM, or CULE_ECLOSED, CULE_EIO when fd takes no more. */
int cule_screen_end(struct cule_screen *s);

/* Leaves the alternate screen; harmless when called twice. Async-signal safety is not promised. */
void cule_screen_close(struct cule_screen *s);

#endif

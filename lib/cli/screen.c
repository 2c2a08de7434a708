/* Draws a page in memory and shows it in one write. */
#include "cli/screen.h"

#include "base/err.h"
#include "cli/tty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int put(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w < 0) {
            return errno == EPIPE ? CULE_ECLOSED : CULE_EIO;
        }
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

void cule_screen_open(struct cule_screen *s, int fd)
{
    *s = (struct cule_screen){.fd = fd, .live = cule_tty_is(fd), .open = true};
    if (s->live) {
        static const char enter[] = "\033[?1049h\033[?25l\033[2J";
        put(fd, enter, sizeof enter - 1);
    }
}

FILE *cule_screen_begin(struct cule_screen *s)
{
    s->page = open_memstream(&s->text, &s->len);
    return s->page;
}

/* Writes the page line by line over the old one: each line erases its rest, the end erases what is below. */
static int compose(struct cule_screen *s, FILE *out)
{
    int left = cule_tty_height(s->fd, 24);
    const char *p = s->text;

    fputs("\033[H", out);
    while (*p && left-- > 0) {
        size_t n = strcspn(p, "\n");
        fwrite(p, 1, n, out);
        fputs(p[n] && left > 0 ? "\033[K\n" : "\033[K", out);
        p += n + (p[n] != '\0');
    }
    fputs("\033[J", out);
    return 0;
}

int cule_screen_end(struct cule_screen *s)
{
    char *all = NULL;
    size_t n = 0;
    int rc = CULE_ENOMEM;
    FILE *out = NULL;

    if (!s->page || fclose(s->page) != 0) {
        goto out;
    }
    out = open_memstream(&all, &n);
    if (!out) {
        goto out;
    }
    if (s->live) {
        compose(s, out);
    } else {
        fputs(s->drawn ? "\n" : "", out);
        fwrite(s->text, 1, s->len, out);
    }
    rc = fclose(out) == 0 ? put(s->fd, all, n) : CULE_ENOMEM;
    s->drawn = true;
out:
    free(all);
    free(s->text);
    s->page = NULL;
    s->text = NULL;
    return rc;
}

void cule_screen_close(struct cule_screen *s)
{
    if (s->open && s->live) {
        static const char leave[] = "\033[?25h\033[?1049l";
        put(s->fd, leave, sizeof leave - 1);
    }
    s->open = false;
}

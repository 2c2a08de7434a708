/* A progress bar on one line of the terminal. */
#include "cli/progress.h"

#include "base/bytes.h"
#include "cli/tty.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REDRAW_MS = 100, BAR_MAX = 40 };

void cule_progress_init(struct cule_progress *p, const char *what, uint64_t total)
{
    const char *term_ok = cule_tty_is(STDERR_FILENO) ? what : NULL;
    *p = (struct cule_progress){.what = what, .total = total, .on = term_ok != NULL};
}

void cule_progress_set(struct cule_progress *p, uint64_t done, uint64_t now_ms)
{
    char bar[BAR_MAX + 1];

    if (!p->on || (p->shown && now_ms - p->drawn_ms < REDRAW_MS)) {
        return;
    }
    p->drawn_ms = now_ms;
    p->shown = true;
    if (p->total == 0) {
        fprintf(stderr, "\r\033[K%s %llu", p->what, (unsigned long long)done);
        fflush(stderr);
        return;
    }
    done = CULE_MIN(done, p->total);
    double part = (double)done / (double)p->total;
    int room = cule_tty_width(STDERR_FILENO, 80) - (int)strlen(p->what) - 9;
    int width = CULE_MIN(CULE_MAX(room, 1), (int)BAR_MAX);
    int full = (int)(part * width);
    memset(bar, '.', (size_t)width);
    memset(bar, '#', (size_t)full);
    bar[width] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3d%%", p->what, bar, (int)(part * 100));
    fflush(stderr);
}

void cule_progress_end(struct cule_progress *p)
{
    if (p->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->shown = false;
}

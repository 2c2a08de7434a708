/* What handlers write to stderr: passed on line by line, with the handler's name and process number before each. */
#include "serve.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One write for one line, so that lines of several writers do not mix. */
static void put_line(struct serve_log *g)
{
    char out[sizeof g->line + SERVE_NAME_MAX + 32];
    int n = snprintf(out, sizeof out, "%s[%d]: %.*s\n", g->s->name, (int)g->pid, (int)g->len, g->line);
    g->len = 0;
    ipc_write_all(STDERR_FILENO, out, CULE_MIN((size_t)n, sizeof out - 1), NULL);
}

static void keep_tail(struct serve_log *g, const char *p, size_t n)
{
    size_t room = sizeof g->tail;
    if (n >= room) {
        p += n - room;
        n = room;
    }
    if (g->tail_len + n > room) {
        size_t drop = g->tail_len + n - room;
        memmove(g->tail, g->tail + drop, g->tail_len - drop);
        g->tail_len -= drop;
    }
    memcpy(g->tail + g->tail_len, p, n);
    g->tail_len += n;
}

static void take(struct serve_log *g, const char *p, size_t n)
{
    keep_tail(g, p, n);
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n') {
            put_line(g);
        } else {
            g->line[g->len++] = p[i];
            if (g->len == sizeof g->line) {
                put_line(g);
            }
        }
    }
}

/* False at the end. */
static bool read_some(struct serve_log *g)
{
    char buf[4096];
    for (int round = 0; round < 16; round++) {
        ssize_t n = read(g->fd, buf, sizeof buf);
        if (n > 0) {
            take(g, buf, (size_t)n);
        } else {
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        }
    }
    return true;
}

static void on_readable(void *ctx, int events)
{
    struct serve_log *g = ctx;
    (void)events;
    if (!read_some(g)) {
        cule_watch_set(g->watch, 0);
    }
}

int serve_log_open(struct serve_log *g, struct serve *s, int *wfd, struct cule_err *err)
{
    int pv[2];
    *g = (struct serve_log){.s = s, .fd = -1};
    int rc = cule_pipe(pv, err);
    if (rc) {
        return rc;
    }
    fcntl(pv[0], F_SETFL, O_NONBLOCK);
    rc = cule_watch_new(s->loop, &g->watch, pv[0], POLLIN, on_readable, g, err);
    if (rc) {
        close(pv[0]);
        close(pv[1]);
        return rc;
    }
    g->fd = pv[0];
    *wfd = pv[1];
    return 0;
}

void serve_log_close(struct serve_log *g)
{
    if (g->fd < 0) {
        return;
    }
    read_some(g);
    if (g->len) {
        put_line(g);
    }
    cule_watch_free(g->watch);
    close(g->fd);
    g->watch = NULL;
    g->fd = -1;
}

const char *serve_log_text(const struct serve_log *g, size_t *n)
{
    size_t from = 0;
    size_t to = g->tail_len;
    while (from < to && isspace((unsigned char)g->tail[from])) {
        from++;
    }
    while (to > from && isspace((unsigned char)g->tail[to - 1])) {
        to--;
    }
    /* A character cut in two at the front would be no text. */
    while (from < to && ((unsigned char)g->tail[from] & 0xc0) == 0x80) {
        from++;
    }
    *n = to - from;
    return g->tail + from;
}

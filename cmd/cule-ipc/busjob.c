/* A command run for one message. */
#include "busjob.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

struct busjob {
    struct cule_loop *loop;
    struct cule_proc *proc;
    struct cule_watch *in, *out;
    struct cule_timer *timer;
    struct cule_buf payload, output;
    struct busjob_end end;
    void (*done)(void *ctx, struct busjob *j, const struct busjob_end *end);
    void *ctx;
    size_t out_max;
    int in_fd, out_fd;
    bool exited;
};

static void close_fd(struct cule_watch **w, int *fd)
{
    cule_watch_free(*w);
    *w = NULL;
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void release(struct busjob *j)
{
    close_fd(&j->in, &j->in_fd);
    close_fd(&j->out, &j->out_fd);
    cule_timer_free(j->timer);
    if (j->proc) {
        cule_proc_free(j->proc);
    }
    cule_buf_release(&j->payload);
    cule_buf_release(&j->output);
    free(j);
}

void busjob_drop(struct busjob *j)
{
    release(j);
}

static void feed(struct busjob *j)
{
    while (cule_buf_len(&j->payload) > 0) {
        ssize_t n = write(j->in_fd, cule_buf_data(&j->payload), cule_buf_len(&j->payload));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0) { /* it does not read its input, which is its right */
            break;
        }
        cule_buf_take(&j->payload, (size_t)n);
    }
    cule_buf_clear(&j->payload);
    close_fd(&j->in, &j->in_fd);
}

static void on_in(void *ctx, int events)
{
    struct busjob *j = ctx;
    if (events & (POLLERR | POLLHUP)) {
        cule_buf_clear(&j->payload);
    }
    feed(j);
}

/* Reads what is there; false at the end of the stream. */
static bool gather(struct busjob *j)
{
    for (;;) {
        uint8_t *at;
        if (cule_buf_len(&j->output) > j->out_max || cule_buf_reserve(&j->output, 65536, &at)) {
            j->end.too_much = true;
            cule_proc_kill(j->proc, 0);
            return false;
        }
        ssize_t n = read(j->out_fd, at, 65536);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return true;
        }
        if (n <= 0) {
            return false;
        }
        cule_buf_commit(&j->output, (size_t)n);
    }
}

static void finish(struct busjob *j)
{
    j->end.out = j->out_max ? &j->output : NULL;
    j->end.too_much = j->end.too_much || cule_buf_len(&j->output) > j->out_max;
    j->done(j->ctx, j, &j->end);
    release(j);
}

static void on_out(void *ctx, int events)
{
    (void)events;
    struct busjob *j = ctx;
    if (!gather(j)) {
        close_fd(&j->out, &j->out_fd);
    }
}

/* The end is that of the command itself. What it left in the pipe belongs to the answer; what its descendants may
 * still write does not. */
static void on_exit_(void *ctx, struct cule_proc *p, const struct cule_exit *how)
{
    (void)p;
    struct busjob *j = ctx;
    j->exited = true;
    j->end.how = *how;
    if (j->out_fd >= 0) {
        gather(j);
    }
    if (j->end.timed_out || j->end.killed || j->end.too_much) {
        cule_proc_kill(j->proc, 0); /* the grace was the command's, not that of what it left behind */
    }
    finish(j);
}

static void on_time(void *ctx)
{
    struct busjob *j = ctx;
    j->end.timed_out = true;
    cule_proc_kill(j->proc, BUSJOB_GRACE_MS);
}

void busjob_kill(struct busjob *j, uint64_t grace_ms)
{
    if (!j->exited) {
        j->end.killed = true;
        cule_proc_kill(j->proc, grace_ms);
    }
}

/* Ours with the additions, which come first so that they count. */
static char **environment(const char *const *extra)
{
    size_t n = 0, k = 0;
    while (environ[n]) {
        n++;
    }
    char **e = calloc(n + BUSJOB_ENV_MAX + 1, sizeof *e);
    if (!e) {
        return NULL;
    }
    for (; k < BUSJOB_ENV_MAX && extra[k]; k++) {
        e[k] = (char *)(uintptr_t)extra[k];
    }
    size_t at = k;
    for (size_t i = 0; i < n; i++) {
        bool replaced = false;
        for (size_t x = 0; x < k; x++) {
            size_t name = strcspn(extra[x], "=") + 1;
            replaced = replaced || strncmp(environ[i], extra[x], name) == 0;
        }
        if (!replaced) {
            e[at++] = environ[i];
        }
    }
    return e;
}

static void nonblocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

int busjob_start(struct cule_loop *loop, const struct busjob_spec *s, struct busjob **out, struct cule_err *err)
{
    int in[2] = {-1, -1}, outp[2] = {-1, -1};
    char **env = environment(s->env);
    struct busjob *j = calloc(1, sizeof *j);
    int rc = CULE_ENOMEM;
    if (!j || !env) {
        free(j);
        free(env);
        return cule_err_set(err, rc, "no memory to run a command");
    }
    *j = (struct busjob){.loop = loop, .done = s->done, .ctx = s->ctx, .in_fd = -1, .out_fd = -1};
    j->out_max = s->capture ? s->out_max : 0;
    cule_buf_init(&j->payload, 0);
    cule_buf_init(&j->output, 0);
    if ((rc = cule_buf_add(&j->payload, s->payload, s->len)) || (rc = cule_pipe(in, err)) ||
        (s->capture && (rc = cule_pipe(outp, err)))) {
        goto out;
    }
    const struct cule_spawn sp = {.argv = s->argv,
                                  .shell = s->shell,
                                  .envp = env,
                                  .in = in[0],
                                  .out = s->capture ? outp[1] : STDOUT_FILENO,
                                  .err = -1,
                                  .group = true};
    if ((rc = cule_spawn(loop, &sp, &j->proc, on_exit_, j, err))) {
        goto out;
    }
    j->in_fd = in[1];
    j->out_fd = outp[0];
    in[1] = outp[0] = -1;
    nonblocking(j->in_fd);
    rc = cule_watch_new(loop, &j->in, j->in_fd, POLLOUT, on_in, j, err);
    if (rc == 0 && j->out_fd >= 0) {
        nonblocking(j->out_fd);
        rc = cule_watch_new(loop, &j->out, j->out_fd, POLLIN, on_out, j, err);
    }
    if (rc == 0 && s->timeout_ms && (rc = cule_timer_new(loop, &j->timer, on_time, j, err)) == 0) {
        cule_timer_start(j->timer, s->timeout_ms, 0);
    }
out:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0) {
            close(in[i]);
        }
        if (outp[i] >= 0) {
            close(outp[i]);
        }
    }
    free(env);
    if (rc) {
        release(j);
    } else {
        *out = j;
    }
    return rc;
}

const char *busjob_text(const struct busjob_end *end, char *out, size_t n)
{
    if (end->timed_out) {
        snprintf(out, n, "no end in time");
    } else if (end->too_much) {
        snprintf(out, n, "too much output");
    } else if (end->how.signum) {
        snprintf(out, n, "signal %d (%s)", end->how.signum, strsignal(end->how.signum));
    } else {
        snprintf(out, n, "exit status %d", end->how.code);
    }
    return out;
}

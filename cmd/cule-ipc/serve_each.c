/* serve --each: a process for each request. Its stdin is the payload, its stdout the answer, its status the verdict. */
#include "serve.h"

#include "wire/mirror.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EACH_CHUNK = 64 * 1024, EACH_READS = 16 };

struct job {
    struct serve_req *q;
    struct cule_proc *proc;
    struct serve_log log;
    int in, out; /* our ends; -1 once closed */
    struct cule_watch *in_watch, *out_watch;
    struct cule_buf to;   /* for its stdin: what has not been written */
    size_t body_left;     /* of `to`, what is the body and not the stream, which is credited */
    struct cule_buf from; /* of its stdout: what has not been sent */
    bool to_end, from_end, exited, paused, over;
    struct cule_exit how;
    struct cule_defer check;
};

/* --- stdin --- */

static void close_in(struct job *j)
{
    if (j->in >= 0) {
        cule_watch_free(j->in_watch);
        close(j->in);
        j->in_watch = NULL;
        j->in = -1;
    }
}

/* A handler that does not read all of its input is none the worse for it. */
static void drop_in(struct job *j)
{
    serve_consumed(j->q, cule_buf_len(&j->to) - j->body_left);
    cule_buf_clear(&j->to);
    j->body_left = 0;
    close_in(j);
}

static void on_writable(void *ctx, int events);

static void feed(struct job *j)
{
    while (j->in >= 0 && cule_buf_len(&j->to)) {
        ssize_t n = write(j->in, cule_buf_data(&j->to), cule_buf_len(&j->to));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n < 0) {
            drop_in(j);
            return;
        }
        size_t body = CULE_MIN((size_t)n, j->body_left);
        j->body_left -= body;
        serve_consumed(j->q, (size_t)n - body);
        cule_buf_take(&j->to, (size_t)n);
    }
    if (j->in < 0) {
        return;
    }
    bool waits = cule_buf_len(&j->to) > 0;
    if (!waits && j->to_end) {
        close_in(j);
    } else if (waits && !j->in_watch) {
        cule_watch_new(j->q->s->loop, &j->in_watch, j->in, POLLOUT, on_writable, j, NULL);
    } else if (j->in_watch) {
        cule_watch_set(j->in_watch, waits ? POLLOUT : 0);
    }
}

static void on_writable(void *ctx, int events)
{
    (void)events;
    feed(ctx);
}

static void each_data(struct serve_req *q, const uint8_t *p, size_t n, bool last)
{
    struct job *j = q->work;
    j->to_end = last;
    if (j->in < 0 || cule_buf_add(&j->to, p, n)) {
        serve_consumed(q, n);
    }
    feed(j);
}

/* --- stdout --- */

static void close_out(struct job *j)
{
    if (j->out >= 0) {
        cule_watch_free(j->out_watch);
        close(j->out);
        j->out_watch = NULL;
        j->out = -1;
    }
    j->from_end = true;
}

/* Sends what has been read, if it is to be streamed. */
static void pass_on(struct job *j)
{
    struct serve_req *q = j->q;
    bool stream = q->replied || q->s->o->stream || cule_buf_len(&j->from) > SERVE_STREAM_BYTES;
    if (!q->k->m.h.id || !q->client) {
        cule_buf_clear(&j->from);
        return;
    }
    while (stream && cule_buf_len(&j->from)) {
        size_t n = CULE_MIN(cule_buf_len(&j->from), (size_t)EACH_CHUNK);
        if (serve_stream(q, 0, 0, cule_buf_data(&j->from), n, false) == CULE_EAGAIN) {
            j->paused = true;
            return;
        }
        cule_buf_take(&j->from, n);
    }
    j->paused = false;
}

static void read_out(struct job *j)
{
    for (int i = 0; i < EACH_READS && j->out >= 0 && !j->paused; i++) {
        uint8_t *at;
        if (cule_buf_reserve(&j->from, EACH_CHUNK, &at)) {
            break;
        }
        ssize_t n = read(j->out, at, EACH_CHUNK);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            /* Ended, and has nothing more to say: what it left in the background does not count. */
            if (j->exited) {
                close_out(j);
            }
            break;
        }
        if (n <= 0) {
            close_out(j);
            break;
        }
        cule_buf_commit(&j->from, (size_t)n);
        pass_on(j);
    }
    if (cule_buf_len(&j->from) == 0) {
        cule_buf_clear(&j->from); /* reserved and not used: give it back */
    }
    if (j->out_watch) {
        cule_watch_set(j->out_watch, j->paused ? 0 : POLLIN);
    }
}

/* --- the end --- */

static void job_free(struct job *j)
{
    drop_in(j);
    close_out(j);
    serve_log_close(&j->log);
    cule_defer_cancel(&j->check);
    cule_buf_release(&j->to);
    cule_buf_release(&j->from);
    cule_proc_free(j->proc);
    free(j);
}

/* The verdict, from how it ended: statuses 1 to 8 are those of the table. */
static int tell_failure(struct job *j)
{
    struct serve_req *q = j->q;
    size_t n;
    const char *text = serve_log_text(&j->log, &n);
    int status = j->how.signum ? 128 + j->how.signum : j->how.code;
    int code = !j->how.signum && status <= 8 ? -status : CULE_EHANDLER;
    if (j->how.signum) {
        serve_error(q, code, (uint64_t)status, "the handler was ended by signal %d (%s)%s%.*s", j->how.signum,
                    strsignal(j->how.signum), n ? ": " : "", (int)CULE_MIN(n, 800u), text);
    } else if (n) {
        serve_error(q, code, (uint64_t)status, "%.*s", (int)n, text);
    } else {
        serve_error(q, code, (uint64_t)status, "the handler ended with status %d and said nothing", status);
    }
    return code;
}

static void check(void *ctx)
{
    struct job *j = ctx;
    struct serve_req *q = j->q;
    int code = 0;
    if (j->over || !j->exited) {
        return;
    }
    read_out(j);
    if (!j->from_end || j->paused) {
        if (!j->paused) {
            cule_loop_defer(q->s->loop, &j->check); /* more to read: in the next turn */
        }
        return;
    }
    bool failed = j->how.code || j->how.signum;
    if (!failed && q->replied && serve_stream(q, 0, 0, NULL, 0, true) == CULE_EAGAIN) {
        return; /* the stream's end too takes credit: each_writable comes back here */
    }
    j->over = true;
    serve_log_close(&j->log);
    if (failed) {
        code = tell_failure(j);
    } else if (!q->replied) {
        size_t n = cule_buf_len(&j->from);
        serve_reply(q, 0, 0, n ? cule_buf_data(&j->from) : NULL, n);
    }
    q->work = NULL;
    job_free(j);
    serve_end(q, code);
}

static void on_readable(void *ctx, int events)
{
    struct job *j = ctx;
    (void)events;
    read_out(j);
    check(j);
}

static void on_exit_of(void *ctx, struct cule_proc *p, const struct cule_exit *how)
{
    struct job *j = ctx;
    (void)p;
    j->exited = true;
    j->how = *how;
    drop_in(j);
    cule_loop_defer(j->q->s->loop, &j->check);
}

static void each_writable(struct serve_req *q)
{
    struct job *j = q->work;
    pass_on(j);
    if (!j->paused) {
        read_out(j);
        cule_loop_defer(q->s->loop, &j->check);
    }
}

static void each_cancel(struct serve_req *q)
{
    struct job *j = q->work;
    j->paused = false;
    cule_proc_kill(j->proc, q->s->o->kill_grace_ms);
    if (j->out_watch) {
        cule_watch_set(j->out_watch, POLLIN); /* thrown away, so that it does not block while it ends */
    }
    cule_loop_defer(q->s->loop, &j->check); /* where it had ended and only its answer was waiting */
}

/* --- the beginning --- */

static int pipes(struct job *j, int *in, int *out, int *err_fd, struct cule_err *err)
{
    struct serve *s = j->q->s;
    int pv[2];
    int rc = cule_pipe(pv, err);
    if (rc) {
        return rc;
    }
    *in = pv[0];
    j->in = pv[1];
    fcntl(j->in, F_SETFL, O_NONBLOCK);
    rc = cule_pipe(pv, err);
    if (rc) {
        return rc;
    }
    *out = pv[1];
    j->out = pv[0];
    fcntl(j->out, F_SETFL, O_NONBLOCK);
    rc = cule_watch_new(s->loop, &j->out_watch, j->out, POLLIN, on_readable, j, err);
    return rc ? rc : serve_log_open(&j->log, s, err_fd, err);
}

/* Descriptors below 3 would be taken for the handler's own streams. */
static int lift_fds(struct cule_msg *m, struct cule_err *err)
{
    for (unsigned i = 0; i < m->nfds; i++) {
        if (m->fds[i] < 3) {
            int fd = fcntl(m->fds[i], F_DUPFD_CLOEXEC, 3);
            if (fd < 0) {
                return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot pass a descriptor");
            }
            close(m->fds[i]);
            m->fds[i] = fd;
        }
    }
    return 0;
}

static int start(struct job *j, struct cule_err *err)
{
    struct serve_req *q = j->q;
    struct cule_msg *m = &q->k->m;
    size_t topic_len = cule_op_has_topic(m->h.service, m->h.op) && m->h.arg0 <= m->len ? (size_t)m->h.arg0 : 0;
    int in = -1, out = -1, err_fd = -1;
    char **env = NULL;
    int rc = lift_fds(m, err);
    rc = rc ? rc : pipes(j, &in, &out, &err_fd, err);
    if (!rc) {
        env = serve_env_make(q, m, topic_len ? (const char *)m->body : NULL, topic_len);
        rc = env ? 0 : cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    if (!rc) {
        const struct cule_spawn sp = {.shell = q->s->command,
                                      .envp = env,
                                      .in = in,
                                      .out = out,
                                      .err = err_fd,
                                      .keep = m->fds,
                                      .nkeep = m->nfds,
                                      .group = true};
        rc = cule_spawn(q->s->loop, &sp, &j->proc, on_exit_of, j, err);
    }
    serve_env_free(env);
    const int theirs[] = {in, out, err_fd};
    for (unsigned i = 0; i < 3; i++) {
        if (theirs[i] >= 0) {
            close(theirs[i]);
        }
    }
    if (rc) {
        return rc;
    }
    j->log.pid = cule_proc_pid(j->proc);
    j->body_left = m->len - topic_len;
    rc = cule_buf_add(&j->to, m->body + topic_len, j->body_left);
    rc = rc || cule_buf_len(&q->early) == 0 ? rc
                                            : cule_buf_add(&j->to, cule_buf_data(&q->early), cule_buf_len(&q->early));
    cule_buf_clear(&q->early);
    j->to_end = !q->body_open;
    return rc ? cule_err_set(err, rc, "out of memory") : 0;
}

static void each_begin(struct serve *s, struct serve_req *q)
{
    struct cule_err err = {0};
    struct job *j = calloc(1, sizeof *j);
    (void)s;
    if (!j) {
        serve_error(q, CULE_ENOMEM, 0, "out of memory");
        serve_end(q, CULE_ENOMEM);
        return;
    }
    q->work = j;
    j->q = q;
    j->in = j->out = j->log.fd = -1;
    cule_defer_init(&j->check, check, j);
    cule_buf_init(&j->to, 0);
    cule_buf_init(&j->from, 0);
    int rc = start(j, &err);
    if (rc) {
        serve_say(q->s, 0, "cannot start the handler: %s", err.text);
        serve_error(q, rc == CULE_ENOFD || rc == CULE_ENOMEM ? CULE_EBUSY : CULE_EHANDLER, 0,
                    "cannot start the handler: %s", err.text);
        q->work = NULL;
        job_free(j);
        serve_end(q, CULE_EHANDLER);
        return;
    }
    feed(j);
}

static bool each_has_room(struct serve *s)
{
    (void)s;
    return true; /* --concurrency is all there is to it */
}

static int each_start(struct serve *s, struct cule_err *err)
{
    (void)s;
    (void)err;
    return 0;
}

static void each_stop(struct serve *s)
{
    (void)s;
}

/* Handlers that are left at the end go with their trees. */
static void each_release(struct serve *s)
{
    CULE_LIST_EACH (n, &s->active) {
        struct serve_req *q = CULE_LIST_ENTRY(n, struct serve_req, node);
        struct job *j = q->work;
        cule_proc_kill_wait(j->proc, 0, cule_now_ns() + UINT64_C(2000000000));
        q->work = NULL;
        job_free(j);
        serve_end(q, CULE_ECANCELLED);
    }
}

const struct serve_backend serve_each = {
    .name = "each",
    .concurrency = 16,
    .start = each_start,
    .has_room = each_has_room,
    .begin = each_begin,
    .data = each_data,
    .cancel = each_cancel,
    .writable = each_writable,
    .stop = each_stop,
    .release = each_release,
};

/*
 * What the tests of links share: ends that note what they are told, a loop that turns until something holds, a listener
 * that answers ECHO, and peers that are plain sockets and say whatever they are made to.
 */
#include "io/link.h"
#include "io/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Not every file of tests uses all of it. */
#pragma GCC diagnostic ignored "-Wunused-function"

enum { NOTES_MAX = 4096, MS = 1000000, BIG = 16 * 1024 * 1024, ENDS = 64 };

struct end {
    struct cule_link *l;
    char notes[NOTES_MAX]; /* kind and id of each message but EVENT */
    bool ready, closed, freed;
    struct cule_err why;
    unsigned events, writable, cancels;
    uint64_t event_bytes, last_arg0, skipped;
    bool disorder;       /* an EVENT's arg0 was not one more than the last */
    bool silent;         /* requests are not answered */
    const char *on_next; /* "abort", "close": what the next callback does */
    uint64_t last_id;
    int fds[64];
    unsigned nfds;
};

static struct cule_loop *loop;
static uint64_t patience_ms = 20000; /* PATIENCE_MS in the environment: for runs in which things are made to fail */
static char dir[] = "/tmp/cule-link.XXXXXX";
static uint8_t *big;

/* An allocation may fail (torture runs): the program then ends in order. */
static void enough(int rc)
{
    if (rc == CULE_ENOMEM) {
        print_message("# out of memory\n");
        exit(77);
    }
}

static void note(struct end *e, const char *fmt, ...)
{
    size_t at = strlen(e->notes);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->notes + at, NOTES_MAX - at, fmt, ap);
    va_end(ap);
}

/* --- a link's callbacks --- */

static void act(struct end *e)
{
    const char *what = e->on_next;
    e->on_next = NULL;
    if (what && strcmp(what, "abort") == 0) {
        struct cule_err why;
        cule_err_set(&why, CULE_EREFUSED, "told to");
        cule_link_abort(e->l, &why);
    } else if (what && strcmp(what, "close") == 0) {
        cule_link_close(e->l);
    }
}

static void on_event_msg(struct end *e, struct cule_msg *m)
{
    e->events++;
    e->event_bytes += m->len;
    e->disorder = e->disorder || m->h.arg0 != e->last_arg0 + 1;
    e->last_arg0 = m->h.arg0;
    for (unsigned i = 0; i < m->nfds && e->nfds < 64; i++) {
        e->fds[e->nfds++] = cule_msg_take_fd(m, i);
    }
}

static void on_request_msg(struct end *e, struct cule_msg *m)
{
    struct cule_msg r = cule_msg_make(CULE_REPLY, 0, CULE_OP_ANY_OK);
    e->last_id = m->h.id;
    if (e->silent) {
        return;
    }
    r.h.id = m->h.id;
    r.h.arg0 = m->h.arg0;
    r.body = m->body;
    r.len = m->len;
    r.fds = m->fds;
    r.nfds = m->nfds;
    enough(cule_link_send(e->l, &r));
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    struct end *e = ctx;
    (void)l;
    assert_false(e->closed);
    if (m->h.kind == CULE_EVENT) {
        on_event_msg(e, m);
    } else {
        note(e, "%s %llu; ", cule_kind_name(m->h.kind), (unsigned long long)m->h.id);
    }
    if (m->h.kind == CULE_REQUEST) {
        on_request_msg(e, m);
    }
    e->cancels += m->h.kind == CULE_CANCEL;
    act(e);
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    struct end *e = arg;
    struct cule_err err = {0};
    (void)l;
    int rc = cule_msg_error(m, &err);
    note(e, "%s %llu", cule_kind_name(m->h.kind), (unsigned long long)m->h.id);
    if (rc) {
        note(e, " %s", cule_err_name(rc));
    } else {
        note(e, " %zu", m->len);
        if (m->len == BIG) {
            assert_memory_equal(m->body, big, BIG);
        }
    }
    note(e, "%s; ", m->h.flags & CULE_OPEN ? " open" : "");
    for (unsigned i = 0; i < m->nfds && e->nfds < 64; i++) {
        e->fds[e->nfds++] = cule_msg_take_fd(m, i);
    }
    act(e);
}

static void on_ready(struct cule_link *l, void *ctx)
{
    struct end *e = ctx;
    assert_ptr_equal(e->l, l);
    e->ready = true;
    act(e);
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    struct end *e = ctx;
    (void)l;
    (void)id;
    e->writable++;
    act(e);
}

static void on_skipped(struct cule_link *l, void *ctx, uint64_t bytes)
{
    struct end *e = ctx;
    (void)l;
    e->skipped += bytes;
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    struct end *e = ctx;
    (void)l;
    assert_false(e->closed);
    e->closed = true;
    e->why = *why;
    enough(why->code);
    e->l = NULL;
}

static const struct cule_link_ops ops = {on_message, on_ready, on_writable, on_skipped, on_closed};

static struct cule_link_opts opts_of(struct end *e)
{
    return (struct cule_link_opts){.name = "test", .ops = &ops, .ctx = e};
}

/* --- turning --- */

/* Turns the loop until cond holds. */
#define UNTIL(cond)                                                                                                    \
    do {                                                                                                               \
        uint64_t until_ns = cule_now_ns() + patience_ms * MS;                                                          \
        while (!(cond)) {                                                                                              \
            if (cule_now_ns() > until_ns) {                                                                            \
                fail_msg("this did not come about: %s", #cond);                                                        \
            }                                                                                                          \
            cule_loop_turn(loop, 50);                                                                                  \
        }                                                                                                              \
    } while (0)

static void open_end(struct end *e, const char *endpoint, const struct cule_link_opts *o)
{
    struct cule_err err = {0};
    struct cule_link_opts own = opts_of(e);
    int rc = cule_link_open(loop, endpoint, o ? o : &own, &e->l, &err);
    enough(rc);
    if (rc) {
        fail_msg("cannot open %s: %s", endpoint, err.text);
    }
}

static void open_fd(struct end *e, int rfd, int wfd, const struct cule_link_opts *o)
{
    struct cule_err err = {0};
    struct cule_link_opts own = opts_of(e);
    int rc = cule_link_open_fd(loop, rfd, wfd, o ? o : &own, &e->l, &err);
    enough(rc);
    if (rc) {
        fail_msg("cannot open descriptors: %s", err.text);
    }
}

static void call_n(struct end *e, const void *body, size_t n, uint64_t timeout_ms)
{
    struct cule_msg m = cule_msg_make(CULE_REQUEST, (uint32_t)CULE_S_CULE, CULE_OP_CULE_ECHO);
    m.body = body;
    m.len = n;
    int rc = cule_link_call(e->l, &m, timeout_ms, on_answer, e, NULL);
    enough(rc);
    assert_int_equal(rc, 0);
}

static int send_event(struct end *e, uint64_t arg0, const void *body, size_t n)
{
    int rc = cule_link_event(e->l, CULE_FOURCC('t', 'e', 's', 't'), 1, arg0, 0, body, n);
    enough(rc);
    return rc;
}

/* --- a server --- */

struct server {
    struct cule_listener *listener;
    struct end end[ENDS];
    unsigned count;
    const char *in_accept; /* "abort", "free": what the next accept does */
    bool silent;
};

static void on_accept(struct cule_listener *s, void *ctx, struct cule_link *l)
{
    struct server *v = ctx;
    struct end *e = &v->end[v->count++ % ENDS];
    *e = (struct end){.l = l, .silent = v->silent};
    cule_link_set_ctx(l, &ops, e);
    if (v->in_accept && strcmp(v->in_accept, "abort") == 0) {
        cule_link_abort(l, NULL);
    } else if (v->in_accept && strcmp(v->in_accept, "free") == 0) {
        cule_listener_free(s);
        v->listener = NULL;
    }
    v->in_accept = NULL;
}

static const char *serve(struct server *v, const char *endpoint, const struct cule_link_opts *o)
{
    struct cule_err err = {0};
    struct cule_link_opts own = {.name = "server", .ops = &ops};
    struct cule_listen_opts lo = {0};
    int rc = cule_listen(loop, endpoint, o ? o : &own, &lo, on_accept, v, &v->listener, &err);
    enough(rc);
    if (rc) {
        fail_msg("cannot listen on %s: %s", endpoint, err.text);
    }
    return cule_listener_endpoint(v->listener);
}

static void end_server(struct server *v)
{
    cule_listener_free(v->listener);
    v->listener = NULL;
    for (unsigned i = 0; i < ENDS; i++) {
        if (v->end[i].l && !v->end[i].closed) {
            cule_link_free(v->end[i].l);
        }
    }
    memset(v, 0, sizeof *v);
}

/* Endpoints to listen on: a fresh one of each kind. */
static const char *fresh(const char *kind)
{
    static char text[128];
    static int n;
    if (strcmp(kind, "tcp") == 0) {
        return "tcp:127.0.0.1:0";
    }
    snprintf(text, sizeof text, "%s:%s/%d", kind, dir, n++);
    return text;
}

/* --- a peer without manners --- */

static void pair(int sv[2])
{
    struct cule_err err;
    int rc = cule_socketpair(sv, &err);
    enough(rc);
    assert_int_equal(rc, 0);
}

static struct cule_frame frame(unsigned kind, uint64_t id, size_t n)
{
    struct cule_frame f;
    cule_frame_init(&f, kind);
    f.id = id;
    f.length = (uint32_t)n;
    return f;
}

/* Writes all of it; the socket blocks. */
static void say_bytes(int fd, const void *p, size_t n)
{
    const uint8_t *at = p;
    while (n) {
        ssize_t w = send(fd, at, n, MSG_NOSIGNAL);
        assert_true(w > 0);
        at += w;
        n -= (size_t)w;
    }
}

static void say_frame(int fd, const struct cule_frame *f)
{
    static uint8_t wire[CULE_FRAME_MAX];
    static uint8_t zeros[CULE_PAYLOAD_MAX];
    say_bytes(fd, wire, cule_frame_write(f, false, zeros, wire));
}

static void say(int fd, unsigned kind, uint64_t id, size_t n)
{
    struct cule_frame f = frame(kind, id, n);
    say_frame(fd, &f);
}

/* Reads frames to the end of the stream while the loop turns; the last ERROR's code, 0 without one. */
static int hear_error(int fd, unsigned *frames)
{
    uint8_t buf[4096];
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    int code = 0;
    unsigned count = 0;
    uint64_t until_ns = cule_now_ns() + patience_ms * MS;
    cule_decoder_init(&d, CULE_DECODE_STRICT);
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            break;
        }
        assert_true(cule_now_ns() < until_ns);
        if (n < 0) {
            cule_loop_turn(loop, 10);
            continue;
        }
        cule_decoder_feed(&d, buf, (size_t)n);
        int rc;
        while ((rc = cule_decoder_next(&d, &f, &payload, NULL)) > 0) {
            count++;
            code = f.kind == CULE_ERROR_FRAME ? -(int)f.arg0 : code;
        }
        enough(rc);
        assert_int_equal(rc, 0);
    }
    cule_decoder_release(&d);
    if (frames) {
        *frames = count;
    }
    return code;
}

/* --- set up --- */

static int count_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static int begin_group(void **state)
{
    struct cule_err err;
    (void)state;
    if (getenv("PATIENCE_MS")) {
        patience_ms = strtoul(getenv("PATIENCE_MS"), NULL, 10);
    }
    signal(SIGPIPE, SIG_IGN);
    assert_non_null(mkdtemp(dir));
    enough(cule_loop_new(&loop, &err));
    big = malloc(BIG);
    enough(big ? 0 : CULE_ENOMEM);
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (uint8_t)(i * 7 + i / 253);
    }
    return 0;
}

static int end_group(void **state)
{
    char command[64];
    (void)state;
    cule_loop_free(loop);
    free(big);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

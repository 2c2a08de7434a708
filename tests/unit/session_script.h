/*
 * A session held against a script: frames are fed as a peer would send them, what the session writes is decoded, and
 * both what it wrote and what it told its application are kept as text. For wire_session.c.
 */
#include "wire/ops.h"
#include "wire/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LOG_MAX = 16384, BODY_MAX = 1 << 20, MS = 1000000 };

struct cule_link {
    struct cule_session s;
    char heard[LOG_MAX]; /* what the application was told */
    char wrote[LOG_MAX]; /* what the session sent */
    int fds_there;       /* descriptors that came and were not taken */
    int fds_closed;
    bool call_again; /* an ERROR is answered with a new call */
    struct cule_decoder out;
    struct cule_err err;
};

static struct cule_link l;
static uint8_t body[BODY_MAX];

__attribute__((format(printf, 2, 3))) static void note(char *log, const char *fmt, ...)
{
    size_t at = strlen(log);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(log + at, LOG_MAX - at, fmt, ap);
    va_end(ap);
}

static void enough(int rc)
{
    if (rc == CULE_ENOMEM) {
        print_message("# out of memory\n");
        exit(77);
    }
}

/* Not every file of tests uses all of it. */
#pragma GCC diagnostic ignored "-Wunused-function"

/* --- the application --- */

static void on_answer(struct cule_link *k, void *arg, struct cule_msg *m)
{
    note(k->heard, "answer(%s) %s %llu", (const char *)arg, cule_kind_name(m->h.kind), (unsigned long long)m->h.id);
    if (m->h.kind == CULE_ERROR_FRAME) {
        note(k->heard, " %s", cule_err_name((int)m->h.arg0));
        if (k->call_again) {
            struct cule_msg q = {.body = body};
            cule_frame_init(&q.h, CULE_REQUEST);
            k->call_again = false;
            note(k->heard, " again:%d", cule_session_call(&k->s, &q, 0, on_answer, (void *)(uintptr_t) "again", NULL));
        }
    }
    note(k->heard, " %zu%s; ", m->len, m->h.flags & CULE_OPEN ? " open" : "");
}

static void on_message(struct cule_link *k, struct cule_msg *m)
{
    note(k->heard, "%s %llu p%u %zu", cule_kind_name(m->h.kind), (unsigned long long)m->h.id, m->h.priority, m->len);
    if (m->h.kind == CULE_CANCEL) {
        note(k->heard, " %s", cule_err_name((int)m->h.arg0));
    }
    note(k->heard, "%s%s; ", m->h.flags & CULE_OPEN ? " open" : "", m->nfds ? " fds" : "");
}

static void on_ready(struct cule_link *k)
{
    note(k->heard, "ready '%s'; ", k->s.peer_name);
}

static void on_writable(struct cule_link *k, uint64_t id)
{
    note(k->heard, "writable %llu; ", (unsigned long long)id);
}

static unsigned take_fds(struct cule_link *k, int *fds, unsigned n)
{
    unsigned got = 0;
    for (; got < n && k->fds_there > 0; k->fds_there--) {
        fds[got++] = 1000;
    }
    return got;
}

static void close_fds(struct cule_link *k, const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        k->fds_closed += fds[i] >= 0;
    }
}

static void on_output(struct cule_link *k)
{
    (void)k;
}

static const struct cule_session_ops ops = {.message = on_message,
                                            .ready = on_ready,
                                            .writable = on_writable,
                                            .take_fds = take_fds,
                                            .close_fds = close_fds,
                                            .output = on_output};

/* --- the peer --- */

static void note_frame(const struct cule_frame *f)
{
    note(l.wrote, "%s", cule_kind_name(f->kind));
    if (f->kind == CULE_CREDIT) {
        note(l.wrote, " %llu p%u %llu/%llu", (unsigned long long)f->id, f->priority, (unsigned long long)f->arg0,
             (unsigned long long)f->arg1);
    } else if (f->kind != CULE_HELLO) {
        note(l.wrote, " %llu", (unsigned long long)f->id);
    }
    if (f->kind == CULE_ERROR_FRAME || f->kind == CULE_CANCEL) {
        note(l.wrote, " %s", cule_err_name((int)f->arg0));
    } else if (f->kind == CULE_HELLO && (f->arg0 & CULE_FEATURE_AGAIN)) {
        note(l.wrote, " again");
    } else if (f->kind == CULE_EVENT) {
        note(l.wrote, " p%u %u", f->priority, f->length);
    }
    note(l.wrote, "%s%s; ", f->flags & CULE_MORE ? " more" : "", f->flags & CULE_OPEN ? " open" : "");
}

/* Lets up to n bytes be written and decodes them. */
static void write_out(size_t n)
{
    struct iovec iov[CULE_SESSION_IOV_MAX];
    const int *fds;
    unsigned nfds;
    int k;
    while (n && (k = cule_session_output(&l.s, iov, &fds, &nfds)) > 0) {
        struct cule_frame f;
        const uint8_t *payload;
        size_t some = CULE_MIN(n, iov[0].iov_len);
        cule_decoder_feed(&l.out, iov[0].iov_base, some);
        int rc;
        while ((rc = cule_decoder_next(&l.out, &f, &payload, &l.err)) > 0) {
            note_frame(&f);
        }
        enough(rc);
        assert_int_equal(rc, 0);
        cule_session_wrote(&l.s, some);
        n -= some;
    }
}

/* What has been written, and what was told, since the last look. */
static const char *wrote(void)
{
    static char text[LOG_MAX];
    write_out(SIZE_MAX);
    memcpy(text, l.wrote, sizeof text);
    l.wrote[0] = 0;
    return text;
}

static const char *heard(void)
{
    static char text[LOG_MAX];
    memcpy(text, l.heard, sizeof text);
    l.heard[0] = 0;
    return text;
}

static struct cule_frame frame(unsigned kind, uint64_t id, uint16_t flags, size_t n)
{
    struct cule_frame f;
    cule_frame_init(&f, kind);
    f.id = id;
    f.flags = flags;
    f.length = (uint32_t)n;
    return f;
}

enum { GOOD, BAD_BODY };

static int feed_frame(const struct cule_frame *f, int how)
{
    static uint8_t wire[CULE_FRAME_MAX];
    size_t n = cule_frame_write(f, false, body, wire);
    int rc;
    if (how == BAD_BODY) {
        wire[n - 1] ^= 1;
    }
    cule_session_feed(&l.s, wire, n);
    while ((rc = cule_session_step(&l.s, &l.err)) > 0) {
    }
    enough(rc);
    return rc;
}

static int feed(unsigned kind, uint64_t id, uint16_t flags, size_t n)
{
    struct cule_frame f = frame(kind, id, flags, n);
    return feed_frame(&f, GOOD);
}

static int feed_bad(unsigned kind, uint64_t id, uint16_t flags, size_t n)
{
    struct cule_frame f = frame(kind, id, flags | CULE_CRC, n);
    return feed_frame(&f, BAD_BODY);
}

static int feed_credit(unsigned priority, uint64_t id, uint64_t frames, uint64_t bytes)
{
    struct cule_frame f = frame(CULE_CREDIT, id, 0, 0);
    f.priority = (uint8_t)priority;
    f.arg0 = frames;
    f.arg1 = bytes;
    return feed_frame(&f, GOOD);
}

static int feed_hello(const char *name, uint64_t features, uint64_t message_max)
{
    struct cule_frame f = frame(CULE_HELLO, 0, 0, strlen(name));
    f.arg0 = features;
    f.arg1 = message_max;
    memcpy(body, name, strlen(name));
    return feed_frame(&f, GOOD);
}

/* --- both --- */

static int call(const char *name, uint16_t flags, size_t n, uint64_t timeout_ms)
{
    struct cule_msg m = {.body = body, .len = n};
    cule_frame_init(&m.h, CULE_REQUEST);
    m.h.flags = flags;
    int rc = cule_session_call(&l.s, &m, timeout_ms, on_answer, (void *)(uintptr_t)name, NULL);
    enough(rc);
    return rc;
}

static int send_event(unsigned priority, size_t n)
{
    struct cule_msg m = {.body = body, .len = n};
    cule_frame_init(&m.h, CULE_EVENT);
    m.h.priority = (uint8_t)priority;
    int rc = cule_session_send(&l.s, &m, false);
    enough(rc);
    return rc;
}

static int reply(uint64_t id, uint16_t flags, size_t n)
{
    struct cule_msg m = {.body = body, .len = n};
    cule_frame_init(&m.h, CULE_REPLY);
    m.h.id = id;
    m.h.flags = flags;
    int rc = cule_session_answer(&l.s, &m);
    enough(rc);
    return rc;
}

static struct cule_session_config config(bool server)
{
    return (struct cule_session_config){.name = "me",
                                        .message_max = 200000,
                                        .window_bytes = 100000,
                                        .stream_bytes = 10000,
                                        .queue_bytes = 500000,
                                        .window_frames = 8,
                                        .calls_max = 4,
                                        .duplex = true,
                                        .server = server,
                                        .hello_first = true,
                                        .can_pass_fds = true};
}

/* A session that has greeted and been greeted, with both texts empty. */
static void begin_with(const struct cule_session_config *cfg)
{
    memset(&l, 0, sizeof l);
    cule_decoder_init(&l.out, CULE_DECODE_STRICT);
    cule_session_init(&l.s, cfg, &ops, &l);
    cule_session_tick(&l.s, 1000ull * MS);
    enough(cule_session_start(&l.s));
    wrote();
    feed_hello("peer", 0, 0);
    heard();
    wrote();
}

static void begin(bool server)
{
    struct cule_session_config cfg = config(server);
    begin_with(&cfg);
}

static void finish(void)
{
    cule_session_end(&l.s, CULE_ECLOSED, "over");
    assert_int_equal(l.s.exchanges.count, 0);
    assert_int_equal(l.s.deadlines.count, 0);
    cule_session_release(&l.s);
    cule_decoder_release(&l.out);
}

/* replay --serve: requests answered with what was answered in the recording. */
#include "replay.h"

#include "base/strmap.h"
#include "io/ready.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* One recorded request and its answer. */
struct known {
    struct known *next;   /* the same request again, later in the recording */
    struct cule_list say; /* struct ipc_msg, in order */
};

/* All recordings of one and the same request. */
struct question {
    struct known *first, *last, *turn; /* turn: the one to answer with next */
    size_t n;
    uint8_t key[]; /* service, op, arguments, body */
};

enum { KEY_HEAD = 24 };

struct server {
    struct cule_cli *cli;
    struct cule_loop *loop;
    struct cule_strmap questions;
    struct question **all;
    size_t nall;
    struct cule_map open; /* while reading: link and id -> struct known */
    struct cule_list answering;
    struct cule_list clients;
    struct cule_listener **listeners;
    size_t nlisteners;
    uint64_t answered, unknown;
    size_t nclients;
    bool stdio, stopping;
};

struct client {
    struct cule_list node;
    struct server *s;
    struct cule_link *link;
};

/* An answer that is not all out yet. */
struct answering {
    struct cule_list node;
    struct client *c;
    uint64_t id;
    const struct known *k;
    struct cule_list *at;
};

/* --- the recording --- */

static size_t make_key(uint8_t *out, const struct cule_msg *m)
{
    cule_put32(out, m->h.service);
    cule_put32(out + 4, m->h.op);
    cule_put64(out + 8, m->h.arg0);
    cule_put64(out + 16, m->h.arg1);
    if (m->len) {
        memcpy(out + KEY_HEAD, m->body, m->len);
    }
    return KEY_HEAD + m->len;
}

static struct question *question_of(struct server *s, const struct cule_msg *m, bool make)
{
    size_t n = KEY_HEAD + m->len;
    struct question *q = calloc(1, sizeof *q + n);
    if (!q) {
        return NULL;
    }
    make_key(q->key, m);
    q->n = n;
    struct question *known = cule_strmap_get(&s->questions, q->key, n);
    if (known || !make) {
        free(q);
        return known;
    }
    struct question **all = reallocarray(s->all, s->nall + 1, sizeof(struct question *));
    if (!all) {
        free(q);
        return NULL;
    }
    s->all = all;
    if (cule_strmap_put(&s->questions, q->key, n, q)) {
        free(q);
        return NULL;
    }
    s->all[s->nall++] = q;
    return q;
}

static uint64_t open_key(const struct replay_item *x)
{
    return x->link << 40 ^ x->m.h.id;
}

static int add_question(struct server *s, const struct replay_item *x)
{
    struct question *q = question_of(s, &x->m, true);
    struct known *k = q ? calloc(1, sizeof *k) : NULL;
    if (!k) {
        return CULE_ENOMEM;
    }
    cule_list_init(&k->say);
    *(q->last ? &q->last->next : &q->first) = k;
    q->last = k;
    q->turn = q->first;
    return cule_map_put(&s->open, open_key(x), k);
}

static int add_answer(struct server *s, struct replay_item *x)
{
    struct known *k = cule_map_get(&s->open, open_key(x));
    if (!k) {
        return 0;
    }
    struct ipc_msg *m = ipc_msg_keep(&x->m);
    if (!m) {
        return CULE_ENOMEM;
    }
    cule_list_push(&k->say, &m->node);
    return 0;
}

static int read_all(struct server *s, const char *file, struct cule_err *err)
{
    struct replay_source src;
    struct replay_item x;
    int rc = replay_source_open(&src, file, err);
    while (!rc && (rc = replay_source_next(&src, &x, err)) > 0) {
        unsigned kind = x.m.h.kind;
        rc = 0;
        if (!x.answer && kind == CULE_REQUEST) {
            rc = add_question(s, &x);
        } else if (x.answer && (kind == CULE_REPLY || kind == CULE_ERROR_FRAME || kind == CULE_DATA)) {
            rc = add_answer(s, &x);
        }
        if (rc) {
            cule_err_set(err, rc, "out of memory");
        }
    }
    if (rc == CULE_ETRUNCATED) {
        cule_cli_warn(s->cli, "%s", err->text);
        rc = 0;
    }
    ipc_frames_report(s->cli, &src.r.in);
    replay_source_close(&src);
    return rc;
}

/* --- answering --- */

static void answering_free(struct answering *a)
{
    cule_list_remove(&a->node);
    free(a);
}

static void say(struct answering *a)
{
    while (a->at != &a->k->say) {
        struct cule_msg m = CULE_LIST_ENTRY(a->at, struct ipc_msg, node)->m;
        bool last = m.h.kind == CULE_ERROR_FRAME || !(m.h.flags & CULE_OPEN);
        int rc;
        if (m.h.kind == CULE_DATA) {
            rc = cule_link_data(a->c->link, a->id, m.body, m.len, last);
        } else {
            m.h.id = a->id;
            m.h.cap = 0;
            m.h.flags &= (uint16_t)~CULE_DELEGATE;
            rc = cule_link_send(a->c->link, &m);
        }
        if (rc == CULE_EAGAIN) {
            return;
        }
        a->at = a->at->next;
        if (last) {
            answering_free(a);
            return;
        }
    }
    cule_link_error(a->c->link, a->id, CULE_ETRUNCATED, 0, "the recording ends before this answer does");
    answering_free(a);
}

static void on_request(struct client *c, struct cule_msg *m)
{
    struct server *s = c->s;
    char service[CULE_SERVICE_TEXT];
    struct question *q = question_of(s, m, false);
    struct answering *a = q ? calloc(1, sizeof *a) : NULL;
    if (!q) {
        s->unknown++;
        cule_link_error(c->link, m->h.id, CULE_ENOT_FOUND, 0,
                        "the recording has no such request (%s 0x%04x, %zu bytes)",
                        cule_service_text(m->h.service, service), m->h.op, m->len);
        return;
    }
    if (!a) {
        cule_link_error(c->link, m->h.id, CULE_ENOMEM, 0, "out of memory");
        return;
    }
    s->answered++;
    *a = (struct answering){.c = c, .id = m->h.id, .k = q->turn, .at = q->turn->say.next};
    cule_list_push(&s->answering, &a->node);
    q->turn = q->turn->next ? q->turn->next : q->turn; /* the last one goes on for ever */
    say(a);
}

static void forget(struct client *c, uint64_t id)
{
    CULE_LIST_EACH (n, &c->s->answering) {
        struct answering *a = CULE_LIST_ENTRY(n, struct answering, node);
        if (a->c == c && (id == 0 || a->id == id)) {
            answering_free(a);
        }
    }
}

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)l;
    if (m->h.kind == CULE_REQUEST) {
        on_request(ctx, m);
    } else if (m->h.kind == CULE_CANCEL) {
        forget(ctx, m->h.id);
    }
}

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    struct client *c = ctx;
    (void)l;
    CULE_LIST_EACH (n, &c->s->answering) {
        struct answering *a = CULE_LIST_ENTRY(n, struct answering, node);
        if (a->c == c && (id == 0 || a->id == id)) {
            say(a);
        }
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    struct client *c = ctx;
    struct server *s = c->s;
    (void)l;
    if (why->code) {
        cule_cli_note(s->cli, 1, "a link ended: %s", why->text);
    }
    forget(c, 0);
    cule_list_remove(&c->node);
    free(c);
    s->nclients--;
    if (s->nclients == 0 && (s->stdio || s->stopping)) {
        cule_loop_stop(s->loop);
    }
}

static const struct cule_link_ops ops = {.message = on_message, .writable = on_writable, .closed = on_closed};

static void on_accept(struct cule_listener *listener, void *ctx, struct cule_link *l)
{
    struct server *s = ctx;
    struct client *c = calloc(1, sizeof *c);
    (void)listener;
    if (!c) {
        cule_link_abort(l, NULL);
        return;
    }
    c->s = s;
    c->link = l;
    cule_list_push(&s->clients, &c->node);
    s->nclients++;
    cule_link_set_ctx(l, &ops, c);
}

static void on_signal(void *ctx, int signum)
{
    struct server *s = ctx;
    (void)signum;
    if (s->stopping || s->nclients == 0) {
        cule_loop_stop(s->loop);
        return;
    }
    s->stopping = true;
    CULE_LIST_EACH (n, &s->clients) {
        cule_link_close(CULE_LIST_ENTRY(n, struct client, node)->link);
    }
}

static int listen_all(struct server *s, const struct replay_opts *o, struct cule_err *err)
{
    static const char *const standard[] = {"-"};
    const char *const *endpoints = o->listen.n ? o->listen.v : standard;
    size_t n = o->listen.n ? o->listen.n : 1;
    const struct cule_link_opts lo = {.name = "cule-ipc replay", .ops = &ops};
    const struct cule_listen_opts fds = {.listen_fds = getenv("LISTEN_FDS"),
                                         .listen_pid = getenv("LISTEN_PID"),
                                         .listen_fdnames = getenv("LISTEN_FDNAMES")};
    s->listeners = calloc(n, sizeof(struct cule_listener *));
    if (!s->listeners) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        s->stdio = n == 1 && strcmp(endpoints[i], "-") == 0;
        int rc = ipc_make_run_dir(endpoints[i], err);
        rc = rc ? rc : cule_listen(s->loop, endpoints[i], &lo, &fds, on_accept, s, &s->listeners[i], err);
        if (rc) {
            return rc;
        }
        s->nlisteners++;
    }
    return 0;
}

static void release(struct server *s)
{
    for (size_t i = 0; i < s->nlisteners; i++) {
        cule_listener_free(s->listeners[i]);
    }
    CULE_LIST_EACH (n, &s->clients) {
        struct client *c = CULE_LIST_ENTRY(n, struct client, node);
        forget(c, 0);
        cule_link_free(c->link);
        free(c);
    }
    for (size_t i = 0; i < s->nall; i++) {
        for (struct known *k = s->all[i]->first, *next; k; k = next) {
            struct cule_list *n;
            next = k->next;
            while ((n = cule_list_pop(&k->say))) {
                ipc_msg_free(CULE_LIST_ENTRY(n, struct ipc_msg, node));
            }
            free(k);
        }
        free(s->all[i]);
    }
    free(s->all);
    free(s->listeners);
    cule_strmap_release(&s->questions);
    cule_map_release(&s->open);
}

int replay_serve(struct cule_cli *cli)
{
    const struct replay_opts *o = cli->opts;
    struct server s = {.cli = cli};
    struct cule_sigwatch *term = NULL, *intr = NULL;
    struct cule_err err = {0};
    uint64_t seed;
    ipc_random(&seed, sizeof seed);
    cule_strmap_init(&s.questions, seed);
    cule_map_init(&s.open);
    cule_list_init(&s.answering);
    cule_list_init(&s.clients);
    int rc = read_all(&s, o->file, &err);
    rc = rc ? rc : cule_loop_new(&s.loop, &err);
    rc = rc ? rc : cule_sigwatch_new(s.loop, &term, SIGTERM, on_signal, &s, &err);
    rc = rc ? rc : cule_sigwatch_new(s.loop, &intr, SIGINT, on_signal, &s, &err);
    rc = rc ? rc : listen_all(&s, o, &err);
    if (!rc && cule_ready(getenv("CULE_READY_FD"), getenv("NOTIFY_SOCKET"), &err)) {
        cule_cli_warn(cli, "%s", err.text);
    }
    int status = 0;
    if (rc) {
        status = cule_cli_fail(cli, &err);
    } else {
        cule_loop_run(s.loop);
        cule_cli_note(cli, 1, "%" PRIu64 " requests answered from the recording, %" PRIu64 " were not in it",
                      s.answered, s.unknown);
    }
    release(&s);
    cule_sigwatch_free(term);
    cule_sigwatch_free(intr);
    if (s.loop) {
        cule_loop_free(s.loop);
    }
    return status;
}

/*
 * replay FILE ENDPOINT: what the asking side sent is sent again.
 *
 * A request waits for its time, and for the answers that had come before it in the recording: what it says may follow
 * from them.
 */
#include "replay.h"

#include "base/json.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ask;

/* A recorded link and the one that stands for it now. */
struct replay_link {
    struct replay *r;
    uint64_t number;
    struct cule_link *link;
    struct cule_map asks; /* recorded id -> struct ask */
    struct story *events; /* recorded */
    struct story *events_now;
    size_t nevents, nevents_now;
    bool opened, closed;
};

struct ask {
    struct replay_link *on;
    uint64_t id;  /* recorded */
    uint64_t now; /* of the call, while it is open */
    uint32_t service, op;
    struct story recorded, live;
    bool sent, done;
    struct cule_list node; /* in the order of the recording */
};

struct replay {
    const struct cule_cli *cli;
    const struct replay_opts *o;
    struct cule_loop *loop;
    struct cule_timer *timer; /* the next item's time; the wait for events at the end */
    struct cule_defer go_on;
    struct replay_source src;
    struct replay_item item;
    bool have_item;
    struct cule_map links;
    struct cule_list asks;
    uint64_t first_ns, start_ns;
    uint64_t open; /* calls */
    uint64_t sent, differences, links_open, skipped;
    bool at_end, ending, over;
    int status;
};

/* --- what was recorded --- */

static struct replay_link *link_of(struct replay *r, uint64_t number)
{
    struct replay_link *l = cule_map_get(&r->links, number);
    if (!l && (l = calloc(1, sizeof *l))) {
        l->r = r;
        l->number = number;
        cule_map_init(&l->asks);
        if (cule_map_put(&r->links, number, l)) {
            free(l);
            l = NULL;
        }
    }
    return l;
}

static struct ask *ask_of(struct replay_link *l, const struct cule_msg *m)
{
    struct ask *a = cule_map_get(&l->asks, m->h.id);
    if (!a && m->h.kind == CULE_REQUEST && (a = calloc(1, sizeof *a))) {
        a->on = l;
        a->id = m->h.id;
        a->service = m->h.service;
        a->op = m->h.op;
        cule_list_init(&a->node);
        if (cule_map_put(&l->asks, a->id, a)) {
            free(a);
            return NULL;
        }
        cule_list_push(&l->r->asks, &a->node);
    }
    return a;
}

static int add_event(struct story **list, size_t *n, const struct cule_msg *m)
{
    struct story *bigger = *n & (*n - 1) ? *list : reallocarray(*list, *n ? *n * 2 : 1, sizeof **list);
    if (!bigger) {
        return CULE_ENOMEM;
    }
    *list = bigger;
    bigger[*n] = (struct story){0};
    story_add(&bigger[(*n)++], m);
    return 0;
}

/* The first pass: which answers there were. */
static int read_answers(struct replay *r, struct cule_err *err)
{
    struct replay_source src;
    struct replay_item x;
    int rc = replay_source_open(&src, r->o->file, err);
    while (!rc && (rc = replay_source_next(&src, &x, err)) > 0) {
        struct replay_link *l = link_of(r, x.link);
        bool theirs = x.answer && x.m.h.kind == CULE_REQUEST; /* a replay answers nothing */
        struct ask *a = l && x.m.h.id && !theirs ? ask_of(l, &x.m) : NULL;
        rc = l && (a || theirs || x.m.h.kind != CULE_REQUEST) ? 0 : CULE_ENOMEM;
        if (!rc && x.answer && x.m.h.kind == CULE_EVENT) {
            rc = add_event(&l->events, &l->nevents, &x.m);
        } else if (!rc && x.answer && a) {
            story_add(&a->recorded, &x.m);
        }
        if (rc) {
            cule_err_set(err, rc, "out of memory");
        }
    }
    replay_source_close(&src);
    return rc == CULE_ETRUNCATED ? 0 : rc; /* told in the second pass */
}

/* --- what happens now --- */

static void go_on(struct replay *r)
{
    cule_loop_defer(r->loop, &r->go_on);
}

static void on_answer(struct cule_link *link, void *arg, struct cule_msg *m)
{
    struct ask *a = arg;
    struct replay *r = a->on->r;
    (void)link;
    story_add(&a->live, m);
    if (m->h.kind == CULE_ERROR_FRAME || !(m->h.flags & CULE_OPEN)) {
        a->done = true;
        a->now = 0;
        r->open--;
    }
    go_on(r);
}

static void on_message(struct cule_link *link, void *ctx, struct cule_msg *m)
{
    struct replay_link *l = ctx;
    if (m->h.kind == CULE_REQUEST) {
        cule_link_error(link, m->h.id, CULE_ENO_SERVICE, 0, "a replay answers no requests");
    } else if (m->h.kind == CULE_EVENT) {
        if (add_event(&l->events_now, &l->nevents_now, m)) {
            l->r->status = cule_cli_failf(l->r->cli, CULE_ENOMEM, "out of memory");
        }
        go_on(l->r);
    }
}

static void on_writable(struct cule_link *link, void *ctx, uint64_t id)
{
    struct replay_link *l = ctx;
    (void)link;
    (void)id;
    go_on(l->r);
}

static void on_closed(struct cule_link *link, void *ctx, const struct cule_err *why)
{
    struct replay_link *l = ctx;
    struct replay *r = l->r;
    (void)link;
    l->link = NULL;
    l->closed = true;
    r->links_open--;
    if (!r->ending && why->code) {
        struct cule_err err = *why;
        cule_err_context(&err, err.code, "link %" PRIu64 " to '%s'", l->number, r->o->endpoint);
        int status = cule_cli_fail(r->cli, &err);
        r->status = r->status ? r->status : status;
    }
    go_on(r);
}

static const struct cule_link_ops ops = {.message = on_message, .writable = on_writable, .closed = on_closed};

static int open_link(struct replay_link *l, struct cule_err *err)
{
    struct replay *r = l->r;
    const struct cule_link_opts lo = {
        .name = "cule-ipc replay", .ops = &ops, .ctx = l, .connect_timeout_ms = r->cli->timeout_ms};
    l->opened = true;
    int rc = cule_link_open(r->loop, r->o->endpoint, &lo, &l->link, err);
    r->links_open += !rc;
    return rc;
}

/* Sends one item. CULE_EAGAIN: not now. */
static int send_item(struct replay *r, struct replay_link *l, struct cule_msg *m)
{
    struct ask *a = m->h.id ? cule_map_get(&l->asks, m->h.id) : NULL;
    int rc = 0;
    if (!l->link) {
        r->skipped += m->h.kind == CULE_REQUEST;
        return 0;
    }
    if (m->h.kind == CULE_REQUEST && a && !a->sent) {
        m->h.deadline_ms = 0;
        rc = cule_link_call(l->link, m, r->cli->timeout_ms, on_answer, a, &a->now);
        a->sent = rc == 0;
        r->open += rc == 0;
        r->sent += rc == 0;
    } else if (m->h.kind == CULE_EVENT) {
        rc = cule_link_send(l->link, m);
        r->sent += rc == 0;
    } else if (m->h.kind == CULE_DATA && a && a->now) {
        rc = cule_link_data(l->link, a->now, m->body, m->len, !(m->h.flags & CULE_OPEN));
    } else if (m->h.kind == CULE_CANCEL && a && a->now) {
        cule_link_cancel(l->link, a->now);
    }
    return rc == CULE_ECLOSED ? 0 : rc;
}

/* Milliseconds until an item's time; 0: it is due. */
static uint64_t wait_ms(struct replay *r, uint64_t time_ns)
{
    if (r->o->fast || time_ns == 0 || time_ns < r->first_ns) {
        return 0;
    }
    uint64_t at = r->start_ns + (uint64_t)((double)(time_ns - r->first_ns) / r->o->speed);
    uint64_t now = cule_now_ns();
    return at > now ? (at - now + 999999) / 1000000 : 0;
}

/* An answer that had come when what follows was sent: has it come now? */
static bool answer_due(struct replay_link *l, const struct cule_msg *m)
{
    struct ask *a = m->h.id ? cule_map_get(&l->asks, m->h.id) : NULL;
    bool last = m->h.kind == CULE_ERROR_FRAME ||
                ((m->h.kind == CULE_REPLY || m->h.kind == CULE_DATA) && !(m->h.flags & CULE_OPEN));
    return a && a->sent && !a->done && last && l->link;
}

/* Deals with the item at hand: true if the next one may follow. */
static bool deal(struct replay *r, struct cule_err *err)
{
    struct replay_item *x = &r->item;
    struct replay_link *l = link_of(r, x->link);
    if (!l) {
        cule_err_set(err, CULE_ENOMEM, "out of memory");
        return false;
    }
    if (x->answer) {
        return !answer_due(l, &x->m);
    }
    if (r->first_ns == 0 && x->time_ns) {
        r->first_ns = x->time_ns;
    }
    uint64_t ms = wait_ms(r, x->time_ns);
    if (ms) {
        cule_timer_start(r->timer, ms, 0);
        return false;
    }
    bool counts = x->m.h.kind == CULE_REQUEST || x->m.h.kind == CULE_EVENT;
    if (counts && !l->opened && open_link(l, err)) {
        return false;
    }
    int rc = send_item(r, l, &x->m);
    if (rc && rc != CULE_EAGAIN) {
        cule_err_set(err, rc, "cannot send request %" PRIu64 ": %s", x->m.h.id, cule_err_text(rc));
    }
    return rc == 0;
}

static bool events_due(struct replay *r)
{
    size_t at = 0;
    struct replay_link *l;
    while (r->o->compare && (l = cule_map_next(&r->links, &at, NULL))) {
        if (l->link && l->nevents_now < l->nevents) {
            return true;
        }
    }
    return false;
}

static void finish(struct replay *r)
{
    size_t at = 0;
    struct replay_link *l;
    if (!r->ending) {
        r->ending = true;
        while ((l = cule_map_next(&r->links, &at, NULL))) {
            if (l->link) {
                cule_link_close(l->link);
            }
        }
    }
    if (r->links_open == 0) {
        r->over = true;
        cule_loop_stop(r->loop);
    }
}

static void fail(struct replay *r, const struct cule_err *err)
{
    int status = cule_cli_fail(r->cli, err);
    r->status = r->status ? r->status : status;
    r->at_end = true;
    finish(r);
}

static void on_turn(void *ctx)
{
    struct replay *r = ctx;
    struct cule_err err = {0};
    while (!r->at_end) {
        if (!r->have_item) {
            int rc = replay_source_next(&r->src, &r->item, &err);
            if (rc < 0) {
                int status = cule_cli_fail(r->cli, &err); /* what there is is replayed all the same */
                r->status = r->status ? r->status : status;
            }
            r->at_end = rc <= 0;
            r->have_item = rc > 0;
            continue;
        }
        if (!deal(r, &err)) {
            if (err.code) {
                fail(r, &err);
            }
            return;
        }
        r->have_item = false;
    }
    if (r->open || r->over) {
        return; /* each call has its deadline */
    }
    if (!r->ending && events_due(r)) {
        cule_timer_start(r->timer, CULE_MIN(r->cli->timeout_ms ? r->cli->timeout_ms : 30000, UINT64_C(5000)), 0);
        return;
    }
    finish(r);
}

static void on_time(void *ctx)
{
    struct replay *r = ctx;
    if (r->at_end) {
        finish(r); /* the events that are still missing do not come */
    } else {
        on_turn(r);
    }
}

static void on_signal(void *ctx, int signum)
{
    struct replay *r = ctx;
    r->status = 128 + signum;
    r->at_end = true;
    finish(r);
}

/* --- the result --- */

static void differs(struct replay *r, struct cule_buf *out, const char *title, const struct cule_buf *what)
{
    r->differences++;
    if (!r->cli->json) {
        cule_buf_add(out, title, strlen(title));
        cule_buf_addc(out, '\n');
        cule_buf_add(out, cule_buf_data(what), cule_buf_len(what));
        return;
    }
    struct cule_json_writer w;
    cule_json_begin(&w, out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "subject", title);
    cule_json_key(&w, "difference");
    cule_json_put_bytes(&w, cule_buf_data(what), cule_buf_len(what));
    cule_json_close(&w, '}');
    cule_json_end(&w);
    cule_buf_addc(out, '\n');
}

static void compare_one(struct replay *r, struct cule_buf *out, const char *title, const struct story *a,
                        const struct story *b)
{
    struct cule_buf what;
    cule_buf_init(&what, 0);
    if (story_compare(a, b, &what)) {
        differs(r, out, title, &what);
    }
    cule_buf_release(&what);
}

static void compare_all(struct replay *r, struct cule_buf *out)
{
    char title[160], service[CULE_SERVICE_TEXT];
    static const struct story nothing;
    CULE_LIST_EACH (n, &r->asks) {
        const struct ask *a = CULE_LIST_ENTRY(n, struct ask, node);
        const char *op = cule_op_name(a->service, a->op);
        snprintf(title, sizeof title, "link %" PRIu64 " request %" PRIu64 " %s %s%s0x%04x%s", a->on->number, a->id,
                 cule_service_text(a->service, service), op ? op : "", op ? " (" : "", a->op, op ? ")" : "");
        if (a->recorded.ended || a->recorded.replied) { /* else the recording ends before the answer */
            compare_one(r, out, title, &a->recorded, &a->live);
        }
    }
    size_t at = 0;
    struct replay_link *l;
    while ((l = cule_map_next(&r->links, &at, NULL))) {
        for (size_t i = 0; i < CULE_MAX(l->nevents, l->nevents_now); i++) {
            snprintf(title, sizeof title, "link %" PRIu64 " event %zu from the answering side", l->number, i + 1);
            compare_one(r, out, title, i < l->nevents ? &l->events[i] : &nothing,
                        i < l->nevents_now ? &l->events_now[i] : &nothing);
        }
    }
}

static int result(struct replay *r)
{
    struct cule_buf out;
    struct cule_err err = {0};
    if (r->src.fds) {
        cule_cli_warn(r->cli, "%" PRIu64 " messages had descriptors, which no recording keeps; sent without",
                      r->src.fds);
    }
    if (r->skipped) {
        cule_cli_warn(r->cli, "%" PRIu64 " requests were not sent: their link had ended", r->skipped);
    }
    int damaged = ipc_frames_report(r->cli, &r->src.r.in);
    r->status = r->status ? r->status : damaged;
    if (!r->o->compare) {
        cule_cli_note(r->cli, 1, "%" PRIu64 " messages sent", r->sent);
        return r->status;
    }
    cule_buf_init(&out, 0);
    compare_all(r, &out);
    int rc = ipc_write_all(STDOUT_FILENO, cule_buf_data(&out), cule_buf_len(&out), &err);
    cule_buf_release(&out);
    if (rc && !r->status) {
        r->status = cule_cli_fail(r->cli, &err);
    }
    cule_cli_note(r->cli, r->differences ? 0 : 1, "messages sent: %" PRIu64 ", answers that differ: %" PRIu64, r->sent,
                  r->differences);
    return r->status ? r->status : r->differences ? 1 : 0;
}

static void release(struct replay *r)
{
    size_t at = 0;
    struct replay_link *l;
    struct cule_list *n;
    while ((n = cule_list_pop(&r->asks))) {
        free(CULE_LIST_ENTRY(n, struct ask, node));
    }
    while ((l = cule_map_next(&r->links, &at, NULL))) {
        cule_link_free(l->link);
        cule_map_release(&l->asks);
        free(l->events);
        free(l->events_now);
        free(l);
    }
    cule_map_release(&r->links);
}

int replay_ask(struct cule_cli *cli)
{
    struct replay *r = calloc(1, sizeof *r);
    struct cule_sigwatch *term = NULL, *intr = NULL;
    struct cule_err err = {0};
    if (!r) {
        return cule_cli_failf(cli, CULE_ENOMEM, "out of memory");
    }
    r->cli = cli;
    r->o = cli->opts;
    cule_map_init(&r->links);
    cule_list_init(&r->asks);
    cule_defer_init(&r->go_on, on_turn, r);
    int rc = read_answers(r, &err);
    rc = rc ? rc : replay_source_open(&r->src, r->o->file, &err);
    bool opened = rc == 0;
    rc = rc ? rc : cule_loop_new(&r->loop, &err);
    rc = rc ? rc : cule_timer_new(r->loop, &r->timer, on_time, r, &err);
    rc = rc ? rc : cule_sigwatch_new(r->loop, &term, SIGTERM, on_signal, r, &err);
    rc = rc ? rc : cule_sigwatch_new(r->loop, &intr, SIGINT, on_signal, r, &err);
    if (rc) {
        r->status = cule_cli_fail(cli, &err);
    } else {
        r->start_ns = cule_now_ns();
        go_on(r);
        cule_loop_run(r->loop);
        result(r);
    }
    int status = r->status ? r->status : r->differences ? 1 : 0;
    release(r);
    if (opened) {
        replay_source_close(&r->src);
    }
    cule_timer_free(r->timer);
    cule_sigwatch_free(term);
    cule_sigwatch_free(intr);
    if (r->loop) {
        cule_defer_cancel(&r->go_on);
        cule_loop_free(r->loop);
    }
    free(r);
    return status;
}

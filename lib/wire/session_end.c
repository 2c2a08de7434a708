/* How what is open on a link comes to its end: deadlines, a peer that was replaced or is gone; and pings. */
#include "wire/session.h"

#include <stdlib.h>

struct ping {
    struct cule_list node; /* first: freed by it */
    uint64_t id;
    uint64_t sent_ns;
    cule_pong_fn *fn;
    void *arg;
};

void cule_session_tick(struct cule_session *s, uint64_t now_ns)
{
    s->now_ns = now_ns;
    struct cule_heap_node *n;
    while (!s->dead && (n = cule_heap_top(&s->deadlines)) && n->key <= now_ns) {
        struct cule_exchange *x = CULE_CONTAINER(n, struct cule_exchange, deadline);
        if (x->ours) {
            cule_session_send_cancel(s, x, CULE_ETIMEOUT);
            cule_session_end_call(s, x, CULE_ETIMEOUT, "no answer in time");
        } else {
            cule_session_end_request(s, x, CULE_ETIMEOUT, "no answer in time");
        }
    }
}

uint64_t cule_session_deadline(const struct cule_session *s)
{
    const struct cule_heap_node *n = cule_heap_top(&s->deadlines);
    return n ? n->key : UINT64_MAX;
}

/* Moves all of a list, so that what callbacks add meanwhile is left alone. */
static void move(struct cule_list *from, struct cule_list *to)
{
    cule_list_init(to);
    if (!cule_list_empty(from)) {
        *to = *from;
        to->next->prev = to->prev->next = to;
        cule_list_init(from);
    }
}

enum { END_CALLS = 1, END_REQUESTS = 2, END_CUT_REQUESTS = 4 };

static void end_open(struct cule_session *s, unsigned which, int code, const char *text, const char *report)
{
    struct cule_list left;
    struct cule_list *n;
    move(&s->opened, &left);
    while ((n = cule_list_pop(&left))) {
        struct cule_exchange *x = CULE_LIST_ENTRY(n, struct cule_exchange, node);
        if (x->ours && (which & END_CALLS)) {
            cule_session_end_call(s, x, code, text);
        } else if (!x->ours && ((which & END_REQUESTS) || ((which & END_CUT_REQUESTS) && x->recv_open))) {
            cule_session_end_request(s, x, code, report);
        } else {
            cule_list_push(&s->opened, n);
        }
    }
}

static void end_pings(struct cule_session *s)
{
    struct cule_list left;
    struct cule_list *n;
    move(&s->pings, &left);
    while ((n = cule_list_pop(&left))) {
        struct ping *p = CULE_LIST_ENTRY(n, struct ping, node);
        p->fn(s->link, p->arg, 0);
        free(p);
    }
}

void cule_session_end(struct cule_session *s, int code, const char *text)
{
    s->dead = true;
    end_open(s, END_CALLS | END_REQUESTS, code, text, NULL);
    end_pings(s);
}

void cule_session_half(struct cule_session *s)
{
    if (s->half) {
        return;
    }
    s->half = true;
    for (int p = 0; p < CULE_PRIORITIES; p++) {
        s->send[p].limited = false;
    }
    CULE_LIST_EACH (n, &s->opened) {
        struct cule_exchange *x = CULE_LIST_ENTRY(n, struct cule_exchange, node);
        x->send.limited = false;
        s->want_room = s->want_room || x->want_writable;
    }
    s->want_room = s->want_room || s->want_credit;
    s->want_credit = 0;
    end_open(s, END_CALLS | END_CUT_REQUESTS, CULE_ECLOSED, "closed by the peer", "the request's stream was cut off");
    end_pings(s);
}

/*
 * A later HELLO. Of a peer that was replaced: what was open is void on both sides, credit starts anew, and the newcomer
 * is greeted. `again`: it is we who are new to a peer that goes on; it has voided its requests and its grants, while
 * what we have asked since came after that.
 */
int cule_session_restarted(struct cule_session *s, bool again)
{
    for (int p = 0; p < CULE_PRIORITIES; p++) {
        struct cule_credit *c = &s->send[p];
        c->limited = false;
        c->granted_frames = c->granted_bytes = 0;
        struct cule_credit anew = {0};
        if (again) {
            anew.granted_frames = s->recv[p].granted_frames;
            anew.granted_bytes = s->recv[p].granted_bytes;
            anew.limited = s->recv[p].limited;
        } else {
            c->used_frames = c->used_bytes = 0;
        }
        s->recv[p] = anew;
    }
    int rc = 0;
    cule_session_drop_assemblies(s); /* their rest will not come */
    if (!again) {
        cule_session_drop_queues(s);
        rc = cule_session_greet(s, true);
    }
    s->want_room = s->want_room || s->want_credit; /* who waited for credit may go on */
    s->want_credit = 0;
    end_open(s, again ? END_REQUESTS : END_CALLS | END_REQUESTS, CULE_EPEER_RESTARTED, "the peer was restarted", NULL);
    if (!again) {
        end_pings(s);
    }
    return rc;
}

/* --- ping --- */

int cule_session_ping(struct cule_session *s, cule_pong_fn *fn, void *arg)
{
    if (s->dead || !s->cfg.duplex || s->half) {
        return s->cfg.duplex ? CULE_ECLOSED : CULE_EUNSUPPORTED;
    }
    struct ping *p = calloc(1, sizeof *p);
    if (!p) {
        return CULE_ENOMEM;
    }
    struct cule_frame f;
    cule_frame_init(&f, CULE_PING);
    f.priority = CULE_CRITICAL;
    f.id = s->next_id;
    int rc = cule_session_queue(s, &f, NULL);
    if (rc) {
        free(p);
        return rc;
    }
    s->next_id += 2;
    *p = (struct ping){.id = f.id, .sent_ns = s->now_ns, .fn = fn, .arg = arg};
    cule_list_push(&s->pings, &p->node);
    return 0;
}

void cule_session_on_pong(struct cule_session *s, const struct cule_frame *f)
{
    CULE_LIST_EACH (n, &s->pings) {
        struct ping *p = CULE_LIST_ENTRY(n, struct ping, node);
        if (p->id == f->id) {
            cule_list_remove(&p->node);
            p->fn(s->link, p->arg, s->now_ns > p->sent_ns ? s->now_ns - p->sent_ns : 1);
            free(p);
            return;
        }
    }
}

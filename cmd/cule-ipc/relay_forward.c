/* Links joined frame by frame. */
#include "relay_forward.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct forward {
    struct cule_list up_node;   /* in to->up while something waits to go there */
    struct cule_list down_node; /* in from->down */
    struct forward_port *from, *to;
    uint64_t from_id, to_id;
    struct ipc_msg *request; /* not sent yet: the other link had no credit */
    struct cule_buf up, down;
    bool up_last, down_last; /* the stream's end waits too */
    bool answered;           /* the other side's exchange is over */
    bool cancelled;          /* nothing goes to the asker any more */
    uint8_t priority;
    forward_done_fn *done;
    void *ctx;
};

static void credit_back(const struct forward_port *from, const struct cule_msg *m)
{
    if (from->link && !from->credited) {
        ipc_msg_consumed(from->link, m);
    }
}

/* --- ports --- */

void forward_port_init(struct forward_port *p, struct cule_link *l, bool connected, uint64_t number)
{
    *p = (struct forward_port){.link = l, .number = number};
    cule_captable_init(&p->caps, connected, 0);
    cule_map_init(&p->asked);
    cule_map_init(&p->asking);
    cule_list_init(&p->up);
    cule_list_init(&p->down);
    cule_list_init(&p->events);
}

void forward_port_release(struct forward_port *p)
{
    struct cule_list *n;
    while ((n = cule_list_pop(&p->events))) {
        ipc_msg_free(CULE_LIST_ENTRY(n, struct ipc_msg, node));
    }
    cule_captable_release(&p->caps);
    cule_map_release(&p->asked);
    cule_map_release(&p->asking);
}

static void end(struct forward *f, int code)
{
    cule_map_take(&f->from->asked, f->from_id);
    if (f->to_id) {
        cule_map_take(&f->to->asking, f->to_id);
    }
    cule_list_remove(&f->up_node);
    cule_list_remove(&f->down_node);
    cule_buf_release(&f->up);
    cule_buf_release(&f->down);
    if (f->request) {
        credit_back(f->from, &f->request->m);
    }
    ipc_msg_free(f->request);
    if (f->done) {
        f->done(f->ctx, code);
    }
    free(f);
}

static void fail(struct forward *f, int code, const char *text)
{
    if (!f->cancelled && f->from->link) {
        cule_link_error(f->from->link, f->from_id, code, 0, "%s", text);
    }
    end(f, code);
}

void forward_port_gone(struct forward_port *p, struct forward_port *const *others, size_t n)
{
    struct cule_list *node;
    p->link = NULL;
    while (!cule_list_empty(&p->up)) {
        fail(CULE_LIST_ENTRY(p->up.next, struct forward, up_node), p->gone_code ? p->gone_code : CULE_ECLOSED,
             p->gone_text[0] ? p->gone_text : "closed by the peer");
    }
    size_t at = 0;
    struct forward *f;
    while ((f = cule_map_next(&p->asked, &at, NULL))) {
        forward_cancel(f); /* changes the map: start over */
        at = 0;
    }
    while ((node = cule_list_pop(&p->events))) {
        ipc_msg_free(CULE_LIST_ENTRY(node, struct ipc_msg, node));
    }
    p->nevents = 0;
    for (size_t i = 0; i < n; i++) {
        if (others[i] != p) {
            cule_captable_revoke_target(&others[i]->caps, p->number);
        }
    }
}

/* --- capabilities and recording --- */

static int translate(struct forward_port *from, struct forward_port *to, struct cule_frame *h, struct cule_err *err)
{
    const struct cule_cap_side a = {&from->caps, from->number};
    const struct cule_cap_side b = {&to->caps, to->number};
    return h->cap ? cule_captable_translate(&a, &b, h->cap, h->flags & CULE_DELEGATE, 0, &h->cap, err) : 0;
}

static void tap(const struct forward *f, bool answer, const struct cule_msg *m)
{
    if (f->from->tap) {
        struct cule_msg copy = *m;
        copy.h.id = f->from_id;
        f->from->tap(f->from->tap_ctx, answer, &copy);
    }
}

/* --- answers --- */

/* An answer's DATA, or a part of it kept for later. Credit goes back when the asker's link has taken it. */
static void pass_down(struct forward *f, const uint8_t *p, size_t n, bool last)
{
    if (cule_buf_len(&f->down) == 0 && !f->down_last) {
        int rc = cule_link_data(f->from->link, f->from_id, p, n, last);
        if (rc != CULE_EAGAIN) {
            if (f->to->link && f->to_id) {
                cule_link_stream_consumed(f->to->link, f->to_id, n);
            }
            return;
        }
        cule_list_push(&f->from->down, &f->down_node);
    }
    if (cule_buf_add(&f->down, p, n)) {
        cule_link_error(f->from->link, f->from_id, CULE_ENOMEM, 0, "out of memory");
        f->cancelled = true;
    }
    f->down_last = last;
}

/* Kept DATA, as far as the link takes it: true when all of it went. */
static bool flush_down(struct forward *f)
{
    while (cule_buf_len(&f->down) || f->down_last) {
        size_t n = CULE_MIN(cule_buf_len(&f->down), (size_t)CULE_PAYLOAD_MAX);
        bool last = f->down_last && n == cule_buf_len(&f->down);
        int rc = cule_link_data(f->from->link, f->from_id, n ? cule_buf_data(&f->down) : NULL, n, last);
        if (rc == CULE_EAGAIN) {
            return false;
        }
        if (f->to->link && f->to_id) {
            cule_link_stream_consumed(f->to->link, f->to_id, n);
        }
        if (n) {
            cule_buf_take(&f->down, n);
        }
        f->down_last = f->down_last && !last;
    }
    return true;
}

static int pass_answer(struct forward *f, const struct cule_msg *answer)
{
    struct cule_err err = {0};
    struct cule_msg m = *answer;
    m.h.id = f->from_id;
    int rc = translate(f->to, f->from, &m.h, &err);
    if (rc) {
        cule_link_error(f->from->link, f->from_id, rc, 0, "%s", err.text);
        return rc;
    }
    rc = cule_link_send(f->from->link, &m);
    if (rc == CULE_ETOO_BIG) {
        cule_link_error(f->from->link, f->from_id, rc, m.len, "the answer of %zu bytes is more than the asker takes",
                        m.len);
    } else if (rc == CULE_EUNSUPPORTED) {
        cule_link_error(f->from->link, f->from_id, rc, 0, "descriptors in the answer cannot pass this link");
    } else if (rc && rc != CULE_ECLOSED) {
        cule_link_error(f->from->link, f->from_id, rc, 0, "%s", cule_err_text(rc));
    }
    return rc;
}

static void pass_error(struct forward *f, const struct cule_msg *answer, int code)
{
    if (code == CULE_ECLOSED && f->to->gone_code) {
        cule_link_error(f->from->link, f->from_id, f->to->gone_code, 0, "%s", f->to->gone_text);
    } else {
        pass_answer(f, answer);
    }
}

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct forward *f = arg;
    int code = cule_msg_error(answer, NULL);
    bool open = answer->h.flags & CULE_OPEN;
    f->answered = code || !open;
    if (f->to->link) {
        ipc_msg_consumed(f->to->link, answer);
    }
    if (f->cancelled || !f->from->link) {
        if (f->answered) {
            end(f, code ? code : CULE_ECANCELLED);
        }
        return;
    }
    tap(f, true, answer);
    if (answer->h.kind == CULE_DATA) {
        pass_down(f, answer->body, answer->len, !open);
        if (f->answered && cule_list_empty(&f->down_node)) {
            end(f, 0);
        }
        return;
    }
    if (code) {
        pass_error(f, answer, code);
        end(f, code);
        return;
    }
    int rc = pass_answer(f, answer);
    if (f->answered) {
        end(f, rc);
    } else if (rc) {
        f->cancelled = true;
        cule_link_cancel(f->to->link, f->to_id); /* ends f */
    }
}

/* --- requests --- */

/* Sends the request that is kept. CULE_EAGAIN: still no credit. */
static int send_request(struct forward *f, struct cule_msg *m)
{
    uint32_t left = cule_link_left_ms(f->from->link, f->from_id);
    if (left == 0) {
        return CULE_ETIMEOUT; /* the asker's link tells it so itself */
    }
    m->h.deadline_ms = 0;
    int rc = cule_link_call(f->to->link, m, left == UINT32_MAX ? 0 : left, on_answer, f, &f->to_id);
    if (rc == 0 && cule_map_put(&f->to->asking, f->to_id, f)) {
        f->cancelled = false;
        cule_link_error(f->from->link, f->from_id, CULE_ENOMEM, 0, "out of memory");
        f->cancelled = true;
        cule_link_cancel(f->to->link, f->to_id);
    }
    return rc;
}

static const char *refusal(int rc)
{
    switch (rc) {
    case CULE_ETOO_BIG: return "the request is larger than its receiver takes";
    case CULE_EUNSUPPORTED: return "descriptors cannot pass to this receiver";
    case CULE_ETIMEOUT: return "no answer in time";
    default: return cule_err_text(rc);
    }
}

int forward_request(struct forward_port *from, struct forward_port *to, struct cule_msg *m, const uint8_t *trace,
                    forward_done_fn *done, void *ctx, struct forward **out)
{
    struct cule_err err = {0};
    struct forward *f = calloc(1, sizeof *f);
    uint64_t id = m->h.id;
    int rc = f ? 0 : CULE_ENOMEM;
    if (rc || !to->link || cule_map_put(&from->asked, id, f)) {
        free(f);
        rc = rc ? rc : !to->link ? CULE_ECLOSED : CULE_ENOMEM;
        cule_link_error(from->link, id, rc, 0, "%s", cule_err_text(rc));
        credit_back(from, m);
        return rc;
    }
    *f = (struct forward){.from = from, .to = to, .from_id = id, .priority = m->h.priority};
    cule_list_init(&f->up_node);
    cule_list_init(&f->down_node);
    cule_buf_init(&f->up, 0);
    cule_buf_init(&f->down, 0);
    tap(f, false, m);
    struct cule_msg copy = *m;
    copy.trace = trace ? trace : m->trace;
    rc = translate(from, to, &copy.h, &err);
    if (rc) {
        fail(f, rc, err.text);
        credit_back(from, m);
        return rc;
    }
    from->passed++;
    /* Behind others that wait, so that requests stay in order. */
    rc = cule_list_empty(&to->up) ? send_request(f, &copy) : CULE_EAGAIN;
    if (rc == CULE_EAGAIN) {
        copy.h.id = id;
        f->request = ipc_msg_keep(&copy);
        rc = f->request ? 0 : CULE_ENOMEM;
        if (!rc) {
            cule_list_push(&to->up, &f->up_node);
        }
    } else {
        credit_back(from, m);
    }
    if (rc) {
        fail(f, rc, refusal(rc));
        return rc;
    }
    f->done = done;
    f->ctx = ctx;
    if (out) {
        *out = f;
    }
    return 0;
}

void forward_cancel(struct forward *f)
{
    f->cancelled = true;
    if (f->to_id && !f->answered && f->to->link) {
        cule_link_cancel(f->to->link, f->to_id); /* runs on_answer, which ends f */
    } else {
        end(f, CULE_ECANCELLED);
    }
}

/* --- the asker's stream --- */

static void pass_up(struct forward *f, const uint8_t *p, size_t n, bool last)
{
    bool waits = f->request || cule_buf_len(&f->up) || f->up_last;
    if (f->answered) {
        return;
    }
    if (!waits) {
        int rc = cule_link_data(f->to->link, f->to_id, p, n, last);
        if (rc != CULE_EAGAIN) {
            cule_link_stream_consumed(f->from->link, f->from_id, n);
            return;
        }
        cule_list_push(&f->to->up, &f->up_node);
    }
    if (cule_buf_add(&f->up, p, n)) {
        cule_link_error(f->from->link, f->from_id, CULE_ENOMEM, 0, "out of memory");
        forward_cancel(f);
        return;
    }
    f->up_last = last;
}

/* 1: all went; 0: the link takes no more; -1: f is gone. */
static int flush_up(struct forward *f)
{
    if (f->request) {
        struct ipc_msg *k = f->request;
        int rc = send_request(f, &k->m);
        if (rc == CULE_EAGAIN) {
            return 0;
        }
        if (rc) {
            fail(f, rc, refusal(rc));
            return -1;
        }
        f->request = NULL;
        credit_back(f->from, &k->m);
        ipc_msg_free(k);
    }
    while (cule_buf_len(&f->up) || f->up_last) {
        size_t n = CULE_MIN(cule_buf_len(&f->up), (size_t)CULE_PAYLOAD_MAX);
        bool last = f->up_last && n == cule_buf_len(&f->up);
        if (cule_link_data(f->to->link, f->to_id, n ? cule_buf_data(&f->up) : NULL, n, last) == CULE_EAGAIN) {
            return 0;
        }
        cule_link_stream_consumed(f->from->link, f->from_id, n);
        if (n) {
            cule_buf_take(&f->up, n);
        }
        f->up_last = f->up_last && !last;
    }
    return 1;
}

void forward_stream(struct forward_port *from, struct cule_msg *m)
{
    struct forward *f = cule_map_get(&from->asked, m->h.id);
    if (f) {
        tap(f, false, m);
        pass_up(f, m->body, m->len, !(m->h.flags & CULE_OPEN));
    }
}

bool forward_message(struct forward_port *from, struct cule_msg *m)
{
    struct forward *f = cule_map_get(&from->asked, m->h.id);
    if (!f) {
        return false;
    }
    if (m->h.kind == CULE_CANCEL) {
        tap(f, false, m);
        forward_cancel(f);
        return true;
    }
    if (m->h.kind == CULE_DATA) {
        ipc_msg_consumed(from->link, m);
        forward_stream(from, m);
        return true;
    }
    return false;
}

/* --- room again --- */

static void try_up(struct forward *f)
{
    if (flush_up(f) > 0) {
        cule_list_remove(&f->up_node);
    }
}

static void try_down(struct forward *f)
{
    if (!flush_down(f)) {
        return;
    }
    cule_list_remove(&f->down_node);
    if (f->answered) {
        end(f, 0);
    }
}

static void try_events(struct forward_port *p)
{
    while (!cule_list_empty(&p->events)) {
        struct ipc_msg *k = CULE_LIST_ENTRY(p->events.next, struct ipc_msg, node);
        if (cule_link_send(p->link, &k->m) == CULE_EAGAIN) {
            return;
        }
        cule_list_remove(&k->node);
        p->nevents--;
        ipc_msg_free(k);
    }
}

void forward_writable(struct forward_port *p, uint64_t id)
{
    if (!p->link) {
        return;
    }
    if (id) {
        struct forward *f = cule_map_get(&p->asking, id);
        if (f && !cule_list_empty(&f->up_node)) {
            try_up(f);
        }
        f = cule_map_get(&p->asked, id);
        if (f && !cule_list_empty(&f->down_node)) {
            try_down(f);
        }
        return;
    }
    CULE_LIST_EACH (n, &p->down) {
        try_down(CULE_LIST_ENTRY(n, struct forward, down_node));
    }
    CULE_LIST_EACH (n, &p->up) {
        struct forward *f = CULE_LIST_ENTRY(n, struct forward, up_node);
        bool requests = f->request != NULL;
        try_up(f);
        if (requests && p->up.next == n) {
            break; /* no credit for requests: those behind it wait for the same */
        }
    }
    try_events(p);
}

int forward_event(struct forward_port *from, struct forward_port *to, struct cule_msg *m)
{
    struct cule_msg copy = *m;
    struct cule_err err = {0};
    int rc = to->link ? translate(from, to, &copy.h, &err) : CULE_ECLOSED;
    credit_back(from, m);
    if (rc == 0 && from->tap) {
        from->tap(from->tap_ctx, false, m);
    }
    if (rc == 0) {
        rc = cule_list_empty(&to->events) ? cule_link_send(to->link, &copy) : CULE_EAGAIN;
    }
    if (rc != CULE_EAGAIN) {
        return rc;
    }
    if (to->nevents >= FORWARD_PARKED_MAX) {
        return CULE_EBUSY;
    }
    struct ipc_msg *k = ipc_msg_keep(&copy);
    if (!k) {
        return CULE_ENOMEM;
    }
    cule_list_push(&to->events, &k->node);
    to->nevents++;
    return 0;
}

/* Messages put together from frames and cut into frames. */
#include "wire/message.h"

#include "base/pool.h"

#include <assert.h>

/* The header is kept as bytes: pooled memory is not aligned to a cache line, struct cule_frame is. */
struct cule_assembly {
    uint64_t id;
    uint32_t source;
    uint8_t priority;
    uint8_t kind;
    bool dead; /* refused already: its frames are thrown away up to the last */
    uint8_t first[CULE_HEADER_SIZE];
    struct cule_buf buf;
    int *fds;
    unsigned nfds;
    size_t fds_size;
};

void cule_assembler_init(struct cule_assembler *a)
{
    *a = (struct cule_assembler){
        .message_max = CULE_MESSAGE_MAX, .total_max = 4 * (size_t)CULE_MESSAGE_MAX, .open_max = 256};
}

/* --- the open ones ------------------------------------------------------------------------------------------ */

static void give_up_fds(struct cule_assembler *a, const int *fds, unsigned nfds)
{
    if (nfds && a->drop_fds) {
        a->drop_fds(a->ctx, fds, nfds);
    }
}

/* Frees what an assembly holds; it stays in the list. */
static void empty(struct cule_assembler *a, struct cule_assembly *s)
{
    if (!s->dead) {
        a->total -= cule_buf_len(&s->buf);
        a->open--;
        cule_buf_release(&s->buf);
        give_up_fds(a, s->fds, s->nfds);
        if (s->fds) {
            cule_pool_put(s->fds, s->fds_size);
        }
        s->fds = NULL;
        s->nfds = 0;
        s->dead = true;
    }
}

static void remove_at(struct cule_assembler *a, unsigned i)
{
    assert(a->list[i].dead);
    a->count--;
    if (i != a->count) {
        a->list[i] = a->list[a->count];
    }
    if (a->count == 0) {
        cule_pool_put(a->list, a->list_size);
        a->list = NULL;
        a->list_size = 0;
    }
}

static void done_drop(struct cule_assembler *a)
{
    cule_buf_clear(&a->done);
    if (a->done_fds) {
        cule_pool_put(a->done_fds, a->done_fds_size);
        a->done_fds = NULL;
    }
}

void cule_assembler_release(struct cule_assembler *a)
{
    while (a->count) {
        empty(a, &a->list[a->count - 1]);
        remove_at(a, a->count - 1);
    }
    done_drop(a);
}

static bool same(const struct cule_assembly *s, const struct cule_frame *f)
{
    return s->id == f->id && s->source == f->source && s->kind == f->kind && s->priority == f->priority;
}

/* Where the message of this frame stands in the list, or its count. */
static unsigned find(struct cule_assembler *a, const struct cule_frame *f)
{
    if (a->last < a->count && same(&a->list[a->last], f)) {
        return a->last;
    }
    for (unsigned i = 0; i < a->count; i++) {
        if (same(&a->list[i], f)) {
            a->last = i;
            return i;
        }
    }
    return a->count;
}

/* A new entry for the frame's message, as a refused one. NULL: no memory. */
static struct cule_assembly *add(struct cule_assembler *a, const struct cule_frame *f)
{
    size_t need = (a->count + 1) * sizeof *a->list;
    if (need > a->list_size) {
        size_t size;
        struct cule_assembly *list = cule_pool_get(need, &size);
        if (!list) {
            return NULL;
        }
        if (a->list) {
            memcpy(list, a->list, a->count * sizeof *list);
            cule_pool_put(a->list, a->list_size);
        }
        a->list = list;
        a->list_size = size;
    }
    struct cule_assembly *s = &a->list[a->count];
    *s = (struct cule_assembly){
        .id = f->id, .source = f->source, .priority = f->priority, .kind = f->kind, .dead = true};
    memcpy(s->first, f, CULE_HEADER_SIZE);
    a->last = a->count++;
    return s;
}

unsigned cule_assembler_abort(struct cule_assembler *a, uint32_t source, uint64_t id)
{
    unsigned n = 0;
    for (unsigned i = a->count; i--;) {
        if (a->list[i].source == source && a->list[i].id == id) {
            n += !a->list[i].dead;
            empty(a, &a->list[i]);
            remove_at(a, i);
        }
    }
    return n;
}

/* --- one frame more ----------------------------------------------------------------------------------------- */

static int too_big(const struct cule_assembler *a, struct cule_err *err)
{
    return cule_err_set(err, CULE_ETOO_BIG, "the message is larger than the %zu bytes this side takes", a->message_max);
}

/* Sets body, trace and length from the payload as a whole. */
static int finish(struct cule_msg *m, const uint8_t *payload, size_t n, struct cule_err *err)
{
    bool traced = m->h.flags & CULE_TRACE;
    if (traced && n < CULE_TRACE_SIZE) {
        return cule_err_set(err, CULE_EMALFORMED, "a message of %zu bytes has no room for its trace prefix", n);
    }
    m->h.length = (uint32_t)n;
    m->trace = traced ? payload : NULL;
    m->body = traced ? payload + CULE_TRACE_SIZE : payload;
    m->len = traced ? n - CULE_TRACE_SIZE : n;
    return 1;
}

static int single(struct cule_assembler *a, const struct cule_frame *f, const uint8_t *payload, int *fds, unsigned nfds,
                  struct cule_msg *m, struct cule_err *err)
{
    m->h = *f;
    m->fds = nfds ? fds : NULL;
    m->nfds = nfds;
    int rc = f->length > a->message_max ? too_big(a, err) : finish(m, payload, f->length, err);
    if (rc < 0) {
        a->refused++;
        give_up_fds(a, fds, nfds);
        m->fds = NULL;
        m->nfds = 0;
    }
    return rc;
}

/* Appends the frame's payload to a living message within the limits. */
static int append(struct cule_assembler *a, struct cule_assembly *s, const struct cule_frame *f, const uint8_t *payload,
                  struct cule_err *err)
{
    size_t have = cule_buf_len(&s->buf);
    if (f->length > a->message_max || have > a->message_max - f->length) {
        return too_big(a, err);
    }
    if (f->length > a->total_max || a->total > a->total_max - f->length) {
        return cule_err_set(err, CULE_ELIMIT, "unfinished messages hold %zu bytes, at most %zu may be held", a->total,
                            a->total_max);
    }
    int rc = cule_buf_add(&s->buf, payload, f->length);
    if (rc) {
        return cule_err_set(err, rc, "no memory for %zu bytes of an unfinished message", have + f->length);
    }
    a->total += f->length;
    return 0;
}

static int begin(struct cule_assembler *a, struct cule_assembly *s, const struct cule_frame *f, const uint8_t *payload,
                 const int *fds, unsigned nfds, struct cule_err *err)
{
    if (a->open >= a->open_max) {
        return cule_err_set(err, CULE_ELIMIT, "%u messages are unfinished, no more may be", a->open);
    }
    if (nfds) {
        s->fds = cule_pool_get(nfds * sizeof *fds, &s->fds_size);
        if (!s->fds) {
            return cule_err_set(err, CULE_ENOMEM, "no memory for %u descriptors of a message", nfds);
        }
        memcpy(s->fds, fds, nfds * sizeof *fds);
    }
    cule_buf_init(&s->buf, 0);
    s->dead = false;
    a->open++;
    int rc = append(a, s, f, payload, err);
    /* Only now are the descriptors the assembly's, so that a failure gives them up once. */
    s->nfds = rc ? 0 : nfds;
    return rc;
}

/* The message of `s` is whole: its memory moves to where the caller reads it. */
static int complete(struct cule_assembler *a, unsigned i, uint16_t last_flags, struct cule_msg *m, struct cule_err *err)
{
    struct cule_assembly *s = &a->list[i];
    size_t n = cule_buf_len(&s->buf);
    memcpy(&m->h, s->first, CULE_HEADER_SIZE);
    m->h.flags = (uint16_t)((m->h.flags & ~(CULE_MORE | CULE_OPEN)) | (last_flags & CULE_OPEN));
    int rc = finish(m, n ? cule_buf_data(&s->buf) : (const uint8_t *)"", n, err);
    if (rc == 1) {
        a->total -= n;
        a->done = s->buf;
        a->done_fds = s->fds;
        a->done_fds_size = s->fds_size;
        m->fds = s->fds;
        m->nfds = s->nfds;
        cule_buf_init(&s->buf, 0);
        s->fds = NULL;
        s->nfds = 0;
    } else {
        a->refused++;
    }
    empty(a, s);
    remove_at(a, i);
    return rc;
}

int cule_assembler_push(struct cule_assembler *a, const struct cule_frame *f, const uint8_t *payload, int *fds,
                        unsigned nfds, struct cule_msg *m, struct cule_err *err)
{
    bool more = f->flags & CULE_MORE;
    done_drop(a);
    m->fds = NULL;
    m->nfds = 0;
    unsigned i = a->count ? find(a, f) : 0;
    if (i == a->count) {
        if (!more) {
            return single(a, f, payload, fds, nfds, m, err);
        }
        m->h = *f;
        struct cule_assembly *s = a->count < 2 * (uint64_t)a->open_max ? add(a, f) : NULL;
        if (!s) {
            give_up_fds(a, fds, nfds);
            return cule_err_set(err, CULE_EREFUSED, "%u unfinished messages, no room to refuse one more", a->count);
        }
        int rc = begin(a, s, f, payload, fds, nfds, err);
        if (rc) {
            a->refused++;
            give_up_fds(a, fds, nfds);
            empty(a, s);
        }
        return rc;
    }
    struct cule_assembly *s = &a->list[i];
    if (nfds) {
        give_up_fds(a, fds, nfds);
    }
    int rc = 0;
    if (!s->dead) {
        rc = nfds || (f->flags & CULE_TRACE)
                 ? cule_err_set(err, CULE_EMALFORMED, "%s inside a message: only its first frame may have that",
                                nfds ? "descriptors" : "a trace prefix")
                 : append(a, s, f, payload, err);
        if (rc) {
            a->refused++;
            memcpy(&m->h, s->first, CULE_HEADER_SIZE);
            empty(a, s);
        } else if (!more) {
            return complete(a, i, f->flags, m, err);
        }
    }
    if (s->dead && !more) {
        remove_at(a, i);
    }
    return rc;
}

bool cule_assembler_has(struct cule_assembler *a, const struct cule_frame *f)
{
    return a->count && find(a, f) < a->count;
}

int cule_assembler_spoil(struct cule_assembler *a, const struct cule_frame *f)
{
    bool more = f->flags & CULE_MORE;
    unsigned i = a->count ? find(a, f) : 0;
    bool known = i < a->count;
    bool anew = known ? !a->list[i].dead : true;
    if (known) {
        empty(a, &a->list[i]);
        if (!more) {
            remove_at(a, i);
        }
    } else if (more && (a->count >= 2 * (uint64_t)a->open_max || !add(a, f))) {
        return CULE_EREFUSED;
    }
    a->refused += anew;
    return anew;
}

bool cule_assembler_keep(struct cule_assembler *a, struct cule_buf *out)
{
    if (!a->done.base) {
        return false;
    }
    *out = a->done;
    cule_buf_init(&a->done, 0);
    return true;
}

/* --- apart -------------------------------------------------------------------------------------------------- */

void cule_split_init(struct cule_split *s, const struct cule_msg *m, uint32_t max)
{
    *s = (struct cule_split){.h = m->h,
                             .trace = m->trace,
                             .body = m->body,
                             .left = m->len,
                             .max = max ? max : CULE_PAYLOAD_MAX,
                             .first = true};
    assert(s->max > CULE_TRACE_SIZE && s->max <= CULE_PAYLOAD_MAX && m->nfds <= CULE_FDS_MAX);
    s->h.nfds = (uint8_t)m->nfds;
    s->h.flags &= (uint16_t) ~(CULE_MORE | CULE_TRACE);
}

bool cule_split_next(struct cule_split *s, struct cule_frame *f, const uint8_t **trace, const uint8_t **part, size_t *n)
{
    if (s->done) {
        return false;
    }
    size_t prefix = s->first && s->trace ? CULE_TRACE_SIZE : 0;
    *f = s->h;
    *trace = prefix ? s->trace : NULL;
    *part = s->body;
    *n = CULE_MIN(s->left, s->max - prefix);
    f->length = (uint32_t)(prefix + *n);
    f->flags |= prefix ? CULE_TRACE : 0;
    s->left -= *n;
    if (*n) {
        s->body += *n;
    }
    s->done = s->left == 0;
    if (!s->done) {
        f->flags = (uint16_t)((f->flags | CULE_MORE) & ~CULE_OPEN);
    }
    s->first = false;
    s->h.nfds = 0;
    return true;
}

int cule_frame_add(struct cule_buf *b, const struct cule_frame *f, bool nested, const void *payload)
{
    uint8_t *at;
    int rc = cule_buf_reserve(b, CULE_HEADER_SIZE + cule_frame_tail(f), &at);
    if (rc == 0) {
        cule_buf_commit(b, cule_frame_write(f, nested, payload, at));
    }
    return rc;
}

int cule_msg_add(struct cule_buf *b, const struct cule_msg *m)
{
    struct cule_split s;
    struct cule_frame f;
    const uint8_t *trace;
    const uint8_t *part;
    size_t n;
    size_t size = 0;
    uint8_t *at;
    for (cule_split_init(&s, m, 0); cule_split_next(&s, &f, &trace, &part, &n);) {
        size += CULE_HEADER_SIZE + cule_frame_tail(&f);
    }
    int rc = cule_buf_reserve(b, size, &at);
    if (rc) {
        return rc;
    }
    for (cule_split_init(&s, m, 0); cule_split_next(&s, &f, &trace, &part, &n);) {
        size_t prefix = trace ? CULE_TRACE_SIZE : 0;
        uint8_t *body = at + CULE_HEADER_SIZE;
        if (prefix) {
            memcpy(body, trace, prefix);
        }
        if (n) {
            memcpy(body + prefix, part, n);
        }
        at += cule_frame_seal(&f, false, at);
    }
    cule_buf_commit(b, size);
    return 0;
}

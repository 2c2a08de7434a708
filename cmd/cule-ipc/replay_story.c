/* What a recording tells: messages put together, answers reduced to what counts, and the difference of two. */
#include "replay.h"

#include "wire/print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- messages --- */

int replay_source_open(struct replay_source *s, const char *path, struct cule_err *err)
{
    *s = (struct replay_source){0};
    cule_map_init(&s->assemblers);
    return recording_open(&s->r, path, err);
}

void replay_source_close(struct replay_source *s)
{
    size_t at = 0;
    struct cule_assembler *a;
    while ((a = cule_map_next(&s->assemblers, &at, NULL))) {
        cule_assembler_release(a);
        free(a);
    }
    cule_map_release(&s->assemblers);
    recording_close(&s->r);
}

static struct cule_assembler *assembler(struct replay_source *s, uint64_t link, bool answer)
{
    uint64_t key = link * 2 + answer;
    struct cule_assembler *a = cule_map_get(&s->assemblers, key);
    if (!a && (a = calloc(1, sizeof *a))) {
        cule_assembler_init(a);
        if (cule_map_put(&s->assemblers, key, a)) {
            free(a);
            a = NULL;
        }
    }
    return a;
}

int replay_source_next(struct replay_source *s, struct replay_item *x, struct cule_err *err)
{
    struct recorded f;
    int rc;
    while ((rc = recording_next(&s->r, &f, err)) > 0) {
        struct cule_err why = {0};
        if (f.bad) {
            continue; /* counted and reported by the reader */
        }
        struct cule_assembler *a = assembler(s, f.link, f.answer);
        if (!a) {
            return cule_err_set(err, CULE_ENOMEM, "out of memory");
        }
        s->fds += f.f.nfds > 0;
        f.f.nfds = 0;
        int got = cule_assembler_push(a, &f.f, f.payload, NULL, 0, &x->m, &why);
        s->refused += got < 0;
        if (got > 0) {
            x->time_ns = f.time_ns;
            x->link = f.link;
            /* Without marks the kind has to tell. */
            x->answer = f.time_ns ? f.answer : x->m.h.kind == CULE_REPLY || x->m.h.kind == CULE_ERROR_FRAME;
            return 1;
        }
    }
    return rc;
}

/* --- stories --- */

void story_add_bytes(struct story_bytes *b, const void *p, size_t n)
{
    const uint8_t *at = p;
    for (size_t i = 0; i < n && b->len + i < STORY_SAMPLE; i++) {
        b->sample[b->len + i] = at[i];
    }
    /* FNV-1a: what matters is that it goes on over pieces, however they are cut. */
    uint64_t h = b->len ? b->hash : UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) {
        h = (h ^ at[i]) * UINT64_C(0x100000001b3);
    }
    b->hash = h;
    b->len += n;
}

void story_add(struct story *s, const struct cule_msg *m)
{
    bool open = m->h.flags & CULE_OPEN;
    switch (m->h.kind) {
    case CULE_EVENT:
        s->service = m->h.service;
        s->op = m->h.op;
        /* fall through */
    case CULE_REPLY:
        s->replied = true;
        s->arg0 = m->h.arg0;
        s->arg1 = m->h.arg1;
        s->streamed = open;
        s->ended = !open;
        story_add_bytes(&s->reply, m->body, m->len);
        break;
    case CULE_DATA:
        story_add_bytes(&s->data, m->body, m->len);
        s->ended = !open;
        break;
    case CULE_ERROR_FRAME:
        s->failed = s->ended = true;
        s->code = cule_msg_error(m, NULL);
        s->detail = m->h.arg1;
        story_add_bytes(&s->text, m->body, m->len);
        break;
    default: break;
    }
}

static int show(struct cule_buf *out, const struct story_bytes *b)
{
    int rc = cule_buf_addf(out, "%" PRIu64 " bytes '", b->len);
    rc = rc ? rc : cule_print_safe(b->sample, CULE_MIN(b->len, (uint64_t)STORY_SAMPLE), out);
    return rc ? rc : cule_buf_addf(out, b->len > STORY_SAMPLE ? "'..." : "'");
}

static void differ_bytes(const char *what, const struct story_bytes *a, const struct story_bytes *b,
                         struct cule_buf *out, int *n)
{
    if (a->len == b->len && (a->len == 0 || a->hash == b->hash)) {
        return;
    }
    cule_buf_addf(out, "  %s recorded ", what);
    show(out, a);
    cule_buf_addf(out, "\n  %*s      now ", (int)strlen(what), "");
    show(out, b);
    cule_buf_addc(out, '\n');
    *n += 1;
}

static void differ_number(const char *what, uint64_t a, uint64_t b, struct cule_buf *out, int *n)
{
    if (a != b) {
        cule_buf_addf(out, "  %s recorded %" PRIu64 ", now %" PRIu64 "\n", what, a, b);
        *n += 1;
    }
}

static const char *outcome(const struct story *s)
{
    return s->failed ? "an error" : s->ended ? "a reply" : s->replied ? "a reply without its end" : "no answer";
}

int story_compare(const struct story *a, const struct story *b, struct cule_buf *out)
{
    int n = 0;
    if (a->failed != b->failed || a->ended != b->ended || a->replied != b->replied || a->streamed != b->streamed) {
        n++;
        cule_buf_addf(out, "  outcome recorded %s%s, now %s%s\n", a->streamed ? "a stream and " : "", outcome(a),
                      b->streamed ? "a stream and " : "", outcome(b));
    }
    if (a->service != b->service || a->op != b->op) {
        n++;
        cule_buf_addf(out, "  op recorded 0x%04x, now 0x%04x\n", a->op, b->op);
    }
    differ_number("arg0", a->arg0, b->arg0, out, &n);
    differ_number("arg1", a->arg1, b->arg1, out, &n);
    differ_bytes("reply", &a->reply, &b->reply, out, &n);
    differ_bytes("stream", &a->data, &b->data, out, &n);
    if (a->failed && b->failed && a->code != b->code) {
        n++;
        cule_buf_addf(out, "  error recorded %s, now %s\n", cule_err_name(a->code), cule_err_name(b->code));
    }
    differ_number("detail", a->detail, b->detail, out, &n);
    differ_bytes("text", &a->text, &b->text, out, &n);
    return n;
}

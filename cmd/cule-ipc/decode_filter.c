/* Filters over frames, from the command line. */
#include "decode_filter.h"

#include "base/parse.h"
#include "busclient.h"
#include "wire/mirror.h"

#include <stdlib.h>
#include <string.h>

enum { FILTER_PATTERN_MAX = 256, FILTER_TERM_MAX = 300 };

struct decode_rule {
    bool has_service, has_op, has_kind, has_topic, has_id;
    uint32_t service, op;
    int kind;
    uint64_t id;
    char pattern[FILTER_PATTERN_MAX];
    char op_text[64]; /* until the service is known */
};

static int bad(struct cule_err *err, const char *term, const char *why)
{
    return cule_err_set(err, CULE_EUSAGE, "filter '%s': %s", term, why);
}

static int term(struct decode_rule *r, const char *text, struct cule_err *err)
{
    const char *v = strchr(text, '=');
    if (!v) {
        return bad(err, text, "a term is service=S, op=OP, kind=KIND, topic=PATTERN or id=N");
    }
    size_t n = (size_t)(v++ - text);
    if (strncmp(text, "service", n) == 0 && n == 7) {
        r->has_service = true;
        return cule_service_parse(v, &r->service) ? bad(err, text, "no such service") : 0;
    }
    if (strncmp(text, "op", n) == 0 && n == 2) {
        r->has_op = true;
        if (strlen(v) >= sizeof r->op_text) {
            return bad(err, text, "no such op");
        }
        memcpy(r->op_text, v, strlen(v) + 1);
        return 0;
    }
    if (strncmp(text, "kind", n) == 0 && n == 4) {
        r->has_kind = true;
        r->kind = cule_kind_parse(v);
        return r->kind < 0 ? bad(err, text, "no such kind (hello, request, reply, error, event, data, ...)") : 0;
    }
    if (strncmp(text, "topic", n) == 0 && n == 5) {
        r->has_topic = true;
        if (strlen(v) >= sizeof r->pattern) {
            return bad(err, text, "the pattern is too long");
        }
        memcpy(r->pattern, v, strlen(v) + 1);
        return busclient_check_pattern(v, err);
    }
    if (strncmp(text, "id", n) == 0 && n == 2) {
        r->has_id = true;
        return cule_parse_u64(v, &r->id) ? bad(err, text, "no number") : 0;
    }
    return bad(err, text, "a term is service=S, op=OP, kind=KIND, topic=PATTERN or id=N");
}

/* An op by name needs the service, or is one of those that every service has. */
static int resolve_op(struct decode_rule *r, struct cule_err *err)
{
    if (!r->has_op) {
        return 0;
    }
    if (r->has_service) {
        return cule_op_parse(r->service, r->op_text, &r->op) ? bad(err, r->op_text, "the service has no such op") : 0;
    }
    uint64_t number;
    if (cule_parse_u64(r->op_text, &number) == 0 && number <= UINT32_MAX) {
        r->op = (uint32_t)number;
        return 0;
    }
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        if (strcasecmp(o->name, r->op_text) == 0) {
            r->op = o->op;
            r->service = o->service;
            r->has_service = o->service != CULE_ANY;
            return 0;
        }
    }
    return bad(err, r->op_text, "no service has such an op; say service=S too, or a number");
}

static int rule(struct decode_rule *r, const char *text, struct cule_err *err)
{
    int rc = 0;
    while (rc == 0 && *text) {
        char one[FILTER_TERM_MAX];
        size_t n = strcspn(text, ",");
        if (n >= sizeof one) {
            return bad(err, text, "too long");
        }
        memcpy(one, text, n);
        one[n] = '\0';
        rc = term(r, one, err);
        text += n + (text[n] == ',');
    }
    return rc ? rc : resolve_op(r, err);
}

int decode_filter_parse(struct decode_filter *f, const struct cule_words *words, struct cule_err *err)
{
    *f = (struct decode_filter){0};
    if (words->n == 0) {
        return 0;
    }
    f->rules = calloc(words->n, sizeof *f->rules);
    if (!f->rules) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    f->n = words->n;
    int rc = 0;
    for (size_t i = 0; i < words->n && rc == 0; i++) {
        rc = rule(&f->rules[i], words->v[i], err);
    }
    return rc;
}

void decode_filter_release(struct decode_filter *f)
{
    free(f->rules);
    f->rules = NULL;
    f->n = 0;
}

static bool topic_matches(const struct decode_rule *r, const struct cule_frame *h, const uint8_t *body, size_t n)
{
    if (!cule_op_has_topic(h->service, h->op)) {
        return false;
    }
    uint64_t len = h->arg0 & UINT32_MAX;
    return len > 0 && len <= n && busclient_matches(r->pattern, (const char *)body, (size_t)len);
}

bool decode_filter_takes(const struct decode_filter *f, const struct cule_frame *h, const uint8_t *body, size_t n)
{
    for (size_t i = 0; i < f->n; i++) {
        const struct decode_rule *r = &f->rules[i];
        if ((!r->has_service || h->service == r->service) && (!r->has_op || h->op == r->op) &&
            (!r->has_kind || h->kind == r->kind) && (!r->has_id || h->id == r->id) &&
            (!r->has_topic || topic_matches(r, h, body, n))) {
            return true;
        }
    }
    return f->n == 0;
}

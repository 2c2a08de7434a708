/* The values of options: text into typed fields. */
#include "cli/value.h"

#include "base/bytes.h"
#include "base/parse.h"
#include "cli/suggest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int cule_words_add(struct cule_words *w, const char *word)
{
    const char **v = realloc(w->v, (w->n + 2) * sizeof *v);
    if (!v) {
        return CULE_ENOMEM;
    }
    w->v = v;
    v[w->n++] = word;
    v[w->n] = NULL;
    return 0;
}

void cule_words_release(struct cule_words *w)
{
    free(w->v);
    w->v = NULL;
    w->n = 0;
}

bool cule_choice_at(const char *choices, int i, char *out, size_t n)
{
    for (; i > 0; i--) {
        choices = strchr(choices, '|');
        if (!choices) {
            return false;
        }
        choices++;
    }
    size_t len = CULE_MIN(strcspn(choices, "|"), n - 1);
    memcpy(out, choices, len);
    out[len] = '\0';
    return true;
}

int cule_choice_index(const char *choices, const char *text)
{
    char one[64];
    for (int i = 0; cule_choice_at(choices, i, one, sizeof one); i++) {
        if (strcmp(one, text) == 0) {
            return i;
        }
    }
    return -1;
}

static int bad_choice(const struct cule_opt *o, const char *text, struct cule_err *err)
{
    char names[32][64];
    struct cule_suggest s;

    cule_suggest_init(&s, text);
    for (int i = 0; i < 32 && cule_choice_at(o->choices, i, names[i], sizeof names[i]); i++) {
        cule_suggest_offer(&s, names[i]);
    }
    if (s.best) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is no %s for --%s; did you mean '%s'?", text, o->arg_name, o->name,
                            s.best);
    }
    return cule_err_set(err, CULE_EUSAGE, "'%s' is no %s for --%s; one of %s", text, o->arg_name, o->name, o->choices);
}

static int parse_real(const char *text, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(v) || v < 0) {
        return CULE_EMALFORMED;
    }
    *out = v;
    return 0;
}

static int bad_value(const struct cule_opt *o, const char *text, const char *want, struct cule_err *err)
{
    return cule_err_set(err, CULE_EUSAGE, "'%s' is no %s for --%s", text, want, o->name);
}

static int store_number(void *field, const struct cule_opt *o, const char *text, struct cule_err *err)
{
    uint64_t n = 0;
    switch (o->type) {
    case CULE_TYPE_SIZE:
        if (cule_parse_size(text, &n) < 0) {
            return bad_value(o, text, "size (bytes, or with K, M, G)", err);
        }
        break;
    case CULE_TYPE_DURATION:
        if (cule_parse_duration_ms(text, &n) < 0) {
            return bad_value(o, text, "time (as in 250ms, 5s or 2m)", err);
        }
        break;
    default:
        if (cule_parse_u64(text, &n) < 0) {
            return bad_value(o, text, "number", err);
        }
        break;
    }
    memcpy(field, &n, sizeof n);
    return 0;
}

int cule_value_store(void *base, const struct cule_opt *o, const char *text, struct cule_err *err)
{
    void *field = (char *)base + o->offset;
    switch (o->type) {
    case CULE_TYPE_FLAG: *(bool *)field = true; return 0;
    case CULE_TYPE_COUNTER: ++*(unsigned *)field; return 0;
    case CULE_TYPE_STRING: *(const char **)field = text; return 0;
    case CULE_TYPE_U64:
    case CULE_TYPE_SIZE:
    case CULE_TYPE_DURATION: return store_number(field, o, text, err);
    case CULE_TYPE_REAL: return parse_real(text, field) < 0 ? bad_value(o, text, "number", err) : 0;
    case CULE_TYPE_LIST:
        if (cule_words_add(field, text) < 0) {
            return cule_err_set(err, CULE_ENOMEM, "out of memory");
        }
        return 0;
    case CULE_TYPE_CHOICE: {
        int i = cule_choice_index(o->choices, text);
        if (i < 0) {
            return bad_choice(o, text, err);
        }
        *(int *)field = i;
        return 0;
    }
    case CULE_TYPE_REST:
    case CULE_TYPE_END: break;
    }
    return cule_err_set(err, CULE_EUSAGE, "--%s takes the rest of the line", o->name);
}

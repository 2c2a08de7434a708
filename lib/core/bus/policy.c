/* What holds for which topics: rules by pattern, later ones over earlier ones, field by field. */
#include "base/json.h"
#include "base/parse.h"
#include "core/bus/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum field { F_OVERFLOW, F_DURABILITY, F_HISTORY, F_HISTORY_BYTES, F_HISTORY_MS, F_MAX_MESSAGE, F_LIMIT, F_COUNT };

static const char *const overflow_names[] = {"", "drop-oldest", "drop-newest", "disconnect", "block"};
static const char *const durability_names[] = {"", "none", "memory", "disk"};

const char *cule_bus_overflow_name(enum cule_bus_overflow o)
{
    return overflow_names[o];
}

const char *cule_bus_durability_name(enum cule_bus_durability d)
{
    return durability_names[d];
}

static int choose(const char *const *names, int n, const char *s)
{
    for (int i = 1; i < n; i++) {
        if (strcmp(names[i], s) == 0) {
            return i;
        }
    }
    return 0;
}

int cule_bus_overflow_parse(const char *s, enum cule_bus_overflow *o)
{
    *o = (enum cule_bus_overflow)choose(overflow_names, CULE_COUNT(overflow_names), s);
    return *o ? 0 : CULE_EMALFORMED;
}

static void overlay(struct cule_bus_policy *p, const struct cule_bus_policy *r, unsigned set)
{
    p->overflow = set & 1 << F_OVERFLOW ? r->overflow : p->overflow;
    p->durability = set & 1 << F_DURABILITY ? r->durability : p->durability;
    p->keep.messages = set & 1 << F_HISTORY ? r->keep.messages : p->keep.messages;
    p->keep.bytes = set & 1 << F_HISTORY_BYTES ? r->keep.bytes : p->keep.bytes;
    p->keep.age_ms = set & 1 << F_HISTORY_MS ? r->keep.age_ms : p->keep.age_ms;
    p->max_message = set & 1 << F_MAX_MESSAGE ? r->max_message : p->max_message;
    p->limit = set & 1 << F_LIMIT ? r->limit : p->limit;
}

void cule_bus_policy_apply(struct cule_bus *b, struct cule_bus_topic *t)
{
    static const char dead[] = "$bus/dead/#";
    struct cule_bus_policy p = {.overflow = CULE_BUS_DROP_OLDEST, .durability = CULE_BUS_MEMORY};
    if (cule_pattern_match(dead, sizeof dead - 1, t->name, t->len)) {
        p.keep.messages = BUS_DEAD_HISTORY;
    }
    CULE_LIST_EACH (n, &b->rules) {
        const struct cule_bus_rule *r = CULE_LIST_ENTRY(n, struct cule_bus_rule, node);
        if (cule_pattern_match(r->pattern, r->len, t->name, t->len)) {
            overlay(&p, &r->policy, r->set);
        }
    }
    if (p.durability == CULE_BUS_NONE) {
        p.keep = (struct cule_bus_keep){0};
    }
    t->policy = p;
    cule_bus_history_trim(b, t);
}

/* One field by its name; numbers come as text. */
static int set_field(struct cule_bus_rule *r, const char *key, const char *value, struct cule_err *err)
{
    static const char *const names[F_COUNT] = {"overflow",    "durability",  "history", "history-bytes",
                                               "history-age", "max-message", "limit"};
    struct cule_bus_policy *p = &r->policy;
    uint64_t limit = 0;
    int rc = 0;
    int f = 0;
    while (f < F_COUNT && strcmp(names[f], key) != 0) {
        f++;
    }
    switch (f) {
    case F_OVERFLOW: rc = cule_bus_overflow_parse(value, &p->overflow); break;
    case F_DURABILITY:
        p->durability = (enum cule_bus_durability)choose(durability_names, CULE_COUNT(durability_names), value);
        rc = p->durability ? 0 : CULE_EMALFORMED;
        break;
    case F_HISTORY: rc = cule_parse_u64(value, &p->keep.messages); break;
    case F_HISTORY_BYTES: rc = cule_parse_size(value, &p->keep.bytes); break;
    case F_HISTORY_MS: rc = cule_parse_duration_ms(value, &p->keep.age_ms); break;
    case F_MAX_MESSAGE: rc = cule_parse_size(value, &p->max_message); break;
    case F_LIMIT:
        rc = cule_parse_u64(value, &limit);
        rc = rc ? rc : limit > BUS_QUEUE_MAX ? CULE_ELIMIT : 0;
        p->limit = (uint32_t)limit;
        break;
    default:
        return cule_err_set(
            err, CULE_EMALFORMED,
            "'%s' is not overflow, durability, history, history-bytes, history-age, max-message or limit", key);
    }
    r->set |= 1u << f;
    static const char *const takes[F_COUNT] = {"block, drop-oldest, drop-newest or disconnect",
                                               "none, memory or disk",
                                               "a number",
                                               "a size",
                                               "a time",
                                               "a size",
                                               "a number"};
    return rc ? cule_err_set(err, CULE_EMALFORMED, "'%s' is no value for %s: it takes %s", value, key, takes[f]) : 0;
}

static int rule_new(const char *pattern, size_t n, struct cule_bus_rule **out, struct cule_err *err)
{
    int rc = cule_pattern_check(pattern, n, err);
    struct cule_bus_rule *r = rc ? NULL : calloc(1, sizeof *r + n + 1);
    if (!r) {
        return rc ? rc : cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    memcpy(r->pattern, pattern, n);
    r->len = n;
    *out = r;
    return 0;
}

/* Takes the rule over. A rule of the same pattern is amended and becomes the last word. */
static int install(struct cule_bus *b, struct cule_bus_rule *r, struct cule_err *err)
{
    if ((r->set & 1 << F_DURABILITY) && r->policy.durability == CULE_BUS_DISK && !b->fx->append) {
        free(r);
        return cule_err_set(err, CULE_EUNSUPPORTED, "this bus has no store, so durability=disk cannot be kept");
    }
    CULE_LIST_EACH (n, &b->rules) {
        struct cule_bus_rule *old = CULE_LIST_ENTRY(n, struct cule_bus_rule, node);
        if (old->len == r->len && memcmp(old->pattern, r->pattern, r->len) == 0) {
            struct cule_bus_policy p = old->policy;
            overlay(&p, &r->policy, r->set);
            r->policy = p;
            r->set |= old->set;
            cule_list_remove(&old->node);
            free(old);
            b->nrules--;
            break;
        }
    }
    if (b->nrules >= BUS_RULES_MAX) {
        free(r);
        return cule_err_set(err, CULE_ELIMIT, "there are %d topic rules already", BUS_RULES_MAX);
    }
    cule_list_push(&b->rules, &r->node);
    b->nrules++;
    CULE_LIST_EACH (n, &b->topics) {
        struct cule_bus_topic *t = CULE_LIST_ENTRY(n, struct cule_bus_topic, node);
        if (cule_pattern_match(r->pattern, r->len, t->name, t->len)) {
            cule_bus_policy_apply(b, t);
        }
    }
    b->room = true;
    return 0;
}

int cule_bus_set_topic(struct cule_bus *b, const char *spec, struct cule_err *err)
{
    const char *colon = strrchr(spec, ':');
    struct cule_bus_rule *r = NULL;
    if (!colon || !colon[1]) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is not PATTERN:field=value,...", spec);
    }
    int rc = rule_new(spec, (size_t)(colon - spec), &r, err);
    char *list = rc ? NULL : strdup(colon + 1);
    char *save = NULL;
    for (char *f = list ? strtok_r(list, ",", &save) : NULL; f && !rc; f = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(f, '=');
        if (!eq) {
            rc = cule_err_set(err, CULE_EUSAGE, "'%s' is not field=value", f);
            break;
        }
        *eq = 0;
        rc = set_field(r, f, eq + 1, err);
    }
    free(list);
    if (rc) {
        free(r);
        return rc;
    }
    return install(b, r, err);
}

static int member(const struct cule_json *doc, const char *key, const char *field, const char *unit,
                  struct cule_bus_rule *r, struct cule_err *err)
{
    char text[64];
    int i = cule_json_find(doc, 0, key);
    uint64_t v;
    if (i < 0 || cule_json_type(doc, i) == CULE_JSON_NULL) {
        return 0;
    }
    if (cule_json_type(doc, i) == CULE_JSON_NUMBER) {
        int rc = cule_json_u64(doc, i, &v);
        if (rc) {
            return cule_err_set(err, CULE_EMALFORMED, "'%s' is no whole number", key);
        }
        snprintf(text, sizeof text, "%llu%s", (unsigned long long)v, unit);
    } else if (cule_json_str(doc, i, text, sizeof text) < 0) {
        return cule_err_set(err, CULE_EMALFORMED, "'%s' is neither a number nor a short string", key);
    }
    return set_field(r, field, text, err);
}

int cule_bus_policy_json(struct cule_bus *b, const char *json, size_t n, struct cule_err *err)
{
    static const char *const keys[] = {"pattern",    "overflow",    "durability", "history", "history_bytes",
                                       "history_ms", "max_message", "limit",      NULL};
    struct cule_json doc;
    char pattern[CULE_TOPIC_OWN_MAX + 1];
    struct cule_bus_rule *r = NULL;
    cule_json_init(&doc);
    int rc = cule_json_parse(&doc, json, n, err);
    rc = rc ? rc : cule_json_only(&doc, 0, keys, err);
    if (!rc) {
        int got = cule_json_get_str(&doc, 0, "pattern", pattern, sizeof pattern, err);
        rc = got < 0 ? got : got == 0 ? cule_err_set(err, CULE_EMALFORMED, "no 'pattern' given") : 0;
    }
    rc = rc ? rc : rule_new(pattern, strlen(pattern), &r, err);
    rc = rc ? rc : member(&doc, "overflow", "overflow", "", r, err);
    rc = rc ? rc : member(&doc, "durability", "durability", "", r, err);
    rc = rc ? rc : member(&doc, "history", "history", "", r, err);
    rc = rc ? rc : member(&doc, "history_bytes", "history-bytes", "", r, err);
    rc = rc ? rc : member(&doc, "history_ms", "history-age", "ms", r, err);
    rc = rc ? rc : member(&doc, "max_message", "max-message", "", r, err);
    rc = rc ? rc : member(&doc, "limit", "limit", "", r, err);
    cule_json_release(&doc);
    if (rc) {
        free(r);
        return rc;
    }
    return install(b, r, err);
}

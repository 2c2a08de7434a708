/* The ACL file: parsing it, and asking it. */
#include "core/bus/acl.h"

#include "base/bytes.h"
#include "base/parse.h"
#include "core/bus/topic.h"

#include <stdlib.h>

enum { WORDS_MAX = 6, LINE_MAX_LEN = 1024, RULES_MAX = 65536 };

enum who { WHO_ALL, WHO_UID, WHO_GID, WHO_CERT, WHO_TOKEN, WHO_CAP };

struct rule {
    bool allow;
    enum who who;
    unsigned rights;
    uint32_t line;
    uint64_t number; /* uid, gid, capability bits */
    uint64_t rate;
    char *text; /* the whole line */
    char *name; /* of a certificate or token */
    char *pattern;
};

struct token {
    char *name;
    uint8_t hash[CULE_BUS_HASH_SIZE];
};

struct cule_bus_acl {
    struct rule *rules;
    uint32_t nrules, rules_size;
    struct token *tokens;
    uint32_t ntokens, tokens_size;
    bool uses_caps;
};

static const struct {
    const char *name;
    enum cule_bus_right right;
} actions[] = {
    {"publish", CULE_BUS_MAY_PUBLISH}, {"subscribe", CULE_BUS_MAY_SUBSCRIBE}, {"respond", CULE_BUS_MAY_RESPOND},
    {"request", CULE_BUS_MAY_REQUEST}, {"configure", CULE_BUS_MAY_CONFIGURE}, {"all", CULE_BUS_MAY_ALL},
};

const char *cule_bus_right_name(enum cule_bus_right what)
{
    for (size_t i = 0; i < CULE_COUNT(actions); i++) {
        if (actions[i].right == what) {
            return actions[i].name;
        }
    }
    return "?";
}

/* Room for one more element; NULL: no memory. */
static void *more(void *v, uint32_t n, uint32_t *size, size_t each)
{
    if (n < *size) {
        return v;
    }
    uint32_t want = *size ? *size * 2 : 16;
    void *bigger = realloc(v, want * each);
    if (bigger) {
        *size = want;
    }
    return bigger;
}

static int parse_token(struct cule_bus_acl *a, char **w, int n, uint32_t line, struct cule_err *err)
{
    if (n != 3 || strncmp(w[2], "sha256:", 7) != 0 || strlen(w[2]) != 7 + 2 * CULE_BUS_HASH_SIZE) {
        return cule_err_set(err, CULE_EMALFORMED, "line %u: a token is written 'token NAME sha256:' and 64 hex digits",
                            line);
    }
    struct token *v = more(a->tokens, a->ntokens, &a->tokens_size, sizeof *v);
    if (!v) {
        return CULE_ENOMEM;
    }
    a->tokens = v;
    struct token *t = &v[a->ntokens];
    for (int i = 0; i < CULE_BUS_HASH_SIZE; i++) {
        char hex[3] = {w[2][7 + 2 * i], w[2][8 + 2 * i], 0};
        char *end;
        t->hash[i] = (uint8_t)strtoul(hex, &end, 16);
        if (end != hex + 2 || hex[0] == '+' || hex[0] == '-' || hex[0] == ' ') {
            return cule_err_set(err, CULE_EMALFORMED, "line %u: '%s' is no hexadecimal hash", line, w[2]);
        }
    }
    t->name = strdup(w[1]);
    a->ntokens += t->name != NULL;
    return t->name ? 0 : CULE_ENOMEM;
}

static int parse_who(struct rule *r, char *w, uint32_t line, struct cule_err *err)
{
    static const struct {
        const char *prefix;
        enum who who;
        bool number;
    } kinds[] = {{"uid:", WHO_UID, true},
                 {"gid:", WHO_GID, true},
                 {"cap:", WHO_CAP, true},
                 {"cert:", WHO_CERT, false},
                 {"token:", WHO_TOKEN, false}};
    if (strcmp(w, "*") == 0) {
        r->who = WHO_ALL;
        return 0;
    }
    for (size_t i = 0; i < CULE_COUNT(kinds); i++) {
        size_t n = strlen(kinds[i].prefix);
        if (strncmp(w, kinds[i].prefix, n) != 0 || !w[n]) {
            continue;
        }
        r->who = kinds[i].who;
        if (!kinds[i].number) {
            r->name = strdup(w + n);
            return r->name ? 0 : CULE_ENOMEM;
        }
        if (cule_parse_u64(w + n, &r->number) == 0 && r->number <= UINT32_MAX &&
            (r->who != WHO_CAP || (r->number && r->number <= UINT16_MAX))) {
            return 0;
        }
    }
    return cule_err_set(err, CULE_EMALFORMED,
                        "line %u: '%s' is not uid:N, gid:N, cert:NAME, token:NAME, cap:RIGHTS or *", line, w);
}

static int parse_rule(struct rule *r, char **w, int n, uint32_t line, struct cule_err *err)
{
    r->line = line;
    r->allow = strcmp(w[0], "allow") == 0;
    if (!r->allow && strcmp(w[0], "deny") != 0) {
        return cule_err_set(err, CULE_EMALFORMED, "line %u: '%s' is not allow, deny or token", line, w[0]);
    }
    if (n < 4) {
        return cule_err_set(err, CULE_EMALFORMED, "line %u: a rule is '%s WHO ACTION PATTERN [rate=N]'", line, w[0]);
    }
    int rc = parse_who(r, w[1], line, err);
    if (rc) {
        return rc;
    }
    for (size_t i = 0; i < CULE_COUNT(actions); i++) {
        r->rights |= strcmp(w[2], actions[i].name) == 0 ? (unsigned)actions[i].right : 0;
    }
    if (!r->rights) {
        return cule_err_set(err, CULE_EMALFORMED,
                            "line %u: '%s' is not publish, subscribe, respond, request, configure or all", line, w[2]);
    }
    rc = cule_pattern_check(w[3], strlen(w[3]), err);
    if (rc) {
        return cule_err_context(err, rc, "line %u", line);
    }
    if (n == 5 && (strncmp(w[4], "rate=", 5) != 0 || cule_parse_u64(w[4] + 5, &r->rate) || !r->rate)) {
        return cule_err_set(err, CULE_EMALFORMED, "line %u: '%s' is not rate=N", line, w[4]);
    }
    r->pattern = strdup(w[3]);
    return r->pattern ? 0 : CULE_ENOMEM;
}

/* Cuts a line into words; the words are in buf. */
static int words(char *buf, char *w[WORDS_MAX])
{
    char *save = NULL;
    int n = 0;
    for (char *p = strtok_r(buf, " \t\r", &save); p && n < WORDS_MAX; p = strtok_r(NULL, " \t\r", &save)) {
        if (p[0] == '#' && n != 3) { /* in a pattern's place, # is a pattern */
            break;
        }
        w[n++] = p;
    }
    return n;
}

static int parse_line(struct cule_bus_acl *a, const char *at, size_t len, uint32_t line, struct cule_err *err)
{
    char buf[LINE_MAX_LEN];
    char *w[WORDS_MAX];
    if (len >= sizeof buf || memchr(at, 0, len)) {
        return cule_err_set(err, CULE_EMALFORMED, "line %u: longer than %d bytes", line, LINE_MAX_LEN - 1);
    }
    memcpy(buf, at, len);
    buf[len] = 0;
    int n = words(buf, w);
    if (n == 0) {
        return 0;
    }
    if (n > 5) {
        return cule_err_set(err, CULE_EMALFORMED, "line %u: too many words", line);
    }
    if (strcmp(w[0], "token") == 0) {
        return parse_token(a, w, n, line, err);
    }
    struct rule *v = a->nrules < RULES_MAX ? more(a->rules, a->nrules, &a->rules_size, sizeof *v) : NULL;
    if (!v) {
        return cule_err_set(err, CULE_ENOMEM, "line %u: too many rules", line);
    }
    a->rules = v;
    struct rule *r = &v[a->nrules++];
    *r = (struct rule){.text = strndup(at, len)};
    int rc = parse_rule(r, w, n, line, err);
    a->uses_caps |= r->who == WHO_CAP;
    return rc ? rc : r->text ? 0 : CULE_ENOMEM;
}

int cule_bus_acl_new(struct cule_bus_acl **out, const char *text, struct cule_err *err)
{
    struct cule_bus_acl *a = calloc(1, sizeof *a);
    int rc = a ? 0 : CULE_ENOMEM;
    uint32_t line = 1;
    while (!rc && *text) {
        size_t len = strcspn(text, "\n");
        rc = parse_line(a, text, len, line++, err);
        text += len + (text[len] == '\n');
    }
    if (rc) {
        cule_bus_acl_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void cule_bus_acl_free(struct cule_bus_acl *a)
{
    if (!a) {
        return;
    }
    for (uint32_t i = 0; i < a->nrules; i++) {
        free(a->rules[i].text);
        free(a->rules[i].name);
        free(a->rules[i].pattern);
    }
    for (uint32_t i = 0; i < a->ntokens; i++) {
        free(a->tokens[i].name);
    }
    free(a->rules);
    free(a->tokens);
    free(a);
}

static bool is(const struct rule *r, const struct cule_bus_who *who, uint16_t cap)
{
    switch (r->who) {
    case WHO_ALL: return true;
    case WHO_UID: return who->has_cred && who->uid == r->number;
    case WHO_GID: return who->has_cred && who->gid == r->number;
    case WHO_CERT: return who->cert && *who->cert && strcmp(who->cert, r->name) == 0;
    case WHO_TOKEN: return who->token && strcmp(who->token, r->name) == 0;
    case WHO_CAP: return (cap & r->number) == r->number;
    }
    return false;
}

struct cule_bus_verdict cule_bus_acl_check(const struct cule_bus_acl *a, const struct cule_bus_who *who,
                                           enum cule_bus_right what, const char *topic, size_t n, uint16_t cap)
{
    bool pattern = what == CULE_BUS_MAY_SUBSCRIBE || what == CULE_BUS_MAY_RESPOND || what == CULE_BUS_MAY_CONFIGURE;
    for (uint32_t i = 0; i < a->nrules; i++) {
        const struct rule *r = &a->rules[i];
        if (!(r->rights & what) || !is(r, who, cap)) {
            continue;
        }
        size_t len = strlen(r->pattern);
        bool hit = !pattern   ? cule_pattern_match(r->pattern, len, topic, n)
                   : r->allow ? cule_pattern_covers(r->pattern, len, topic, n)
                              : cule_pattern_overlap(r->pattern, len, topic, n);
        if (hit) {
            return (struct cule_bus_verdict){r->allow, r->line, i, r->rate, r->text};
        }
    }
    return (struct cule_bus_verdict){0};
}

const char *cule_bus_acl_token(const struct cule_bus_acl *a, const uint8_t hash[CULE_BUS_HASH_SIZE])
{
    const char *name = NULL;
    for (uint32_t i = 0; i < a->ntokens; i++) {
        uint8_t differ = 0;
        for (int k = 0; k < CULE_BUS_HASH_SIZE; k++) {
            differ |= (uint8_t)(a->tokens[i].hash[k] ^ hash[k]);
        }
        name = differ == 0 ? a->tokens[i].name : name;
    }
    return name;
}

bool cule_bus_acl_has_token(const struct cule_bus_acl *a, const char *name)
{
    for (uint32_t i = 0; i < a->ntokens; i++) {
        if (strcmp(a->tokens[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

uint32_t cule_bus_acl_rules(const struct cule_bus_acl *a)
{
    return a->nrules;
}

bool cule_bus_acl_uses_caps(const struct cule_bus_acl *a)
{
    return a->uses_caps;
}

/*
 * Who may do what on the bus: the ACL file, parsed and asked. Pure.
 *
 *     # comment
 *     token NAME sha256:HEX              a token by its hash (printf %s SECRET | sha256sum)
 *     allow|deny WHO ACTION PATTERN [rate=N]
 *
 * WHO is uid:N, gid:N, cert:NAME, token:NAME, cap:RIGHTS (a capability presented with the frame that has all of these
 * bits), or * for everybody. ACTION is publish, subscribe, respond, request, configure, or all. The first line that
 * matches decides; where none does it is denied. Whoever subscribes with wildcards must be allowed all that they take,
 * and is denied by a line that names any of it. rate= bounds the messages per second that a client may publish or
 * request under that line.
 */
#ifndef CULE_CORE_BUS_ACL_H
#define CULE_CORE_BUS_ACL_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum cule_bus_right {
    CULE_BUS_MAY_PUBLISH = 1 << 0,
    CULE_BUS_MAY_SUBSCRIBE = 1 << 1,
    CULE_BUS_MAY_RESPOND = 1 << 2,
    CULE_BUS_MAY_REQUEST = 1 << 3,
    CULE_BUS_MAY_CONFIGURE = 1 << 4,
    CULE_BUS_MAY_ALL = 31,
};

enum { CULE_BUS_HASH_SIZE = 32 };

struct cule_bus_who {
    bool has_cred;
    uint32_t uid, gid;
    const char *cert; /* "" or NULL: none */
    char *token;      /* the name of the token it logged in with, or NULL */
};

struct cule_bus_acl;

/* 0, CULE_EMALFORMED with the line in *err, or CULE_ENOMEM. */
int cule_bus_acl_new(struct cule_bus_acl **out, const char *text, struct cule_err *err);
void cule_bus_acl_free(struct cule_bus_acl *a); /* NULL is fine */

struct cule_bus_verdict {
    bool allowed;
    uint32_t line;    /* in the file; 0: no line matched */
    uint32_t rule;    /* its number among the rules, for rate buckets */
    uint64_t rate;    /* 0: without limit */
    const char *text; /* the line itself, or NULL; goes with the ACL */
};

/* topic is a topic, or for subscribe and respond a pattern. cap: rights of the capability presented, 0 for none. */
struct cule_bus_verdict cule_bus_acl_check(const struct cule_bus_acl *a, const struct cule_bus_who *who,
                                           enum cule_bus_right what, const char *topic, size_t n, uint16_t cap);

/* The name of the token with that hash, compared in constant time; NULL: none. */
const char *cule_bus_acl_token(const struct cule_bus_acl *a, const uint8_t hash[CULE_BUS_HASH_SIZE]);
bool cule_bus_acl_has_token(const struct cule_bus_acl *a, const char *name);

uint32_t cule_bus_acl_rules(const struct cule_bus_acl *a);
/* Whether any rule asks for a capability: then verdicts must not be kept. */
bool cule_bus_acl_uses_caps(const struct cule_bus_acl *a);
const char *cule_bus_right_name(enum cule_bus_right what);

#endif

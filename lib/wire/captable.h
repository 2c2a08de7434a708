/*
 * Capabilities handed out on one link: the table of the side that issues them, and their translation by whoever
 * stands between two links. Pure: the clock is passed in. Not thread-safe.
 *
 * A handle is 32 bits of index, 16 of generation, 16 of rights (cule-frame(5)), and means something on its link alone.
 * The side that connected or was started hands out odd indexes, the other even ones, so that a handle also tells who
 * issued it. Generations begin with 1, so no handle is 0, which in a frame is "no capability". A slot whose generation
 * would wrap is retired: a handle that was valid once and then revoked never becomes valid again.
 *
 * The rights in a presented handle may be fewer than were given (whoever presents it narrows it by himself), never
 * more.
 */
#ifndef CULE_WIRE_CAPTABLE_H
#define CULE_WIRE_CAPTABLE_H

#include "wire/frame.h"

enum {
    CULE_CAPTABLE_MAX = 65536, /* default for the capabilities that live at once */
};

/* What a handle stands for. Fields are read-only outside this module. */
struct cule_cap {
    uint64_t target;     /* the issuer's own: an object, or the number of the link that it came from */
    uint64_t foreign;    /* the handle there, or whatever else the issuer wants */
    uint64_t expires_ns; /* on the clock that is passed to find; 0 never */
    uint16_t generation; /* of the handle that is valid now; 0 once retired */
    uint16_t rights;
    bool live;
    uint32_t parent, child, older, newer; /* slots, UINT32_MAX none: derived ones die with what they came from */
    uint32_t same;                        /* next slot of the same hash bucket, or of the free list */
};

struct cule_captable {
    uint32_t live;    /* capabilities that are valid */
    uint32_t retired; /* slots given up for good */
    uint32_t max;
    /* The rest is the table's own. */
    struct cule_cap *slot;
    uint32_t nslots, size;
    uint32_t free_head, free_tail;
    uint32_t *bucket;
    uint32_t nbuckets; /* a power of two, 0 at first */
    uint32_t parity;
};

/* connected: this side connected or was started, so its handles are odd. max 0: CULE_CAPTABLE_MAX. */
void cule_captable_init(struct cule_captable *t, bool connected, uint32_t max);
void cule_captable_release(struct cule_captable *t);

/* A new capability; 0, CULE_ELIMIT or CULE_ENOMEM. rights may be 0: a name without authority. */
int cule_captable_issue(struct cule_captable *t, uint64_t target, uint64_t foreign, uint16_t rights,
                        uint64_t expires_ns, uint64_t *handle);

/* One with fewer rights and no longer life, derived from another: revoked with it. CULE_EBAD_CAP: no such capability;
 * CULE_EAUTH: the rights asked for are more than it has. expires_ns 0: the parent's. */
int cule_captable_attenuate(struct cule_captable *t, uint64_t handle, uint16_t rights, uint64_t expires_ns,
                            uint64_t now_ns, uint64_t *derived);

/* Ends a capability and all that was derived from it. The count of them, or CULE_EBAD_CAP. */
int cule_captable_revoke(struct cule_captable *t, uint64_t handle);

/* Ends every capability with that target (its link is gone). The count. */
int cule_captable_revoke_target(struct cule_captable *t, uint64_t target);

/* True if the handle bears our side's parity: it was issued here, not by the peer. */
static inline bool cule_captable_ours(const struct cule_captable *t, uint64_t handle)
{
    return ((uint32_t)handle & 1) == t->parity;
}

/* Why find said no: CULE_EBAD_CAP (forged, revoked, expired) or CULE_EAUTH (a right is missing), with the text. */
int cule_captable_why(const struct cule_captable *t, uint64_t handle, uint16_t need, uint64_t now_ns,
                      struct cule_err *err);

/* The capability behind a handle that is valid, unexpired, and has all the rights in need; else NULL. The pointer
 * holds until the next call that is not const. */
static inline const struct cule_cap *cule_captable_find(const struct cule_captable *t, uint64_t handle, uint16_t need,
                                                        uint64_t now_ns)
{
    uint32_t index = (uint32_t)handle;
    uint16_t rights = (uint16_t)(handle >> 48);
    if ((index & 1) != t->parity || index >> 1 >= t->nslots) {
        return NULL;
    }
    const struct cule_cap *c = &t->slot[index >> 1];
    bool ok = c->live && c->generation == (uint16_t)(handle >> 32) && (rights & ~c->rights) == 0 &&
              (need & ~rights) == 0 && (c->expires_ns == 0 || now_ns < c->expires_ns);
    return ok ? c : NULL;
}

/*
 * A frame's cap as it passes from one link to another, at a multiplexer that has a table for each. The targets are
 * numbers of links.
 *
 *   presented (no DELEGATE)  the handle must have been issued to `from` for what is behind link `to`: it becomes the
 *                            handle that `to` knows
 *   delegated (DELEGATE)     one that `from` issued, or got from us, becomes one that we issue to `to`; passed to where
 *                            it came from, it becomes the original again. The same capability passed twice to the same
 *                            link is the same handle.
 *
 * 0 with *out; CULE_EBAD_CAP, CULE_ELIMIT or CULE_ENOMEM with the cause. cap 0 passes as 0.
 */
struct cule_cap_side {
    struct cule_captable *table; /* of what was handed out on that link */
    uint64_t link;               /* its number: what the table's targets name */
};
int cule_captable_translate(const struct cule_cap_side *from, const struct cule_cap_side *to, uint64_t cap,
                            bool delegate, uint64_t now_ns, uint64_t *out, struct cule_err *err);

#endif

/* Capability tables: slots with generations, derivation trees, and a hash of (target, foreign handle) for translation.
 */
#include "wire/captable.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#define NONE UINT32_MAX
enum { FIRST_SIZE = 16, GENERATION_LAST = UINT16_MAX };

void cule_captable_init(struct cule_captable *t, bool connected, uint32_t max)
{
    *t = (struct cule_captable){.max = max ? max : CULE_CAPTABLE_MAX, .parity = connected ? 1 : 0};
    t->free_head = t->free_tail = NONE;
}

void cule_captable_release(struct cule_captable *t)
{
    free(t->slot);
    free(t->bucket);
    t->slot = NULL;
    t->bucket = NULL;
    t->nslots = t->size = t->nbuckets = t->live = 0;
    t->free_head = t->free_tail = NONE;
}

static uint64_t handle_of(const struct cule_captable *t, uint32_t i)
{
    return cule_cap_make(i << 1 | t->parity, t->slot[i].generation, t->slot[i].rights);
}

/* --- the hash: live capabilities that are nobody's derivation, by what they stand for --- */

static uint32_t hash(uint64_t target, uint64_t foreign)
{
    uint64_t h = (target ^ (foreign << 32 | foreign >> 32)) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)h;
}

static void hash_put(struct cule_captable *t, uint32_t i)
{
    uint32_t *at = &t->bucket[hash(t->slot[i].target, t->slot[i].foreign) & (t->nbuckets - 1)];
    t->slot[i].same = *at;
    *at = i;
}

static void hash_remove(struct cule_captable *t, uint32_t i)
{
    uint32_t *at = &t->bucket[hash(t->slot[i].target, t->slot[i].foreign) & (t->nbuckets - 1)];
    while (*at != i) {
        assert(*at != NONE);
        at = &t->slot[*at].same;
    }
    *at = t->slot[i].same;
}

static bool hashed(const struct cule_cap *c)
{
    return c->live && c->parent == NONE;
}

/* Twice the slots, and as many buckets. */
static int grow(struct cule_captable *t)
{
    uint32_t size = t->size ? t->size * 2 : FIRST_SIZE;
    if (size > 1u << 30) {
        return CULE_ELIMIT;
    }
    struct cule_cap *slot = realloc(t->slot, size * sizeof *slot);
    if (!slot) {
        return CULE_ENOMEM;
    }
    t->slot = slot;
    uint32_t *bucket = malloc(size * sizeof *bucket);
    if (!bucket) {
        return CULE_ENOMEM;
    }
    free(t->bucket);
    t->bucket = bucket;
    t->nbuckets = t->size = size;
    for (uint32_t i = 0; i < size; i++) {
        bucket[i] = NONE;
    }
    for (uint32_t i = 0; i < t->nslots; i++) {
        if (hashed(&slot[i])) {
            hash_put(t, i);
        }
    }
    return 0;
}

/* A slot to use: the one that has been free for longest, so that generations last. */
static int take_slot(struct cule_captable *t, uint32_t *i)
{
    if (t->free_head != NONE) {
        *i = t->free_head;
        t->free_head = t->slot[*i].same;
        if (t->free_head == NONE) {
            t->free_tail = NONE;
        }
        return 0;
    }
    if (t->nslots == t->size) {
        int rc = grow(t);
        if (rc) {
            return rc;
        }
    }
    *i = t->nslots++;
    t->slot[*i] = (struct cule_cap){.generation = 1};
    return 0;
}

static void give_slot(struct cule_captable *t, uint32_t i)
{
    struct cule_cap *c = &t->slot[i];
    c->live = false;
    t->live--;
    if (c->generation == GENERATION_LAST) {
        c->generation = 0;
        t->retired++;
        return;
    }
    c->generation++;
    c->same = NONE;
    if (t->free_tail == NONE) {
        t->free_head = i;
    } else {
        t->slot[t->free_tail].same = i;
    }
    t->free_tail = i;
}

static int issue(struct cule_captable *t, const struct cule_cap *as, uint64_t *handle)
{
    uint32_t i;
    if (t->live >= t->max) {
        return CULE_ELIMIT;
    }
    int rc = take_slot(t, &i);
    if (rc) {
        return rc;
    }
    struct cule_cap *c = &t->slot[i];
    uint16_t generation = c->generation;
    *c = *as;
    c->generation = generation;
    c->live = true;
    c->child = c->older = c->newer = NONE;
    t->live++;
    if (c->parent == NONE) {
        hash_put(t, i);
    } else {
        struct cule_cap *p = &t->slot[c->parent];
        c->older = p->child;
        if (p->child != NONE) {
            t->slot[p->child].newer = i;
        }
        p->child = i;
    }
    *handle = handle_of(t, i);
    return 0;
}

int cule_captable_issue(struct cule_captable *t, uint64_t target, uint64_t foreign, uint16_t rights,
                        uint64_t expires_ns, uint64_t *handle)
{
    struct cule_cap c = {
        .target = target, .foreign = foreign, .rights = rights, .expires_ns = expires_ns, .parent = NONE};
    return issue(t, &c, handle);
}

int cule_captable_attenuate(struct cule_captable *t, uint64_t handle, uint16_t rights, uint64_t expires_ns,
                            uint64_t now_ns, uint64_t *derived)
{
    const struct cule_cap *p = cule_captable_find(t, handle, 0, now_ns);
    if (!p) {
        return CULE_EBAD_CAP;
    }
    if (rights & ~(uint16_t)(handle >> 48)) {
        return CULE_EAUTH;
    }
    struct cule_cap c = {
        .target = p->target, .foreign = p->foreign, .rights = rights, .parent = (uint32_t)(p - t->slot)};
    c.expires_ns = !p->expires_ns ? expires_ns : !expires_ns ? p->expires_ns : CULE_MIN(p->expires_ns, expires_ns);
    return issue(t, &c, derived);
}

static void unlink_from_parent(struct cule_captable *t, uint32_t i)
{
    struct cule_cap *c = &t->slot[i];
    if (c->parent == NONE) {
        hash_remove(t, i);
        return;
    }
    if (c->newer != NONE) {
        t->slot[c->newer].older = c->older;
    } else {
        t->slot[c->parent].child = c->older;
    }
    if (c->older != NONE) {
        t->slot[c->older].newer = c->newer;
    }
}

/* The tree is walked leaf by leaf without a stack, for it may be as deep as the table is large. */
static int revoke(struct cule_captable *t, uint32_t root)
{
    int n = 0;
    uint32_t i = root;
    for (;;) {
        while (t->slot[i].child != NONE) {
            i = t->slot[i].child;
        }
        uint32_t up = t->slot[i].parent;
        unlink_from_parent(t, i);
        give_slot(t, i);
        n++;
        if (i == root) {
            return n;
        }
        i = up;
    }
}

int cule_captable_revoke(struct cule_captable *t, uint64_t handle)
{
    uint32_t i = (uint32_t)handle >> 1;
    if (!cule_captable_ours(t, handle) || i >= t->nslots || !t->slot[i].live ||
        t->slot[i].generation != (uint16_t)(handle >> 32)) {
        return CULE_EBAD_CAP;
    }
    return revoke(t, i);
}

int cule_captable_revoke_target(struct cule_captable *t, uint64_t target)
{
    int n = 0;
    for (uint32_t i = 0; i < t->nslots; i++) {
        if (hashed(&t->slot[i]) && t->slot[i].target == target) {
            n += revoke(t, i);
        }
    }
    return n;
}

int cule_captable_why(const struct cule_captable *t, uint64_t handle, uint16_t need, uint64_t now_ns,
                      struct cule_err *err)
{
    uint32_t i = (uint32_t)handle >> 1;
    uint16_t rights = (uint16_t)(handle >> 48);
    if (!cule_captable_ours(t, handle) || i >= t->nslots) {
        return cule_err_set(err, CULE_EBAD_CAP, "capability 0x%016" PRIx64 " was never given on this link", handle);
    }
    const struct cule_cap *c = &t->slot[i];
    if (!c->live || c->generation != (uint16_t)(handle >> 32)) {
        return cule_err_set(err, CULE_EBAD_CAP, "capability 0x%016" PRIx64 " has been revoked", handle);
    }
    if (rights & ~c->rights) {
        return cule_err_set(err, CULE_EBAD_CAP, "capability 0x%016" PRIx64 " claims rights 0x%04x, it was given 0x%04x",
                            handle, rights, c->rights);
    }
    if (c->expires_ns && now_ns >= c->expires_ns) {
        return cule_err_set(err, CULE_EBAD_CAP, "capability 0x%016" PRIx64 " has expired", handle);
    }
    if (need & ~rights) {
        return cule_err_set(err, CULE_EAUTH, "capability 0x%016" PRIx64 " has rights 0x%04x, this needs 0x%04x", handle,
                            rights, need);
    }
    return 0;
}

/* Issues (target, foreign) on a link, or finds the handle that it has there already. */
static int hand_on(struct cule_captable *t, uint64_t target, uint64_t foreign, uint16_t rights, uint64_t expires_ns,
                   uint64_t *out)
{
    if (t->nbuckets) {
        for (uint32_t i = t->bucket[hash(target, foreign) & (t->nbuckets - 1)]; i != NONE; i = t->slot[i].same) {
            const struct cule_cap *c = &t->slot[i];
            if (c->target == target && c->foreign == foreign && c->rights == rights && c->expires_ns == expires_ns) {
                *out = handle_of(t, i);
                return 0;
            }
        }
    }
    return cule_captable_issue(t, target, foreign, rights, expires_ns, out);
}

int cule_captable_translate(const struct cule_cap_side *from, const struct cule_cap_side *to, uint64_t cap,
                            bool delegate, uint64_t now_ns, uint64_t *out, struct cule_err *err)
{
    uint16_t rights = (uint16_t)(cap >> 48);
    int rc;
    if (cap == 0) {
        *out = 0;
        return 0;
    }
    if (!cule_captable_ours(from->table, cap)) {
        if (!delegate) {
            return cule_err_set(err, CULE_EBAD_CAP, "capability 0x%016" PRIx64 " is presented by whoever issued it",
                                cap);
        }
        rc = hand_on(to->table, from->link, cap, rights, 0, out);
    } else {
        const struct cule_cap *c = cule_captable_find(from->table, cap, 0, now_ns);
        if (!c) {
            return cule_captable_why(from->table, cap, 0, now_ns, err);
        }
        /* Narrowed on this link, it stays narrowed on the next. */
        uint64_t narrowed = (c->foreign & UINT64_C(0xffffffffffff)) | (c->foreign >> 48 & rights) << 48;
        if (c->target == to->link) {
            *out = narrowed;
            return 0;
        }
        if (!delegate) {
            return cule_err_set(err, CULE_EBAD_CAP, "capability 0x%016" PRIx64 " is for another receiver", cap);
        }
        rc = hand_on(to->table, c->target, narrowed, rights, c->expires_ns, out);
    }
    return rc ? cule_err_set(err, rc, "cannot pass a capability on: %s", cule_err_text(rc)) : 0;
}

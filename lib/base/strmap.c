/* A hash map from byte strings to pointers. */
#include "base/strmap.h"

#include "base/bytes.h"
#include "base/err.h"

#include <stdlib.h>

enum { STRMAP_MIN = 16 };

struct cule_strmap_slot {
    uint64_t hash;
    const void *key;
    void *value; /* NULL: free */
    size_t n;
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 r = (unsigned __int128)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

/* Multiply and fold, eight bytes at a time; the last ones overlap where there are eight. */
uint64_t cule_hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const uint8_t *b = p;
    uint64_t h = mix(seed ^ 0x9e3779b97f4a7c15u, n ^ 0xe7037ed1a0b428dbu);
    size_t left = n;
    for (; left > 8; left -= 8, b += 8) {
        h = mix(h ^ cule_get64(b), 0xa0761d6478bd642fu);
    }
    uint64_t tail = 0;
    if (n >= 8) {
        tail = cule_get64((const uint8_t *)p + n - 8);
    } else {
        for (size_t i = 0; i < left; i++) {
            tail |= (uint64_t)b[i] << (8 * i);
        }
    }
    return mix(h ^ tail, 0x8ebc6af09c88c6e3u ^ seed);
}

void cule_strmap_init(struct cule_strmap *m, uint64_t seed)
{
    *m = (struct cule_strmap){.seed = seed};
}

void cule_strmap_release(struct cule_strmap *m)
{
    free(m->slots);
    cule_strmap_init(m, m->seed);
}

/* The slot that holds the key, or the free one where it would go. */
static size_t find(const struct cule_strmap *m, uint64_t hash, const void *key, size_t n)
{
    size_t mask = m->size - 1;
    size_t i = (size_t)hash & mask;
    while (m->slots[i].value &&
           (m->slots[i].hash != hash || m->slots[i].n != n || memcmp(m->slots[i].key, key, n) != 0)) {
        i = (i + 1) & mask;
    }
    return i;
}

void *cule_strmap_get(const struct cule_strmap *m, const void *key, size_t n)
{
    return m->slots ? m->slots[find(m, cule_hash_bytes(key, n, m->seed), key, n)].value : NULL;
}

static int resize(struct cule_strmap *m, size_t size)
{
    struct cule_strmap bigger = {calloc(size, sizeof *bigger.slots), size, m->count, m->seed};
    if (!bigger.slots) {
        return CULE_ENOMEM;
    }
    for (size_t i = 0; i < m->size; i++) {
        if (m->slots[i].value) {
            size_t at = (size_t)m->slots[i].hash & (size - 1);
            while (bigger.slots[at].value) {
                at = (at + 1) & (size - 1);
            }
            bigger.slots[at] = m->slots[i];
        }
    }
    free(m->slots);
    *m = bigger;
    return 0;
}

int cule_strmap_put(struct cule_strmap *m, const void *key, size_t n, void *value)
{
    if ((m->count + 1) * 4 > m->size * 3) {
        int rc = resize(m, m->size ? m->size * 2 : STRMAP_MIN);
        if (rc) {
            return rc;
        }
    }
    uint64_t hash = cule_hash_bytes(key, n, m->seed);
    size_t i = find(m, hash, key, n);
    m->count += m->slots[i].value == NULL;
    m->slots[i] = (struct cule_strmap_slot){hash, key, value, n};
    return 0;
}

void *cule_strmap_take(struct cule_strmap *m, const void *key, size_t n)
{
    if (!m->slots) {
        return NULL;
    }
    size_t mask = m->size - 1;
    size_t i = find(m, cule_hash_bytes(key, n, m->seed), key, n);
    void *value = m->slots[i].value;
    if (!value) {
        return NULL;
    }
    /* Close the gap: move back every later entry whose home does not lie behind the hole. */
    for (size_t j = (i + 1) & mask; m->slots[j].value; j = (j + 1) & mask) {
        size_t home = (size_t)m->slots[j].hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            m->slots[i] = m->slots[j];
            i = j;
        }
    }
    m->slots[i] = (struct cule_strmap_slot){0};
    m->count--;
    if (m->count == 0) {
        cule_strmap_release(m);
    }
    return value;
}

void *cule_strmap_next(const struct cule_strmap *m, size_t *at)
{
    while (*at < m->size) {
        struct cule_strmap_slot *s = &m->slots[(*at)++];
        if (s->value) {
            return s->value;
        }
    }
    return NULL;
}

/* A hash map from 64-bit keys to pointers. */
#include "base/map.h"

#include "base/err.h"

#include <stdlib.h>

enum { MAP_MIN = 16 };

struct cule_map_slot {
    uint64_t key;
    void *value; /* NULL: free */
};

void cule_map_init(struct cule_map *m)
{
    *m = (struct cule_map){0};
}

void cule_map_release(struct cule_map *m)
{
    free(m->slots);
    *m = (struct cule_map){0};
}

/* Fibonacci hashing: keys are mostly small counters, which it spreads well. */
static size_t home(const struct cule_map *m, uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 32) & (m->size - 1);
}

void *cule_map_get(const struct cule_map *m, uint64_t key)
{
    if (!m->slots) {
        return NULL;
    }
    for (size_t i = home(m, key);; i = (i + 1) & (m->size - 1)) {
        if (!m->slots[i].value) {
            return NULL;
        }
        if (m->slots[i].key == key) {
            return m->slots[i].value;
        }
    }
}

static void insert(struct cule_map *m, uint64_t key, void *value)
{
    size_t i = home(m, key);
    while (m->slots[i].value && m->slots[i].key != key) {
        i = (i + 1) & (m->size - 1);
    }
    m->count += m->slots[i].value == NULL;
    m->slots[i] = (struct cule_map_slot){key, value};
}

static int resize(struct cule_map *m, size_t size)
{
    struct cule_map bigger = {calloc(size, sizeof *bigger.slots), size, 0};
    if (!bigger.slots) {
        return CULE_ENOMEM;
    }
    for (size_t i = 0; i < m->size; i++) {
        if (m->slots[i].value) {
            insert(&bigger, m->slots[i].key, m->slots[i].value);
        }
    }
    free(m->slots);
    *m = bigger;
    return 0;
}

int cule_map_put(struct cule_map *m, uint64_t key, void *value)
{
    if ((m->count + 1) * 4 > m->size * 3) {
        int rc = resize(m, m->size ? m->size * 2 : MAP_MIN);
        if (rc) {
            return rc;
        }
    }
    insert(m, key, value);
    return 0;
}

void *cule_map_take(struct cule_map *m, uint64_t key)
{
    if (!m->slots) {
        return NULL;
    }
    size_t mask = m->size - 1;
    size_t i = home(m, key);
    while (m->slots[i].value && m->slots[i].key != key) {
        i = (i + 1) & mask;
    }
    void *value = m->slots[i].value;
    if (!value) {
        return NULL;
    }
    /* Close the gap: move back every later entry whose home does not lie behind the hole. */
    for (size_t j = (i + 1) & mask; m->slots[j].value; j = (j + 1) & mask) {
        size_t h = home(m, m->slots[j].key);
        if (((j - h) & mask) >= ((j - i) & mask)) {
            m->slots[i] = m->slots[j];
            i = j;
        }
    }
    m->slots[i] = (struct cule_map_slot){0};
    m->count--;
    if (m->count == 0 && m->size > MAP_MIN) {
        cule_map_release(m);
    }
    return value;
}

void *cule_map_next(const struct cule_map *m, size_t *at, uint64_t *key)
{
    while (*at < m->size) {
        struct cule_map_slot *s = &m->slots[(*at)++];
        if (s->value) {
            if (key) {
                *key = s->key;
            }
            return s->value;
        }
    }
    return NULL;
}

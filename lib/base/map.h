/*
 * A hash map from 64-bit keys to pointers: open addressing, linear probing, deletion by shifting back. Holds no
 * memory before its first use and at most 256 bytes while empty. Key 0 is as good as any. Not thread-safe. NULL is no
 * value.
 */
#ifndef CULE_BASE_MAP_H
#define CULE_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct cule_map {
    struct cule_map_slot *slots; /* NULL when empty; a power of two of them */
    size_t size;                 /* slots */
    size_t count;                /* used */
};

void cule_map_init(struct cule_map *m);
void cule_map_release(struct cule_map *m);

/* The value, or NULL. */
void *cule_map_get(const struct cule_map *m, uint64_t key);

/* Sets key to value (not NULL), replacing what was there. 0 or CULE_ENOMEM, then with nothing changed. */
int cule_map_put(struct cule_map *m, uint64_t key, void *value);

/* Removes and returns the value, or NULL. */
void *cule_map_take(struct cule_map *m, uint64_t key);

/* Walks the map: start with *at = 0; NULL at the end. Nothing may be put or taken meanwhile. */
void *cule_map_next(const struct cule_map *m, size_t *at, uint64_t *key);

#endif

/*
 * A hash map from byte strings to pointers: open addressing, linear probing, deletion by shifting back. The key's
 * bytes belong to the caller (usually inside the value) and must stay while the entry does. Holds no memory while
 * empty. Not thread-safe. NULL is no value.
 *
 * The hash is keyed: where keys come from strangers, give a seed that they cannot know.
 */
#ifndef CULE_BASE_STRMAP_H
#define CULE_BASE_STRMAP_H

#include <stddef.h>
#include <stdint.h>

struct cule_strmap {
    struct cule_strmap_slot *slots; /* NULL when empty; a power of two of them */
    size_t size;
    size_t count;
    uint64_t seed;
};

void cule_strmap_init(struct cule_strmap *m, uint64_t seed);
void cule_strmap_release(struct cule_strmap *m);

/* The value, or NULL. */
void *cule_strmap_get(const struct cule_strmap *m, const void *key, size_t n);

/* Sets key to value (not NULL), replacing value and key pointer. 0 or CULE_ENOMEM, then with nothing changed. */
int cule_strmap_put(struct cule_strmap *m, const void *key, size_t n, void *value);

/* Removes and returns the value, or NULL. */
void *cule_strmap_take(struct cule_strmap *m, const void *key, size_t n);

/* Walks the map: start with *at = 0; NULL at the end. Nothing may be put or taken meanwhile. */
void *cule_strmap_next(const struct cule_strmap *m, size_t *at);

/* The keyed hash itself. Not for signatures. */
uint64_t cule_hash_bytes(const void *p, size_t n, uint64_t seed);

#endif

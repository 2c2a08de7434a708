/*
 * A growable byte queue: bytes are appended at the tail and taken from the head. Memory comes from the
 * buffer pool (pool.h) and goes back when the queue empties, so an idle queue holds none.
 * Not thread-safe. Appending more than max bytes in all is CULE_ELIMIT and changes nothing.
 */
#ifndef CULE_BASE_BUF_H
#define CULE_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct cule_buf {
    uint8_t *base; /* NULL when empty */
    size_t head;   /* first live byte */
    size_t tail;   /* one past the last live byte */
    size_t cap;    /* bytes at base */
    size_t max;    /* limit on tail - head; 0 is no limit */
};

void cule_buf_init(struct cule_buf *b, size_t max);
void cule_buf_release(struct cule_buf *b);

static inline size_t cule_buf_len(const struct cule_buf *b)
{
    return b->tail - b->head;
}

static inline uint8_t *cule_buf_data(const struct cule_buf *b)
{
    return b->base ? b->base + b->head : NULL;
}

/* Makes room for n contiguous bytes at the tail: *at points there, cule_buf_commit makes them live.
 * 0, CULE_ENOMEM or CULE_ELIMIT. The address holds until the next call on this buffer. */
int cule_buf_reserve(struct cule_buf *b, size_t n, uint8_t **at);
void cule_buf_commit(struct cule_buf *b, size_t n);

/* Appends; 0, CULE_ENOMEM or CULE_ELIMIT. */
int cule_buf_add(struct cule_buf *b, const void *p, size_t n);
int cule_buf_addf(struct cule_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline int cule_buf_addc(struct cule_buf *b, char c)
{
    return cule_buf_add(b, &c, 1);
}

/* Drops n bytes from the head; n is at most cule_buf_len. */
void cule_buf_take(struct cule_buf *b, size_t n);

/* Drops all bytes and gives the memory back. */
void cule_buf_clear(struct cule_buf *b);

#endif

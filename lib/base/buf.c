/* A growable byte queue over pooled memory. */
#include "base/buf.h"

#include "base/err.h"
#include "base/pool.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BUF_MIN = 256 };

void cule_buf_init(struct cule_buf *b, size_t max)
{
    *b = (struct cule_buf){.max = max};
}

void cule_buf_release(struct cule_buf *b)
{
    cule_buf_clear(b);
}

void cule_buf_clear(struct cule_buf *b)
{
    if (b->base) {
        cule_pool_put(b->base, b->cap);
    }
    b->base = NULL;
    b->head = b->tail = b->cap = 0;
}

/* Moves the live bytes into a block that holds `need` of them. */
static int grow(struct cule_buf *b, size_t need)
{
    size_t live = cule_buf_len(b);
    size_t want = need < BUF_MIN ? BUF_MIN : need;
    size_t cap = 0;
    uint8_t *to = cule_pool_get(want, &cap);
    if (!to) {
        return CULE_ENOMEM;
    }
    if (b->base) {
        memcpy(to, b->base + b->head, live);
        cule_pool_put(b->base, b->cap);
    }
    b->base = to;
    b->cap = cap;
    b->head = 0;
    b->tail = live;
    return 0;
}

int cule_buf_reserve(struct cule_buf *b, size_t n, uint8_t **at)
{
    size_t live = cule_buf_len(b);
    if (n > SIZE_MAX / 4 - live) {
        return CULE_ENOMEM;
    }
    if (b->max && live + n > b->max) {
        return CULE_ELIMIT;
    }
    if (b->cap - b->tail < n) {
        /* Sliding is worth it only while it moves less than it frees; else growth stays amortised. */
        if (b->head >= live && b->cap - live >= n) {
            memmove(b->base, b->base + b->head, live);
            b->head = 0;
            b->tail = live;
        } else {
            size_t need = live + n;
            int rc = grow(b, b->cap && need < b->cap * 2 ? b->cap * 2 : need);
            if (rc) {
                return rc;
            }
        }
    }
    *at = b->base ? b->base + b->tail : NULL;
    return 0;
}

void cule_buf_commit(struct cule_buf *b, size_t n)
{
    assert(n <= b->cap - b->tail);
    b->tail += n;
}

int cule_buf_add(struct cule_buf *b, const void *p, size_t n)
{
    uint8_t *at;
    if (n == 0) {
        return 0;
    }
    int rc = cule_buf_reserve(b, n, &at);
    if (rc) {
        return rc;
    }
    memcpy(at, p, n);
    b->tail += n;
    return 0;
}

int cule_buf_addf(struct cule_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_list again;
    uint8_t *at;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    size_t max = b->max;
    int rc = n < 0 ? CULE_EMALFORMED : max && cule_buf_len(b) + (size_t)n > max ? CULE_ELIMIT : 0;
    if (rc == 0) {
        b->max = 0; /* the closing NUL does not count */
        rc = cule_buf_reserve(b, (size_t)n + 1, &at);
        b->max = max;
    }
    if (rc == 0) {
        vsnprintf((char *)at, (size_t)n + 1, fmt, again);
        b->tail += (size_t)n;
    }
    va_end(again);
    return rc;
}

void cule_buf_take(struct cule_buf *b, size_t n)
{
    assert(n <= cule_buf_len(b));
    b->head += n;
    if (b->head == b->tail) {
        cule_buf_clear(b);
    }
}

/*
 * What the bus decided against somebody, and why: the last 4096 denials, drops, kicks and the like, each with a count.
 * A decision that repeats one of the rows that are still there adds to its count. Pure; bounded.
 */
#ifndef CULE_CORE_BUS_EXPLAIN_H
#define CULE_CORE_BUS_EXPLAIN_H

#include "base/buf.h"
#include "base/map.h"

#include <stdbool.h>

enum { CULE_BUS_ROWS = 4096, CULE_BUS_REASON_MAX = 120 };

struct cule_bus_row {
    uint64_t number; /* of the row, from 1 on */
    uint64_t key;
    uint64_t first_ms, last_ms; /* since the epoch */
    uint64_t count;
    uint64_t limit;   /* the bound that was met; 0: none */
    uint32_t client;  /* 0: none */
    const char *what; /* a literal */
    const char *hint; /* a literal, or NULL */
    char *topic;      /* NULL: none */
    char reason[CULE_BUS_REASON_MAX];
};

struct cule_bus_explain {
    struct cule_bus_row *rows; /* made with the first */
    uint64_t last;             /* number of the newest row */
    struct cule_map by_key;
};

void cule_bus_explain_init(struct cule_bus_explain *e);
void cule_bus_explain_release(struct cule_bus_explain *e);

/* what and hint must be literals. Without memory the decision is not noted. */
void cule_bus_explain_add(struct cule_bus_explain *e, const char *what, uint32_t client, const char *topic, size_t n,
                          const char *reason, uint64_t limit, const char *hint, uint64_t wall_ms);

/* The row with that number, or NULL when it is not there (any more). Numbers go from last - 4095 to last. */
const struct cule_bus_row *cule_bus_explain_row(const struct cule_bus_explain *e, uint64_t number);

/* Appends one JSON object and a newline. 0 or CULE_ENOMEM, CULE_ELIMIT. */
int cule_bus_explain_json(const struct cule_bus_row *r, struct cule_buf *out);

#endif

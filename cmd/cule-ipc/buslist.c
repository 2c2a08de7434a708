/* What the broker lists, as tables. */
#include "buslist.h"

#include "cli/table.h"
#include "cli/tty.h"

#include <stdlib.h>
#include <string.h>

struct column {
    const char *key; /* of the row's object */
    enum { TEXT, BYTES, COUNT, RATE, AGE } as;
};

struct part {
    const char *name;
    const char *spec; /* as cule_table_init wants it */
    struct column columns[CULE_TABLE_COLUMNS_MAX];
};

static const struct part parts[] = {
    {"clients",
     "id:> name:< pid:> uid:> transport:< age:> in:> out:> queued:> dropped:> subscriptions:>",
     {{"id", TEXT},
      {"name", TEXT},
      {"pid", TEXT},
      {"uid", TEXT},
      {"transport", TEXT},
      {"since_ms", AGE},
      {"in_messages", COUNT},
      {"out_messages", COUNT},
      {"queued", COUNT},
      {"dropped", COUNT},
      {"subscriptions", COUNT}}},
    {"topics",
     "topic:< seq:> rate/s:> retained:< history:> overflow:< durability:< subscribers:> dropped:>",
     {{"topic", TEXT},
      {"seq", TEXT},
      {"rate_hz", RATE},
      {"retained", TEXT},
      {"history", COUNT},
      {"overflow", TEXT},
      {"durability", TEXT},
      {"subscribers", COUNT},
      {"dropped", COUNT}}},
    {"subscriptions",
     "client:> pattern:< group:< queue:> inflight:> delivered:> acked:> redelivered:> dropped:> slow:>",
     {{"client", TEXT},
      {"pattern", TEXT},
      {"group", TEXT},
      {"queue", COUNT},
      {"inflight", COUNT},
      {"delivered", COUNT},
      {"acked", COUNT},
      {"redelivered", COUNT},
      {"dropped", COUNT},
      {"slow_ms", COUNT}}},
};

static const char *age(uint64_t ms, char out[16])
{
    uint64_t s = ms / 1000;
    if (s < 60) {
        snprintf(out, 16, "%us", (unsigned)s);
    } else if (s < 3600) {
        snprintf(out, 16, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
    } else if (s < 86400) {
        snprintf(out, 16, "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
    } else {
        snprintf(out, 16, "%ud%02uh", (unsigned)(s / 86400), (unsigned)(s / 3600 % 24));
    }
    return out;
}

static void cell(const struct cule_json *doc, int row, const struct column *c, bool exact, struct cule_buf *line)
{
    char text[512], small[16];
    busask_text(doc, row, c->key, text, sizeof text);
    if (cule_json_find(doc, row, c->key) < 0 || c->as == TEXT) {
        cule_buf_addf(line, "%s", text);
    } else if (c->as == AGE) {
        cule_buf_addf(line, "%s", exact ? text : age(busask_u64(doc, row, c->key), small));
    } else if (c->as == RATE) {
        cule_buf_addf(line, "%.1f", busask_real(doc, row, c->key));
    } else { /* exact where a program reads it, short for people once it is long */
        double v = busask_real(doc, row, c->key);
        cule_buf_addf(line, "%s", exact || v < 100000 ? text : busask_short(v, c->as == BYTES, small));
    }
}

struct order {
    const struct cule_json *doc;
    const char *key;
};

static int larger_first(const void *a, const void *b, void *ctx)
{
    const struct order *o = ctx;
    double x = busask_real(o->doc, *(const int *)a, o->key), y = busask_real(o->doc, *(const int *)b, o->key);
    return x > y ? -1 : x < y ? 1 : *(const int *)a - *(const int *)b;
}

/* The rows in the order to show them; NULL without memory or without rows. */
static int *rows_of(const struct cule_json *doc, int list, const char *sort_key, size_t *n)
{
    size_t count = list >= 0 ? doc->token[list].count : 0;
    int *rows = count ? calloc(count, sizeof *rows) : NULL;
    *n = 0;
    for (int row = cule_json_first(doc, list); rows && row >= 0 && *n < count; row = cule_json_next(doc, row)) {
        rows[(*n)++] = row;
    }
    if (rows && sort_key) {
        struct order o = {doc, sort_key};
        qsort_r(rows, *n, sizeof *rows, larger_first, &o);
    }
    return rows;
}

int buslist_table(const struct cule_json *doc, const char *name, const char *sort_key, FILE *out, int fd)
{
    const struct part *p = NULL;
    for (unsigned i = 0; i < CULE_COUNT(parts); i++) {
        if (strcmp(parts[i].name, name) == 0) {
            p = &parts[i];
        }
    }
    if (!p) {
        return CULE_ENOT_FOUND;
    }
    struct cule_table t;
    struct cule_buf line;
    bool tty = cule_tty_is(fd);
    cule_table_init(&t, p->spec);
    cule_buf_init(&line, 0);
    size_t n;
    int *rows = rows_of(doc, cule_json_find(doc, 0, name), sort_key, &n);
    for (size_t r = 0; r < n; r++) {
        int row = rows[r];
        cule_buf_clear(&line);
        for (unsigned i = 0; p->columns[i].key; i++) {
            if (i > 0) {
                cule_buf_addc(&line, '\t');
            }
            cell(doc, row, &p->columns[i], !tty, &line);
        }
        if (cule_buf_addc(&line, '\0') == 0) {
            cule_table_row(&t, "%s", (const char *)cule_buf_data(&line));
        }
    }
    int rc = cule_table_print(&t, out, tty, cule_tty_colour(fd), tty ? cule_tty_width(fd, 80) : 0);
    free(rows);
    cule_buf_release(&line);
    cule_table_release(&t);
    return rc;
}

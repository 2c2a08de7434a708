/*
 * Aligned columns for lists and live views. Rows are kept until the table is printed, since widths depend on all
 * of them; cells are copied. Where the output is no terminal, columns are separated by one tab and nothing is
 * cut, so that cut and awk can read it. Text of several columns counts code points, not bytes.
 *
 *     struct cule_table t;
 *     cule_table_init(&t, "topic:<  clients:>  rate:>");
 *     cule_table_row(&t, "%s\t%u\t%.1f", topic, n, hz);
 *     cule_table_print(&t, stdout, cule_tty_is(1), cule_tty_colour(1), cule_tty_width(1, 80));
 *     cule_table_release(&t);
 */
#ifndef CULE_CLI_TABLE_H
#define CULE_CLI_TABLE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdio.h>

enum { CULE_TABLE_COLUMNS_MAX = 16 };

struct cule_table {
    struct cule_buf text; /* heading and rows: cells ended by tab, rows by newline */
    size_t rows;          /* heading not counted */
    int columns;
    bool right[CULE_TABLE_COLUMNS_MAX];
    int rc; /* first failure of a row: printing reports it */
};

/* spec: column headings, each followed by ":<" (left) or ":>" (right), separated by spaces. */
void cule_table_init(struct cule_table *t, const char *spec);
void cule_table_release(struct cule_table *t);

/* Adds a row; cells are separated by tabs in what fmt prints. A control character in a cell becomes '?'. */
void cule_table_row(struct cule_table *t, const char *fmt, ...) CULE_PRINTF(2, 3);

/* 0, or the code of a row that found no memory. The last column is cut at width (0: nothing is cut). */
int cule_table_print(const struct cule_table *t, FILE *out, bool aligned, bool colour, int width);

#endif

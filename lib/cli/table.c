/* Aligned columns. */
#include "cli/table.h"

#include "base/bytes.h"
#include "cli/tty.h"

#include <string.h>

void cule_table_init(struct cule_table *t, const char *spec)
{
    memset(t, 0, sizeof *t);
    cule_buf_init(&t->text, 0);
    while (*spec && t->columns < CULE_TABLE_COLUMNS_MAX) {
        spec += strspn(spec, " ");
        size_t n = strcspn(spec, ":");
        if (n == 0 || !spec[n]) {
            break;
        }
        if (t->columns > 0 && t->rc == 0) {
            t->rc = cule_buf_addc(&t->text, '\t');
        }
        t->rc = t->rc ? t->rc : cule_buf_add(&t->text, spec, n);
        t->right[t->columns++] = spec[n + 1] == '>';
        spec += n + (spec[n + 1] ? 2 : 1);
    }
    t->rc = t->rc ? t->rc : cule_buf_addc(&t->text, '\n');
}

void cule_table_release(struct cule_table *t)
{
    cule_buf_release(&t->text);
}

void cule_table_row(struct cule_table *t, const char *fmt, ...)
{
    char line[2048];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    size_t len = CULE_MIN((size_t)CULE_MAX(n, 0), sizeof line - 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            line[i] = '?';
        }
    }
    t->rc = t->rc ? t->rc : cule_buf_add(&t->text, line, len);
    t->rc = t->rc ? t->rc : cule_buf_addc(&t->text, '\n');
    t->rows++;
}

static int columns_of(const char *s, size_t n)
{
    int w = 0;
    for (size_t i = 0; i < n; i++) {
        w += ((unsigned char)s[i] & 0xc0) != 0x80;
    }
    return w;
}

/* Bytes of s that fill at most w columns. */
static size_t bytes_of(const char *s, size_t n, int w)
{
    size_t i = 0;
    while (i < n && (w > 0 || ((unsigned char)s[i] & 0xc0) == 0x80)) {
        w -= ((unsigned char)s[i] & 0xc0) != 0x80;
        i++;
    }
    return i;
}

/* The next cell of *p; false at the end of the row, which is stepped over. */
static bool next_cell(const char **p, const char **cell, size_t *n)
{
    *cell = *p;
    *n = strcspn(*p, "\t\n");
    *p += *n + 1;
    return (*cell)[*n] == '\t';
}

static void measure(const struct cule_table *t, const char *text, const char *end, int *widths)
{
    while (text < end) {
        const char *cell;
        size_t n;
        bool more = true;
        for (int c = 0; more; c++) {
            more = next_cell(&text, &cell, &n);
            if (c < t->columns) {
                widths[c] = CULE_MAX(widths[c], columns_of(cell, n));
            }
        }
    }
}

static void print_row(const struct cule_table *t, FILE *out, const char **text, const int *widths, int width)
{
    const char *cell;
    size_t n;
    bool more = true;
    int at = 0;

    for (int c = 0; more; c++) {
        more = next_cell(text, &cell, &n);
        int w = columns_of(cell, n);
        int pad = c < t->columns ? CULE_MAX(widths[c] - w, 0) : 0;
        bool right = c < t->columns && t->right[c];
        if (c > 0) {
            fputs("  ", out);
            at += 2;
        }
        if (right) {
            fprintf(out, "%*s", pad, "");
            at += pad;
        }
        if (!more && width > 0 && at + w > width) {
            n = bytes_of(cell, n, CULE_MAX(width - at, 1));
        }
        fwrite(cell, 1, n, out);
        at += w;
        if (!right && more) {
            fprintf(out, "%*s", pad, "");
            at += pad;
        }
    }
}

int cule_table_print(const struct cule_table *t, FILE *out, bool aligned, bool colour, int width)
{
    int widths[CULE_TABLE_COLUMNS_MAX] = {0};

    if (t->rc < 0) {
        return t->rc;
    }
    const char *text = (const char *)cule_buf_data(&t->text);
    const char *end = text + cule_buf_len(&t->text);
    if (!aligned) {
        fwrite(text, 1, (size_t)(end - text), out);
        return 0;
    }
    measure(t, text, end, widths);
    for (bool heading = true; text < end; heading = false) {
        fputs(heading ? cule_colour(colour, CULE_COLOUR_BOLD) : "", out);
        print_row(t, out, &text, widths, width);
        fputs(heading ? cule_colour(colour, CULE_COLOUR_PLAIN) : "", out);
        putc('\n', out);
    }
    return 0;
}

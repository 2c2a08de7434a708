/* The golden vectors, both ways. They are read from $CULE_TOP/tests/vectors, or from below the current directory. */
#include "wire/decode.h"
#include "wire/mirror.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FIELDS = 4 };
static struct cule_mirror mirror;

struct row {
    char *field[FIELDS]; /* those that are not there are NULL */
    uint8_t *bytes;      /* of the field in hex */
    size_t n;
};

static uint8_t *from_hex(const char *hex, size_t *n)
{
    *n = strlen(hex) / 2;
    uint8_t *p = malloc(*n ? *n : 1);
    assert_non_null(p);
    for (size_t i = 0; i < *n; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        p[i] = (uint8_t)v;
    }
    return p;
}

/* Calls check for each line of a file; returns how many there were. */
static int each(const char *file, int hex_field, void (*check)(struct row *r))
{
    char path[512];
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int n = 0;
    const char *top = getenv("CULE_TOP");
    snprintf(path, sizeof path, "%s/tests/vectors/%s", top ? top : ".", file);
    FILE *f = fopen(path, "r");
    if (!f) {
        fail_msg("cannot open '%s'", path);
    }
    while ((len = getline(&line, &cap, f)) > 0) {
        struct row r = {0};
        line[len - 1] = '\0';
        char *at = line;
        for (int i = 0; i < FIELDS && at; i++) {
            r.field[i] = strsep(&at, "\t");
        }
        if (hex_field >= 0) {
            r.bytes = from_hex(r.field[hex_field], &r.n);
        }
        check(&r);
        free(r.bytes);
        n++;
    }
    free(line);
    fclose(f);
    return n;
}

static void assert_text(const struct row *r, const struct cule_buf *b, const char *want)
{
    size_t n = strlen(want);
    const char *got = (const char *)cule_buf_data(b);
    if (cule_buf_len(b) != n + 1 || memcmp(got, want, n) != 0 || got[n] != '\n') {
        fail_msg("%s: wrote %.*s instead of %s", r->field[0], (int)cule_buf_len(b), got, want);
    }
}

static void assert_bytes(const struct row *r, const struct cule_buf *b)
{
    if (cule_buf_len(b) != r->n || memcmp(cule_buf_data(b), r->bytes, r->n) != 0) {
        fail_msg("%s: other bytes than the vector's", r->field[0]);
    }
}

static void encodes(const struct row *r, const char *line)
{
    struct cule_buf b;
    struct cule_err err;
    cule_buf_init(&b, 0);
    if (cule_mirror_encode(&mirror, line, strlen(line), &b, &err)) {
        fail_msg("%s: %s", r->field[0], err.text);
    }
    assert_bytes(r, &b);
    cule_buf_release(&b);
}

static void frame_row(struct row *r)
{
    struct cule_frame f;
    struct cule_err err;
    struct cule_buf b;
    cule_buf_init(&b, 0);
    if (cule_frame_decode(&f, false, r->bytes, &err) || cule_frame_check_body(&f, r->bytes + 64, &err)) {
        fail_msg("%s: %s", r->field[0], err.text);
    }
    assert_int_equal(r->n, 64 + cule_frame_tail(&f));
    assert_int_equal(cule_frame_add(&b, &f, false, r->bytes + 64), 0);
    assert_bytes(r, &b);
    cule_buf_clear(&b);
    assert_int_equal(cule_mirror_write(&mirror, &f, r->bytes + 64, &b, &err), 0);
    assert_text(r, &b, r->field[2]);
    encodes(r, r->field[2]);
    cule_buf_release(&b);
}

static void frames(void **state)
{
    (void)state;
    assert_true(each("frames.tsv", 1, frame_row) >= 90);
}

static void line_row(struct row *r)
{
    encodes(r, r->field[1]);
}

static void lines(void **state)
{
    (void)state;
    assert_true(each("lines.tsv", 2, line_row) >= 17);
}

static void badline_row(struct row *r)
{
    struct cule_buf b;
    struct cule_err err;
    cule_buf_init(&b, 0);
    int rc = cule_mirror_encode(&mirror, r->field[1], strlen(r->field[1]), &b, &err);
    if (rc >= 0 || !strstr(err.text, r->field[2])) {
        fail_msg("%s: '%s' does not say '%s'", r->field[0], rc < 0 ? err.text : "it was taken", r->field[2]);
    }
    assert_int_equal(cule_buf_len(&b), 0);
    cule_buf_release(&b);
}

static void badlines(void **state)
{
    (void)state;
    assert_true(each("badlines.tsv", -1, badline_row) >= 28);
}

static void message_row(struct row *r)
{
    struct cule_assembler a;
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_msg m;
    struct cule_err err;
    struct cule_buf b;
    int whole = 0;
    cule_buf_init(&b, 0);
    cule_assembler_init(&a);
    cule_decoder_init(&d, CULE_DECODE_STRICT);
    cule_decoder_feed(&d, r->bytes, r->n);
    while (cule_decoder_next(&d, &f, &payload, &err) == CULE_DECODED_FRAME) {
        assert_int_equal(whole, 0);
        whole = cule_assembler_push(&a, &f, payload, NULL, 0, &m, &err);
    }
    assert_true(d.frames > 1);
    assert_int_equal(whole, 1);
    assert_int_equal(cule_decoder_end(&d, &err), 0);
    assert_int_equal(cule_mirror_write_msg(&mirror, &m, &b, &err), 0);
    assert_text(r, &b, r->field[2]);
    cule_assembler_release(&a);
    cule_buf_release(&b);
}

static void messages(void **state)
{
    (void)state;
    assert_true(each("messages.tsv", 1, message_row) >= 7);
}

static void invalid_row(struct row *r)
{
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    struct cule_err err = {0};
    const char *where = "header";
    cule_decoder_init(&d, CULE_DECODE_STRICT);
    cule_decoder_feed(&d, r->bytes, r->n);
    int rc = cule_decoder_next(&d, &f, &payload, &err);
    if (rc == 0) {
        rc = cule_decoder_end(&d, &err);
        where = "end";
    } else if (rc > 0) {
        where = rc == CULE_DECODED_BAD_BODY ? "body" : "nowhere";
        assert_int_equal(cule_decoder_next(&d, &f, &payload, NULL), 0);
    }
    if (strcmp(cule_err_name(err.code), r->field[2]) != 0 || strcmp(where, r->field[3]) != 0) {
        fail_msg("%s: %s in %s (%s) instead of %s in %s", r->field[0], cule_err_name(err.code), where, err.text,
                 r->field[2], r->field[3]);
    }
    cule_decoder_release(&d);
}

static void invalid(void **state)
{
    (void)state;
    assert_true(each("invalid.tsv", 1, invalid_row) >= 23);
}

static void resync_row(struct row *r)
{
    struct cule_decoder d;
    struct cule_frame f;
    const uint8_t *payload;
    char told[512] = "";
    size_t at = 0;
    int rc = 1;
    cule_decoder_init(&d, CULE_DECODE_RESYNC);
    cule_decoder_feed(&d, r->bytes, r->n);
    for (int ended = 0; ended < 2 && rc >= 0; ended++) {
        while ((rc = cule_decoder_next(&d, &f, &payload, NULL)) > 0) {
            at += (size_t)(rc == CULE_DECODED_GAP ? snprintf(told + at, sizeof told - at, ", gap %d@%d",
                                                             (int)d.gap_bytes, (int)d.gap_offset)
                                                  : snprintf(told + at, sizeof told - at, ", %s %d",
                                                             rc == CULE_DECODED_FRAME ? "frame" : "body", (int)f.id));
        }
        rc = ended || rc < 0 ? rc : cule_decoder_end(&d, NULL);
    }
    if (rc == CULE_ETRUNCATED) {
        snprintf(told + at, sizeof told - at, ", truncated");
    }
    if (strcmp(told + 2, r->field[2]) != 0) {
        fail_msg("%s: told '%s' instead of '%s'", r->field[0], told + 2, r->field[2]);
    }
    cule_decoder_release(&d);
}

static void resync(void **state)
{
    (void)state;
    assert_true(each("resync.tsv", 1, resync_row) >= 13);
}

static int setup(void **state)
{
    (void)state;
    cule_mirror_init(&mirror);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cule_mirror_release(&mirror);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),   cmocka_unit_test(lines),   cmocka_unit_test(badlines),
        cmocka_unit_test(messages), cmocka_unit_test(invalid), cmocka_unit_test(resync),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/*
 * The JSON mirror both ways.
 *
 * Byte 0 even: the rest is a line; if it reads, its frame written, read and written again must be the same frame
 * and line. Byte 0 odd: the rest is a header (made valid) and a payload; frame to line to frame must give the same
 * bytes, and the line must be one line of JSON.
 */
#include "wire/mirror.h"
#include "base/utf8.h"
#include "wire/crc32c.h"
#include "wire/decode.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #x);                                     \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static struct cule_mirror mirror;
static struct cule_json doc;
static struct cule_buf bytes;
static struct cule_buf line;
static struct cule_buf again;

static void restart(struct cule_buf *b)
{
    b->head = b->tail = 0;
}

static bool same(const struct cule_buf *a, const struct cule_buf *b)
{
    return cule_buf_len(a) == cule_buf_len(b) && memcmp(cule_buf_data(a), cule_buf_data(b), cule_buf_len(a)) == 0;
}

/* The frame in `bytes` to a line and back. */
static void there_and_back(void)
{
    struct cule_frame f;
    struct cule_err err;
    restart(&line);
    restart(&again);
    CHECK(cule_frame_decode(&f, false, cule_buf_data(&bytes), &err) == 0);
    CHECK(cule_frame_check_body(&f, cule_buf_data(&bytes) + CULE_HEADER_SIZE, &err) == 0);
    CHECK(cule_mirror_write(&mirror, &f, cule_buf_data(&bytes) + CULE_HEADER_SIZE, &line, &err) == 0);
    const char *text = (const char *)cule_buf_data(&line);
    size_t n = cule_buf_len(&line);
    CHECK(n && text[n - 1] == '\n' && !memchr(text, '\n', n - 1));
    doc.depth_max = 100;
    CHECK(cule_json_parse(&doc, text, n, &err) == 0);
    CHECK(cule_mirror_encode(&mirror, text, n, &again, &err) == 0);
    CHECK(same(&bytes, &again));
}

static void from_line(const uint8_t *p, size_t n)
{
    struct cule_err err;
    struct cule_buf first;
    restart(&bytes);
    int rc = cule_mirror_encode(&mirror, (const char *)p, n, &bytes, &err);
    if (rc) {
        CHECK(err.code == rc && err.text[0] && cule_buf_len(&bytes) == 0);
        return;
    }
    there_and_back();
    /* The line it became is where it stays. */
    cule_buf_init(&first, 0);
    CHECK(cule_buf_add(&first, cule_buf_data(&line), cule_buf_len(&line)) == 0);
    there_and_back();
    CHECK(same(&first, &line));
    cule_buf_release(&first);
}

/* Nested headers in a payload are given the check they need, the innermost work is the fuzzer's. */
static void make_right(uint8_t *p, size_t n)
{
    for (size_t at = 0; at + CULE_HEADER_SIZE <= n; at++) {
        if (p[at] == 'c' && p[at + 1] == 'u') {
            cule_put32(p + at + 28, cule_crc32c_header(p + at));
        }
    }
}

static void from_frame(const uint8_t *p, size_t n)
{
    static uint8_t payload[CULE_PAYLOAD_MAX];
    struct cule_frame f;
    if (n < CULE_HEADER_SIZE) {
        return;
    }
    memcpy(&f, p, CULE_HEADER_SIZE);
    p += CULE_HEADER_SIZE;
    n = CULE_MIN(n - CULE_HEADER_SIZE, (size_t)CULE_PAYLOAD_MAX);
    f.magic[0] = 'C';
    f.magic[1] = 'U';
    f.version = CULE_VERSION_1;
    f.kind = (uint8_t)(1 + f.kind % CULE_KIND_LAST);
    f.priority %= CULE_PRIORITIES;
    f.nfds = CULE_MIN(f.nfds, (uint8_t)CULE_FDS_MAX);
    f.flags &= 0xff | CULE_FLAGS_KNOWN_HIGH;
    if (n < CULE_TRACE_SIZE) {
        f.flags &= (uint16_t)~CULE_TRACE;
    }
    f.length = (uint32_t)n;
    memcpy(payload, p, n);
    if (f.flags & CULE_NESTED) {
        make_right(payload, n);
    }
    restart(&bytes);
    CHECK(cule_frame_add(&bytes, &f, false, payload) == 0);
    there_and_back();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    if (!ready) {
        cule_mirror_init(&mirror);
        cule_json_init(&doc);
        ready = true;
    }
    if (size) {
        (data[0] & 1 ? from_frame : from_line)(data + 1, size - 1);
    }
    return 0;
}

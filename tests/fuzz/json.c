/*
 * The JSON reader on any bytes: what it takes is written out again from its tokens, and must read as the same tokens
 * with the same values.
 */
#include "base/json.h"
#include "base/bytes.h"
#include "base/utf8.h"

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

static struct cule_json doc;
static struct cule_json again;
static struct cule_buf out;
static struct cule_buf text;

static void write_value(struct cule_json_writer *w, int i)
{
    enum cule_json_type type = cule_json_type(&doc, i);
    uint64_t u;
    bool b = false;
    size_t n;
    switch (type) {
    case CULE_JSON_OBJECT:
    case CULE_JSON_ARRAY: {
        uint32_t count = 0;
        cule_json_open(w, type == CULE_JSON_OBJECT ? '{' : '[');
        for (int k = cule_json_first(&doc, i); k >= 0; k = cule_json_next(&doc, k)) {
            int v = type == CULE_JSON_OBJECT ? cule_json_value(&doc, k) : k;
            if (v != k) {
                text.head = text.tail = 0;
                CHECK(cule_json_str_add(&doc, k, &text) == 0);
                cule_json_put_bytes(w, text.base, cule_buf_len(&text));
                CHECK(cule_buf_addc(w->out, ':') == 0);
                w->comma = false;
            }
            write_value(w, v);
            count++;
        }
        CHECK(count == doc.token[i].count);
        cule_json_close(w, type == CULE_JSON_OBJECT ? '}' : ']');
        break;
    }
    case CULE_JSON_STRING:
        text.head = text.tail = 0;
        CHECK(cule_json_str_add(&doc, i, &text) == 0);
        CHECK(cule_utf8_valid(text.base, cule_buf_len(&text)));
        cule_json_put_bytes(w, text.base, cule_buf_len(&text));
        break;
    case CULE_JSON_NUMBER: {
        const char *raw = cule_json_raw(&doc, i, &n);
        cule_json_u64(&doc, i, &u);
        cule_json_put_raw(w, raw, n);
        break;
    }
    case CULE_JSON_TRUE:
    case CULE_JSON_FALSE:
        CHECK(cule_json_bool(&doc, i, &b) == 0);
        cule_json_put_bool(w, b);
        break;
    default: cule_json_put_null(w); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct cule_json_writer w;
    struct cule_err err;
    char small[16];
    if (!ready) {
        cule_json_init(&doc);
        cule_json_init(&again);
        ready = true;
    }
    int rc = cule_json_parse(&doc, (const char *)data, size, &err);
    if (rc) {
        CHECK(err.code == rc && err.text[0] && doc.count == 0);
        return 0;
    }
    CHECK(cule_utf8_valid(data, size));
    out.head = out.tail = 0;
    cule_json_begin(&w, &out);
    write_value(&w, 0);
    CHECK(cule_json_end(&w) == 0);
    CHECK(cule_json_parse(&again, (const char *)cule_buf_data(&out), cule_buf_len(&out), &err) == 0);
    CHECK(again.count == doc.count && again.spaces == 0);
    for (uint32_t i = 0; i < doc.count; i++) {
        const struct cule_json_token *a = &doc.token[i];
        const struct cule_json_token *b = &again.token[i];
        CHECK(a->type == b->type && a->after == b->after && a->count == b->count && a->key == b->key);
        int n = cule_json_str(&doc, (int)i, small, sizeof small);
        if (n >= 0) {
            CHECK((size_t)n == strlen(small) && cule_json_equal(&again, (int)i, small));
        }
    }
    return 0;
}

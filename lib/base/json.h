/*
 * JSON, RFC 8259, strict: a reader that makes a flat array of tokens over the caller's text, and a writer into a
 * struct cule_buf.
 *
 * Reading. Token 0 is the document; an object's members are its key tokens, each followed by its value; every token
 * knows where its next sibling stands. Strings stay as they are in the text until asked for. The first tokens lie in
 * struct cule_json itself, so that small documents allocate nothing; beyond that they come from the pool, within
 * token_max. Text is UTF-8 without lone surrogates; anything else is refused. Of equal keys the last one counts, as
 * with most readers.
 *
 *     struct cule_json doc;
 *     cule_json_init(&doc);
 *     if (cule_json_parse(&doc, text, n, &err) == 0) {
 *         rc = cule_json_get_u64(&doc, 0, "depth", &depth, &err);      1 there, 0 not there, or an error
 *         for (int i = cule_json_first(&doc, cule_json_find(&doc, 0, "topics")); i >= 0; i = cule_json_next(&doc, i))
 *             ...
 *     }
 *     cule_json_release(&doc);
 *
 * An index of -1 means "not there" and may be passed on to any of these functions.
 */
#ifndef CULE_BASE_JSON_H
#define CULE_BASE_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

enum { CULE_JSON_INLINE = 48, CULE_JSON_DEPTH_MAX = 64, CULE_JSON_TOKEN_MAX = 1 << 20 };

enum cule_json_type {
    CULE_JSON_NONE, /* of index -1 */
    CULE_JSON_OBJECT,
    CULE_JSON_ARRAY,
    CULE_JSON_STRING,
    CULE_JSON_NUMBER,
    CULE_JSON_TRUE,
    CULE_JSON_FALSE,
    CULE_JSON_NULL,
};

struct cule_json_token {
    uint32_t at;    /* first byte in the text; of a string the one behind the quote */
    uint32_t len;   /* bytes; of a string without the quotes */
    uint32_t after; /* the token behind this one and all it holds */
    uint32_t count; /* members of an object, elements of an array */
    uint32_t parent;
    uint8_t type;
    bool escaped; /* a string with a backslash in it */
    bool key;
};

struct cule_json {
    const char *text; /* the caller's; must stay while the document is read */
    struct cule_json_token *token;
    uint32_t count;
    uint32_t spaces;    /* bytes of white space between tokens */
    uint32_t depth_max; /* CULE_JSON_DEPTH_MAX unless set after init */
    uint32_t token_max; /* CULE_JSON_TOKEN_MAX unless set after init */
    uint32_t room;
    size_t block_size;
    struct cule_json_token first[CULE_JSON_INLINE];
};

void cule_json_init(struct cule_json *doc);
void cule_json_release(struct cule_json *doc);

/* Reads one value and nothing behind it but white space. May be called again on the same doc. 0, CULE_EMALFORMED
 * with the line and column (of bytes, from 1), CULE_ELIMIT (depth, tokens, 4 GiB) or CULE_ENOMEM. */
int cule_json_parse(struct cule_json *doc, const char *text, size_t n, struct cule_err *err);

/* The escape at p, which is behind its backslash: its character and how many bytes it has there, 0 for none. */
unsigned cule_json_escape(const char *p, const char *end, uint32_t *c);

/* --- looking around ----------------------------------------------------------------------------------------- */

enum cule_json_type cule_json_type(const struct cule_json *doc, int i);
/* "an object", "a string", ... "nothing", for messages. */
const char *cule_json_type_text(enum cule_json_type type);

/* The value of a member, -1 where there is none or i is no object. */
int cule_json_find(const struct cule_json *doc, int i, const char *key);

/* The first element of an array or the first key of an object, and from there on; -1 at the end. A key's value is
 * cule_json_value. */
int cule_json_first(const struct cule_json *doc, int i);
int cule_json_next(const struct cule_json *doc, int i);
static inline int cule_json_value(const struct cule_json *doc, int key)
{
    return key >= 0 && doc->token[key].key ? key + 1 : -1;
}

/* --- values ------------------------------------------------------------------------------------------------- */

/* A string, decoded, with a NUL behind it: its length, CULE_EMALFORMED where it is none or has a NUL in it,
 * CULE_ETOO_BIG where it does not fit. */
int cule_json_str(const struct cule_json *doc, int i, char *out, size_t size);

/* A string, decoded, behind what b holds; NULs are allowed. 0, CULE_EMALFORMED, CULE_ENOMEM or CULE_ELIMIT. */
int cule_json_str_add(const struct cule_json *doc, int i, struct cule_buf *b);

/* Whether it is a string of that text. */
bool cule_json_equal(const struct cule_json *doc, int i, const char *text);

/* A whole number, or a string of one in decimal or 0x hex. 0, CULE_EMALFORMED or CULE_ELIMIT. */
int cule_json_u64(const struct cule_json *doc, int i, uint64_t *out);
int cule_json_bool(const struct cule_json *doc, int i, bool *out);
int cule_json_double(const struct cule_json *doc, int i, double *out);

/* The text of any value as it stands, quotes and brackets included. */
const char *cule_json_raw(const struct cule_json *doc, int i, size_t *n);

/* Members of an object: 1 and *out, 0 where it is not there or null (*out is left alone), or an error that names it. */
int cule_json_get_str(const struct cule_json *doc, int obj, const char *key, char *out, size_t size,
                      struct cule_err *err);
int cule_json_get_u64(const struct cule_json *doc, int obj, const char *key, uint64_t *out, struct cule_err *err);
int cule_json_get_bool(const struct cule_json *doc, int obj, const char *key, bool *out, struct cule_err *err);

/* 0 when every key of the object is in the list that NULL ends, else CULE_EMALFORMED naming one that is not. */
int cule_json_only(const struct cule_json *doc, int obj, const char *const *keys, struct cule_err *err);

/* --- writing ------------------------------------------------------------------------------------------------ */

/*
 * Values one after the other; commas and colons are put where they belong, nothing else is. The first failure
 * stays, so that only the last call need be looked at:
 *
 *     cule_json_begin(&w, &buf);
 *     cule_json_open(&w, '{');
 *     cule_json_member_u64(&w, "clients", n);
 *     cule_json_key(&w, "topics"), cule_json_open(&w, '['), ... cule_json_close(&w, ']');
 *     cule_json_close(&w, '}');
 *     rc = cule_json_end(&w);
 */
struct cule_json_writer {
    struct cule_buf *out;
    int rc;
    unsigned depth;
    bool comma; /* a value stands before the next one */
};

void cule_json_begin(struct cule_json_writer *w, struct cule_buf *out);
/* 0, CULE_ENOMEM or CULE_ELIMIT: then the buffer holds a part. */
int cule_json_end(struct cule_json_writer *w);

void cule_json_open(struct cule_json_writer *w, char bracket);
void cule_json_close(struct cule_json_writer *w, char bracket);
void cule_json_key(struct cule_json_writer *w, const char *key);

/* Bytes that are no UTF-8 become U+FFFD each. */
void cule_json_put_bytes(struct cule_json_writer *w, const void *p, size_t n);
void cule_json_put_str(struct cule_json_writer *w, const char *s); /* NULL is null */
void cule_json_put_u64(struct cule_json_writer *w, uint64_t v);
void cule_json_put_u64_str(struct cule_json_writer *w, uint64_t v); /* in quotes, for readers that round */
void cule_json_put_i64(struct cule_json_writer *w, int64_t v);
void cule_json_put_double(struct cule_json_writer *w, double v); /* not finite is null */
void cule_json_put_bool(struct cule_json_writer *w, bool v);
void cule_json_put_null(struct cule_json_writer *w);
void cule_json_put_raw(struct cule_json_writer *w, const void *json, size_t n); /* a value, already JSON */

void cule_json_member_str(struct cule_json_writer *w, const char *key, const char *s);
void cule_json_member_u64(struct cule_json_writer *w, const char *key, uint64_t v);
void cule_json_member_i64(struct cule_json_writer *w, const char *key, int64_t v);
void cule_json_member_double(struct cule_json_writer *w, const char *key, double v);
void cule_json_member_bool(struct cule_json_writer *w, const char *key, bool v);

/*
 * Appends n bytes of UTF-8 as a JSON string with its quotes, in the one way this library writes them: \" \\ \b \f \n
 * \r \t, other controls below 0x20 and U+007F as \u00xx in lower case, as jq does; everything else as it is. 0,
 * CULE_ENOMEM or CULE_ELIMIT.
 */
int cule_json_quote(struct cule_buf *b, const void *p, size_t n);

/* Decimal digits of v to out; returns how many. */
unsigned cule_json_digits(uint64_t v, char out[20]);

#endif

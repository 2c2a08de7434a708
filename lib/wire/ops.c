/* Names and numbers of services, operations, kinds and priorities. */
#include "wire/ops.h"

#include <stdio.h>

const struct cule_service cule_services[] = {
#define CULE_SERVICE(ident, a, b, c, d, name, what) {CULE_FOURCC(a, b, c, d), name, what},
#define CULE_OP(service, ident, number, name, what)
#include "ops.def"
#undef CULE_SERVICE
#undef CULE_OP
    {0, NULL, NULL},
};

enum { CULE_S_ANY = CULE_ANY };
const struct cule_op cule_ops[] = {
#define CULE_SERVICE(ident, a, b, c, d, name, what)
#define CULE_OP(service, ident, number, name, what) {(uint32_t)CULE_S_##service, number, name, what},
#include "ops.def"
#undef CULE_SERVICE
#undef CULE_OP
    {0, 0, NULL, NULL},
};

static const char *const kinds[] = {NULL,     "hello",  "request", "reply", "error", "event", "data",
                                    "credit", "cancel", "ping",    "pong",  "bye",   "mark"};
static const char *const priorities[] = {"critical", "high", "normal", "low"};

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int cule_service_parse(const char *text, uint32_t *service)
{
    uint32_t v = 0;
    for (const struct cule_service *s = cule_services; s->name; s++) {
        if (strcmp(text, s->name) == 0) {
            *service = s->service;
            return 0;
        }
    }
    for (int i = 0; *text; i++) {
        unsigned c = (uint8_t)*text;
        if (c == '\\') {
            int high = text[1] == 'x' ? hex_digit(text[2]) : -1;
            int low = high >= 0 ? hex_digit(text[3]) : -1;
            if (low < 0) {
                return CULE_EMALFORMED;
            }
            c = (unsigned)(high << 4 | low);
            text += 3;
        } else if (c < 0x20 || c > 0x7e) {
            return CULE_EMALFORMED;
        }
        if (i == 4) {
            return CULE_EMALFORMED;
        }
        v |= c << 8 * i;
        text++;
    }
    *service = v;
    return 0;
}

static bool is_name(const char *text)
{
    for (const struct cule_service *s = cule_services; s->name; s++) {
        if (strcmp(text, s->name) == 0) {
            return true;
        }
    }
    return false;
}

const char *cule_service_text(uint32_t service, char out[CULE_SERVICE_TEXT])
{
    static const char hex[] = "0123456789abcdef";
    char plain[5] = {0};
    char *p = out;
    for (int i = 0; i < 4; i++) {
        plain[i] = (char)(service >> 8 * i);
    }
    /* A user's service that spells a name of the table is escaped, else it would be read as that name. */
    bool escape_first = is_name(plain);
    for (uint32_t rest = service; rest; rest >>= 8) {
        unsigned c = rest & 0xff;
        if (c < 0x20 || c > 0x7e || c == '\\' || (p == out && escape_first)) {
            *p++ = '\\';
            *p++ = 'x';
            *p++ = hex[c >> 4];
            *p++ = hex[c & 15];
        } else {
            *p++ = (char)c;
        }
    }
    *p = '\0';
    return out;
}

static int number_parse(const char *text, uint32_t *out)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    uint64_t v = 0;
    const char *p = hex ? text + 2 : text;
    if (!*p) {
        return CULE_EMALFORMED;
    }
    for (; *p; p++) {
        int d = hex_digit(*p);
        if (d < 0 || (!hex && d > 9)) {
            return CULE_EMALFORMED;
        }
        v = v * (hex ? 16 : 10) + (unsigned)d;
        if (v > UINT32_MAX) {
            return CULE_EMALFORMED;
        }
    }
    *out = (uint32_t)v;
    return 0;
}

int cule_op_parse(uint32_t service, const char *text, uint32_t *op)
{
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        if ((o->service == service || o->service == CULE_ANY) && strcmp(o->name, text) == 0) {
            *op = o->op;
            return 0;
        }
    }
    return number_parse(text, op);
}

const char *cule_op_name(uint32_t service, uint32_t op)
{
    for (const struct cule_op *o = cule_ops; o->name; o++) {
        if ((o->service == service || o->service == CULE_ANY) && o->op == op) {
            return o->name;
        }
    }
    return NULL;
}

const char *cule_kind_name(unsigned kind)
{
    return kind < CULE_COUNT(kinds) ? kinds[kind] : NULL;
}

int cule_kind_parse(const char *text)
{
    for (size_t i = 1; i < CULE_COUNT(kinds); i++) {
        if (strcmp(kinds[i], text) == 0) {
            return (int)i;
        }
    }
    return CULE_EMALFORMED;
}

const char *cule_priority_name(unsigned priority)
{
    return priority < CULE_COUNT(priorities) ? priorities[priority] : NULL;
}

int cule_priority_parse(const char *text)
{
    for (size_t i = 0; i < CULE_COUNT(priorities); i++) {
        if (strcmp(priorities[i], text) == 0 || (text[0] == (char)('0' + i) && !text[1])) {
            return (int)i;
        }
    }
    return CULE_EMALFORMED;
}

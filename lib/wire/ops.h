/* Services and operations by name and number: the look-ups over ops.def. */
#ifndef CULE_WIRE_OPS_H
#define CULE_WIRE_OPS_H

#include "wire/frame.h"

#define CULE_ANY 0u
enum {
#define CULE_SERVICE(ident, a, b, c, d, name, what) CULE_S_##ident = (int)CULE_FOURCC(a, b, c, d),
#define CULE_OP(service, ident, number, name, what)
#include "ops.def"
#undef CULE_SERVICE
#undef CULE_OP
};
enum {
#define CULE_SERVICE(ident, a, b, c, d, name, what)
#define CULE_OP(service, ident, number, name, what) CULE_OP_##service##_##ident = (number),
#include "ops.def"
#undef CULE_SERVICE
#undef CULE_OP
};

struct cule_service {
    uint32_t service;
    const char *name; /* lower case, "bus" */
    const char *what;
};

struct cule_op {
    uint32_t service; /* CULE_ANY: every service */
    uint32_t op;
    const char *name;
    const char *what;
};

/* The tables, ended by an entry whose name is NULL. */
extern const struct cule_service cule_services[];
extern const struct cule_op cule_ops[];

/* "bus", "BUS", or any one to four printable characters ("my\0\0" is written "my"). 0 or CULE_EMALFORMED. */
int cule_service_parse(const char *text, uint32_t *service);

/* The four characters without trailing NULs; a byte that is not printable, or a backslash, as \xNN. At most
 * CULE_SERVICE_TEXT bytes with the NUL. cule_service_parse reads what this writes. */
enum { CULE_SERVICE_TEXT = 17 };
const char *cule_service_text(uint32_t service, char out[CULE_SERVICE_TEXT]);

/* A name of that service or of any, or a number in decimal or 0x hex. 0 or CULE_EMALFORMED. */
int cule_op_parse(uint32_t service, const char *text, uint32_t *op);

/* The op's name, or NULL where the table has none. */
const char *cule_op_name(uint32_t service, uint32_t op);

const char *cule_kind_name(unsigned kind);         /* "request"; NULL when unknown */
int cule_kind_parse(const char *text);             /* the kind, or CULE_EMALFORMED */
const char *cule_priority_name(unsigned priority); /* "critical"; NULL when unknown */
int cule_priority_parse(const char *text);         /* name or 0 to 3, or CULE_EMALFORMED */

#endif

/* One question to the broker whose answer is JSON: list, stats, log-level, explain. */
#ifndef CULE_IPC_BUSASK_H
#define CULE_IPC_BUSASK_H

#include "base/json.h"
#include "busclient.h"

struct busask {
    const struct cule_cli *cli;
    struct busclient_where where;
    struct cule_link *link;
    struct cule_msg answer; /* of the last question, until the next */
    struct cule_json doc;
    struct cule_err err;
};

/* Connects; 0 or the failure in a->err. busask_end is due in each case. */
int busask_begin(struct busask *a, const struct cule_cli *cli, const struct busclient_at *at);
/* Asks; the answer in a->answer. */
int busask_put(struct busask *a, uint32_t service, uint32_t op, uint64_t arg0, const char *json);
/* The same, and reads the answer's JSON into a->doc. */
int busask_json(struct busask *a, uint32_t service, uint32_t op, uint64_t arg0, const char *json);
/* The answer's payload on standard output, ended by a newline. */
int busask_print(struct busask *a);
/* Reports a->err; the exit status. */
int busask_end(struct busask *a);

/* A member as text, for tables: strings as they are, numbers in digits, "-" where there is none. */
const char *busask_text(const struct cule_json *doc, int obj, const char *key, char *out, size_t n);
uint64_t busask_u64(const struct cule_json *doc, int obj, const char *key);
double busask_real(const struct cule_json *doc, int obj, const char *key);
/* "1.5 k", "3.2 M"; for bytes "1.5 KiB". */
const char *busask_short(double v, bool bytes, char out[16]);

#endif

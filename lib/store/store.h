/*
 * A SQLite file as Cule keeps its data in: one process at a time, write-ahead log, every commit synchronised before it
 * counts (synchronous=FULL), a schema with a number. What lies under this header is the only place that knows SQLite.
 *
 * A store may be used by one thread at a time.
 */
#ifndef CULE_STORE_STORE_H
#define CULE_STORE_STORE_H

#include "base/err.h"

#include <stdint.h>

struct sqlite3;
struct sqlite3_stmt;

struct cule_store {
    struct sqlite3 *db;
    char path[256]; /* for messages; cut where it is longer */
};

struct cule_store_schema {
    const char *what;        /* "a bus store", for messages */
    uint32_t application_id; /* marks the file as ours */
    int version;             /* of the schema; one that is newer is refused */
    const char *sql;         /* makes version 1 from nothing */
    /* sql that leads from version i + 1 to i + 2; version - 1 of them */
    const char *const *upgrades;
};

/*
 * Opens or makes the file. 0; CULE_EBUSY: another process has it open; CULE_EMALFORMED: it is something else;
 * CULE_EVERSION: a newer program wrote it; CULE_EDISK: it cannot be read or written. Nothing is left open then.
 */
int cule_store_open(struct cule_store *s, const char *path, const struct cule_store_schema *schema,
                    struct cule_err *err);
void cule_store_close(struct cule_store *s);

/* Runs statements without results. 0 or cule_store_error. */
int cule_store_exec(struct cule_store *s, const char *sql, struct cule_err *err);
int cule_store_prepare(struct cule_store *s, struct sqlite3_stmt **out, const char *sql, struct cule_err *err);

/* What the last call on the database failed with, as a code (CULE_EDISK, CULE_EBUSY, CULE_EMALFORMED, CULE_ENOMEM) with
 * SQLite's text in *err. */
int cule_store_error(struct cule_store *s, struct cule_err *err, const char *doing);

#endif

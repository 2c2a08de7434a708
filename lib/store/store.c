/* SQLite files: opened by one process, synchronised, with a schema that has a number. */
#include "store/store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

enum { BUSY_MS = 200 };

int cule_store_error(struct cule_store *s, struct cule_err *err, const char *doing)
{
    int rc = s->db ? sqlite3_errcode(s->db) : SQLITE_NOMEM;
    int code = rc == SQLITE_BUSY || rc == SQLITE_LOCKED      ? CULE_EBUSY
               : rc == SQLITE_NOTADB || rc == SQLITE_CORRUPT ? CULE_EMALFORMED
               : rc == SQLITE_NOMEM                          ? CULE_ENOMEM
                                                             : CULE_EDISK;
    int sys = s->db ? sqlite3_system_errno(s->db) : 0;
    const char *text = s->db ? sqlite3_errmsg(s->db) : "out of memory";
    if (sys && code == CULE_EDISK) {
        return cule_err_sys(err, code, sys, "cannot %s '%s': %s", doing, s->path, text);
    }
    return cule_err_set(err, code, "cannot %s '%s': %s", doing, s->path, text);
}

int cule_store_exec(struct cule_store *s, const char *sql, struct cule_err *err)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : cule_store_error(s, err, "write");
}

int cule_store_prepare(struct cule_store *s, struct sqlite3_stmt **out, const char *sql, struct cule_err *err)
{
    int rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    return rc == SQLITE_OK ? 0 : cule_store_error(s, err, "use");
}

static int number(struct cule_store *s, const char *sql, int64_t *out, struct cule_err *err)
{
    sqlite3_stmt *q;
    int rc = cule_store_prepare(s, &q, sql, err);
    if (rc) {
        return rc;
    }
    rc = sqlite3_step(q);
    if (rc == SQLITE_ROW) {
        *out = sqlite3_column_int64(q, 0);
    }
    rc = rc == SQLITE_ROW ? 0 : cule_store_error(s, err, "read");
    sqlite3_finalize(q);
    return rc;
}

/* A new file gets the schema, an older one what has been added since. */
static int migrate(struct cule_store *s, const struct cule_store_schema *schema, struct cule_err *err)
{
    int64_t id = 0;
    int64_t version = 0;
    int64_t tables = 0;
    char sql[96];
    int rc = number(s, "PRAGMA application_id", &id, err);
    rc = rc ? rc : number(s, "PRAGMA user_version", &version, err);
    rc = rc ? rc : number(s, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (rc) {
        return rc;
    }
    if ((uint32_t)id != schema->application_id && (id || version || tables)) {
        return cule_err_set(err, CULE_EMALFORMED, "'%s' is a database, but not %s", s->path, schema->what);
    }
    if (version > schema->version) {
        return cule_err_set(err, CULE_EVERSION, "'%s' is of version %d, this program knows %s up to version %d",
                            s->path, (int)version, schema->what, schema->version);
    }
    for (int v = (int)version; v < schema->version && !rc; v++) {
        rc = cule_store_exec(s, v == 0 ? schema->sql : schema->upgrades[v - 1], err);
    }
    if (!rc && version != schema->version) {
        snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d", (int)schema->application_id,
                 schema->version);
        rc = cule_store_exec(s, sql, err);
    }
    return rc;
}

static int set_up(struct cule_store *s, const struct cule_store_schema *schema, struct cule_err *err)
{
    /* The exclusive lock is taken with the first transaction and kept: no second process, and no shared-memory file
     * that a killed one would leave behind. */
    int rc = cule_store_exec(s,
                             "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                             "PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY; BEGIN IMMEDIATE",
                             err);
    rc = rc ? rc : migrate(s, schema, err);
    rc = rc ? rc : cule_store_exec(s, "COMMIT", err);
    if (rc == CULE_EBUSY) {
        return cule_err_set(err, rc, "'%s' is in use by another process", s->path);
    }
    if (rc == CULE_EMALFORMED && err && strstr(err->text, "not a database")) {
        return cule_err_set(err, rc, "'%s' is not %s: it is no SQLite database", s->path, schema->what);
    }
    return rc;
}

int cule_store_open(struct cule_store *s, const char *path, const struct cule_store_schema *schema,
                    struct cule_err *err)
{
    struct cule_err own;
    err = err ? err : &own;
    *s = (struct cule_store){0};
    snprintf(s->path, sizeof s->path, "%s", path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) {
        int rc = cule_store_error(s, err, "open");
        cule_store_close(s);
        return rc;
    }
    sqlite3_extended_result_codes(s->db, 0);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    int rc = set_up(s, schema, err);
    if (rc) {
        cule_store_close(s);
    }
    return rc;
}

void cule_store_close(struct cule_store *s)
{
    if (s->db) {
        sqlite3_close_v2(s->db);
    }
    s->db = NULL;
}

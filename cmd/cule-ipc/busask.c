/* Questions to the broker that are answered in JSON. */
#include "busask.h"

#include "common.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int busask_begin(struct busask *a, const struct cule_cli *cli, const struct busclient_at *at)
{
    memset(a, 0, sizeof *a);
    a->cli = cli;
    cule_json_init(&a->doc);
    int rc = busclient_where(&a->where, at, &a->err);
    return rc ? rc : busclient_dial(&a->where, cli->timeout_ms, &a->link, &a->err);
}

int busask_put(struct busask *a, uint32_t service, uint32_t op, uint64_t arg0, const char *json)
{
    return busclient_ask(a->link, service, op, arg0, json, a->cli->timeout_ms, &a->answer, &a->err);
}

int busask_json(struct busask *a, uint32_t service, uint32_t op, uint64_t arg0, const char *json)
{
    int rc = busask_put(a, service, op, arg0, json);
    if (rc == 0) {
        rc = cule_json_parse(&a->doc, (const char *)a->answer.body, a->answer.len, &a->err);
        if (rc) {
            cule_err_context(&a->err, rc, "the bus's answer is not JSON");
        }
    }
    return rc;
}

int busask_print(struct busask *a)
{
    int rc = ipc_write_all(STDOUT_FILENO, a->answer.body, a->answer.len, &a->err);
    if (rc == 0 && (a->answer.len == 0 || a->answer.body[a->answer.len - 1] != '\n')) {
        rc = ipc_write_all(STDOUT_FILENO, "\n", 1, &a->err);
    }
    return rc;
}

int busask_end(struct busask *a)
{
    if (a->link) {
        cule_link_free(a->link);
    }
    cule_json_release(&a->doc);
    return a->err.code ? cule_cli_fail(a->cli, &a->err) : 0;
}

const char *busask_text(const struct cule_json *doc, int obj, const char *key, char *out, size_t n)
{
    int i = cule_json_find(doc, obj, key);
    switch (cule_json_type(doc, i)) {
    case CULE_JSON_STRING:
        if (cule_json_str(doc, i, out, n) < 0) {
            snprintf(out, n, "?");
        } else if (!*out) {
            snprintf(out, n, "-");
        }
        break;
    case CULE_JSON_NONE:
    case CULE_JSON_NULL: snprintf(out, n, "-"); break;
    default: {
        size_t len;
        const char *raw = cule_json_raw(doc, i, &len);
        snprintf(out, n, "%.*s", (int)len, raw);
    }
    }
    return out;
}

uint64_t busask_u64(const struct cule_json *doc, int obj, const char *key)
{
    uint64_t v = 0;
    cule_json_get_u64(doc, obj, key, &v, NULL);
    return v;
}

double busask_real(const struct cule_json *doc, int obj, const char *key)
{
    double v = 0;
    cule_json_double(doc, cule_json_find(doc, obj, key), &v);
    return v;
}

const char *busask_short(double v, bool bytes, char out[16])
{
    static const char *const metric[] = {"", " k", " M", " G", " T"};
    static const char *const binary[] = {" B", " KiB", " MiB", " GiB", " TiB"};
    double step = bytes ? 1024 : 1000;
    unsigned i = 0;
    while (v >= step && i < 4) {
        v /= step;
        i++;
    }
    snprintf(out, 16, i == 0 && v == (double)(uint64_t)v ? "%.0f%s" : "%.1f%s", v, bytes ? binary[i] : metric[i]);
    return out;
}

/* Spans as Chrome's trace events, which Perfetto and chrome://tracing open. */
#include "base/json.h"
#include "wire/ops.h"
#include "wire/trace.h"

#include <stdlib.h>
#include <string.h>

struct cule_chrome_span {
    uint8_t id[8], parent[8], trace[16];
    uint64_t start_ns, end_ns, process, track;
};

struct cule_chrome_process {
    uint64_t pid;
    char program[CULE_SPAN_PROGRAM_MAX];
};

int cule_chrome_begin(struct cule_chrome *c, struct cule_buf *out)
{
    *c = (struct cule_chrome){.out = out, .first = true};
    return cule_buf_addf(out, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
}

void cule_chrome_release(struct cule_chrome *c)
{
    free(c->spans);
    free(c->processes);
    c->spans = NULL;
    c->processes = NULL;
    c->count = c->size = c->nprocesses = 0;
}

static int next_event(struct cule_chrome *c)
{
    int rc = cule_buf_addf(c->out, c->first ? "\n" : ",\n");
    c->first = false;
    return rc;
}

/* Microseconds with the nanoseconds behind the point; a double would round what lies so far behind 1970. */
static void put_us(struct cule_json_writer *w, const char *key, uint64_t ns)
{
    struct cule_buf text;
    cule_buf_init(&text, 0);
    int rc = cule_buf_addf(&text, "%llu.%03u", (unsigned long long)(ns / 1000), (unsigned)(ns % 1000));
    cule_json_key(w, key);
    if (rc == 0) {
        cule_json_put_raw(w, cule_buf_data(&text), cule_buf_len(&text));
    } else {
        cule_json_put_null(w);
    }
    cule_buf_release(&text);
}

/* The number a process goes by: its pid, or one that no pid has where it is not known. The first time it is named. */
static int process_of(struct cule_chrome *c, const struct cule_span *s, uint64_t *number)
{
    size_t i = 0;
    while (i < c->nprocesses && (c->processes[i].pid != s->pid || strcmp(c->processes[i].program, s->program) != 0)) {
        i++;
    }
    *number = s->pid ? s->pid : UINT64_C(1) << 31 | i;
    if (i < c->nprocesses) {
        return 0;
    }
    struct cule_chrome_process *p = reallocarray(c->processes, i + 1, sizeof *p);
    if (!p) {
        return CULE_ENOMEM;
    }
    c->processes = p;
    c->nprocesses = i + 1;
    p[i].pid = s->pid;
    memcpy(p[i].program, s->program, sizeof p[i].program);
    struct cule_json_writer w;
    int rc = next_event(c);
    cule_json_begin(&w, c->out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "name", "process_name");
    cule_json_member_str(&w, "ph", "M");
    cule_json_member_u64(&w, "pid", *number);
    cule_json_key(&w, "args");
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "name", s->program[0] ? s->program : "unknown");
    cule_json_close(&w, '}');
    cule_json_close(&w, '}');
    return rc ? rc : cule_json_end(&w);
}

static int remember(struct cule_chrome *c, const struct cule_span *s, uint64_t process)
{
    if (c->count == c->size) {
        size_t size = c->size ? c->size * 2 : 64;
        struct cule_chrome_span *spans = reallocarray(c->spans, size, sizeof *spans);
        if (!spans) {
            return CULE_ENOMEM;
        }
        c->spans = spans;
        c->size = size;
    }
    struct cule_chrome_span *at = &c->spans[c->count++];
    memcpy(at->id, s->trace.span, 8);
    memcpy(at->parent, s->parent, 8);
    memcpy(at->trace, s->trace.id, 16);
    at->start_ns = s->start_ns;
    at->end_ns = s->end_ns;
    at->process = process;
    at->track = s->track;
    return 0;
}

static bool set(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i]) {
            return true;
        }
    }
    return false;
}

int cule_chrome_span(struct cule_chrome *c, const struct cule_span *s)
{
    struct cule_json_writer w;
    char name[CULE_SPAN_NAME_MAX];
    char hex[33];
    uint64_t process;
    int rc = process_of(c, s, &process);
    rc = rc ? rc : next_event(c);
    if (rc) {
        return rc;
    }
    cule_json_begin(&w, c->out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "name", cule_span_name(s, name));
    cule_json_member_str(&w, "cat", s->client ? "client" : "server");
    cule_json_member_str(&w, "ph", "X");
    put_us(&w, "ts", s->start_ns);
    put_us(&w, "dur", s->end_ns - s->start_ns);
    cule_json_member_u64(&w, "pid", process);
    cule_json_member_u64(&w, "tid", s->track);
    cule_json_key(&w, "args");
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "status", s->code ? cule_err_name(s->code) : "ok");
    if (set(s->trace.id, 16)) {
        cule_json_member_str(&w, "trace_id", cule_trace_hex(s->trace.id, 16, hex));
        cule_json_member_str(&w, "span_id", cule_trace_hex(s->trace.span, 8, hex));
    }
    if (set(s->parent, 8)) {
        cule_json_member_str(&w, "parent_id", cule_trace_hex(s->parent, 8, hex));
    }
    cule_json_close(&w, '}');
    cule_json_close(&w, '}');
    rc = cule_json_end(&w);
    return rc || !set(s->trace.span, 8) ? rc : remember(c, s, process);
}

static int by_id(const void *a, const void *b)
{
    const struct cule_chrome_span *x = a;
    const struct cule_chrome_span *y = b;
    int d = memcmp(x->trace, y->trace, 16);
    return d ? d : memcmp(x->id, y->id, 8);
}

static int arrow(struct cule_chrome *c, const struct cule_chrome_span *at, const char *ph, uint64_t ns, size_t number)
{
    struct cule_json_writer w;
    int rc = next_event(c);
    cule_json_begin(&w, c->out);
    cule_json_open(&w, '{');
    cule_json_member_str(&w, "name", "asks");
    cule_json_member_str(&w, "cat", "flow");
    cule_json_member_str(&w, "ph", ph);
    cule_json_member_str(&w, "bp", "e");
    cule_json_member_u64(&w, "id", number);
    put_us(&w, "ts", ns);
    cule_json_member_u64(&w, "pid", at->process);
    cule_json_member_u64(&w, "tid", at->track);
    cule_json_close(&w, '}');
    return rc ? rc : cule_json_end(&w);
}

int cule_chrome_end(struct cule_chrome *c)
{
    int rc = 0;
    if (c->count) {
        qsort(c->spans, c->count, sizeof *c->spans, by_id);
    }
    for (size_t i = 0; i < c->count && rc == 0; i++) {
        const struct cule_chrome_span *s = &c->spans[i];
        struct cule_chrome_span key;
        memcpy(key.trace, s->trace, 16);
        memcpy(key.id, s->parent, 8);
        const struct cule_chrome_span *up = bsearch(&key, c->spans, c->count, sizeof key, by_id);
        if (up && (up->process != s->process || up->track != s->track)) {
            uint64_t from = CULE_MIN(CULE_MAX(up->start_ns, s->start_ns), up->end_ns);
            rc = arrow(c, up, "s", CULE_MIN(from, s->start_ns), i + 1);
            rc = rc ? rc : arrow(c, s, "f", s->start_ns, i + 1);
        }
    }
    rc = rc ? rc : cule_buf_addf(c->out, "\n]}\n");
    cule_chrome_release(c);
    return rc;
}

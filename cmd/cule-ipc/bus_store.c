/* The broker's store: what the pure bus asks of it goes to lib/store's thread, whose answers come back in the loop. */
#include "bus.h"

#include "cli/report.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- from the bus --- */

static int append(void *ctx, uint64_t token, const struct cule_bus_record *r)
{
    struct broker *b = ctx;
    struct cule_buslog_record s = {
        .topic = r->topic,
        .topic_len = r->topic_len,
        .seq = r->seq,
        .wall_ms = r->wall_ms,
        .source = r->source,
        .flags = r->flags,
        .priority = r->priority,
        .payload = r->payload,
        .len = r->len,
    };
    return cule_buslog_append(b->store, token, &s);
}

static int load(void *ctx, uint64_t token, const char *topic, size_t n, uint64_t from, uint32_t count)
{
    struct broker *b = ctx;
    return cule_buslog_load(b->store, token, topic, n, from, count);
}

static void lost(struct broker *b, int rc)
{
    if (rc) {
        cule_cli_warn(b->cli, "the store: %s", cule_err_text(rc));
    }
}

static void retain(void *ctx, const char *topic, size_t n, uint64_t seq)
{
    struct broker *b = ctx;
    lost(b, cule_buslog_retain(b->store, topic, n, seq));
}

static void trim(void *ctx, const char *topic, size_t n, const struct cule_bus_keep *k, uint64_t wall_ms)
{
    struct broker *b = ctx;
    uint64_t before = k->age_ms && k->age_ms < wall_ms ? wall_ms - k->age_ms : 0;
    lost(b, cule_buslog_trim(b->store, topic, n, k->messages, k->bytes, before));
}

static void done(void *ctx, const char *durable, const char *topic, size_t n, uint64_t seq, uint64_t floor)
{
    struct broker *b = ctx;
    lost(b, cule_buslog_done(b->store, durable, topic, n, seq, floor));
}

static void define(void *ctx, const char *durable, const char *json, size_t n)
{
    struct broker *b = ctx;
    lost(b, cule_buslog_define(b->store, durable, json, n));
}

static void probe(void *ctx)
{
    struct broker *b = ctx;
    lost(b, cule_buslog_probe(b->store));
}

void bus_store_effects(struct cule_bus_effects *fx)
{
    fx->append = append;
    fx->load = load;
    fx->retain = retain;
    fx->trim = trim;
    fx->done = done;
    fx->define = define;
    fx->probe = probe;
}

/* --- to the bus --- */

static void on_stored(void *ctx, uint64_t token, int code, const char *text)
{
    struct broker *b = ctx;
    cule_bus_stored(b->bus, token, code, text, bus_now(b, false));
}

static void on_loaded(void *ctx, uint64_t token, const struct cule_buslog_record *r, size_t n, int code)
{
    enum { AT_ONCE = 256 };
    struct broker *b = ctx;
    struct cule_bus_record out[AT_ONCE];
    n = CULE_MIN(n, (size_t)AT_ONCE);
    for (size_t i = 0; i < n; i++) {
        out[i] = (struct cule_bus_record){
            .topic = r[i].topic,
            .topic_len = r[i].topic_len,
            .seq = r[i].seq,
            .wall_ms = r[i].wall_ms,
            .source = r[i].source,
            .flags = r[i].flags,
            .priority = r[i].priority,
            .payload = r[i].payload,
            .len = r[i].len,
        };
    }
    cule_bus_loaded(b->bus, token, out, n, code, bus_now(b, false));
}

static void on_trimmed(void *ctx, const char *topic, size_t n, uint64_t first)
{
    struct broker *b = ctx;
    cule_bus_trimmed(b->bus, topic, n, first);
}

static const struct cule_buslog_answers answers = {on_stored, on_loaded, on_trimmed};

/* From the store's thread. */
static void wake(void *ctx)
{
    struct broker *b = ctx;
    uint64_t one = 1;
    while (write(b->store_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void on_answers(void *ctx, int events)
{
    struct broker *b = ctx;
    uint64_t n;
    (void)events;
    while (read(b->store_fd, &n, sizeof n) < 0 && errno == EINTR) {
    }
    cule_buslog_poll(b->store, &answers, b);
    bus_turn(b);
}

/* --- what is there --- */

static int see_topic(void *ctx, const char *topic, size_t n, uint64_t first, uint64_t last)
{
    struct broker *b = ctx;
    return cule_bus_restore_topic(b->bus, topic, n, first, last);
}

static int see_retained(void *ctx, const struct cule_buslog_record *r)
{
    struct broker *b = ctx;
    struct cule_bus_record out = {
        .topic = r->topic,
        .topic_len = r->topic_len,
        .seq = r->seq,
        .wall_ms = r->wall_ms,
        .source = r->source,
        .flags = r->flags,
        .priority = r->priority,
        .payload = r->payload,
        .len = r->len,
    };
    return cule_bus_restore_retained(b->bus, &out);
}

static int see_durable(void *ctx, const char *name, const char *json, size_t n)
{
    struct broker *b = ctx;
    return cule_bus_restore_durable(b->bus, name, json, n, bus_now(b, true));
}

static int see_done(void *ctx, const char *durable, const char *topic, size_t n, uint64_t seq, bool floor)
{
    struct broker *b = ctx;
    return cule_bus_restore_done(b->bus, durable, topic, n, seq, floor);
}

int bus_store_open(struct broker *b, struct cule_err *err)
{
    struct cule_buslog_opts o = {.wake = wake, .ctx = b};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGXFSZ, &ignore, NULL); /* a file at its limit is an error to report, as a full disk is */
    b->store_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->store_fd < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make an eventfd");
    }
    return cule_buslog_open(&b->store, b->o->store, &o, err);
}

int bus_store_start(struct broker *b, struct cule_err *err)
{
    static const struct cule_buslog_visitor v = {see_topic, see_retained, see_durable, see_done};
    int rc = cule_buslog_visit(b->store, &v, b, err);
    if (rc) {
        return err->code ? rc : cule_err_set(err, rc, "cannot take over '%s': %s", b->o->store, cule_err_text(rc));
    }
    rc = cule_watch_new(b->loop, &b->store_watch, b->store_fd, POLLIN, on_answers, b, err);
    rc = rc ? rc : cule_buslog_start(b->store, err);
    if (!rc) {
        cule_bus_restored(b->bus, bus_now(b, true));
    }
    return rc;
}

void bus_store_close(struct broker *b)
{
    cule_watch_free(b->store_watch);
    b->store_watch = NULL;
    cule_buslog_close(b->store);
    b->store = NULL;
    if (b->store_fd >= 0) {
        close(b->store_fd);
    }
    b->store_fd = -1;
}

void bus_store_stats(struct broker *b, struct cule_buf *out)
{
    struct cule_buslog_stats s;
    if (b->store) {
        cule_buslog_stats(b->store, &s);
        cule_buf_addf(out,
                      "\"store_commits\":%llu,\"store_batch_max\":%llu,\"store_commit_max_us\":%llu,"
                      "\"store_commit_mean_us\":%llu,",
                      (unsigned long long)s.commits, (unsigned long long)s.batch_max,
                      (unsigned long long)(s.commit_ns_max / 1000),
                      (unsigned long long)(s.commits ? s.commit_ns_sum / s.commits / 1000 : 0));
    }
}

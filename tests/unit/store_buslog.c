/* The bus's store: what is answered is on disk, through reopening, kill -9 and a disk that is full for a while. */
#include "base/bytes.h"
#include "store/buslog.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 20000 };

static char dir[] = "/tmp/cule-buslog.XXXXXX";
static char path[64];
static int wakefd;

static struct {
    unsigned stored, failed, loaded, answers;
    uint64_t last_token;
    int code;
    uint64_t seq[1024];
    char text[CULE_ERR_TEXT_MAX];
} got;

static void wake(void *ctx)
{
    uint64_t one = 1;
    (void)ctx;
    if (write(wakefd, &one, sizeof one) < 0) {
        abort();
    }
}

static void on_stored(void *ctx, uint64_t token, int code, const char *text)
{
    (void)ctx;
    got.answers++;
    got.stored += code == 0;
    got.failed += code != 0;
    got.code = code;
    got.last_token = token;
    snprintf(got.text, sizeof got.text, "%s", text);
}

static void on_loaded(void *ctx, uint64_t token, const struct cule_buslog_record *r, size_t n, int code)
{
    (void)ctx, (void)token;
    got.answers++;
    got.code = code;
    for (size_t i = 0; i < n && got.loaded < 1024; i++) {
        char want[32];
        snprintf(want, sizeof want, "%.*sbody%llu", (int)r[i].topic_len, r[i].topic, (unsigned long long)r[i].seq);
        assert_int_equal(r[i].len, strlen(want));
        assert_memory_equal(r[i].payload, want, r[i].len);
        got.seq[got.loaded++] = r[i].seq;
    }
}

static uint64_t trimmed_to;

static void on_trimmed(void *ctx, const char *topic, size_t n, uint64_t first)
{
    (void)ctx, (void)topic, (void)n;
    trimmed_to = first;
}

static const struct cule_buslog_answers answers = {on_stored, on_loaded, on_trimmed};

static void until(struct cule_buslog *b, unsigned n)
{
    struct pollfd p = {wakefd, POLLIN, 0};
    for (;;) {
        uint64_t v;
        cule_buslog_poll(b, &answers, NULL);
        if (got.answers >= n) {
            return;
        }
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        assert_int_equal(read(wakefd, &v, sizeof v), sizeof v);
    }
}

static struct {
    unsigned topics, retained, durables, done;
    uint64_t first, last, floor, beyond, retained_seq;
} seen;

static int see_topic(void *ctx, const char *topic, size_t n, uint64_t first, uint64_t last)
{
    (void)ctx, (void)topic, (void)n;
    seen.topics++;
    seen.first = first;
    seen.last = last;
    return 0;
}

static int see_retained(void *ctx, const struct cule_buslog_record *r)
{
    (void)ctx;
    seen.retained++;
    seen.retained_seq = r->seq;
    return 0;
}

static int see_durable(void *ctx, const char *name, const char *json, size_t n)
{
    (void)ctx;
    assert_string_equal(name, "workers");
    assert_int_equal(n, strlen(json));
    seen.durables++;
    return 0;
}

static int see_done(void *ctx, const char *durable, const char *topic, size_t n, uint64_t seq, bool floor)
{
    (void)ctx, (void)durable, (void)topic, (void)n;
    seen.done++;
    *(floor ? &seen.floor : &seen.beyond) = seq;
    return 0;
}

static struct cule_buslog *open_log(void)
{
    static const struct cule_buslog_visitor v = {see_topic, see_retained, see_durable, see_done};
    struct cule_buslog_opts o = {.wake = wake};
    struct cule_buslog *b = NULL;
    struct cule_err err = {0};
    memset(&got, 0, sizeof got);
    memset(&seen, 0, sizeof seen);
    if (cule_buslog_open(&b, path, &o, &err)) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(cule_buslog_visit(b, &v, NULL, &err), 0);
    assert_int_equal(cule_buslog_start(b, &err), 0);
    return b;
}

static char texts[4096][32];

static int append(struct cule_buslog *b, const char *topic, uint64_t seq)
{
    char *text = texts[seq % 4096];
    struct cule_buslog_record r = {.topic = topic, .topic_len = strlen(topic), .seq = seq, .wall_ms = seq * 1000};
    snprintf(text, sizeof texts[0], "%sbody%llu", topic, (unsigned long long)seq);
    r.payload = (const uint8_t *)text;
    r.len = strlen(text);
    r.priority = 2;
    return cule_buslog_append(b, seq, &r);
}

static int begin(void **state)
{
    char cmd[256];
    (void)state;
    snprintf(path, sizeof path, "%s/bus.db", dir);
    snprintf(cmd, sizeof cmd, "rm -f %s %s-wal %s-shm", path, path, path);
    return system(cmd);
}

static void test_reopen(void **state)
{
    (void)state;
    struct cule_buslog *b = open_log();
    for (uint64_t i = 1; i <= 1000; i++) {
        assert_int_equal(append(b, "t", i), 0);
    }
    cule_buslog_retain(b, "t", 1, 7);
    until(b, 1000);
    assert_int_equal(got.stored, 1000);
    assert_int_equal(got.last_token, 1000); /* in order */
    struct cule_buslog_stats s;
    cule_buslog_stats(b, &s);
    assert_true(s.commits < 500); /* grouped */
    cule_buslog_close(b);
    b = open_log();
    assert_int_equal(seen.topics, 1);
    assert_int_equal(seen.first, 1);
    assert_int_equal(seen.last, 1000);
    assert_int_equal(seen.retained_seq, 7);
    cule_buslog_load(b, 1, "t", 1, 990, 5);
    until(b, 1);
    assert_int_equal(got.loaded, 5);
    assert_int_equal(got.seq[0], 990);
    cule_buslog_load(b, 1, "t", 1, 999, 500);
    cule_buslog_load(b, 1, "none", 4, 1, 500);
    until(b, 3);
    assert_int_equal(got.loaded, 7);
    cule_buslog_close(b);
}

static void test_trim(void **state)
{
    (void)state;
    struct cule_buslog *b = open_log();
    for (uint64_t i = 1; i <= 100; i++) {
        append(b, "t", i);
    }
    append(b, "u", 1);
    cule_buslog_trim(b, "t", 1, 10, 0, 0);
    cule_buslog_trim(b, "t", 1, 0, 0, 95000); /* older than number 95 */
    until(b, 101);
    cule_buslog_load(b, 1, "t", 1, 1, 500);
    until(b, 102);
    assert_int_equal(got.loaded, 6);
    assert_int_equal(got.seq[0], 95);
    assert_int_equal(trimmed_to, 95);
    cule_buslog_trim(b, "t", 1, 0, 16, 0); /* room for two of 7 or 8 bytes */
    cule_buslog_trim(b, "u", 1, 0, 0, UINT64_MAX >> 1);
    append(b, "u", 2);
    until(b, 103);
    cule_buslog_load(b, 1, "u", 1, 1, 500);
    until(b, 104);
    assert_int_equal(got.loaded, 7); /* of u the second alone */
    cule_buslog_close(b);
    b = open_log();
    cule_buslog_load(b, 1, "t", 1, 1, 500);
    until(b, 1);
    assert_int_equal(got.loaded, 2);
    assert_int_equal(got.seq[0], 99);
    cule_buslog_close(b);
}

static void test_durables(void **state)
{
    (void)state;
    struct cule_buslog *b = open_log();
    cule_buslog_define(b, "workers", "{}", 2);
    cule_buslog_done(b, "workers", "t", 1, 3, 3);
    cule_buslog_done(b, "workers", "t", 1, 5, 3);
    cule_buslog_close(b);
    b = open_log();
    assert_int_equal(seen.durables, 1);
    assert_int_equal(seen.floor, 3);
    assert_int_equal(seen.beyond, 5);
    cule_buslog_done(b, "workers", "t", 1, 4, 5); /* takes 5 with it */
    cule_buslog_close(b);
    b = open_log();
    assert_int_equal(seen.done, 1);
    assert_int_equal(seen.floor, 5);
    cule_buslog_define(b, "workers", NULL, 0);
    cule_buslog_close(b);
    b = open_log();
    assert_int_equal(seen.durables + seen.done, 0);
    cule_buslog_close(b);
}

static void test_refused(void **state)
{
    struct cule_buslog_opts o = {.wake = wake};
    struct cule_buslog *again = NULL;
    struct cule_err err;
    (void)state;
    struct cule_buslog *b = open_log();
    assert_int_equal(cule_buslog_open(&again, path, &o, &err), CULE_EBUSY);
    assert_non_null(strstr(err.text, "in use by another process"));
    cule_buslog_close(b);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 300; i++) {
        fputs("this is not a database\n", f);
    }
    fclose(f);
    assert_int_equal(cule_buslog_open(&again, path, &o, &err), CULE_EMALFORMED);
    assert_non_null(strstr(err.text, "no SQLite database"));
    unlink(path);
    char cmd[200];
    snprintf(cmd, sizeof cmd, "%s/none/bus.db", dir);
    assert_int_equal(cule_buslog_open(&again, cmd, &o, &err), CULE_EDISK);
    assert_null(again);
}

/* A file that may not grow is a disk that is full. */
static void test_full(void **state)
{
    struct rlimit was;
    (void)state;
    struct cule_buslog *b = open_log();
    append(b, "t", 1);
    until(b, 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    struct rlimit small = {200000, was.rlim_max};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGXFSZ, &ignore, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    uint64_t n = 2;
    while (got.failed == 0 && n < 100000) {
        unsigned before = got.answers;
        append(b, "t", n++);
        until(b, before + 1);
    }
    assert_int_equal(got.code, CULE_EDISK);
    assert_true(strlen(got.text) > 0);
    unsigned answered = got.answers;
    append(b, "t", n);
    until(b, answered + 1);
    assert_int_equal(got.code, CULE_EDISK); /* until a probe */
    cule_buslog_probe(b);
    until(b, answered + 2);
    assert_int_equal(got.code, CULE_EDISK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    cule_buslog_probe(b);
    until(b, answered + 3);
    assert_int_equal(got.code, 0);
    append(b, "t", n - 1); /* the one that failed first */
    until(b, answered + 4);
    assert_int_equal(got.code, 0);
    cule_buslog_close(b);
    b = open_log();
    assert_int_equal(seen.last, n - 1);
    cule_buslog_close(b);
}

static void on_stored_tell(void *ctx, uint64_t token, int code, const char *text)
{
    (void)text;
    if (code || write(*(int *)ctx, &token, sizeof token) != sizeof token) {
        _exit(1);
    }
    got.answers++;
}

/* Appends for ever and tells what was answered; killed at some moment. */
static void child(int fd, uint64_t from)
{
    static const struct cule_buslog_answers tell = {on_stored_tell, on_loaded, on_trimmed};
    struct cule_buslog *b = open_log();
    struct pollfd p = {wakefd, POLLIN, 0};
    if (seen.last + 1 < from) {
        _exit(2);
    }
    for (uint64_t n = seen.last + 1;; n++) {
        uint64_t v;
        append(b, "t", n);
        cule_buslog_poll(b, &tell, &fd);
        while (n - seen.last - got.answers > 64 && poll(&p, 1, WAIT_MS) == 1) {
            v = 0;
            if (read(wakefd, &v, sizeof v) < 0) {
                _exit(3);
            }
            cule_buslog_poll(b, &tell, &fd);
        }
    }
}

static void test_kill(void **state)
{
    uint64_t acked = 0;
    (void)state;
    for (int round = 0; round < 12; round++) {
        int pv[2];
        uint64_t token;
        assert_int_equal(pipe(pv), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(pv[0]);
            child(pv[1], acked + 1);
        }
        close(pv[1]);
        unsigned want = 1 + (unsigned)round * 37;
        for (unsigned i = 0; i < want; i++) {
            struct pollfd p = {pv[0], POLLIN, 0};
            assert_int_equal(poll(&p, 1, WAIT_MS), 1);
            assert_int_equal(read(pv[0], &token, sizeof token), sizeof token);
            acked = token;
        }
        kill(pid, SIGKILL);
        while (read(pv[0], &token, sizeof token) == sizeof token) {
            acked = token; /* told before it died */
        }
        close(pv[0]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
    struct cule_buslog *b = open_log();
    assert_true(seen.last >= acked);
    uint64_t from = seen.last > 1000 ? seen.last - 999 : 1;
    cule_buslog_load(b, 1, "t", 1, from, 1000);
    until(b, 1);
    for (unsigned i = 0; i < got.loaded; i++) {
        assert_int_equal(got.seq[i], from + i);
    }
    assert_int_equal(from + got.loaded - 1, seen.last);
    cule_buslog_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_reopen, begin),   cmocka_unit_test_setup(test_trim, begin),
        cmocka_unit_test_setup(test_durables, begin), cmocka_unit_test_setup(test_refused, begin),
        cmocka_unit_test_setup(test_full, begin),     cmocka_unit_test_setup(test_kill, begin),
    };
    wakefd = eventfd(0, EFD_CLOEXEC);
    if (wakefd < 0 || !mkdtemp(dir)) {
        return 1;
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    begin(NULL);
    rmdir(dir);
    return rc;
}

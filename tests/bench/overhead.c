/*
 * What tracing and statistics cost, and what a capability check costs.
 *
 *   overhead_tracing   a round trip through `cule-ipc serve --frames` to a handler, while somebody takes the trace of
 *                      every request and polls the counters ten times a second, against the same without them
 *   capability_check   cule_captable_find among 10,000 capabilities, in random order
 */
#include "base/hist.h"
#include "io/link.h"
#include "measure.h"
#include "wire/captable.h"

enum { TRIPS = 3000, BLOCKS = 8, CAPS = 10000, CHECKS = 20000000, WAIT_MS = 10000 };

/* --- the handler that serve starts: this program again --- */

static int handler(void)
{
    const struct cule_link_opts o = {.name = "handler", .is_server = true};
    struct cule_link *l;
    struct cule_msg m;
    struct cule_err err;
    if (cule_link_open(NULL, "-", &o, &l, &err)) {
        fprintf(stderr, "overhead: %s\n", err.text);
        return 4;
    }
    while (cule_link_next(l, &m, 60000, NULL) > 0) {
        if (m.h.kind == CULE_REQUEST) {
            cule_link_reply(l, m.h.id, 0, 0, m.body, m.len);
        }
    }
    return 0;
}

static pid_t serve(char endpoint[128])
{
    int ready[2];
    char c, self[512], command[600];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0 || pipe(ready)) {
        die("pipe");
    }
    self[n] = '\0';
    snprintf(command, sizeof command, "exec '%s' --handler", self);
    snprintf(endpoint, 128, "unix:/tmp/cule-bench-serve.%d", (int)getpid());
    pid_t p = child();
    if (p == 0) {
        char fd[16];
        snprintf(fd, sizeof fd, "%d", ready[1]);
        setenv("CULE_READY_FD", fd, 1);
        execlp("cule-ipc", "cule-ipc", "serve", "--listen", endpoint, "--workers", "1", "--frames", command,
               (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    if (read(ready[0], &c, 1) != 1) {
        fprintf(stderr, "overhead: cule-ipc serve did not start\n");
        exit(4);
    }
    close(ready[0]);
    return p;
}

static struct cule_link *dial(const char *endpoint)
{
    const struct cule_link_opts o = {.name = "overhead", .connect_timeout_ms = WAIT_MS};
    struct cule_link *l;
    struct cule_err err;
    if (cule_link_open(NULL, endpoint, &o, &l, &err)) {
        fprintf(stderr, "overhead: %s\n", err.text);
        exit(4);
    }
    return l;
}

/* Takes every span, and the counters ten times a second. */
static pid_t tracer(const char *endpoint)
{
    int ready[2];
    char c;
    if (pipe(ready)) {
        die("pipe");
    }
    pid_t p = child();
    if (p == 0) {
        pin(1);
        struct cule_link *l = dial(endpoint), *stats = dial(endpoint);
        struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_CULE, CULE_OP_CULE_TRACE_ON), answer;
        if (cule_link_ask(l, &m, WAIT_MS, &answer, NULL) || write(ready[1], "x", 1) != 1) {
            _exit(4);
        }
        for (uint64_t next = now_ns();;) {
            cule_link_next(l, &answer, 100, NULL);
            if (now_ns() >= next) {
                next = now_ns() + 100000000;
                m = cule_msg_make(CULE_REQUEST, CULE_S_CULE, CULE_OP_CULE_STATS);
                cule_link_ask(stats, &m, WAIT_MS, &answer, NULL);
            }
        }
    }
    close(ready[1]);
    if (read(ready[0], &c, 1) != 1) {
        fprintf(stderr, "overhead: the tracer did not start\n");
        exit(4);
    }
    close(ready[0]);
    return p;
}

static double trips(struct cule_link *l)
{
    static double us[TRIPS];
    static const uint8_t body[64];
    for (int i = -TRIPS / 10; i < TRIPS; i++) {
        struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_FOURCC('e', 'c', 'h', 'o'), 0x4000), answer;
        struct cule_err err;
        m.body = body;
        m.len = sizeof body;
        uint64_t t = now_ns();
        if (cule_link_ask(l, &m, WAIT_MS, &answer, &err)) {
            fprintf(stderr, "overhead: %s\n", err.text);
            exit(4);
        }
        if (i >= 0) {
            us[i] = (double)(now_ns() - t) / 1000;
        }
    }
    return median(us, TRIPS);
}

static void tracing(void)
{
    double on[BLOCKS], off[BLOCKS];
    char endpoint[128];
    pin(0); /* and so are server and handler: on one core it is the work that counts, not how cores are woken */
    pid_t server = serve(endpoint);
    struct cule_link *l = dial(endpoint);
    for (int i = 0; i < BLOCKS; i++) {
        off[i] = trips(l);
        pid_t t = tracer(endpoint);
        on[i] = trips(l);
        reap(t);
    }
    cule_link_free(l);
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    emit("overhead_tracing", median(on, BLOCKS), "us", "tracing off", median(off, BLOCKS), true, 1 / 1.03);
}

/* --- capabilities --- */

static void capabilities(void)
{
    static uint64_t handle[CAPS];
    static uint32_t order[65536];
    struct cule_captable t;
    double v[ROUNDS];
    uint64_t r = 88172645463325252u, found = 0;
    cule_captable_init(&t, true, 0);
    for (unsigned i = 0; i < CAPS; i++) {
        if (cule_captable_issue(&t, i, 0, 7, UINT64_MAX, &handle[i])) {
            die("cule_captable_issue");
        }
    }
    for (unsigned i = 0; i < 65536; i++) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        order[i] = (uint32_t)(r % CAPS);
    }
    pin(0);
    for (int k = 0; k < ROUNDS; k++) {
        uint64_t begin = now_ns();
        for (unsigned i = 0; i < CHECKS; i++) {
            found += cule_captable_find(&t, handle[order[i & 65535]], 5, begin) != NULL;
        }
        v[k] = (double)(now_ns() - begin) / CHECKS;
    }
    unpin();
    cule_captable_release(&t);
    if (found != (uint64_t)ROUNDS * CHECKS) {
        fprintf(stderr, "overhead: a valid capability was not found\n");
        exit(4);
    }
    emit("capability_check", median(v, ROUNDS), "ns", "10 ns", 10, true, 1);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "--handler") == 0) {
        return handler();
    }
    capabilities();
    tracing();
    return 0;
}

/*
 * How long a critical message takes from publisher to subscriber while low ones flood the same links at 70 % of what
 * the bus can do; through the bus, and through a broker that does no work: a process that copies what it reads from
 * one socket to the other. Same publisher, same subscriber, same rate of the flood, interleaved.
 *
 * Every 50 us the publisher sends the flood's share; in every tenth of these steps it sends half of it, sees to it that
 * it is on its way, then one critical message with the time in it, then the other half. Under SCHED_FIFO (all three
 * processes) it is measured apart.
 */
#include "broker.h"

#include <sys/mman.h>
#include <sys/un.h>

enum {
    BODY = 128,
    PAYLOAD = 1 + BODY,
    FRAME = CULE_HEADER_SIZE + 136,
    BATCH = 512,
    TICK_US = 50,
    TICKS = 10,
    RUN_MS = 1500,
    CAPACITY_MS = 700
};

static struct shared {
    struct cule_hist latency; /* of critical messages */
    uint64_t low, critical;   /* received */
    uint64_t waits;           /* critical frames of the publisher that found another one part-written */
    bool subscribed, joined, go, stop;
} * shared;

static void wait_for(const bool *flag)
{
    for (int i = 0; i < 20000; i++) {
        if (__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
            return;
        }
        usleep(500);
    }
    die("a process of the measure did not get ready");
}

static void set(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

/* --- subscriber --- */

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)l;
    (void)ctx;
    if (m->len != PAYLOAD) {
        return;
    }
    if (m->body[0] == 'c') {
        uint64_t t = now_ns() - cule_get64(m->body + 1);
        cule_hist_add(&shared->latency, t);
        shared->critical++;
    } else {
        __atomic_store_n(&shared->low, shared->low + 1, __ATOMIC_RELAXED);
    }
}

static void on_closed(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)l;
    (void)ctx;
    (void)why;
    _exit(0);
}

static const struct cule_link_ops ops = {.message = on_message, .closed = on_closed};

static int connect_to(const char *endpoint)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", endpoint + strlen("unix:"));
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        die("connect");
    }
    return fd;
}

/* A link to the broker without work, which knows nothing of HELLO and credit. */
static void join_plain(struct joined *j, const char *endpoint)
{
    const struct cule_link_opts o = {.ops = &ops, .one_way = true};
    struct cule_err err;
    int fd = connect_to(endpoint);
    if (cule_loop_new(&j->loop, &err) || cule_link_open_fd(j->loop, fd, fd, &o, &j->link, &err)) {
        die(err.text);
    }
}

static void subscriber(const char *endpoint, bool plain)
{
    struct joined j;
    if (plain) {
        join_plain(&j, endpoint);
    } else {
        join(&j, endpoint, &ops, NULL);
        joined_ask(&j, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE,
                   "{\"pattern\":\"f\",\"queue\":65536,\"queue_bytes\":67108864}");
        joined_ask(&j, CULE_S_BUS, CULE_OP_BUS_SUBSCRIBE, "{\"pattern\":\"c\"}");
    }
    set(&shared->subscribed);
    cule_loop_run(j.loop);
}

/* --- publisher --- */

static uint8_t flood[BATCH * FRAME];

static void make_flood(void)
{
    uint8_t payload[PAYLOAD] = {'f'};
    size_t n = 0;
    for (int i = 0; i < BATCH; i++) {
        struct cule_frame f;
        cule_frame_init(&f, CULE_EVENT);
        f.service = CULE_S_BUS;
        f.op = CULE_OP_BUS_PUBLISH;
        f.priority = CULE_LOW;
        f.arg0 = 1;
        f.length = sizeof payload;
        n += cule_frame_write(&f, false, payload, flood + n);
    }
}

/* At most n low frames; how many went. */
static unsigned send_low(struct cule_link *l, unsigned n)
{
    unsigned sent = 0;
    while (sent < n) {
        unsigned k = n - sent < BATCH ? n - sent : BATCH;
        if (cule_link_send_raw(l, CULE_LOW, flood, (size_t)k * FRAME, k)) {
            break;
        }
        sent += k;
    }
    return sent;
}

static void send_critical(struct cule_link *l)
{
    uint8_t payload[PAYLOAD] = {'c'};
    struct cule_msg m = cule_msg_make(CULE_EVENT, CULE_S_BUS, CULE_OP_BUS_PUBLISH);
    m.h.priority = CULE_CRITICAL;
    m.h.arg0 = 1;
    m.body = payload;
    m.len = sizeof payload;
    cule_put64(payload + 1, now_ns());
    cule_link_send(l, &m);
    cule_link_flush(l);
}

/* rate: low messages a second; 0: as many as go, and no critical ones. */
static void publisher(const char *endpoint, bool plain, double rate)
{
    struct joined j;
    make_flood();
    if (plain) {
        join_plain(&j, endpoint);
    } else {
        join(&j, endpoint, &ops, NULL);
    }
    set(&shared->joined);
    wait_for(&shared->go);
    uint64_t begin = now_ns();
    double sent = 0;
    prctl(PR_SET_TIMERSLACK, 1000);
    for (unsigned tick = 0; !__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE); tick++) {
        if (rate == 0) {
            send_low(j.link, 4 * BATCH);
            cule_loop_turn(j.loop, 1);
            continue;
        }
        double due = (double)(now_ns() - begin) / 1e9 * rate - sent;
        unsigned n = due > 0 ? (unsigned)due : 0;
        sent += send_low(j.link, n / 2);
        if (tick % TICKS == 0) {
            cule_link_flush(j.link);
            send_critical(j.link);
        }
        sent += send_low(j.link, n - n / 2);
        cule_link_flush(j.link);
        usleep(TICK_US);
        cule_loop_turn(j.loop, 0);
    }
    struct cule_link_stats s;
    cule_link_stats(j.link, &s);
    shared->waits = s.critical_waits;
    _exit(0);
}

/* --- the broker without work --- */

static pid_t plain_broker(char endpoint[128])
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "/tmp/cule-bench-plain.%d", (int)getpid());
    snprintf(endpoint, 128, "unix:%s", a.sun_path);
    unlink(a.sun_path);
    int ls = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ls < 0 || bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 2)) {
        die("listen");
    }
    pid_t p = child();
    if (p == 0) {
        static char b[65536];
        int to = accept(ls, NULL, NULL), from = accept(ls, NULL, NULL);
        ssize_t n;
        while ((n = read(from, b, sizeof b)) > 0) {
            write_full(to, b, (size_t)n);
        }
        _exit(0);
    }
    close(ls);
    return p;
}

/* --- a run --- */

static bool fifo(pid_t p)
{
    struct sched_param s = {.sched_priority = 10};
    return sched_setscheduler(p, SCHED_FIFO, &s) == 0;
}

/* Counters of the broker, by `cule-ipc stats`. */
static double broker_counter(const char *endpoint, const char *name)
{
    char cmd[512], line[256];
    double v = NONE;
    snprintf(cmd, sizeof cmd, "cule-ipc stats --bus '%s'", endpoint);
    FILE *f = popen(cmd, "r");
    while (f && fgets(line, sizeof line, f)) {
        size_t n = strlen(name);
        if (strncmp(line, name, n) == 0 && line[n] == '\t') {
            v = strtod(line + n + 1, NULL);
        }
    }
    if (f) {
        pclose(f);
    }
    return v;
}

struct result {
    double p50, p99; /* microseconds */
    double low;      /* received, a second */
    double ahead;    /* most frames before a critical one in a queue of ours */
    bool fifo;
};

static struct result run(bool plain, double rate, bool real_time)
{
    struct broker b;
    struct result r = {0};
    int ms = rate == 0 ? CAPACITY_MS : RUN_MS;
    memset(shared, 0, sizeof *shared);
    cule_hist_init(&shared->latency);
    if (plain) {
        b.pid = plain_broker(b.endpoint);
    } else {
        broker_start(&b, "f:overflow=block");
    }
    pid_t s = child();
    if (s == 0) {
        subscriber(b.endpoint, plain);
        _exit(0);
    }
    wait_for(&shared->subscribed);
    pid_t p = child();
    if (p == 0) {
        publisher(b.endpoint, plain, rate);
    }
    wait_for(&shared->joined);
    r.fifo = real_time && fifo(b.pid) && fifo(s) && fifo(p);
    set(&shared->go);
    usleep(100000); /* the first moments are not counted */
    uint64_t low = __atomic_load_n(&shared->low, __ATOMIC_RELAXED), begin = now_ns();
    usleep((useconds_t)ms * 1000);
    r.low = (double)(__atomic_load_n(&shared->low, __ATOMIC_RELAXED) - low) / ((double)(now_ns() - begin) / 1e9);
    set(&shared->stop);
    waitpid(p, NULL, 0);
    r.p50 = (double)cule_hist_at(&shared->latency, 50) / 1000;
    r.p99 = (double)cule_hist_at(&shared->latency, 99) / 1000;
    if (!plain && rate > 0) {
        r.ahead = broker_counter(b.endpoint, "critical_passed") + (shared->waits > 0);
    }
    reap(s);
    if (plain) {
        reap(b.pid);
        unlink(b.endpoint + strlen("unix:"));
    } else {
        broker_stop(&b);
    }
    return r;
}

static void compare(const char *suffix, double rate, bool real_time)
{
    double v[5][ROUNDS], ahead = 0;
    char name[64];
    bool all_fifo = true;
    for (int i = 0; i < ROUNDS; i++) {
        struct result ours = run(false, rate, real_time), plain = run(true, rate, real_time);
        v[0][i] = ours.p99;
        v[1][i] = plain.p99;
        v[2][i] = ours.p50;
        v[3][i] = plain.p50;
        v[4][i] = ours.low / 1e6;
        ahead = ours.ahead > ahead ? ours.ahead : ahead;
        all_fifo = all_fifo && ours.fifo && plain.fifo;
    }
    if (real_time && !all_fifo) {
        fprintf(stderr, "critical: SCHED_FIFO is not allowed here\n");
        return;
    }
    snprintf(name, sizeof name, "critical_p99%s", suffix);
    emit(name, median(v[0], ROUNDS), "us", "zero-work broker", median(v[1], ROUNDS), true, 0.5);
    snprintf(name, sizeof name, "critical_p50%s", suffix);
    emit(name, median(v[2], ROUNDS), "us", "zero-work broker", median(v[3], ROUNDS), true, NONE);
    snprintf(name, sizeof name, "critical_flood%s", suffix);
    emit(name, median(v[4], ROUNDS), "M messages/s", "70 % of capacity", rate / 1e6, false, NONE);
    snprintf(name, sizeof name, "critical_frames_ahead%s", suffix);
    emit(name, ahead, "frames", "at most 1", 1, true, ahead > 0 ? 1 : NONE);
}

int main(void)
{
    double v[ROUNDS];
    signal(SIGPIPE, SIG_IGN);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        die("mmap");
    }
    for (int i = 0; i < 3; i++) {
        v[i] = run(false, 0, false).low;
    }
    double capacity = median(v, 3);
    emit("critical_capacity", capacity / 1e6, "M messages/s", NULL, NONE, false, NONE);
    compare("", 0.7 * capacity, false);
    compare("_fifo", 0.7 * capacity, true);
    return 0;
}

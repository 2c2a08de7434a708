/* Endpoints: listening and connecting, take-over of dead sockets, inherited sockets. */
#include "io/endpoint.h"

#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 10000, NS_PER_MS = 1000000 };
static char dir[] = "/tmp/cule-ep-XXXXXX";

static uint64_t in_ms(uint64_t ms)
{
    return cule_now_ns() + ms * NS_PER_MS;
}

/* A struct with pointers into itself must not be copied: parse where it stays. */
static void parse(struct cule_endpoint *ep, const char *text)
{
    struct cule_err err = {0};
    if (cule_endpoint_parse(ep, text, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void assert_says(const struct cule_err *err, const char *text)
{
    if (!strstr(err->text, text)) {
        fail_msg("'%s' does not say '%s'", err->text, text);
    }
}

/* --- sockets ------------------------------------------------------------------------------------------ */

static int do_listen(const struct cule_endpoint *ep)
{
    struct cule_err err = {0};
    int fd;
    if (cule_endpoint_listen(ep, NULL, &fd, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    return fd;
}

static int do_connect(const struct cule_endpoint *ep)
{
    struct cule_err err = {0};
    int fd;
    if (cule_endpoint_connect_wait(ep, in_ms(TIMEOUT_MS), &fd, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    return fd;
}

static int do_accept(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(c >= 0);
    return c;
}

static void assert_talk(int a, int b)
{
    char c;
    assert_int_equal(write(a, "x", 1), 1);
    struct pollfd p = {.fd = b, .events = POLLIN};
    assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    assert_int_equal(read(b, &c, 1), 1);
}

static void round_trip(const struct cule_endpoint *ep)
{
    int l = do_listen(ep), c = do_connect(ep), s = do_accept(l);
    assert_talk(c, s);
    assert_talk(s, c);
    struct cule_peer peer;
    cule_peer_of_socket(s, &peer);
    assert_true(peer.has_cred);
    assert_int_equal(peer.pid, getpid());
    assert_int_equal(peer.uid, getuid());
    assert_string_equal(peer.address, "unix");
    close(c);
    close(s);
    cule_endpoint_unlisten(ep, l);
    close(l);
}

static void test_unix(void **state)
{
    (void)state;
    struct stat st;
    static struct cule_endpoint ep;
    char text[256], name[64];
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    int l = do_listen(&ep);
    assert_int_equal(lstat(ep.path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    cule_endpoint_bound(&ep, l, text, sizeof text);
    assert_string_equal(text, ep.text);
    cule_endpoint_unlisten(&ep, l);
    close(l);
    assert_int_equal(lstat(ep.path, &st), -1);
    round_trip(&ep);
    snprintf(name, sizeof name, "unix:@cule-test-%d", (int)getpid());
    parse(&ep, name);
    round_trip(&ep);
    static const struct cule_listen_opts open_to_all = {.mode = 0666};
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    assert_int_equal(cule_endpoint_listen(&ep, &open_to_all, &l, NULL), 0);
    assert_int_equal(lstat(ep.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666);
    cule_endpoint_unlisten(&ep, l);
    close(l);
}

/* Longer than sun_path holds. */
static void test_unix_long_path(void **state)
{
    (void)state;
    char deep[256], text[600];
    static struct cule_endpoint ep;
    memset(deep, 'd', sizeof deep);
    deep[200] = '\0';
    snprintf(text, sizeof text, "%s/%s", dir, deep);
    assert_int_equal(mkdir(text, 0700), 0);
    snprintf(text, sizeof text, "unix:%s/%s/sock", dir, deep);
    parse(&ep, text);
    round_trip(&ep);
    assert_int_equal(access(ep.path, F_OK), -1);
    snprintf(text, sizeof text, "unix:%s/%s/%.120s", dir, deep, deep);
    parse(&ep, text);
    int fd;
    struct cule_err err = {0};
    assert_int_equal(cule_endpoint_listen(&ep, NULL, &fd, &err), CULE_EUSAGE);
    assert_says(&err, "too long");
    snprintf(text, sizeof text, "%s/%s", dir, deep);
    assert_int_equal(rmdir(text), 0);
}

static void refused_listen(const struct cule_endpoint *ep, int code, const char *says)
{
    struct cule_err err = {0};
    int fd;
    assert_int_equal(cule_endpoint_listen(ep, NULL, &fd, &err), code);
    assert_int_equal(fd, -1);
    assert_says(&err, says);
}

static void refused_connect(const struct cule_endpoint *ep, int code, const char *says)
{
    struct cule_err err = {0};
    int fd;
    bool done;
    assert_int_equal(cule_endpoint_connect(ep, &fd, &done, &err), code);
    assert_int_equal(fd, -1);
    assert_says(&err, says);
    memset(&err, 0, sizeof err);
    assert_int_equal(cule_endpoint_connect_wait(ep, in_ms(50), &fd, &err), code == CULE_EBUSY ? CULE_ETIMEOUT : code);
}

static void test_takeover(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    char text[256];
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    refused_connect(&ep, CULE_ENO_RESPONDER, "nobody listens there");
    int l = do_listen(&ep);
    refused_listen(&ep, CULE_EEXISTS, "somebody listens there already");
    close(l); /* as by kill -9: the file stays */
    assert_int_equal(access(ep.path, F_OK), 0);
    refused_connect(&ep, CULE_ENO_RESPONDER, "nobody listens there");
    l = do_listen(&ep);
    int c = do_connect(&ep);
    close(c);
    cule_endpoint_unlisten(&ep, l);
    assert_int_equal(access(ep.path, F_OK), -1);
    close(l);
    int fd = open(ep.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    refused_listen(&ep, CULE_EEXISTS, "not a socket");
    assert_int_equal(unlink(ep.path), 0);
    snprintf(text, sizeof text, "unix:%s/no/s", dir);
    parse(&ep, text);
    refused_listen(&ep, CULE_ENOT_FOUND, "cannot open directory");
}

/* The socket of another process is not ours to remove. */
static void test_unlisten_spares_others(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    char text[256], c;
    int pv[2], back[2];
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    int mine = do_listen(&ep);
    assert_int_equal(unlink(ep.path), 0);
    assert_int_equal(pipe2(pv, O_CLOEXEC), 0);
    assert_int_equal(pipe2(back, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd;
        bool ok = cule_endpoint_listen(&ep, NULL, &fd, NULL) == 0;
        close(back[1]);
        _exit(write(pv[1], ok ? "y" : "n", 1) == 1 && read(back[0], &c, 1) == 0 ? 0 : 1);
    }
    assert_int_equal(read(pv[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    cule_endpoint_unlisten(&ep, mine);
    assert_int_equal(access(ep.path, F_OK), 0);
    close(back[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    cule_endpoint_unlisten(&ep, mine);
    assert_int_equal(access(ep.path, F_OK), -1);
    close(mine);
    close(pv[0]);
    close(pv[1]);
    close(back[0]);
}

/* Many starters find a dead socket at once: exactly one gets it, and it is the one that answers. */
static void *starter(void *arg)
{
    int fd = -1;
    int rc = cule_endpoint_listen(arg, NULL, &fd, NULL);
    return (void *)(intptr_t)(rc == 0 ? fd : rc);
}

static void test_takeover_race(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    char text[256];
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    for (int round = 0; round < 30; round++) {
        pthread_t t[6];
        int winner = -1;
        close(do_listen(&ep));
        for (int i = 0; i < 6; i++) {
            assert_int_equal(pthread_create(&t[i], NULL, starter, &ep), 0);
        }
        for (int i = 0; i < 6; i++) {
            void *got;
            pthread_join(t[i], &got);
            intptr_t fd = (intptr_t)got;
            assert_true(fd >= 0 || fd == CULE_EEXISTS);
            assert_true(fd < 0 || winner < 0);
            winner = fd >= 0 ? (int)fd : winner;
        }
        assert_true(winner >= 0);
        int c = do_connect(&ep);
        close(do_accept(winner));
        close(c);
        close(winner);
    }
    assert_int_equal(unlink(ep.path), 0);
}

/* While another starter holds the directory, nothing is looked at and nothing replaced. */
static void test_takeover_waits(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    char text[256];
    pthread_t t;
    void *got;
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    int lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(pthread_create(&t, NULL, starter, &ep), 0);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += until.tv_nsec >= 950000000;
    until.tv_nsec = (until.tv_nsec + 50000000) % 1000000000;
    assert_int_equal(pthread_timedjoin_np(t, &got, &until), ETIMEDOUT);
    assert_int_equal(access(ep.path, F_OK), -1);
    close(lock);
    pthread_join(t, &got);
    assert_true((intptr_t)got >= 0);
    cule_endpoint_unlisten(&ep, (int)(intptr_t)got);
    close((int)(intptr_t)got);
}

static void test_full_queue(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    char text[256];
    int l, fds[16], n = 0, rc;
    bool done;
    static const struct cule_listen_opts shallow = {.backlog = 1};
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&ep, text);
    assert_int_equal(cule_endpoint_listen(&ep, &shallow, &l, NULL), 0);
    while ((rc = cule_endpoint_connect(&ep, &fds[n], &done, NULL)) == 0 && n < 15) {
        assert_true(done);
        n++;
    }
    assert_int_equal(rc, CULE_EBUSY);
    refused_connect(&ep, CULE_EBUSY, "queue of connections is full");
    refused_listen(&ep, CULE_EEXISTS, "somebody listens");
    cule_endpoint_unlisten(&ep, l); /* finds out that it is ours all the same */
    assert_int_equal(access(ep.path, F_OK), -1);
    while (n > 0) {
        close(fds[--n]);
    }
    close(l);
}

/* --- tcp ---------------------------------------------------------------------------------------------- */

static void tcp_round_trip(const char *listen_at, const char *connect_fmt)
{
    static struct cule_endpoint ep, to;
    struct cule_peer peer;
    char bound[96], text[192];
    int on = 0;
    socklen_t n = sizeof on;
    parse(&ep, listen_at);
    int l = do_listen(&ep);
    cule_endpoint_bound(&ep, l, bound, sizeof bound);
    unsigned port = (unsigned)strtoul(strrchr(bound, ':') + 1, NULL, 10);
    assert_true(port > 0);
    snprintf(text, sizeof text, connect_fmt, port);
    parse(&to, text);
    int c = do_connect(&to), s = do_accept(l);
    assert_talk(c, s);
    assert_talk(s, c);
    assert_int_equal(getsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, &n), 0);
    assert_int_equal(on, 1);
    on = 0;
    assert_int_equal(getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, &n), 0);
    assert_int_equal(on, 1);
    cule_peer_of_socket(c, &peer);
    assert_false(peer.has_cred);
    snprintf(text, sizeof text, ":%u", port);
    assert_non_null(strstr(peer.address, text));
    close(c);
    close(s);
    refused_listen(&to, CULE_EEXISTS, "Address already in use");
    close(l);
    l = do_listen(&to); /* at once, in spite of what is in TIME_WAIT */
    close(l);
    refused_connect(&to, CULE_ENO_RESPONDER, "nobody listens there");
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return yes;
}

static void test_tcp(void **state)
{
    (void)state;
    tcp_round_trip("tcp:127.0.0.1:0", "tcp:127.0.0.1:%u");
    tcp_round_trip(":0", ":%u");
    if (has_ipv6()) {
        tcp_round_trip("tcp:[::1]:0", "tcp:[::1]:%u");
    }
}

static void test_tcp_all_addresses(void **state)
{
    (void)state;
    static struct cule_endpoint ep, to;
    char bound[96], text[192];
    struct cule_peer peer;
    parse(&ep, ":0");
    int l = do_listen(&ep);
    cule_endpoint_bound(&ep, l, bound, sizeof bound);
    assert_int_equal(bound[0], ':');
    snprintf(text, sizeof text, "tcp:127.0.0.1%s", bound);
    parse(&to, text);
    int c = do_connect(&to), s = do_accept(l);
    cule_peer_of_socket(s, &peer);
    assert_true(strncmp(peer.address, "127.0.0.1:", 10) == 0); /* not ::ffff:127.0.0.1 */
    close(c);
    close(s);
    if (has_ipv6()) {
        snprintf(text, sizeof text, "tcp:[::1]%s", bound);
        parse(&to, text);
        c = do_connect(&to);
        s = do_accept(l);
        cule_peer_of_socket(s, &peer);
        assert_true(strncmp(peer.address, "[::1]:", 6) == 0);
        close(c);
        close(s);
    }
    close(l);
}

/* A name with two addresses of which one refuses. */
static void test_tcp_second_address(void **state)
{
    (void)state;
    static struct cule_endpoint ep, to;
    char bound[64];
    bool done;
    int fd;
    parse(&ep, "tcp:127.0.0.1:0");
    int l = do_listen(&ep);
    cule_endpoint_bound(&ep, l, bound, sizeof bound);
    parse(&to, strrchr(bound, ':'));
    assert_int_equal(cule_endpoint_connect(&to, &fd, &done, NULL), 0);
    close(do_accept(l));
    close(fd);
    close(do_connect(&to));
    close(l);
}

static void test_tcp_errors(void **state)
{
    (void)state;
    static struct cule_endpoint ep;
    parse(&ep, "tcp:host.invalid:1");
    struct cule_err err = {0};
    int fd;
    int rc = cule_endpoint_connect_wait(&ep, in_ms(TIMEOUT_MS), &fd, &err);
    assert_true(rc == CULE_ENOT_FOUND || rc == CULE_EIO);
    assert_says(&err, "host.invalid");
    parse(&ep, "exec:true");
    refused_listen(&ep, CULE_EUSAGE, "not one to listen on");
    refused_connect(&ep, CULE_EUSAGE, "not one to connect to");
    parse(&ep, "-");
    refused_connect(&ep, CULE_EUSAGE, "not one to connect to");
}

/* A listener whose queue is full lets no handshake end: the deadline must. */
static void test_tcp_deadline(void **state)
{
    (void)state;
    static struct cule_endpoint ep, to;
    static const struct cule_listen_opts shallow = {.backlog = 1};
    char bound[128];
    int l, fds[8], n = 0, rc = 0;
    struct cule_err err = {0};
    parse(&ep, "tcp:127.0.0.1:0");
    assert_int_equal(cule_endpoint_listen(&ep, &shallow, &l, NULL), 0);
    cule_endpoint_bound(&ep, l, bound, sizeof bound);
    parse(&to, bound);
    while (n < 8 && (rc = cule_endpoint_connect_wait(&to, in_ms(200), &fds[n], &err)) == 0) {
        n++;
    }
    assert_int_equal(rc, CULE_ETIMEOUT);
    assert_says(&err, "no answer in time");
    while (n > 0) {
        close(fds[--n]);
    }
    close(l);
}

/* --- inherited ---------------------------------------------------------------------------------------- */

static void test_fd(void **state)
{
    (void)state;
    static struct cule_endpoint tcp, ep;
    char text[64], pid[32];
    int fd;
    struct cule_err err = {0};
    parse(&tcp, "tcp:127.0.0.1:0");
    int l = do_listen(&tcp);
    snprintf(text, sizeof text, "fd:%d", l);
    parse(&ep, text);
    assert_int_equal(do_listen(&ep), l);
    cule_endpoint_bound(&ep, l, text, sizeof text);
    assert_true(strncmp(text, "tcp:127.0.0.1:", 14) == 0);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    char names[512];
    size_t at = 0;
    for (int i = 3; i < l; i++) {
        at += (size_t)snprintf(names + at, sizeof names - at, "other:");
    }
    snprintf(names + at, sizeof names - at, "web:last");
    snprintf(text, sizeof text, "%d", l - 3 + 1);
    struct cule_listen_opts o = {.listen_fds = text, .listen_pid = pid, .listen_fdnames = names};
    parse(&ep, "fd:web");
    assert_int_equal(cule_endpoint_listen(&ep, &o, &fd, &err), 0);
    assert_int_equal(fd, l);
    o.listen_pid = "1"; /* meant for another process */
    assert_int_equal(cule_endpoint_listen(&ep, &o, &fd, &err), CULE_ENOT_FOUND);
    o.listen_pid = NULL;
    parse(&ep, "fd:last"); /* named, but beyond LISTEN_FDS */
    assert_int_equal(cule_endpoint_listen(&ep, &o, &fd, &err), CULE_ENOT_FOUND);
    assert_says(&err, "LISTEN_FDNAMES");
    parse(&ep, "fd:0");
    refused_listen(&ep, CULE_EUSAGE, "not a listening socket");
    parse(&ep, "fd:999999");
    refused_listen(&ep, CULE_ENOT_FOUND, "Bad file descriptor");
    close(l);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir); /* fails if a test left a file */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_unix_long_path),
        cmocka_unit_test(test_takeover),
        cmocka_unit_test(test_unlisten_spares_others),
        cmocka_unit_test(test_takeover_race),
        cmocka_unit_test(test_takeover_waits),
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_tcp_all_addresses),
        cmocka_unit_test(test_tcp_second_address),
        cmocka_unit_test(test_tcp_errors),
        cmocka_unit_test(test_tcp_deadline),
        cmocka_unit_test(test_fd),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

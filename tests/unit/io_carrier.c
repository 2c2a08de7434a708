/* Carriers over sockets, pipes and files, and the queue of received descriptors. */
#include "io/carrier.h"

#include "io/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 10000, MANY = 253 };

static struct cule_carrier *carrier(int rfd, int wfd)
{
    struct cule_carrier *c = NULL;
    struct cule_err err = {0};
    if (cule_carrier_fd(&c, rfd, wfd, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return c;
}

static void assert_says(const struct cule_err *err, const char *text)
{
    if (!strstr(err->text, text)) {
        fail_msg("'%s' does not say '%s'", err->text, text);
    }
}

static ssize_t put(struct cule_carrier *c, const char *text, const int *fds, unsigned nfds, struct cule_err *err)
{
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    return c->ops->write(c, &iov, 1, fds, nfds, err);
}

static void unix_pair(struct cule_carrier *c[2])
{
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    c[0] = carrier(sv[0], sv[0]);
    c[1] = carrier(sv[1], sv[1]);
}

static void close_pair(struct cule_carrier *c[2])
{
    c[0]->ops->close(c[0]);
    c[1]->ops->close(c[1]);
}

static int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

/* --- the queue ---------------------------------------------------------------------------------------- */

static void test_fdq(void **state)
{
    (void)state;
    struct cule_fdq q = {0};
    int fds[40], before = open_fds();
    assert_int_equal(cule_fdq_pop(&q), -1);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++) {
            fds[i] = dup(0);
            assert_int_equal(cule_fdq_push(&q, fds[i]), 0);
        }
        for (int i = 0; i < 20; i++) {
            assert_int_equal(cule_fdq_pop(&q), fds[i]);
            close(fds[i]);
        }
    }
    for (int i = 0; i < CULE_FDQ_MAX; i++) {
        assert_int_equal(cule_fdq_push(&q, dup(0)), 0);
    }
    int extra = dup(0);
    assert_int_equal(cule_fdq_push(&q, extra), CULE_ELIMIT);
    assert_int_equal(fcntl(extra, F_GETFD), -1);
    cule_fdq_release(&q);
    assert_int_equal(open_fds(), before);
}

/* --- sockets ------------------------------------------------------------------------------------------ */

static void test_unix(void **state)
{
    (void)state;
    struct cule_carrier *c[2];
    char buf[64];
    unix_pair(c);
    assert_true(c[0]->duplex);
    assert_true(c[0]->can_pass_fds);
    assert_false(c[0]->connecting);
    assert_int_equal(c[0]->ops->handshake(c[0], NULL), 1);
    assert_string_equal(c[0]->ops->name, "unix");
    assert_true(c[0]->peer.has_cred);
    assert_int_equal(c[0]->peer.uid, getuid());
    assert_int_equal(c[1]->ops->read(c[1], buf, sizeof buf, NULL, NULL), CULE_EAGAIN);
    struct iovec iov[3] = {{(void *)(uintptr_t) "one", 3}, {NULL, 0}, {(void *)(uintptr_t) "two", 3}};
    assert_int_equal(c[0]->ops->write(c[0], iov, 3, NULL, 0, NULL), 6);
    assert_int_equal(c[1]->ops->read(c[1], buf, sizeof buf, NULL, NULL), 6);
    assert_memory_equal(buf, "onetwo", 6);
    assert_int_equal(c[0]->ops->poll_events(c[0], true, false), POLLIN);
    assert_int_equal(c[0]->ops->poll_events(c[0], true, true), POLLIN | POLLOUT);
    c[0]->ops->finish(c[0]);
    assert_int_equal(c[1]->ops->read(c[1], buf, sizeof buf, NULL, NULL), 0);
    assert_int_equal(put(c[1], "back", NULL, 0, NULL), 4);
    assert_int_equal(c[0]->ops->read(c[0], buf, sizeof buf, NULL, NULL), 4);
    close_pair(c);
}

static void test_full_and_gone(void **state)
{
    (void)state;
    struct cule_carrier *c[2];
    static char block[65536];
    struct iovec iov = {block, sizeof block};
    struct cule_err err = {0};
    unix_pair(c);
    ssize_t n;
    while ((n = c[0]->ops->write(c[0], &iov, 1, NULL, 0, &err)) > 0) {
    }
    assert_int_equal(n, CULE_EAGAIN);
    c[1]->ops->close(c[1]);
    assert_int_equal(c[0]->ops->write(c[0], &iov, 1, NULL, 0, &err), CULE_ECLOSED);
    assert_says(&err, "the peer closed the link");
    c[0]->ops->close(c[0]);
}

static void test_descriptors_travel(void **state)
{
    (void)state;
    struct cule_carrier *c[2];
    struct cule_fdq q = {0};
    char buf[64];
    int pv[2], many[MANY], before = open_fds();
    unix_pair(c);
    assert_int_equal(pipe2(pv, O_CLOEXEC), 0);
    assert_int_equal(put(c[0], "a", NULL, 0, NULL), 1);
    assert_int_equal(put(c[0], "b", pv, 2, NULL), 1);
    assert_int_equal(put(c[0], "c", &pv[1], 1, NULL), 1);
    for (size_t got = 0; got < 3;) {
        ssize_t n = c[1]->ops->read(c[1], buf, sizeof buf, &q, NULL);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_int_equal(q.count, 3);
    int r = cule_fdq_pop(&q), w = cule_fdq_pop(&q);
    assert_true(fcntl(r, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(write(w, "!", 1), 1);
    assert_int_equal(read(pv[0], buf, 1), 1);
    close(r);
    close(w);
    for (int i = 0; i < MANY; i++) {
        many[i] = pv[0];
    }
    assert_int_equal(put(c[0], "all", many, MANY, NULL), 3);
    assert_int_equal(c[1]->ops->read(c[1], buf, sizeof buf, &q, NULL), 3);
    assert_int_equal(q.count, 1 + MANY);
    cule_fdq_release(&q);
    /* A reader that wants none keeps none. */
    assert_int_equal(put(c[0], "x", pv, 2, NULL), 1);
    assert_int_equal(c[1]->ops->read(c[1], buf, sizeof buf, NULL, NULL), 1);
    close(pv[0]);
    close(pv[1]);
    close_pair(c);
    assert_int_equal(open_fds(), before);
}

static void test_too_many_descriptors(void **state)
{
    (void)state;
    struct cule_carrier *c[2];
    struct cule_fdq q = {0};
    struct cule_err err = {0};
    char buf[64];
    int many[MANY], before = open_fds();
    unix_pair(c);
    for (int i = 0; i < MANY; i++) {
        many[i] = 0;
    }
    ssize_t n = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(put(c[0], "x", many, MANY, NULL), 1);
        n = c[1]->ops->read(c[1], buf, sizeof buf, &q, &err);
    }
    assert_int_equal(n, CULE_ELIMIT);
    assert_says(&err, "that no frame claimed");
    assert_int_equal(q.count, CULE_FDQ_MAX);
    cule_fdq_release(&q);
    close_pair(c);
    assert_int_equal(open_fds(), before);
}

/* The limit of open files cuts a set of descriptors short: the link must end, not mix them up. */
static void test_cut_descriptors(void **state)
{
    (void)state;
    struct cule_carrier *c[2];
    struct cule_fdq q = {0};
    struct cule_err err = {0};
    struct rlimit was, low;
    char buf[64];
    int fds[10] = {0}, top;
    unix_pair(c);
    assert_int_equal(put(c[0], "x", fds, 10, NULL), 1);
    top = dup(0);
    close(top);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    low = was;
    low.rlim_cur = (rlim_t)top + 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    ssize_t n = c[1]->ops->read(c[1], buf, sizeof buf, &q, &err);
    setrlimit(RLIMIT_NOFILE, &was);
    assert_int_equal(n, CULE_ENOFD);
    assert_says(&err, "were lost");
    cule_fdq_release(&q);
    close_pair(c);
}

/* --- tcp ---------------------------------------------------------------------------------------------- */

static int listener(struct cule_endpoint *to, int backlog)
{
    struct cule_endpoint ep;
    struct cule_listen_opts o = {.backlog = backlog};
    char bound[64];
    int l;
    assert_int_equal(cule_endpoint_parse(&ep, "tcp:127.0.0.1:0", NULL), 0);
    assert_int_equal(cule_endpoint_listen(&ep, &o, &l, NULL), 0);
    cule_endpoint_bound(&ep, l, bound, sizeof bound);
    assert_int_equal(cule_endpoint_parse(to, bound, NULL), 0);
    return l;
}

static int finish_connect(struct cule_carrier *c, struct cule_err *err)
{
    int rc;
    while ((rc = c->ops->handshake(c, err)) == 0) {
        assert_int_equal(c->ops->poll_events(c, true, false), POLLOUT);
        struct pollfd p = {.fd = c->wfd, .events = POLLOUT};
        assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    }
    return rc;
}

static void test_tcp_connect(void **state)
{
    (void)state;
    static struct cule_endpoint to;
    char buf[16];
    int l = listener(&to, 0), fd, one = 0;
    bool done;
    struct cule_err err = {0};
    assert_int_equal(cule_endpoint_connect(&to, &fd, &done, &err), 0);
    struct cule_carrier *c = carrier(fd, fd);
    assert_int_equal(finish_connect(c, &err), 1);
    assert_false(c->connecting);
    assert_string_equal(c->ops->name, "tcp");
    assert_false(c->can_pass_fds);
    assert_string_equal(c->peer.address, strchr(to.text, ':') + 1);
    struct pollfd p = {.fd = l, .events = POLLIN};
    assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    int sfd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    struct cule_carrier *s = carrier(sfd, sfd);
    assert_int_equal(put(c, "hi", NULL, 0, &err), 2);
    p.fd = sfd;
    assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    assert_int_equal(s->ops->read(s, buf, sizeof buf, NULL, &err), 2);
    assert_int_equal(put(c, "x", &one, 1, &err), CULE_EUNSUPPORTED);
    assert_says(&err, "cannot carry descriptors");
    c->ops->close(c);
    s->ops->close(s);
    close(l);
}

static void test_tcp_refused(void **state)
{
    (void)state;
    static struct cule_endpoint to;
    struct cule_err err = {0};
    close(listener(&to, 0)); /* a port where nobody listens now */
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)strtoul(to.port, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), -1);
    if (errno == EINPROGRESS) {
        struct cule_carrier *c = carrier(fd, fd);
        assert_true(c->connecting);
        assert_int_equal(finish_connect(c, &err), CULE_ENO_RESPONDER);
        assert_says(&err, "Connection refused");
        c->ops->close(c);
    } else {
        /* Loopback may refuse at once; the carrier then finds a socket that is not connected. */
        struct cule_carrier *c = carrier(fd, fd);
        assert_true(finish_connect(c, &err) < 0);
        assert_says(&err, "cannot connect");
        c->ops->close(c);
    }
}

static void test_refused_descriptors(void **state)
{
    (void)state;
    static struct cule_endpoint to;
    struct cule_carrier *c = NULL;
    struct cule_err err = {0};
    int l = listener(&to, 0), pv[2];
    assert_int_equal(cule_carrier_fd(&c, l, l, &err), CULE_EUSAGE);
    assert_says(&err, "listening socket");
    close(l);
    int dgram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(cule_carrier_fd(&c, dgram, dgram, &err), CULE_EUSAGE);
    assert_says(&err, "not a stream socket");
    close(dgram);
    assert_int_equal(cule_carrier_fd(&c, 9999, -1, &err), CULE_EIO);
    assert_int_equal(pipe2(pv, O_CLOEXEC), 0);
    assert_int_equal(cule_carrier_fd(&c, pv[1], pv[0], &err), CULE_EUSAGE);
    assert_says(&err, "not open for reading");
    close(pv[0]);
    close(pv[1]);
    int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(cule_carrier_fd(&c, dir, -1, &err), CULE_EUSAGE);
    assert_says(&err, "directory");
    close(dir);
    assert_null(c);
}

/* --- pipes and files ---------------------------------------------------------------------------------- */

static void test_pipe(void **state)
{
    (void)state;
    int a[2];
    static char block[65536];
    char buf[16];
    struct cule_err err = {0};
    struct iovec iov = {block, sizeof block};
    assert_int_equal(pipe2(a, O_CLOEXEC), 0);
    int keep = fcntl(a[1], F_DUPFD_CLOEXEC, 0); /* somebody who shares the end, as a shell does */
    struct cule_carrier *r = carrier(a[0], -1), *w = carrier(-1, a[1]);
    assert_false(r->duplex);
    assert_string_equal(r->ops->name, "pipe");
    assert_string_equal(w->peer.address, "pipe");
    assert_int_equal(r->ops->read(r, buf, sizeof buf, NULL, &err), CULE_EAGAIN);
    assert_int_equal(put(w, "abc", NULL, 0, &err), 3);
    assert_int_equal(r->ops->read(r, buf, sizeof buf, NULL, &err), 3);
    assert_int_equal(r->ops->write(r, &iov, 1, NULL, 0, &err), CULE_EUSAGE);
    assert_int_equal(w->ops->read(w, buf, 1, NULL, &err), CULE_EUSAGE);
    ssize_t n;
    while ((n = w->ops->write(w, &iov, 1, NULL, 0, &err)) > 0) {
    }
    assert_int_equal(n, CULE_EAGAIN);
    r->ops->close(r);
    assert_int_equal(w->ops->write(w, &iov, 1, NULL, 0, &err), CULE_ECLOSED);
    w->ops->close(w);
    /* The other holder finds its end as it was. */
    assert_int_equal(fcntl(keep, F_GETFL) & O_NONBLOCK, 0);
    close(keep);
    assert_int_equal(pipe2(a, O_CLOEXEC), 0);
    r = carrier(a[0], -1);
    close(a[1]);
    assert_int_equal(r->ops->read(r, buf, sizeof buf, NULL, &err), 0);
    r->ops->close(r);
}

/* A named pipe knows no non-blocking call, as no pipe did before Linux 6.5: O_NONBLOCK is set and taken back. */
static void test_fifo(void **state)
{
    (void)state;
    char path[] = "/tmp/cule-fifo-XXXXXX", buf[16];
    struct cule_err err = {0};
    int fd = mkstemp(path);
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDWR | O_CLOEXEC);
    int keep = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    struct cule_carrier *c = carrier(fd, fd);
    assert_int_equal(c->ops->read(c, buf, sizeof buf, NULL, &err), CULE_EAGAIN);
    assert_int_equal(put(c, "fifo", NULL, 0, &err), 4);
    assert_int_equal(c->ops->read(c, buf, sizeof buf, NULL, &err), 4);
    c->ops->close(c);
    assert_int_equal(fcntl(keep, F_GETFL) & O_NONBLOCK, 0);
    close(keep);
    unlink(path);
}

static void test_pipe_both_ways(void **state)
{
    (void)state;
    int a[2], b[2];
    char buf[16];
    assert_int_equal(pipe2(a, O_CLOEXEC), 0);
    assert_int_equal(pipe2(b, O_CLOEXEC), 0);
    struct cule_carrier *x = carrier(a[0], b[1]), *y = carrier(b[0], a[1]);
    assert_true(x->duplex);
    assert_int_equal(put(x, "ping", NULL, 0, NULL), 4);
    assert_int_equal(y->ops->read(y, buf, sizeof buf, NULL, NULL), 4);
    assert_int_equal(put(y, "pong", NULL, 0, NULL), 4);
    assert_int_equal(x->ops->read(x, buf, sizeof buf, NULL, NULL), 4);
    x->ops->close(x);
    y->ops->close(y);
}

/* read_wait waits for the first byte and no longer than it may, whatever the two ends are. */
static void test_read_wait(void **state)
{
    (void)state;
    struct cule_carrier *c[2];
    char buf[16];
    int pv[2], sv[2];
    unix_pair(c);
    assert_int_equal(c[1]->ops->read_wait(c[1], buf, sizeof buf, NULL, 5, NULL), CULE_EAGAIN);
    assert_int_equal(put(c[0], "abc", NULL, 0, NULL), 3);
    assert_int_equal(c[1]->ops->read_wait(c[1], buf, sizeof buf, NULL, -1, NULL), 3);
    assert_int_equal(c[1]->ops->read(c[1], buf, sizeof buf, NULL, NULL), CULE_EAGAIN);
    close_pair(c);
    assert_int_equal(pipe2(pv, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct cule_carrier *mixed = carrier(pv[0], sv[0]);
    assert_int_equal(mixed->ops->read_wait(mixed, buf, sizeof buf, NULL, 5, NULL), CULE_EAGAIN);
    assert_int_equal(write(pv[1], "x", 1), 1);
    assert_int_equal(mixed->ops->read_wait(mixed, buf, sizeof buf, NULL, 5, NULL), 1);
    mixed->ops->close(mixed);
    close(pv[1]);
    close(sv[1]);
}

static void test_file(void **state)
{
    (void)state;
    char path[] = "/tmp/cule-carrier-XXXXXX", buf[16];
    int fd = mkstemp(path), full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct cule_err err = {0};
    struct cule_carrier *w = carrier(-1, fd);
    assert_string_equal(w->ops->name, "file");
    assert_int_equal(put(w, "record", NULL, 0, &err), 6);
    w->ops->close(w);
    struct cule_carrier *r = carrier(open(path, O_RDONLY | O_CLOEXEC), -1);
    assert_int_equal(r->ops->read(r, buf, sizeof buf, NULL, &err), 6);
    assert_int_equal(r->ops->read(r, buf, sizeof buf, NULL, &err), 0);
    r->ops->close(r);
    unlink(path);
    w = carrier(-1, full);
    assert_int_equal(put(w, "x", NULL, 0, &err), CULE_EDISK);
    assert_says(&err, "No space left");
    w->ops->close(w);
    r = carrier(open("/dev/null", O_RDONLY | O_CLOEXEC), -1);
    assert_int_equal(r->ops->read(r, buf, sizeof buf, NULL, &err), 0);
    r->ops->close(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fdq),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_full_and_gone),
        cmocka_unit_test(test_descriptors_travel),
        cmocka_unit_test(test_too_many_descriptors),
        cmocka_unit_test(test_cut_descriptors),
        cmocka_unit_test(test_tcp_connect),
        cmocka_unit_test(test_tcp_refused),
        cmocka_unit_test(test_refused_descriptors),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_fifo),
        cmocka_unit_test(test_pipe_both_ways),
        cmocka_unit_test(test_read_wait),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

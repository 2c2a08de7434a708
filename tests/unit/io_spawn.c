/* Starting programs and ending whole trees of them. The children are this program itself, run again with a mode. */
#include "io/spawn_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "spawn_children.h"

enum { TIMEOUT_MS = 20000, BOMB_TOKENS = 300, NS_PER_MS = 1000000 };
/* --- helpers ------------------------------------------------------------------------------------------ */

static uint64_t soon(void)
{
    return cule_now_ns() + (uint64_t)TIMEOUT_MS * NS_PER_MS;
}

struct out {
    int fd;
    size_t n;
    char text[8192];
};

/* Starts a mode with its output in a pipe that every descendant holds open. */
static struct cule_proc *start(struct cule_loop *loop, const char *mode, struct out *o, int in, bool cgroup,
                               cule_proc_fn *fn, void *ctx)
{
    const char *const argv[] = {self_path, mode, NULL};
    struct cule_err err = {0};
    struct cule_proc *p = NULL;
    int pv[2];
    assert_int_equal(cule_pipe(pv, &err), 0);
    struct cule_spawn s = {.argv = argv, .in = in, .out = pv[1], .err = -1, .cgroup = cgroup};
    int rc = cule_spawn(loop, &s, &p, fn, ctx, &err);
    close(pv[1]);
    if (rc < 0) {
        fail_msg("%s", err.text);
    }
    *o = (struct out){.fd = pv[0]};
    return p;
}

/* Reads until the text contains want (NULL: to the end of the stream). False past the deadline. */
static bool await_text(struct out *o, const char *want, int timeout_ms)
{
    uint64_t until = cule_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    while (!want || !strstr(o->text, want)) {
        uint64_t now = cule_now_ns();
        struct pollfd p = {.fd = o->fd, .events = POLLIN};
        if (now >= until || poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) == 0) {
            return false;
        }
        ssize_t n = read(o->fd, o->text + o->n, sizeof o->text - 1 - o->n);
        if (n <= 0) {
            return !want;
        }
        o->n += (size_t)n;
    }
    return true;
}

/* True once no process holds the writing end any more. */
static bool all_gone(struct out *o)
{
    bool gone = await_text(o, NULL, TIMEOUT_MS);
    close(o->fd);
    return gone;
}

static void assert_no_children(void)
{
    siginfo_t si;
    cule_tree_sweep();
    assert_int_equal(waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT), -1);
    assert_int_equal(errno, ECHILD);
}

struct seen {
    int calls;
    bool free_it;
    struct cule_exit how;
};

static void on_exit_seen(void *ctx, struct cule_proc *p, const struct cule_exit *how)
{
    struct seen *s = ctx;
    s->calls++;
    s->how = *how;
    assert_true(cule_proc_ended(p));
    if (s->free_it) {
        cule_proc_free(p);
    }
}

static struct cule_loop *loop_new(void)
{
    struct cule_loop *loop;
    assert_int_equal(cule_loop_new(&loop, NULL), 0);
    return loop;
}

static void turn_until_exit(struct cule_loop *loop, const struct seen *s)
{
    uint64_t until = soon();
    while (s->calls == 0 && cule_now_ns() < until) {
        cule_loop_turn(loop, 100);
    }
    assert_int_equal(s->calls, 1);
}

/* --- starting ----------------------------------------------------------------------------------------- */

static void test_exit_status(void **state)
{
    (void)state;
    struct cule_spawn s = {.shell = "exit 42", .in = -1, .out = -1, .err = -1};
    struct cule_proc *p;
    struct cule_exit how;
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), 0);
    assert_int_equal(cule_proc_wait(p, soon(), &how), 0);
    assert_int_equal(how.code, 42);
    assert_int_equal(how.signum, 0);
    assert_true(cule_proc_ended(p));
    assert_int_equal(cule_proc_signal(p, SIGTERM), CULE_ENOT_FOUND);
    cule_proc_free(p);
    s.shell = "kill -9 $$";
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), 0);
    assert_int_equal(cule_proc_wait(p, soon(), &how), 0);
    assert_int_equal(how.signum, SIGKILL);
    cule_proc_free(p);
    assert_no_children();
}

static void assert_refused(const char *program, const char *cwd, int code, const char *text)
{
    const char *const argv[] = {program, NULL};
    struct cule_spawn s = {.argv = argv, .in = -1, .out = -1, .err = -1, .cwd = cwd};
    struct cule_proc *p = NULL;
    struct cule_err err = {0};
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, &err), code);
    assert_null(p);
    if (!strstr(err.text, text)) {
        fail_msg("'%s' does not say '%s'", err.text, text);
    }
}

static void test_start_errors(void **state)
{
    (void)state;
    char script[] = "/tmp/cule-spawn-XXXXXX";
    int fd = mkstemp(script);
    assert_true(fd >= 0);
    assert_refused("no-such-program-of-cule", NULL, CULE_ENOT_FOUND, "no such program");
    assert_refused("/no/such/program", NULL, CULE_ENOT_FOUND, "no such program");
    assert_refused(script, NULL, CULE_EREFUSED, "Permission denied");
    assert_refused("true", "/no/such/directory", CULE_ENOT_FOUND, "cannot change to directory");
    assert_refused("", NULL, CULE_EUSAGE, "no program");
    assert_int_equal(write(fd, "#!/no/such/interpreter\n", 23), 23);
    assert_int_equal(fchmod(fd, 0700), 0);
    close(fd);
    assert_refused(script, NULL, CULE_ENOT_FOUND, "interpreter is missing");
    fd = open(script, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, "echo hello\n", 11), 11);
    close(fd);
    assert_refused(script, NULL, CULE_EHANDLER, "not a program");
    unlink(script);
    assert_no_children();
}

static void test_signals_are_reset(void **state)
{
    (void)state;
    struct out o;
    sigset_t usr1, was;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &was);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    struct cule_proc *p = start(NULL, "status", &o, -1, false, NULL, NULL);
    signal(SIGHUP, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    assert_true(await_text(&o, NULL, TIMEOUT_MS));
    assert_non_null(strstr(o.text, "SigBlk:\t0000000000000000"));
    /* A sanitizer's run-time ignores or handles some of its own accord, never these two. */
    const char *ign = strstr(o.text, "SigIgn:");
    assert_non_null(ign);
    assert_int_equal(strtoull(ign + 8, NULL, 16) & (1u << (SIGPIPE - 1) | 1u << (SIGHUP - 1)), 0);
    close(o.fd);
    cule_proc_free(p);
}

static void test_descriptors(void **state)
{
    (void)state;
    const char *const argv[] = {self_path, "fds", NULL};
    int leak = fcntl(0, F_DUPFD, 50); /* not close-on-exec: somebody else's mistake */
    int keep = fcntl(0, F_DUPFD_CLOEXEC, 60);
    int pv[2];
    struct cule_proc *p;
    assert_true(leak >= 50 && keep >= 60);
    assert_int_equal(cule_pipe(pv, NULL), 0);
    struct cule_spawn s = {.argv = argv, .in = -1, .out = pv[1], .err = -1, .keep = &keep, .nkeep = 1};
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), 0);
    close(pv[1]);
    struct out o = {.fd = pv[0]};
    char want[32];
    snprintf(want, sizeof want, "0 1 2 %d ", keep);
    assert_true(await_text(&o, NULL, TIMEOUT_MS));
    assert_string_equal(o.text, want);
    close(leak);
    close(keep);
    close(o.fd);
    cule_proc_free(p);
    s.keep = (const int[]){1};
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), CULE_EUSAGE);
    s.keep = (const int[]){999};
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), CULE_EUSAGE);
}

/* The numbers 0 to 2 may be given crosswise. */
static void test_descriptors_crossed(void **state)
{
    (void)state;
    const char *const argv[] = {self_path, "links", NULL};
    char was0[256] = "", was1[256] = "", want[600];
    int pv[2];
    struct cule_proc *p;
    assert_true(readlink("/proc/self/fd/0", was0, sizeof was0 - 1) > 0);
    assert_true(readlink("/proc/self/fd/1", was1, sizeof was1 - 1) > 0);
    assert_int_equal(cule_pipe(pv, NULL), 0);
    struct cule_spawn s = {.argv = argv, .in = 1, .out = pv[1], .err = 0};
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), 0);
    close(pv[1]);
    struct out o = {.fd = pv[0]};
    assert_true(await_text(&o, NULL, TIMEOUT_MS));
    snprintf(want, sizeof want, "%s\n%s\n", was1, was0);
    assert_string_equal(o.text, want);
    close(o.fd);
    cule_proc_free(p);
}

static void test_path_of_envp(void **state)
{
    (void)state;
    static char nowhere[] = "PATH=/nowhere", somewhere[] = "PATH=/nowhere:/bin:/usr/bin";
    char *const envp[] = {nowhere, NULL}, *const better[] = {somewhere, NULL};
    const char *const argv[] = {"true", NULL};
    struct cule_spawn s = {.argv = argv, .envp = envp, .in = -1, .out = -1, .err = -1};
    struct cule_proc *p;
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), CULE_ENOT_FOUND);
    s.envp = better;
    assert_int_equal(cule_spawn(NULL, &s, &p, NULL, NULL, NULL), 0);
    cule_proc_free(p);
    assert_no_children();
}

/* --- the loop ----------------------------------------------------------------------------------------- */

static void test_on_exit(void **state)
{
    (void)state;
    struct cule_loop *loop = loop_new();
    struct seen s = {.free_it = true};
    struct cule_spawn sp = {.shell = "exit 5", .in = -1, .out = -1, .err = -1};
    struct cule_proc *p;
    assert_int_equal(cule_spawn(loop, &sp, &p, on_exit_seen, &s, NULL), 0);
    turn_until_exit(loop, &s);
    assert_int_equal(s.how.code, 5);
    assert_int_equal(cule_loop_run(loop), 0); /* nothing keeps it */
    cule_loop_free(loop);
    assert_no_children();
}

static void test_grace(void **state)
{
    (void)state;
    struct cule_loop *loop = loop_new();
    struct out polite, stubborn;
    struct seen sp = {0}, ss = {0};
    struct cule_proc *p = start(loop, "polite", &polite, -1, false, on_exit_seen, &sp);
    struct cule_proc *q = start(loop, "deaf", &stubborn, -1, false, on_exit_seen, &ss);
    assert_true(await_text(&polite, "up", TIMEOUT_MS));
    assert_true(await_text(&stubborn, "up", TIMEOUT_MS));
    assert_int_equal(cule_proc_kill(p, TIMEOUT_MS), 0);
    assert_int_equal(cule_proc_kill(q, 30), 0);
    turn_until_exit(loop, &sp);
    turn_until_exit(loop, &ss);
    assert_int_equal(sp.how.code, 7);
    assert_int_equal(ss.how.signum, SIGKILL);
    assert_true(all_gone(&polite) && all_gone(&stubborn));
    assert_int_equal(cule_proc_kill(p, 0), 0); /* harmless on the dead */
    cule_proc_free(p);
    cule_proc_free(q);
    cule_loop_run(loop);
    cule_loop_free(loop);
    assert_no_children();
}

/* A handle freed while its tree lives: the loop ends the tree, then has nothing left to do. */
static void test_free_kills(void **state)
{
    (void)state;
    struct cule_loop *loop = loop_new();
    struct out o;
    struct seen s = {0};
    struct cule_proc *p = start(loop, "daemon", &o, -1, false, on_exit_seen, &s);
    assert_true(await_text(&o, "up", TIMEOUT_MS));
    cule_proc_free(p);
    assert_int_equal(cule_loop_run(loop), 0);
    assert_int_equal(s.calls, 0);
    assert_true(all_gone(&o));
    cule_loop_free(loop);
    assert_no_children();
}

/* The dead orphans of a tree are waited for without anybody asking. */
static void test_orphans_are_reaped(void **state)
{
    (void)state;
    struct cule_loop *loop = loop_new();
    struct out o, keeper;
    struct seen s = {0};
    struct cule_proc *k = start(loop, "deaf", &keeper, -1, false, NULL, NULL);
    struct cule_proc *p = start(loop, "daemon-exit", &o, -1, false, on_exit_seen, &s);
    assert_true(await_text(&o, "up", TIMEOUT_MS));
    turn_until_exit(loop, &s);
    assert_int_equal(s.how.code, 3);
    struct cule_pidset set = {0};
    assert_int_equal(cule_walk_children(getpid(), false, &set), 0);
    assert_int_equal(set.n, 2); /* the keeper and the orphan */
    pid_t orphan = set.v[0].pid == cule_proc_pid(k) ? set.v[1].pid : set.v[0].pid;
    cule_proc_free(p); /* leaves the orphan alive */
    assert_int_equal(kill(orphan, 0), 0);
    kill(orphan, SIGKILL);
    uint64_t until = soon();
    while (kill(orphan, 0) == 0 && cule_now_ns() < until) {
        cule_loop_turn(loop, 100);
    }
    assert_int_equal(kill(orphan, 0), -1);
    cule_pidset_release(&set);
    cule_proc_free(k);
    cule_loop_run(loop);
    assert_true(all_gone(&o) && all_gone(&keeper));
    cule_loop_free(loop);
    assert_no_children();
}

/* --- whole trees -------------------------------------------------------------------------------------- */

static void test_daemon_dies(void **state)
{
    bool cgroup = *state != NULL;
    struct out o;
    struct cule_proc *p = start(NULL, "daemon", &o, -1, cgroup, NULL, NULL);
    assert_true(await_text(&o, "up", TIMEOUT_MS));
    assert_int_equal(cule_proc_kill_wait(p, 0, soon()), 0);
    assert_true(all_gone(&o));
    cule_proc_free(p);
    assert_no_children();
}

/* SIGTERM reaches the daemon, which is deaf to it; the grace passes. */
static void test_daemon_dies_after_grace(void **state)
{
    (void)state;
    struct out o;
    struct cule_proc *p = start(NULL, "daemon-exit", &o, -1, false, NULL, NULL);
    assert_true(await_text(&o, "up", TIMEOUT_MS));
    struct cule_exit how;
    assert_int_equal(cule_proc_wait(p, soon(), &how), 0);
    assert_int_equal(how.code, 3);
    assert_int_equal(cule_proc_kill_wait(p, 20, soon()), 0);
    assert_true(all_gone(&o));
    cule_proc_free(p);
    assert_no_children();
}

static void test_other_tree_is_spared(void **state)
{
    (void)state;
    struct out a, b;
    struct cule_proc *p = start(NULL, "daemon-exit", &a, -1, false, NULL, NULL);
    struct cule_proc *q = start(NULL, "daemon-exit", &b, -1, false, NULL, NULL);
    assert_true(await_text(&a, "up", TIMEOUT_MS));
    assert_true(await_text(&b, "up", TIMEOUT_MS));
    /* Both roots have ended: both daemons are our children now, and only the marker tells whose they were. */
    assert_int_equal(cule_proc_wait(p, soon(), NULL), 0);
    assert_int_equal(cule_proc_wait(q, soon(), NULL), 0);
    assert_int_equal(cule_proc_kill_wait(p, 0, soon()), 0);
    assert_true(all_gone(&a));
    assert_false(cule_tree_gone(&q->tree));
    assert_false(await_text(&b, NULL, 50));
    assert_int_equal(cule_proc_kill_wait(q, 0, soon()), 0);
    assert_true(all_gone(&b));
    cule_proc_free(p);
    cule_proc_free(q);
    assert_no_children();
}

/* A supervisor inside the tree died and left its own tree: that is still part of ours. */
static void test_nested_tree_dies(void **state)
{
    (void)state;
    struct out o;
    struct cule_proc *p = start(NULL, "nest", &o, -1, false, NULL, NULL);
    assert_true(await_text(&o, "up", TIMEOUT_MS));
    assert_int_equal(cule_proc_wait(p, soon(), NULL), 0);
    assert_false(cule_tree_gone(&p->tree));
    assert_int_equal(cule_proc_kill_wait(p, 0, soon()), 0);
    assert_true(all_gone(&o));
    cule_proc_free(p);
    assert_no_children();
}

static void test_fork_bomb_dies(void **state)
{
    bool cgroup = *state != NULL;
    struct out o;
    int tokens[2];
    char fuel[BOMB_TOKENS];
    memset(fuel, 'x', sizeof fuel);
    assert_int_equal(cule_pipe(tokens, NULL), 0);
    assert_int_equal(write(tokens[1], fuel, sizeof fuel), sizeof fuel);
    struct cule_proc *p = start(NULL, "bomb", &o, tokens[0], cgroup, NULL, NULL);
    assert_true(await_text(&o, "b", TIMEOUT_MS));
    /* It burns while it is killed; the writing end stays open, so nothing stops it but us. */
    assert_int_equal(cule_proc_kill_wait(p, 0, soon()), 0);
    assert_true(all_gone(&o));
    close(tokens[0]);
    close(tokens[1]);
    cule_proc_free(p);
    assert_no_children();
}

static void test_cgroup_is_removed(void **state)
{
    (void)state;
    struct out o;
    struct cule_proc *p = start(NULL, "deaf", &o, -1, true, NULL, NULL);
    if (!p->tree.cgroup[0]) {
        cule_proc_free(p);
        close(o.fd);
        skip();
    }
    char path[64], text[4096] = "", name[32];
    snprintf(name, sizeof name, "%s", p->tree.cgroup);
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)cule_proc_pid(p));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    assert_non_null(strstr(text, name));
    int dir = openat(p->tree.cgroup_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(cule_proc_kill_wait(p, 0, soon()), 0);
    cule_proc_free(p);
    assert_int_equal(faccessat(dir, name, F_OK, 0), -1);
    close(dir);
    assert_true(all_gone(&o));
}

static void test_walks_agree(void **state)
{
    (void)state;
    struct out o[3];
    struct cule_proc *p[3];
    for (int i = 0; i < 3; i++) {
        p[i] = start(NULL, "deaf", &o[i], -1, false, NULL, NULL);
        assert_true(await_text(&o[i], "up", TIMEOUT_MS));
    }
    struct cule_pidset fast = {0}, slow = {0};
    assert_int_equal(cule_walk_children(getpid(), false, &fast), 0);
    assert_int_equal(cule_walk_children(getpid(), true, &slow), 0);
    assert_int_equal(fast.n, 3);
    assert_int_equal(slow.n, 3);
    for (int i = 0; i < 3; i++) {
        bool found = false;
        for (size_t k = 0; k < slow.n; k++) {
            found |= slow.v[k].pid == fast.v[i].pid;
        }
        assert_true(found);
    }
    /* A number that now belongs to another parent's child is left alone. */
    struct cule_member wrong = {.pid = fast.v[0].pid, .ppid = 1};
    assert_int_equal(cule_member_signal(&wrong, SIGKILL), -ESRCH);
    assert_int_equal(cule_member_signal(&fast.v[0], 0), 0);
    cule_pidset_release(&fast);
    cule_pidset_release(&slow);
    for (int i = 0; i < 3; i++) {
        cule_proc_free(p[i]);
        assert_true(all_gone(&o[i]));
    }
    assert_no_children();
}

/* --- threads ------------------------------------------------------------------------------------------ */

static void *spawn_many(void *arg)
{
    intptr_t bad = 0;
    for (int i = 0; i < 20; i++) {
        char cmd[32];
        struct cule_exit how = {0};
        struct cule_proc *p;
        snprintf(cmd, sizeof cmd, "exit %d", i);
        struct cule_spawn s = {.shell = cmd, .in = -1, .out = -1, .err = -1};
        if (cule_spawn(NULL, &s, &p, NULL, NULL, NULL) < 0) {
            bad++;
            continue;
        }
        bad += cule_proc_wait(p, soon(), &how) < 0 || how.code != i || how.signum != 0;
        cule_proc_free(p);
    }
    (void)arg;
    return (void *)bad;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, spawn_many, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    assert_no_children();
}

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self_path, sizeof self_path - 1);
    if (n < 0) {
        return 1;
    }
    if (argc > 1) {
        child(argv[1]);
    }
    static char with_cgroup[] = "cgroup";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_status),
        cmocka_unit_test(test_start_errors),
        cmocka_unit_test(test_signals_are_reset),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_descriptors_crossed),
        cmocka_unit_test(test_path_of_envp),
        cmocka_unit_test(test_on_exit),
        cmocka_unit_test(test_grace),
        cmocka_unit_test(test_free_kills),
        cmocka_unit_test(test_orphans_are_reaped),
        cmocka_unit_test(test_daemon_dies),
        {"test_daemon_dies_in_cgroup", test_daemon_dies, NULL, NULL, with_cgroup},
        cmocka_unit_test(test_daemon_dies_after_grace),
        cmocka_unit_test(test_other_tree_is_spared),
        cmocka_unit_test(test_nested_tree_dies),
        cmocka_unit_test(test_fork_bomb_dies),
        {"test_fork_bomb_dies_in_cgroup", test_fork_bomb_dies, NULL, NULL, with_cgroup},
        cmocka_unit_test(test_cgroup_is_removed),
        cmocka_unit_test(test_walks_agree),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The first moments of a new process: clone3 on a borrowed stack, then descriptors, signals and exec by bare syscalls.
 *
 * Between clone and exec the child shares the parent's memory while the parent's thread waits (CLONE_VM and
 * CLONE_VFORK), so a start costs the same however large the parent is, and the child reports a failure by writing into
 * struct cule_child. It therefore calls nothing that takes locks, allocates or is instrumented. */
#include "io/spawn_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__clang__)
#define BARE __attribute__((noinline, no_stack_protector, disable_sanitizer_instrumentation))
#else
#define BARE                                                                                                           \
    __attribute__((noinline, no_stack_protector, no_sanitize("address"), no_sanitize("thread"),                        \
                   no_sanitize("undefined")))
#endif

enum { STACK_BYTES = 16384, FIRST_FREE = 3, SIGNALS = 64 };

BARE static int child_null(void)
{
    return (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
}

/* Puts in, out and err at 0, 1 and 2. All sources move out of the way first, so their order does not matter. */
BARE static int child_stdio(const struct cule_spawn *s)
{
    int from[3] = {s->in, s->out, s->err < 0 ? STDERR_FILENO : s->err};
    for (int i = 0; i < 3; i++) {
        if (from[i] < 0) {
            from[i] = child_null();
        }
        if (from[i] >= 0 && from[i] < FIRST_FREE) {
            from[i] = (int)syscall(SYS_fcntl, from[i], F_DUPFD_CLOEXEC, FIRST_FREE);
        }
        if (from[i] < 0 && i == STDERR_FILENO && s->err < 0) {
            /* Ours is closed. */
            from[i] = (int)syscall(SYS_fcntl, child_null(), F_DUPFD_CLOEXEC, FIRST_FREE);
        }
        if (from[i] < 0) {
            return -1;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (syscall(SYS_dup3, from[i], i, 0) < 0) {
            return -1;
        }
    }
    return 0;
}

BARE static int child_keep(const struct cule_spawn *s)
{
    /* A belt: everything is opened close-on-exec anyway. An old kernel without this call loses nothing. */
    syscall(SYS_close_range, FIRST_FREE, ~0U, CLOSE_RANGE_CLOEXEC);
    for (unsigned i = 0; i < s->nkeep; i++) {
        if (syscall(SYS_fcntl, s->keep[i], F_SETFD, 0) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Every signal to its default, ignored ones too, and none blocked. */
BARE static void child_signals(void)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } act;
    uint64_t none = 0;
    for (size_t i = 0; i < sizeof act; i++) {
        ((volatile char *)&act)[i] = 0;
    }
    for (int i = 1; i <= SIGNALS; i++) {
        syscall(SYS_rt_sigaction, i, &act, NULL, sizeof none);
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/* Tries each path; the first that is there decides the error, a missing one only if none was there. */
BARE static int child_exec(const struct cule_child *c)
{
    int err = ENOENT;
    for (const char *path = c->paths; *path;) {
        syscall(SYS_execve, path, c->argv, c->envp);
        if (errno != ENOENT && errno != ENOTDIR) {
            err = errno;
            if (err != EACCES) {
                return err;
            }
        }
        while (*path) {
            path++;
        }
        path++;
    }
    return err;
}

BARE static int child_main(void *arg)
{
    struct cule_child *c = arg;
    const struct cule_spawn *s = c->s;
    if (s->group) {
        syscall(SYS_setpgid, 0, 0);
    }
    if (c->marker) {
        uint64_t lim[2];
        if (syscall(SYS_prlimit64, 0, RLIMIT_LOCKS, NULL, lim) == 0) {
            lim[0] = c->marker;
            syscall(SYS_prlimit64, 0, RLIMIT_LOCKS, lim, NULL);
        }
    }
    c->stage = CULE_STAGE_FDS;
    if (child_stdio(s) < 0) {
        goto fail;
    }
    c->stage = CULE_STAGE_KEEP;
    if (child_keep(s) < 0) {
        goto fail;
    }
    c->stage = CULE_STAGE_CWD;
    if (s->cwd && syscall(SYS_chdir, s->cwd) < 0) {
        goto fail;
    }
    c->stage = CULE_STAGE_EXEC;
    child_signals();
    c->err = child_exec(c);
    syscall(SYS_exit_group, 127);
fail:
    c->err = errno;
    syscall(SYS_exit_group, 127);
    return 127;
}

#if defined(__x86_64__)
/* The C library has no public clone3. The child cannot return through the caller's frame, so it goes on in fn. */
BARE static long clone3_call(struct clone_args *a, int (*fn)(void *), void *arg)
{
    long rc;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %[arg], %%rdi\n\t"
                     "call *%[fn]\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(rc)
                     : "0"((long)SYS_clone3), "D"(a), "S"(sizeof *a), [fn] "r"(fn), [arg] "r"(arg)
                     : "rcx", "r11", "memory", "cc");
    return rc;
}
#else
BARE static long clone3_call(struct clone_args *a, int (*fn)(void *), void *arg)
{
    (void)a, (void)fn, (void)arg;
    return -ENOSYS;
}
#endif

pid_t cule_child_start(struct cule_child *c, int *pidfd)
{
    char stack[STACK_BYTES] __attribute__((aligned(16)));
    int fd = -1;
    int saved = errno;
    struct clone_args a = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD,
        .pidfd = (uintptr_t)&fd,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)stack,
        .stack_size = sizeof stack,
    };
    if (c->cgroup >= 0) {
        a.flags |= CLONE_INTO_CGROUP;
        a.cgroup = (uint64_t)c->cgroup;
    }
    c->err = 0;
    long pid = clone3_call(&a, child_main, c);
    if (pid < 0 && (pid == -ENOSYS || c->cgroup >= 0)) {
        /* No clone3, or a cgroup that may not be entered: what clone can do, the walk of /proc makes up for. */
        pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, c, &fd);
        pid = pid < 0 ? -errno : pid;
    }
    errno = saved;
    *pidfd = fd;
    return (pid_t)pid;
}

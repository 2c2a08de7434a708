/*
 * Starting programs, and ending whole trees of them.
 *
 * clone3 with CLONE_PIDFD and CLONE_VFORK semantics where the kernel has it, so that a start costs what vfork costs and
 * the pid can never be mistaken for another's. Every descendant dies with cule_proc_kill: double-forked and setsid ones
 * too (a cgroup of its own where one can be made, else child-subreaper and a walk of /proc that repeats until nothing
 * is left).
 */
#ifndef CULE_IO_SPAWN_H
#define CULE_IO_SPAWN_H

#include "io/loop.h"

#include <signal.h>
#include <sys/types.h>

struct cule_proc;

/* How it ended: code is an exit status (0 to 255), or signum when a signal ended it. */
struct cule_exit {
    int code;
    int signum;
};
typedef void cule_proc_fn(void *ctx, struct cule_proc *p, const struct cule_exit *how);

struct cule_spawn {
    const char *const *argv; /* NULL-ended; argv[0] is looked up in PATH */
    const char *shell;       /* or: one command for `sh -c` */
    char *const *envp;       /* NULL: ours */
    const char *cwd;
    int in, out, err; /* descriptors to become 0, 1, 2; -1: ours for err, /dev/null for in and out */
    const int *keep;  /* further descriptors, which keep their numbers */
    unsigned nkeep;
    bool group; /* a process group of its own */
};

/* Starts it. on_exit runs in the loop once the process itself has ended (its descendants may live on: cule_proc_kill).
 * loop NULL: nobody watches; use cule_proc_wait. 0, CULE_ENOT_FOUND (no such program), CULE_ENOFD, ... */
int cule_spawn(struct cule_loop *loop, const struct cule_spawn *s, struct cule_proc **out, cule_proc_fn *on_exit,
               void *ctx, struct cule_err *err);
pid_t cule_proc_pid(const struct cule_proc *p);
int cule_proc_pidfd(const struct cule_proc *p);
bool cule_proc_ended(const struct cule_proc *p);
int cule_proc_signal(struct cule_proc *p, int signum); /* the process alone, by pidfd */

/* Ends the tree: SIGTERM to all of it, SIGKILL after grace_ms (0: at once). Returns at once; the loop does the rest and
 * on_exit is called as usual. */
int cule_proc_kill(struct cule_proc *p, uint64_t grace_ms);
/* The same, blocking until nothing of the tree is left or deadline_ns has passed (CULE_ETIMEOUT). */
int cule_proc_kill_wait(struct cule_proc *p, uint64_t grace_ms, uint64_t deadline_ns);
int cule_proc_wait(struct cule_proc *p, uint64_t deadline_ns, struct cule_exit *how);

/* Frees the handle; a process that still runs is killed with its tree first. */
void cule_proc_free(struct cule_proc *p);

/* A socketpair (SOCK_STREAM, CLOEXEC) and a pipe (CLOEXEC), with errors in *err. */
int cule_socketpair(int sv[2], struct cule_err *err);
int cule_pipe(int pv[2], struct cule_err *err);

#endif

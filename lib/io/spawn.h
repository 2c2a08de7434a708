/*
 * Starting programs, and ending whole trees of them.
 *
 * clone3 with CLONE_PIDFD, CLONE_VM and CLONE_VFORK, so that a start costs what vfork costs and a pid can never be
 * mistaken for another's. The calling thread waits until the child has run exec or failed, which is reported at once.
 *
 * Every descendant dies with cule_proc_kill, double-forked and setsid ones too. The process becomes a child subreaper
 * with its first spawn; each tree carries a marker that its orphans keep (the soft RLIMIT_LOCKS, which Linux ignores
 * but inherits); the tree is stopped as a whole before it is killed, so that it cannot outrun its end by forking. With
 * `cgroup` the tree is also born into a cgroup v2 below ours where one can be made, and dies by cgroup.kill. That is
 * not the rule, because a supervisor that is itself killed leaves empty cgroups behind.
 *
 * Dead orphans are waited for while a handle watches in a loop, and with each spawn, wait and free. No other code of
 * the process may wait for children it does not know (wait, waitpid(-1)).
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
    const char *const *argv; /* NULL-ended; argv[0] is looked up in the PATH of envp */
    const char *shell;       /* or: one command for `sh -c` */
    char *const *envp;       /* NULL: ours */
    const char *cwd;
    int in, out, err; /* descriptors to become 0, 1, 2; -1: ours for err, /dev/null for in and out */
    const int *keep;  /* further descriptors (3 and above), which keep their numbers */
    unsigned nkeep;
    bool group;  /* a process group of its own */
    bool cgroup; /* a cgroup v2 of its own, where one can be made */
};

/* Starts it. on_exit runs in the loop once the process itself has ended (its descendants may live on: cule_proc_kill).
 * loop NULL: nobody watches; use cule_proc_wait. 0, CULE_ENOT_FOUND (no such program), CULE_ENOFD, ... */
int cule_spawn(struct cule_loop *loop, const struct cule_spawn *s, struct cule_proc **out, cule_proc_fn *on_exit,
               void *ctx, struct cule_err *err);
pid_t cule_proc_pid(const struct cule_proc *p);
int cule_proc_pidfd(const struct cule_proc *p);
bool cule_proc_ended(const struct cule_proc *p);
int cule_proc_signal(struct cule_proc *p, int signum); /* the process alone, by pidfd */

/* Ends the tree: SIGTERM to all of it, SIGKILL after grace_ms (0: at once). Returns at once (a large tree is stopped
 * for at most 2 ms first); the loop does the rest and on_exit is called as usual. It works after the process itself has
 * ended too, and costs one system call if nothing is left. A second call may shorten the grace, not lengthen it.
 * Without a loop use cule_proc_kill_wait. */
int cule_proc_kill(struct cule_proc *p, uint64_t grace_ms);
/* The same, blocking until nothing of the tree is left, deadline_ns has passed (CULE_ETIMEOUT; 0: none), or only
 * processes are left that we may not signal (CULE_EREFUSED). on_exit still comes from the loop. */
int cule_proc_kill_wait(struct cule_proc *p, uint64_t grace_ms, uint64_t deadline_ns);
/* Waits for the process alone. 0 or CULE_ETIMEOUT. how may be NULL. */
int cule_proc_wait(struct cule_proc *p, uint64_t deadline_ns, struct cule_exit *how);

/* Frees the handle; on_exit is not called any more. A process that still runs is killed with its tree; with a loop the
 * end of that, or of a cule_proc_kill under way, goes on in the background, and without one this waits for it up to a
 * second. What an ended process left behind on purpose lives on. */
void cule_proc_free(struct cule_proc *p);

/* A socketpair (SOCK_STREAM, CLOEXEC) and a pipe (CLOEXEC), with errors in *err. */
int cule_socketpair(int sv[2], struct cule_err *err);
int cule_pipe(int pv[2], struct cule_err *err);

#endif

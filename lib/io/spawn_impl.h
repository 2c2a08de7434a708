/* What the files of the spawn module share; nobody else includes this. */
#ifndef CULE_IO_SPAWN_IMPL_H
#define CULE_IO_SPAWN_IMPL_H

#include "base/list.h"
#include "io/spawn.h"

#include <stddef.h>

/* --- spawn_child.c: the new process, up to exec ------------------------------------------------------- */

enum cule_stage { CULE_STAGE_FDS, CULE_STAGE_KEEP, CULE_STAGE_CWD, CULE_STAGE_EXEC };

/* Filled by the parent; err and stage are written by the child, which shares the parent's memory until it execs. */
struct cule_child {
    const struct cule_spawn *s;
    const char *const *argv;
    char *const *envp;
    const char *paths;  /* programs to try in order, each NUL-ended, the last followed by an empty one */
    uint64_t marker;    /* 0: none */
    int cgroup;         /* descriptor of the cgroup to be born in, or -1 */
    volatile int err;   /* errno of what failed, or 0 */
    volatile int stage; /* enum cule_stage */
};

/* Starts the child and returns once it runs its program or has failed (c->err, then *pid is a zombie to be reaped).
 * The pid with a pidfd in *pidfd, or a negative errno. All signals must be blocked by the caller. */
pid_t cule_child_start(struct cule_child *c, int *pidfd);

/* --- spawn_tree.c: who belongs to a tree, and how all of them end -------------------------------------- */

/*
 * A tree is told apart by ancestry and, once a parent in it has died, by a marker: since this process is a child
 * subreaper, orphans become its children, and each carries the marker in the soft RLIMIT_LOCKS, a limit that Linux has
 * ignored since 2.6 but still inherits across fork, exec, setsid and a change of uid, and shows to anyone. (An
 * environment variable would be lost by `env -i`, a session or process group by setsid.) Where Cule programs nest, the
 * marker holds up to three levels of ids, so that the outermost still knows what an inner one left when it died.
 */
struct cule_tree {
    struct cule_list node; /* in the list of live trees */
    pid_t root;
    int pidfd;
    bool reaped; /* the root has been waited for */
    int status;  /* as waitid gave it: si_code and si_status */
    int code;
    uint64_t marker;
    uint64_t start_ticks; /* nothing that began before belongs to it */
    char cgroup[32];      /* name of its cgroup below ours, or empty */
    int cgroup_fd;        /* or -1 */
};

/* Gives t a marker and a cgroup if wanted, and lists it; cule_tree_leave undoes that. */
void cule_tree_enter(struct cule_tree *t, bool cgroup);
void cule_tree_started(struct cule_tree *t, pid_t root, int pidfd);
void cule_tree_leave(struct cule_tree *t);

/* Waits for the root without blocking: true once it has been reaped. */
bool cule_tree_reap_root(struct cule_tree *t);
/* Sends one signal (and SIGCONT) to every process of the tree. */
void cule_tree_signal(struct cule_tree *t, int signum);
/* One step of ending it by SIGKILL: 1 nothing is left, 0 call again soon, CULE_EREFUSED what is left is not ours to
 * kill. */
int cule_tree_kill_step(struct cule_tree *t);
/* 1 if nothing of the tree is left. */
int cule_tree_gone(struct cule_tree *t);
/* Waits for the dead orphans of all trees without blocking. */
void cule_tree_sweep(void);

/* --- spawn_proc.c: the handle ------------------------------------------------------------------------- */

struct cule_loop_user; /* a loop with processes to watch, and its SIGCHLD */
struct cule_proc {
    struct cule_tree tree;
    struct cule_loop *loop; /* or NULL */
    struct cule_loop_user *user;
    struct cule_watch *watch; /* of the pidfd, until on_exit has been called */
    struct cule_timer *timer; /* made when first needed */
    cule_proc_fn *on_exit;
    void *ctx;
    bool killing;
    bool detached;          /* freed by the caller; lives until nothing of the tree is left */
    uint64_t term_until_ns; /* before: SIGTERM was sent; after: SIGKILL */
    unsigned step_ms;
};
/* Watches a started process; frees p on failure. */
int cule_proc_attach(struct cule_proc *p, struct cule_loop *loop, cule_proc_fn *on_exit, void *ctx,
                     struct cule_err *err);

/* --- spawn_walk.c: /proc ------------------------------------------------------------------------------- */

struct cule_pidset {
    struct cule_member {
        pid_t pid;
        pid_t ppid;
        char state; /* as in /proc/PID/stat */
    } * v;
    size_t n, cap;
};
int cule_pidset_add(struct cule_pidset *set, pid_t pid, pid_t ppid); /* 0 or CULE_ENOMEM */
void cule_pidset_release(struct cule_pidset *set);

struct cule_stat {
    pid_t ppid;
    char state;
    unsigned threads;
    uint64_t start_ticks;
};
/* false: no such process. */
bool cule_proc_stat(pid_t pid, struct cule_stat *out);

/* Appends the children of pid. slow: by a walk of all of /proc, for kernels without /proc/PID/task/TID/children. */
int cule_walk_children(pid_t pid, bool slow, struct cule_pidset *set);
/* Signals a member unless its number has passed to another process meanwhile. 0 or a negative errno. */
int cule_member_signal(const struct cule_member *m, int signum);

#endif

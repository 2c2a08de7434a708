/* Process trees: markers that outlive parents, cgroups where wanted, and the end of every member. */
#include "io/spawn_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    LEVELS = 3,
    LEVEL_BITS = 20,
    LEVEL_MASK = (1 << LEVEL_BITS) - 1,
    FREEZE_NS = 2000000, /* how long one step tries to stop a tree that keeps forking before it kills anyway */
    NS_PER_S = 1000000000,
};
#define MAGIC (UINT64_C(0xC) << 60)
#define MAGIC_MASK (UINT64_C(0xF) << 60)

static struct {
    pthread_mutex_t lock;
    bool ready;
    bool wrapped;    /* ids have been used once round */
    uint64_t prefix; /* our own marker's levels; those we give go below them */
    unsigned shift;  /* where the level that we give stands */
    uint32_t next_id;
    int cgroup_dir; /* our own cgroup v2, or -1 */
    struct cule_list trees;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .cgroup_dir = -1};

/* --- markers ------------------------------------------------------------------------------------------ */

/* Not prlimit(), which needs the same number either way but differs in type between C libraries. */
static uint64_t marker_of(pid_t pid)
{
    uint64_t lim[2];
    if (syscall(SYS_prlimit64, pid, RLIMIT_LOCKS, NULL, lim) < 0 || (lim[0] & MAGIC_MASK) != MAGIC) {
        return 0;
    }
    return lim[0];
}

/* Whether a marker is that of a tree of ours, or of one below it. */
static bool marked(uint64_t marker, uint64_t tree)
{
    uint64_t mask = ~UINT64_C(0) << state.shift;
    return marker && (marker & mask) == (tree & mask);
}

static bool id_in_use(uint64_t marker)
{
    CULE_LIST_EACH (n, &state.trees) {
        if (CULE_LIST_ENTRY(n, struct cule_tree, node)->marker == marker) {
            return true;
        }
    }
    return false;
}

/* The next marker; an id is not given again while a tree that has it is held. */
static uint64_t next_marker(void)
{
    uint64_t m;
    do {
        state.next_id = (state.next_id + 1) & LEVEL_MASK;
        if (state.next_id == 0) {
            state.next_id = 1;
            state.wrapped = true;
        }
        m = MAGIC | state.prefix | (uint64_t)state.next_id << state.shift;
    } while (state.wrapped && id_in_use(m));
    return m;
}

static void read_own_marker(void)
{
    uint64_t own = marker_of(0);
    unsigned level = 0;
    while (own && level < LEVELS - 1 && (own >> ((LEVELS - 1 - level) * LEVEL_BITS) & LEVEL_MASK)) {
        level++;
    }
    state.shift = (LEVELS - 1 - level) * LEVEL_BITS;
    /* Deeper than the levels reach, the last one is shared: ids begin at random, so that they hardly meet. */
    state.prefix = own & ~MAGIC_MASK & (~UINT64_C(0) << (state.shift + LEVEL_BITS));
    if (getrandom(&state.next_id, sizeof state.next_id, GRND_NONBLOCK) < 0) {
        state.next_id = (uint32_t)getpid();
    }
    state.next_id &= LEVEL_MASK >> 1;
}

/* --- cgroups ------------------------------------------------------------------------------------------ */

/* Where cgroup v2 is mounted, from /proc/self/mountinfo; false where it is not. */
static bool find_mount(char *out, size_t n)
{
    char *line = NULL;
    size_t cap = 0;
    bool found = false;
    FILE *f = fopen("/proc/self/mountinfo", "re");
    while (f && !found && getline(&line, &cap, f) > 0) {
        char at[1024];
        found = strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %1023s", at) == 1;
        if (found) {
            snprintf(out, n, "%s", at);
        }
    }
    free(line);
    if (f) {
        fclose(f);
    }
    return found;
}

static int open_own_cgroup(void)
{
    char mount[1024], path[2200], line[1024];
    int fd = -1;
    FILE *f = find_mount(mount, sizeof mount) ? fopen("/proc/self/cgroup", "re") : NULL;
    if (!f) {
        return -1;
    }
    while (fd < 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(path, sizeof path, "%s%s", mount, line + 3);
            fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
    }
    fclose(f);
    return fd;
}

/* Leaves t without one where none can be made. */
static void make_cgroup(struct cule_tree *t)
{
    if (state.cgroup_dir == -1) {
        state.cgroup_dir = open_own_cgroup();
        state.cgroup_dir = state.cgroup_dir < 0 ? -2 : state.cgroup_dir;
    }
    if (state.cgroup_dir < 0) {
        return;
    }
    snprintf(t->cgroup, sizeof t->cgroup, "cule-%d-%x", (int)getpid(),
             (unsigned)(t->marker >> state.shift & LEVEL_MASK));
    if (mkdirat(state.cgroup_dir, t->cgroup, 0755) < 0) {
        t->cgroup[0] = '\0';
        return;
    }
    t->cgroup_fd = openat(state.cgroup_dir, t->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void cgroup_kill(const struct cule_tree *t)
{
    int fd = t->cgroup_fd >= 0 ? openat(t->cgroup_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        /* On failure (a kernel before 5.14) the walk does it. */
        ssize_t n = write(fd, "1", 1);
        (void)n;
        close(fd);
    }
}

/* --- entering and leaving ----------------------------------------------------------------------------- */

static uint64_t boot_ticks(void)
{
    struct timespec ts;
    uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (uint64_t)ts.tv_sec * hz + (uint64_t)ts.tv_nsec * hz / NS_PER_S;
}

void cule_tree_enter(struct cule_tree *t, bool cgroup)
{
    memset(t, 0, sizeof *t);
    t->pidfd = t->cgroup_fd = -1;
    pthread_mutex_lock(&state.lock);
    if (!state.ready) {
        cule_list_init(&state.trees);
        read_own_marker();
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        state.ready = true;
    }
    t->marker = next_marker();
    t->start_ticks = boot_ticks();
    if (cgroup) {
        make_cgroup(t);
    }
    cule_list_push(&state.trees, &t->node);
    pthread_mutex_unlock(&state.lock);
}

void cule_tree_started(struct cule_tree *t, pid_t root, int pidfd)
{
    pthread_mutex_lock(&state.lock);
    t->root = root;
    t->pidfd = pidfd;
    pthread_mutex_unlock(&state.lock);
}

void cule_tree_leave(struct cule_tree *t)
{
    pthread_mutex_lock(&state.lock);
    cule_list_remove(&t->node);
    if (t->cgroup[0]) {
        /* Fails if something was left alive in it on purpose. */
        unlinkat(state.cgroup_dir, t->cgroup, AT_REMOVEDIR);
    }
    pthread_mutex_unlock(&state.lock);
    if (t->cgroup_fd >= 0) {
        close(t->cgroup_fd);
    }
    if (t->pidfd >= 0) {
        close(t->pidfd);
    }
    t->pidfd = t->cgroup_fd = -1;
}

/* --- reaping ------------------------------------------------------------------------------------------ */

bool cule_tree_reap_root(struct cule_tree *t)
{
    siginfo_t si = {0};
    if (t->reaped || t->root <= 0) {
        return true;
    }
    int rc = waitid(P_PIDFD, (id_t)t->pidfd, &si, WEXITED | WNOHANG);
    if (rc == 0 && si.si_pid == 0) {
        return false;
    }
    /* ECHILD: somebody else has waited for it; how it ended is not known. */
    t->code = rc == 0 ? si.si_code : CLD_KILLED;
    t->status = rc == 0 ? si.si_status : SIGKILL;
    pthread_mutex_lock(&state.lock);
    t->reaped = true;
    pthread_mutex_unlock(&state.lock);
    return true;
}

static bool reap(pid_t pid)
{
    siginfo_t si = {0};
    return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG) == 0 && si.si_pid == pid;
}

/* With the lock held: whether pid is the root of a tree, which its owner waits for. A tree that is being started does
 * not know its root yet. */
static bool is_root(pid_t pid, uint64_t marker)
{
    CULE_LIST_EACH (n, &state.trees) {
        const struct cule_tree *t = CULE_LIST_ENTRY(n, struct cule_tree, node);
        if ((t->root == pid && !t->reaped) || (t->root == 0 && marked(marker, t->marker))) {
            return true;
        }
    }
    return false;
}

/* A child that one of our trees left to us. Those that other code of this process started have no such marker. */
static bool is_orphan(pid_t pid)
{
    uint64_t m = marker_of(pid);
    uint64_t above = ~UINT64_C(0) << (state.shift + LEVEL_BITS);
    return m && (m & above) == ((MAGIC | state.prefix) & above) && (m >> state.shift & LEVEL_MASK) != 0 &&
           !is_root(pid, m);
}

static void sweep_all(void)
{
    struct cule_pidset ours = {0};
    cule_walk_children(getpid(), false, &ours);
    for (size_t i = 0; i < ours.n; i++) {
        if (is_orphan(ours.v[i].pid)) {
            reap(ours.v[i].pid);
        }
    }
    cule_pidset_release(&ours);
}

void cule_tree_sweep(void)
{
    pthread_mutex_lock(&state.lock);
    while (state.ready) {
        /* Looks at one dead child without taking it. */
        siginfo_t si = {0};
        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0) {
            break;
        }
        if (is_orphan(si.si_pid)) {
            reap(si.si_pid);
            continue;
        }
        if (!is_root(si.si_pid, marker_of(si.si_pid))) {
            /* A stranger's, which may stay there for long and hide others. */
            sweep_all();
        }
        /* A root's owner takes it and then looks here again. */
        break;
    }
    pthread_mutex_unlock(&state.lock);
}

/* --- members ------------------------------------------------------------------------------------------ */

/* What the tree left to us. Dead ones are waited for and not listed. */
static int add_orphans(const struct cule_tree *t, struct cule_pidset *set)
{
    struct cule_pidset ours = {0};
    siginfo_t si = {0};
    if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD) {
        return 0; /* the usual case, at the price of one call: no children at all */
    }
    int rc = cule_walk_children(getpid(), false, &ours);
    for (size_t i = 0; i < ours.n && rc == 0; i++) {
        struct cule_stat st;
        pid_t pid = ours.v[i].pid;
        if (pid == t->root || !marked(marker_of(pid), t->marker) || !cule_proc_stat(pid, &st) ||
            st.start_ticks < t->start_ticks) {
            continue;
        }
        if (st.state == 'Z' && reap(pid)) {
            continue;
        }
        rc = cule_pidset_add(set, pid, getpid());
    }
    cule_pidset_release(&ours);
    return rc;
}

/* Every process of the tree that is left, parents before children, each with its state as it was before its children
 * were read: where all were stopped then, nobody is missing. */
static void collect(struct cule_tree *t, struct cule_pidset *set)
{
    struct cule_stat st;
    set->n = 0;
    int rc = cule_tree_reap_root(t) ? 0 : cule_pidset_add(set, t->root, getpid());
    if (rc == 0) {
        rc = add_orphans(t, set);
    }
    for (size_t i = 0; i < set->n && rc == 0; i++) {
        set->v[i].state = cule_proc_stat(set->v[i].pid, &st) ? st.state : 'X';
        rc = cule_walk_children(set->v[i].pid, false, set);
    }
    /* Out of memory: what was found is dealt with, and the next step finds the rest. */
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Stops every member, parents first so that none replaces its children, until a walk finds all of them stopped. */
static void freeze(struct cule_tree *t, struct cule_pidset *set)
{
    uint64_t until = now_ns() + FREEZE_NS;
    for (;;) {
        bool moving = false;
        for (size_t i = 0; i < set->n; i++) {
            if (!strchr("TtZX", set->v[i].state)) {
                cule_member_signal(&set->v[i], SIGSTOP);
                moving = true;
            }
        }
        if (!moving || now_ns() > until) {
            return;
        }
        sched_yield();
        collect(t, set);
    }
}

int cule_tree_kill_step(struct cule_tree *t)
{
    struct cule_pidset set = {0};
    int rc = 0;
    size_t denied = 0;
    cgroup_kill(t);
    collect(t, &set);
    /* A lone root needs no freezing: what it may start before it dies is an orphan for the next step. */
    if (set.n > 1 || (set.n == 1 && set.v[0].pid != t->root)) {
        freeze(t, &set);
    }
    for (size_t i = 0; i < set.n; i++) {
        denied += cule_member_signal(&set.v[i], SIGKILL) == -EPERM;
    }
    if (set.n == 0) {
        rc = 1;
    } else if (denied == set.n) {
        rc = CULE_EREFUSED;
    }
    cule_pidset_release(&set);
    return rc;
}

int cule_tree_gone(struct cule_tree *t)
{
    struct cule_pidset set = {0};
    collect(t, &set);
    int gone = set.n == 0;
    cule_pidset_release(&set);
    return gone;
}

void cule_tree_signal(struct cule_tree *t, int signum)
{
    struct cule_pidset set = {0};
    collect(t, &set);
    for (size_t i = 0; i < set.n; i++) {
        cule_member_signal(&set.v[i], signum);
        cule_member_signal(&set.v[i], SIGCONT);
    }
    cule_pidset_release(&set);
}

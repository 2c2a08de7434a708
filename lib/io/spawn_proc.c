/* The handle of a started process: its end reported in the loop, signals, and the end of its whole tree. */
#include "io/spawn_impl.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    STEP_FIRST_MS = 1,
    STEP_LAST_MS = 50, /* between two looks at a tree that is ending */
    FREE_WAIT_MS = 1000,
    NS_PER_MS = 1000000,
    NS_PER_S = 1000000000,
};

/* --- SIGCHLD, one watch for each loop ----------------------------------------------------------------- */

struct cule_loop_user {
    struct cule_list node;
    struct cule_loop *loop;
    struct cule_sigwatch *sigchld;
    unsigned procs;
};
static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cule_list users = {&users, &users};

static void on_sigchld(void *ctx, int signum)
{
    (void)ctx, (void)signum;
    cule_tree_sweep();
}

static int user_get(struct cule_loop *loop, struct cule_loop_user **out, struct cule_err *err)
{
    struct cule_loop_user *u = NULL;
    int rc = 0;
    pthread_mutex_lock(&users_lock);
    CULE_LIST_EACH (n, &users) {
        if (CULE_LIST_ENTRY(n, struct cule_loop_user, node)->loop == loop) {
            u = CULE_LIST_ENTRY(n, struct cule_loop_user, node);
        }
    }
    if (!u) {
        u = calloc(1, sizeof *u);
        rc = u ? cule_sigwatch_new(loop, &u->sigchld, SIGCHLD, on_sigchld, NULL, err)
               : cule_err_set(err, CULE_ENOMEM, "out of memory");
        if (rc < 0) {
            free(u);
            goto out;
        }
        u->loop = loop;
        cule_list_push(&users, &u->node);
    }
    u->procs++;
    *out = u;
out:
    pthread_mutex_unlock(&users_lock);
    return rc;
}

static void user_put(struct cule_loop_user *u)
{
    pthread_mutex_lock(&users_lock);
    if (--u->procs == 0) {
        cule_list_remove(&u->node);
        cule_sigwatch_free(u->sigchld);
        free(u);
    }
    pthread_mutex_unlock(&users_lock);
}

/* --- the handle --------------------------------------------------------------------------------------- */

static void release(struct cule_proc *p)
{
    cule_watch_free(p->watch);
    if (p->timer) {
        cule_timer_free(p->timer);
    }
    if (p->user) {
        user_put(p->user);
    }
    cule_tree_leave(&p->tree);
    free(p);
}

static void exit_of(const struct cule_proc *p, struct cule_exit *how)
{
    bool exited = p->tree.code == CLD_EXITED;
    how->code = exited ? p->tree.status : 0;
    how->signum = exited ? 0 : p->tree.status;
}

static void on_pidfd(void *ctx, int events)
{
    struct cule_proc *p = ctx;
    struct cule_exit how;
    (void)events;
    if (!cule_tree_reap_root(&p->tree)) {
        return;
    }
    cule_tree_sweep();
    cule_watch_free(p->watch);
    p->watch = NULL;
    if (p->killing) {
        cule_timer_start(p->timer, 0, 0);
    }
    exit_of(p, &how);
    if (p->on_exit) {
        p->on_exit(p->ctx, p, &how); /* which may free p */
    }
}

pid_t cule_proc_pid(const struct cule_proc *p)
{
    return p->tree.root;
}

int cule_proc_pidfd(const struct cule_proc *p)
{
    return p->tree.pidfd;
}

bool cule_proc_ended(const struct cule_proc *p)
{
    return p->tree.reaped;
}

int cule_proc_signal(struct cule_proc *p, int signum)
{
    if (p->tree.reaped) {
        return CULE_ENOT_FOUND;
    }
    if (syscall(SYS_pidfd_send_signal, p->tree.pidfd, signum, NULL, 0) < 0) {
        return errno == ESRCH ? CULE_ENOT_FOUND : cule_err_from_errno(errno);
    }
    return 0;
}

/* --- the end of a tree -------------------------------------------------------------------------------- */

static unsigned next_step_ms(struct cule_proc *p)
{
    unsigned ms = p->step_ms;
    p->step_ms = CULE_MIN(ms * 2, (unsigned)STEP_LAST_MS);
    return ms;
}

/* Not 0: over. */
static int step(struct cule_proc *p)
{
    return cule_now_ns() < p->term_until_ns ? cule_tree_gone(&p->tree) : cule_tree_kill_step(&p->tree);
}

static void on_timer(void *ctx)
{
    struct cule_proc *p = ctx;
    if (step(p) == 0) {
        cule_timer_start(p->timer, next_step_ms(p), 0);
        return;
    }
    p->killing = false;
    if (p->detached) {
        release(p);
    }
}

/* Sends the first signals; 0, or not 0 if there is nothing to wait for. */
static int begin(struct cule_proc *p, uint64_t grace_ms)
{
    uint64_t until = grace_ms ? cule_now_ns() + grace_ms * NS_PER_MS : 0;
    bool first = !p->killing;
    p->step_ms = STEP_FIRST_MS;
    p->term_until_ns = first ? until : CULE_MIN(p->term_until_ns, until);
    if (grace_ms == 0) {
        return cule_tree_kill_step(&p->tree);
    }
    if (first) {
        cule_tree_signal(&p->tree, SIGTERM);
    }
    return cule_tree_gone(&p->tree);
}

int cule_proc_kill(struct cule_proc *p, uint64_t grace_ms)
{
    int rc = begin(p, grace_ms);
    if (!p->loop) {
        return rc < 0 ? rc : 0;
    }
    p->killing = rc == 0;
    if (p->killing) {
        cule_timer_start(p->timer, next_step_ms(p), 0);
    } else {
        cule_timer_stop(p->timer);
    }
    return rc < 0 ? rc : 0;
}

/* Waits for the root's end or ms, whichever is first. */
static void pause_ms(const struct cule_proc *p, unsigned ms)
{
    if (!p->tree.reaped) {
        struct pollfd fd = {.fd = p->tree.pidfd, .events = POLLIN};
        poll(&fd, 1, (int)ms);
    } else {
        nanosleep(&(struct timespec){.tv_nsec = (long)ms * NS_PER_MS}, NULL);
    }
}

int cule_proc_kill_wait(struct cule_proc *p, uint64_t grace_ms, uint64_t deadline_ns)
{
    int rc = begin(p, grace_ms);
    while (rc == 0) {
        if (deadline_ns && cule_now_ns() >= deadline_ns) {
            return CULE_ETIMEOUT;
        }
        pause_ms(p, next_step_ms(p));
        rc = step(p);
    }
    if (p->killing) {
        p->killing = false;
        cule_timer_stop(p->timer);
    }
    return rc < 0 ? rc : 0;
}

int cule_proc_wait(struct cule_proc *p, uint64_t deadline_ns, struct cule_exit *how)
{
    while (!cule_tree_reap_root(&p->tree)) {
        int timeout_ms = -1;
        if (deadline_ns) {
            uint64_t now = cule_now_ns();
            if (now >= deadline_ns) {
                return CULE_ETIMEOUT;
            }
            uint64_t left = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
            timeout_ms = left > INT32_MAX ? INT32_MAX : (int)left;
        }
        struct pollfd fd = {.fd = p->tree.pidfd, .events = POLLIN};
        poll(&fd, 1, timeout_ms);
    }
    cule_tree_sweep();
    if (how) {
        exit_of(p, how);
    }
    return 0;
}

void cule_proc_free(struct cule_proc *p)
{
    if (!p) {
        return;
    }
    p->on_exit = NULL;
    cule_watch_free(p->watch);
    p->watch = NULL;
    if (!p->killing && !cule_tree_reap_root(&p->tree)) {
        if (p->loop) {
            cule_proc_kill(p, 0);
        } else {
            cule_proc_kill_wait(p, 0, cule_now_ns() + (uint64_t)FREE_WAIT_MS * NS_PER_MS);
        }
    }
    if (p->killing) {
        p->detached = true;
        return;
    }
    cule_tree_sweep();
    release(p);
}

int cule_proc_attach(struct cule_proc *p, struct cule_loop *loop, cule_proc_fn *on_exit, void *ctx,
                     struct cule_err *err)
{
    int rc = 0;
    p->on_exit = on_exit;
    p->ctx = ctx;
    if (loop) {
        rc = user_get(loop, &p->user, err);
        if (rc == 0) {
            rc = cule_watch_new(loop, &p->watch, p->tree.pidfd, POLLIN, on_pidfd, p, err);
        }
        if (rc == 0) {
            rc = cule_timer_new(loop, &p->timer, on_timer, p, err);
        }
    }
    if (rc < 0) {
        cule_proc_free(p);
        return rc;
    }
    p->loop = loop;
    return 0;
}

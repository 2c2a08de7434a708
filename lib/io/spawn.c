/* Starting programs: what the parent prepares, and the errors of a start. */
#include "io/spawn_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char default_path[] = "/usr/local/bin:/usr/bin:/bin";

static const char *path_of(char *const *envp)
{
    for (; *envp; envp++) {
        if (strncmp(*envp, "PATH=", 5) == 0) {
            return *envp + 5;
        }
    }
    return default_path;
}

/* The programs to try for a name, as struct cule_child wants them; NULL: no memory. */
static char *candidates(const char *name, const char *path)
{
    size_t len = strlen(name), entries = 1;
    if (strchr(name, '/') || len == 0) {
        char *one = calloc(1, len + 2);
        return one ? memcpy(one, name, len + 1) : NULL;
    }
    for (const char *p = path; *p; p++) {
        entries += *p == ':';
    }
    size_t room = strlen(path) + entries * (len + 3) + 1;
    char *all = malloc(room), *at = all;
    if (!all) {
        return NULL;
    }
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, ":");
        /* An empty entry is the current directory. */
        at += snprintf(at, room - (size_t)(at - all), "%.*s/%s", n ? (int)n : 1, n ? p : ".", name) + 1;
        p += n;
        if (*p == '\0') {
            break;
        }
    }
    *at = '\0';
    return all;
}

static int start_error(const struct cule_child *c, const char *name, struct cule_err *err)
{
    int sys = c->err;
    const char *at = c->stage == CULE_STAGE_CWD ? "its directory" : "its descriptors";
    if (c->stage == CULE_STAGE_CWD) {
        return cule_err_sys(err, sys == ENOENT ? CULE_ENOT_FOUND : cule_err_from_errno(sys), sys,
                            "cannot start '%.80s': cannot change to directory '%.80s'", name, c->s->cwd);
    }
    if (c->stage != CULE_STAGE_EXEC) {
        int code = sys == EBADF ? CULE_EUSAGE : cule_err_from_errno(sys);
        return cule_err_sys(err, code, sys, "cannot start '%.80s': cannot set up %s", name, at);
    }
    switch (sys) {
    case ENOENT:
        if (strchr(name, '/') && access(name, F_OK) == 0) {
            return cule_err_set(err, CULE_ENOT_FOUND, "cannot start '%.120s': its interpreter is missing", name);
        }
        return cule_err_set(err, CULE_ENOT_FOUND, "cannot start '%.120s': no such program", name);
    case ENOEXEC:
        return cule_err_set(err, CULE_EHANDLER, "cannot start '%.120s': not a program (a script begins with #!)", name);
    case E2BIG: return cule_err_sys(err, CULE_ETOO_BIG, sys, "cannot start '%.120s'", name);
    default: return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot start '%.120s'", name);
    }
}

/* Runs the child; t is its tree from then on. */
static int run(struct cule_child *c, struct cule_tree *t, const char *name, struct cule_err *err)
{
    sigset_t all, was;
    int pidfd = -1;
    /* A handler of ours must not run in the child, which shares our memory. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was);
    pid_t pid = cule_child_start(c, &pidfd);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (pid < 0) {
        int code = pid == -EAGAIN ? CULE_ELIMIT : cule_err_from_errno(-pid);
        return cule_err_sys(err, code, -pid, "cannot start '%.120s'", name);
    }
    cule_tree_started(t, pid, pidfd);
    if (c->err) {
        siginfo_t si;
        waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED);
        t->reaped = true;
        return start_error(c, name, err);
    }
    return 0;
}

int cule_spawn(struct cule_loop *loop, const struct cule_spawn *s, struct cule_proc **out, cule_proc_fn *on_exit,
               void *ctx, struct cule_err *err)
{
    const char *const shell_argv[] = {"sh", "-c", s->shell, NULL};
    struct cule_child c = {.s = s, .argv = s->shell ? shell_argv : s->argv, .envp = s->envp ? s->envp : environ};
    const char *name = s->shell ? "/bin/sh" : s->argv && s->argv[0] ? s->argv[0] : "";
    if (*name == '\0') {
        return cule_err_set(err, CULE_EUSAGE, "no program to start");
    }
    for (unsigned i = 0; i < s->nkeep; i++) {
        if (s->keep[i] <= STDERR_FILENO) {
            return cule_err_set(err, CULE_EUSAGE, "descriptor %d cannot be kept: 0 to 2 are in, out and err",
                                s->keep[i]);
        }
    }
    char *paths = candidates(name, path_of(c.envp));
    struct cule_proc *p = calloc(1, sizeof *p);
    if (!paths || !p) {
        free(paths);
        free(p);
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    cule_tree_sweep();
    cule_tree_enter(&p->tree, s->cgroup);
    c.paths = paths;
    c.marker = p->tree.marker;
    c.cgroup = p->tree.cgroup_fd;
    int rc = run(&c, &p->tree, name, err);
    free(paths);
    if (rc < 0) {
        cule_tree_leave(&p->tree);
        free(p);
        return rc;
    }
    rc = cule_proc_attach(p, loop, on_exit, ctx, err);
    if (rc < 0) {
        return rc;
    }
    *out = p;
    return 0;
}

int cule_socketpair(int sv[2], struct cule_err *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make a pair of sockets");
    }
    return 0;
}

int cule_pipe(int pv[2], struct cule_err *err)
{
    if (pipe2(pv, O_CLOEXEC) < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make a pipe");
    }
    return 0;
}

/* Reading /proc: the state of a process, its children, and signals that cannot hit the wrong one. */
#include "io/spawn_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void cule_pidset_release(struct cule_pidset *set)
{
    free(set->v);
    memset(set, 0, sizeof *set);
}

int cule_pidset_add(struct cule_pidset *set, pid_t pid, pid_t ppid)
{
    if (set->n == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 64;
        struct cule_member *v = realloc(set->v, cap * sizeof *v);
        if (!v) {
            return CULE_ENOMEM;
        }
        set->v = v;
        set->cap = cap;
    }
    set->v[set->n++] = (struct cule_member){.pid = pid, .ppid = ppid};
    return 0;
}

bool cule_proc_stat(pid_t pid, struct cule_stat *out)
{
    char path[32], buf[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, buf, sizeof buf - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    buf[n] = '\0';
    /* The name stands in parentheses and may hold some itself; the fields after the last one are plain. */
    const char *at = strrchr(buf, ')');
    int ppid;
    unsigned long long start;
    if (!at || sscanf(at + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %u %*d %llu",
                      &out->state, &ppid, &out->threads, &start) != 4) {
        return false;
    }
    out->ppid = ppid;
    out->start_ticks = start;
    return true;
}

/* The children that one thread made. 0, CULE_ENOMEM, or CULE_EUNSUPPORTED where the kernel has no such file. */
static int thread_children(pid_t pid, const char *tid, struct cule_pidset *set)
{
    char path[64], buf[4096];
    snprintf(path, sizeof path, "/proc/%d/task/%s/children", (int)pid, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? CULE_EUNSUPPORTED : 0;
    }
    pid_t child = 0;
    int rc = 0;
    for (ssize_t n; rc == 0 && (n = read(fd, buf, sizeof buf)) > 0;) {
        for (ssize_t i = 0; i < n && rc == 0; i++) {
            if (isdigit((unsigned char)buf[i])) {
                child = child * 10 + (buf[i] - '0');
            } else if (child) {
                rc = cule_pidset_add(set, child, pid);
                child = 0;
            }
        }
    }
    close(fd);
    return rc;
}

/* Calls for every numeric name in a directory; stops at a negative result, which it returns. */
static int each_number(const char *path, int (*fn)(pid_t parent, const char *name, struct cule_pidset *set),
                       pid_t parent, struct cule_pidset *set)
{
    DIR *dir = opendir(path);
    int rc = 0;
    if (!dir) {
        return 0;
    }
    for (const struct dirent *e; rc >= 0 && (e = readdir(dir));) {
        if (isdigit((unsigned char)e->d_name[0])) {
            rc = fn(parent, e->d_name, set);
        }
    }
    closedir(dir);
    return rc < 0 ? rc : 0;
}

static int one_thread(pid_t parent, const char *name, struct cule_pidset *set)
{
    int rc = thread_children(parent, name, set);
    return rc == CULE_EUNSUPPORTED ? 0 : rc; /* a thread that has just ended */
}

static int if_child(pid_t parent, const char *name, struct cule_pidset *set)
{
    struct cule_stat st;
    pid_t pid = (pid_t)strtol(name, NULL, 10);
    return cule_proc_stat(pid, &st) && st.ppid == parent ? cule_pidset_add(set, pid, parent) : 0;
}

int cule_walk_children(pid_t pid, bool slow, struct cule_pidset *set)
{
    char path[32], tid[16];
    struct cule_stat st;
    if (slow) {
        return each_number("/proc", if_child, pid, set);
    }
    if (!cule_proc_stat(pid, &st)) {
        return 0;
    }
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    if (st.threads > 1) {
        return each_number(path, one_thread, pid, set);
    }
    snprintf(tid, sizeof tid, "%d", (int)pid);
    int rc = thread_children(pid, tid, set);
    if (rc == CULE_EUNSUPPORTED) {
        /* Ended just now, or a kernel without CONFIG_PROC_CHILDREN: our own thread tells which. */
        bool here = access("/proc/thread-self/children", F_OK) == 0;
        return here ? 0 : cule_walk_children(pid, true, set);
    }
    return rc;
}

int cule_member_signal(const struct cule_member *m, int signum)
{
    struct cule_stat st;
    int fd = (int)syscall(SYS_pidfd_open, m->pid, 0);
    if (fd < 0) {
        return -errno;
    }
    /* The number was read earlier. Now that it is held, it must still be the same parent's child. */
    int rc = -ESRCH;
    if (cule_proc_stat(m->pid, &st) && st.ppid == m->ppid) {
        rc = syscall(SYS_pidfd_send_signal, fd, signum, NULL, 0) < 0 ? -errno : 0;
    }
    close(fd);
    return rc;
}

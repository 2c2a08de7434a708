/* What the children of io_spawn.c do: this program runs itself with the name of a mode. */
#ifndef CULE_TESTS_SPAWN_CHILDREN_H
#define CULE_TESTS_SPAWN_CHILDREN_H

#include "io/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char self_path[4096];

static void pause_for_ever(void)
{
    for (;;) {
        pause();
    }
}

static void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0) {
        _exit(1);
    }
}

/* Out of the session, twice forked, deaf to SIGTERM, without an environment. */
static void daemonise(void)
{
    if (fork() > 0) {
        return;
    }
    setsid();
    if (fork() > 0) {
        _exit(0);
    }
    static char mode[] = "deaf";
    char *const argv[] = {self_path, mode, NULL};
    char *const none[] = {NULL};
    execve(self_path, argv, none);
    _exit(1);
}

static void deaf(void)
{
    signal(SIGTERM, SIG_IGN);
    say("up\n");
    pause_for_ever();
}

/* Forks as long as standard input has tokens; half of the parents go away and leave orphans. */
static void bomb(void)
{
    char token;
    signal(SIGTERM, SIG_IGN);
    say("b\n");
    for (unsigned i = 0; read(0, &token, 1) == 1; i++) {
        if (fork() == 0) {
            i = 0;
            setsid();
        } else if (i == 2 && (getpid() & 1)) {
            _exit(0);
        }
    }
    pause_for_ever();
}

static void nest(void)
{
    const char *const argv[] = {self_path, "daemon-exit", NULL};
    struct cule_spawn s = {.argv = argv, .in = -1, .out = 1, .err = -1};
    struct cule_proc *p;
    if (cule_spawn(NULL, &s, &p, NULL, NULL, NULL) < 0) {
        _exit(1);
    }
    cule_proc_wait(p, 0, NULL);
    _exit(0); /* as if it had crashed: its tree is never ended by it */
}

static void print_status(void)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "SigIgn", 6) == 0 || strncmp(line, "SigBlk", 6) == 0) {
            say(line);
        }
    }
    _exit(0);
}

static void print_fds(void)
{
    char line[64];
    for (int fd = 0; fd < 100; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            snprintf(line, sizeof line, "%d ", fd);
            say(line);
        }
    }
    _exit(0);
}

static void print_links(void)
{
    char path[32], to[256];
    for (int fd = 0; fd < 3; fd += 2) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, to, sizeof to - 2);
        to[n < 0 ? 0 : n] = '\n';
        to[n < 0 ? 1 : n + 1] = '\0';
        say(to);
    }
    _exit(0);
}

static void on_term(int signum)
{
    (void)signum;
    _exit(7);
}

static void child(const char *mode)
{
    if (strcmp(mode, "daemon") == 0) {
        daemonise();
        pause_for_ever();
    } else if (strcmp(mode, "daemon-exit") == 0) {
        char c;
        int pv[2];
        /* Leaves only once the daemon is up. */
        if (pipe2(pv, O_CLOEXEC) < 0) {
            _exit(1);
        }
        daemonise();
        close(pv[1]);
        if (read(pv[0], &c, 1) < 0) {
            _exit(1);
        }
        _exit(3);
    } else if (strcmp(mode, "deaf") == 0) {
        deaf();
    } else if (strcmp(mode, "polite") == 0) {
        signal(SIGTERM, on_term);
        say("up\n");
        pause_for_ever();
    } else if (strcmp(mode, "bomb") == 0) {
        bomb();
    } else if (strcmp(mode, "nest") == 0) {
        nest();
    } else if (strcmp(mode, "status") == 0) {
        print_status();
    } else if (strcmp(mode, "fds") == 0) {
        print_fds();
    } else if (strcmp(mode, "links") == 0) {
        print_links();
    }
    _exit(99);
}

#endif

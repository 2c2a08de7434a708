/* A nats-server of our own on a free loopback port, for the measures. */
#ifndef CULE_BENCH_NATSD_H
#define CULE_BENCH_NATSD_H

#include "measure.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>

struct natsd {
    pid_t pid;
    int port;
    char url[64];
};

static int natsd_free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || getsockname(fd, (struct sockaddr *)&a, &n)) {
        die("a free port");
    }
    close(fd);
    return ntohs(a.sin_port);
}

static bool natsd_listens(int port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

/* 0, or -1 where nats-server is not installed or does not start. */
UNUSED static int natsd_start(struct natsd *d)
{
    char port[16];
    d->port = natsd_free_port();
    snprintf(port, sizeof port, "%d", d->port);
    snprintf(d->url, sizeof d->url, "nats://127.0.0.1:%d", d->port);
    d->pid = child();
    if (d->pid == 0) {
        int null = open("/dev/null", O_RDWR);
        unpin();
        dup2(null, 1);
        dup2(null, 2);
        execlp("nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, (char *)NULL);
        execl("/usr/sbin/nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) {
        if (natsd_listens(d->port)) {
            return 0;
        }
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
            return -1;
        }
        usleep(5000);
    }
    reap(d->pid);
    return -1;
}

UNUSED static void natsd_stop(struct natsd *d)
{
    reap(d->pid);
}

#endif

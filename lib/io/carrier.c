/* What all carriers share: the queue of received descriptors and the end of a non-blocking connect. */
#include "io/carrier.h"

#include "io/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDQ_FIRST_CAP = 8 };

static int fdq_grow(struct cule_fdq *q)
{
    unsigned cap = q->cap ? q->cap * 2 : FDQ_FIRST_CAP;
    int *fd = malloc(cap * sizeof *fd);
    if (!fd) {
        return CULE_ENOMEM;
    }
    for (unsigned i = 0; i < q->count; i++) {
        fd[i] = q->fd[(q->head + i) % q->cap];
    }
    free(q->fd);
    q->fd = fd;
    q->cap = cap;
    q->head = 0;
    return 0;
}

int cule_fdq_push(struct cule_fdq *q, int fd)
{
    assert(fd >= 0);
    int rc = q->count == CULE_FDQ_MAX ? CULE_ELIMIT : q->count == q->cap ? fdq_grow(q) : 0;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    q->fd[(q->head + q->count) % q->cap] = fd;
    q->count++;
    return 0;
}

int cule_fdq_pop(struct cule_fdq *q)
{
    if (q->count == 0) {
        return -1;
    }
    int fd = q->fd[q->head];
    q->head = (q->head + 1) % q->cap;
    q->count--;
    return fd;
}

void cule_fdq_release(struct cule_fdq *q)
{
    for (int fd; (fd = cule_fdq_pop(q)) >= 0;) {
        close(fd);
    }
    free(q->fd);
    memset(q, 0, sizeof *q);
}

int cule_carrier_connected(struct cule_carrier *c, struct cule_err *err)
{
    if (!c->connecting) {
        return 1;
    }
    /* First whether it is over, then how it ended: the other way round could miss a failure in between. */
    struct pollfd p = {.fd = c->wfd, .events = POLLOUT};
    if (poll(&p, 1, 0) <= 0) {
        return 0;
    }
    int sys = 0;
    socklen_t n = sizeof sys;
    struct sockaddr_storage sa;
    socklen_t salen = sizeof sa;
    if (getsockopt(c->wfd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0 ||
        (sys == 0 && getpeername(c->wfd, (struct sockaddr *)&sa, &salen) < 0)) {
        sys = errno;
    }
    if (sys) {
        return cule_err_sys(err, sys == ECONNREFUSED ? CULE_ENO_RESPONDER : cule_err_from_errno(sys), sys,
                            "cannot connect");
    }
    c->connecting = false;
    cule_peer_of_socket(c->wfd, &c->peer);
    return 1;
}

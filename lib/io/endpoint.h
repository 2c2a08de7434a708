/*
 * Endpoints: the one address syntax (cule-endpoint(7)), and the sockets behind it.
 */
#ifndef CULE_IO_ENDPOINT_H
#define CULE_IO_ENDPOINT_H

#include "base/err.h"
#include "io/carrier.h"

enum cule_endpoint_type {
    CULE_EP_STDIO, /* -                                  */
    CULE_EP_UNIX,  /* unix:PATH  unix:@NAME              */
    CULE_EP_RING,  /* ring:PATH[,trust=same-uid]         */
    CULE_EP_TCP,   /* tcp:HOST:PORT  tcp:[V6]:PORT  :PORT */
    CULE_EP_TLS,   /* tls:HOST:PORT,cert=F,key=F,ca=F[,name=N] */
    CULE_EP_QUIC,  /* refused until a build has it */
    CULE_EP_FD,    /* fd:N or fd:NAME (LISTEN_FDNAMES)   */
    CULE_EP_EXEC,  /* exec:COMMAND                       */
    CULE_EP_FILE,  /* file:PATH                          */
};

enum { CULE_ENDPOINT_MAX = 4096, CULE_EP_OPTIONS_MAX = 8 };

struct cule_endpoint {
    enum cule_endpoint_type type;
    char text[CULE_ENDPOINT_MAX]; /* as given */
    /* Below point into `store`. */
    const char *path; /* unix, ring, file: path (abstract names keep their @); exec: the command; fd: number or name */
    const char *host; /* tcp, tls: without brackets; "" all addresses */
    const char *port;
    bool trust_same_uid;                      /* ring */
    const char *cert, *key, *ca, *name, *crl; /* tls: files in PEM; name expected in the peer's certificate */
    char store[CULE_ENDPOINT_MAX];
};

/* 0, or CULE_EUSAGE with what is wrong and how it should look. Refuses quic: with CULE_EUNSUPPORTED. */
int cule_endpoint_parse(struct cule_endpoint *ep, const char *text, struct cule_err *err);

/* The descriptor of a stream socket that has begun to connect (non-blocking, CLOEXEC). unix, ring, tcp, tls. *done
 * tells whether it has finished. Where a host has several addresses they are tried by cule_endpoint_connect_wait in
 * turn; the plain one uses the first that starts. */
int cule_endpoint_connect(const struct cule_endpoint *ep, int *fd, bool *done, struct cule_err *err);
/* The same, blocking to a deadline in nanoseconds of CLOCK_MONOTONIC (0: none). */
int cule_endpoint_connect_wait(const struct cule_endpoint *ep, uint64_t deadline_ns, int *fd, struct cule_err *err);

/*
 * A listening socket. unix and ring: an existing socket file that nobody listens on any more is replaced; a live one is
 * CULE_EEXISTS. The file appears only once it accepts (bound under a temporary name, then renamed), mode 0600 unless
 * mode says else. Parent directory $CULE_RUN is not made here. fd: takes an inherited listening socket (LISTEN_FDS,
 * checked with LISTEN_PID where set: the caller passes the values, the library reads no environment).
 */
struct cule_listen_opts {
    int backlog;            /* 0: 4096 */
    unsigned mode;          /* 0: 0600 */
    const char *listen_fds; /* values of the environment, or NULL */
    const char *listen_pid;
    const char *listen_fdnames;
};
int cule_endpoint_listen(const struct cule_endpoint *ep, const struct cule_listen_opts *o, int *fd,
                         struct cule_err *err);
/* Removes the socket file if it is still ours (same inode as when bound). */
void cule_endpoint_unlisten(const struct cule_endpoint *ep, int fd);

/* Fills peer from a connected socket: SO_PEERCRED, addresses. */
void cule_peer_of_socket(int fd, struct cule_peer *peer);

/* "unix:/run/x" for messages and listings; "tcp:127.0.0.1:8080" with the port that was really bound (port 0). */
void cule_endpoint_bound(const struct cule_endpoint *ep, int fd, char *out, size_t n);

/* The run directory as wire.md orders it, from values of the environment the caller passes (NULL: unset). Writes a
 * path; makes it, mode 0700, if `make`; refuses one that is not ours or is open to others. */
int cule_run_dir(const char *cule_run, const char *xdg_runtime_dir, bool make, char *out, size_t n,
                 struct cule_err *err);

#endif

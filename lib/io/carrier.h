/*
 * A carrier moves the bytes of frames and knows nothing of them: a socket, a pipe, a TLS session. (The ring
 * carries whole frames and is not one of these; the link knows it.) Descriptors are non-blocking.
 */
#ifndef CULE_IO_CARRIER_H
#define CULE_IO_CARRIER_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { CULE_PEER_TEXT_MAX = 128 };

/* What is known of the other end. */
struct cule_peer {
    bool has_cred; /* pid, uid, gid are the kernel's word (SO_PEERCRED at connect time) */
    pid_t pid;
    uid_t uid;
    gid_t gid;
    char address[CULE_PEER_TEXT_MAX]; /* "unix", "127.0.0.1:4711", "[::1]:80", "pipe", "exec:..." */
    /* TLS: the verified certificate's subject common name, or without one its first DNS name; else empty. */
    char identity[CULE_PEER_TEXT_MAX];
    char fingerprint[65]; /* TLS: SHA-256 of the peer's certificate in hex, else empty */
};

/* Descriptors received and not yet claimed by a frame: a bounded FIFO. They are closed on release. */
enum { CULE_FDQ_MAX = 512 };
struct cule_fdq {
    int *fd;
    unsigned head, count, cap;
};
int cule_fdq_push(struct cule_fdq *q, int fd); /* 0, CULE_ENOMEM or CULE_ELIMIT (fd is then closed) */
int cule_fdq_pop(struct cule_fdq *q);          /* a descriptor, or -1 */
void cule_fdq_release(struct cule_fdq *q);

struct cule_carrier;

struct cule_carrier_ops {
    const char *name; /* "unix", "tcp", "pipe", "tls" */
    /* Bytes read (> 0), 0 at the end of the stream, CULE_EAGAIN, or another negative code with *err set. */
    ssize_t (*read)(struct cule_carrier *c, void *buf, size_t n, struct cule_fdq *fds, struct cule_err *err);
    /* The same, blocking up to timeout_ms (-1: for ever) for the first byte; CULE_EAGAIN when it passes. One call
     * instead of a poll and a read, for links without a loop. NULL: there is no such thing. */
    ssize_t (*read_wait)(struct cule_carrier *c, void *buf, size_t n, struct cule_fdq *fds, int timeout_ms,
                         struct cule_err *err);
    /* Bytes written (>= 0), CULE_EAGAIN, or another negative code. The nfds descriptors go with the first byte; a
     * carrier that cannot carry them answers CULE_EUNSUPPORTED. They stay the caller's. Bytes that were not taken must
     * come again: the next write begins with the first byte that this one left, unless no byte of its frame was taken
     * yet. (TLS reports the last byte of an encrypted record only once all of it has left.) */
    ssize_t (*write)(struct cule_carrier *c, const struct iovec *iov, int niov, const int *fds, unsigned nfds,
                     struct cule_err *err);
    /* What a handshake still needs: 1 done, 0 call again when `poll_events` says so, negative failed. NULL: none
     * needed. */
    int (*handshake)(struct cule_carrier *c, struct cule_err *err);
    /* POLLIN/POLLOUT to wait for when the caller wants to read and/or write now. NULL: the obvious. */
    int (*poll_events)(struct cule_carrier *c, bool want_read, bool want_write);
    /* True if read would give bytes without the descriptor being readable (TLS has some decrypted). NULL: never. */
    bool (*pending)(struct cule_carrier *c);
    /* Says goodbye to the peer for the writing direction (shutdown, close_notify). May be NULL. A pipe's peer learns
     * of it only from close. */
    void (*finish)(struct cule_carrier *c);
    /* Closes the descriptors and frees c. */
    void (*close)(struct cule_carrier *c);
};

/* Concrete carriers begin with this. */
struct cule_carrier {
    const struct cule_carrier_ops *ops;
    int rfd;         /* to poll for reading; -1 none */
    int wfd;         /* to poll for writing; the same as rfd for sockets */
    bool duplex;     /* both directions: HELLO, credit and requests make sense */
    bool connecting; /* a non-blocking connect is under way: writable means done or failed */
    bool can_pass_fds;
    struct cule_peer peer;
};

/* A carrier over descriptors, which it owns from success on: a stream socket (rfd == wfd, or two numbers), a pair of
 * pipe ends or files, either of which may be -1; `duplex` is true if both are there. Reads and writes never block, yet
 * the descriptors' own flags stay as they are wherever the kernel lets one call be non-blocking, because standard input
 * and output are often shared with other programs; where O_NONBLOCK has to be set it is taken back on close. A regular
 * file may block for as long as its disk does. SIGPIPE must be ignored by the process: writing to a pipe that nobody
 * reads is then CULE_ECLOSED.
 * A socket that is still connecting is recognised; its handshake is the end of the connect. */
int cule_carrier_fd(struct cule_carrier **out, int rfd, int wfd, struct cule_err *err);

/* For a carrier whose `connecting` is set and whose descriptor became writable: 1 connected (and peer filled), 0 not
 * yet, negative failed with the reason. The handshake operations of socket and TLS carriers begin with it. */
int cule_carrier_connected(struct cule_carrier *c, struct cule_err *err);

#endif

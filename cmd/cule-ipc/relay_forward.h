/*
 * Links joined frame by frame: requests, streams, cancels, deadlines, events, descriptors and capabilities passed from
 * one link to another with ids rewritten. Where bytes cannot pass as they are (a ring, TLS), and where many askers
 * share workers (serve --frames).
 *
 * Every link that takes part has a port. Links must have been opened with manual_credit: what is passed on is given
 * back as credit only when the next link has taken it, so that a slow end slows the one that feeds it and nothing is
 * buffered beyond the windows.
 */
#ifndef CULE_IPC_RELAY_FORWARD_H
#define CULE_IPC_RELAY_FORWARD_H

#include "base/map.h"
#include "common.h"
#include "wire/captable.h"

enum { FORWARD_PARKED_MAX = 4096 };

struct forward;

/* The end of a request: code 0 for a REPLY. The forward is freed after it. */
typedef void forward_done_fn(void *ctx, int code);
/* What passes, as it is sent on; answer: towards the asker. For recording. May be NULL. */
typedef void forward_tap_fn(void *ctx, bool answer, const struct cule_msg *m);

struct forward_port {
    struct cule_link *link; /* NULL once it is gone */
    uint64_t number;        /* for capabilities: unique in this process */
    struct cule_captable caps;
    struct cule_map asked;   /* id here -> struct forward: requests that this link's peer made */
    struct cule_map asking;  /* id here -> struct forward: requests that we made on it */
    struct cule_list up;     /* struct forward with a request or DATA that waits for this link to take it */
    struct cule_list down;   /* struct forward with DATA of an answer that does */
    struct cule_list events; /* struct ipc_msg: one-way messages that do */
    unsigned nevents;
    uint64_t passed;    /* requests */
    bool credited;      /* its owner gives back the credit of requests and events, whatever becomes of them */
    int gone_code;      /* what an asker is told when this link dies; 0: CULE_ECLOSED */
    char gone_text[96]; /* and with which words */
    forward_tap_fn *tap;
    void *tap_ctx;
};

/* connected: our side connected or was started (odd capability indexes). */
void forward_port_init(struct forward_port *p, struct cule_link *l, bool connected, uint64_t number);
/* The link is gone (from `closed`): what waited is dropped; capabilities of it in `others` are void. */
void forward_port_gone(struct forward_port *p, struct forward_port *const *others, size_t n);
void forward_port_release(struct forward_port *p);

/* Passes a REQUEST that came in by `from` on to `to`. It is answered in each case: by the other side, or with an ERROR
 * of ours. trace, when not NULL, replaces the prefix. *out may be NULL; it is set before done can run, and is not valid
 * after it. 0, or the code of the ERROR that was sent; done is not called then. */
int forward_request(struct forward_port *from, struct forward_port *to, struct cule_msg *m, const uint8_t *trace,
                    forward_done_fn *done, void *ctx, struct forward **out);
/* The asker has gone or given up, or we have: the request is cancelled at the other side, done runs with
 * CULE_ECANCELLED. Nothing is sent to the asker. */
void forward_cancel(struct forward *f);

/* One-way messages. 0, or CULE_EBUSY when too many wait already. */
int forward_event(struct forward_port *from, struct forward_port *to, struct cule_msg *m);

/* From the callbacks of the ports' links: DATA and CANCEL of a forwarded request; true if it was one. */
bool forward_message(struct forward_port *from, struct cule_msg *m);
/* DATA whose frames have been credited already. */
void forward_stream(struct forward_port *from, struct cule_msg *m);
void forward_writable(struct forward_port *p, uint64_t id);

#endif

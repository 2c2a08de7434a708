/* The request that call, send and notify make of their words. */
#include "call.h"

#include <stdlib.h>

/* A new trace, or the one that whoever started us is part of. */
static int set_trace(struct call_request *q, const struct cule_cli *cli, const struct call_common *o,
                     struct cule_err *err)
{
    struct cule_trace t;
    const char *from = o->traceparent ? o->traceparent : getenv("CULE_TRACEPARENT");
    if (o->trace) {
        uint8_t random[24];
        char text[CULE_TRACEPARENT_SIZE];
        ipc_random(random, sizeof random);
        cule_trace_root(&t, random);
        cule_cli_note(cli, 0, "trace %s", cule_traceparent_format(&t, text));
    } else if (from && *from) {
        if (cule_traceparent_parse(&t, from, err)) {
            if (!o->traceparent) {
                return 0; /* not ours to complain of */
            }
            err->code = CULE_EUSAGE; /* its text stays */
            return CULE_EUSAGE;
        }
    } else {
        return 0;
    }
    cule_trace_put(&t, q->trace);
    q->m.trace = q->trace;
    return 0;
}

int call_request_make(struct call_request *q, const struct cule_cli *cli, const struct call_common *o,
                      struct cule_err *err)
{
    uint32_t service, op;
    q->m = cule_msg_make(CULE_REQUEST, 0, 0);
    q->endpoint[0] = '\0';
    cule_buf_init(&q->body, 0);
    if (!o->endpoint && ipc_is_endpoint(o->service)) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is an endpoint; SERVICE and OP must follow", o->service);
    }
    if (o->endpoint && !ipc_is_endpoint(o->endpoint)) {
        return cule_err_set(err, CULE_EUSAGE, "'%s' is no endpoint: one begins with unix:, tcp:, ring:, exec: or so",
                            o->endpoint);
    }
    int rc = ipc_endpoint(o->endpoint, q->endpoint, err);
    rc = rc ? rc : ipc_op(o->service, o->op, &service, &op, err);
    rc = rc ? rc : ipc_payload(&q->body, o->payload, CULE_MESSAGE_MAX, err);
    rc = rc ? rc : ipc_open_fds(&o->fds, &q->m.fds, &q->m.nfds, err);
    if (!rc && o->cap) {
        rc = ipc_cap(o->cap, &q->m.h.cap, err);
    }
    if (!rc && o->delegate && !o->cap) {
        rc = cule_err_set(err, CULE_EUSAGE, "--delegate needs --cap: there is nothing to give");
    }
    rc = rc ? rc : set_trace(q, cli, o, err);
    if (rc) {
        return rc;
    }
    q->m.h.service = service;
    q->m.h.op = op;
    q->m.h.arg0 = o->arg0;
    q->m.h.arg1 = o->arg1;
    q->m.h.priority = (uint8_t)o->priority;
    q->m.h.flags |= o->delegate ? CULE_DELEGATE : 0;
    q->m.body = cule_buf_len(&q->body) ? cule_buf_data(&q->body) : NULL;
    q->m.len = cule_buf_len(&q->body);
    return 0;
}

void call_request_release(struct call_request *q)
{
    ipc_close_fds(q->m.fds, q->m.nfds);
    q->m.fds = NULL;
    q->m.nfds = 0;
    cule_buf_release(&q->body);
}

/* What call, send and notify have in common: where to, which op, with what. */
#ifndef CULE_IPC_CALL_H
#define CULE_IPC_CALL_H

#include "common.h"

struct call_common {
    const char *endpoint, *service, *op;
    uint64_t arg0, arg1;
    const char *payload;
    int priority;
    const char *cap;
    bool delegate;
    struct cule_words fds;
    bool trace;
    const char *traceparent;
    uint64_t wait_ms;
};

struct call_opts {
    struct call_common r;
    bool stream;
    bool lines;
};

#define CALL_ARG_ROWS(S, f)                                                                                            \
    CULE_ARG_OPTIONAL(S, f.endpoint, "ENDPOINT", "whom to talk to (default: $CULE_BUS)",                               \
                      .complete = CULE_COMPLETE_ENDPOINT),                                                             \
        CULE_ARG(S, f.service, "SERVICE", "a name, or one to four characters", .complete = CULE_COMPLETE_SERVICE),     \
        CULE_ARG(S, f.op, "OP", "a name or a number", .complete = CULE_COMPLETE_OP)

#define CALL_EVENT_ROWS(S, f)                                                                                          \
    CULE_OPT_U64(S, f.arg0, 0, "arg0", "N", "the first argument"),                                                     \
        CULE_OPT_U64(S, f.arg1, 0, "arg1", "N", "the second argument"),                                                \
        CULE_OPT_CHOICE(S, f.priority, 'p', "priority", "CLASS", "critical|high|normal|low", "what it may overtake",   \
                        .def = "normal"),                                                                              \
        CULE_OPT_FLAG(S, f.trace, 0, "trace", "start a trace and tell its id on stderr"),                              \
        CULE_OPT_STRING(S, f.traceparent, 0, "traceparent", "W3C",                                                     \
                        "go on with this trace (default: $CULE_TRACEPARENT)"),                                         \
        IPC_WAIT_ROW(S, f.wait_ms)

#define CALL_REQUEST_ROWS(S, f)                                                                                        \
    CULE_OPT_STRING(S, f.payload, 'd', "payload", "TEXT|-|@FILE", "what to send: a text, standard input, a file",      \
                    .complete = CULE_COMPLETE_FILE),                                                                   \
        CULE_OPT_STRING(S, f.cap, 0, "cap", "HANDLE", "the capability to present"),                                    \
        CULE_OPT_FLAG(S, f.delegate, 0, "delegate", "give the capability to the receiver"),                            \
        CULE_OPT_LIST(S, f.fds, 0, "fd", "PATH|fd:N", "open for reading, or an open one, to be passed along",          \
                      .complete = CULE_COMPLETE_FILE),                                                                 \
        CALL_EVENT_ROWS(S, f)

struct call_request {
    char endpoint[CULE_ENDPOINT_MAX];
    struct cule_msg m; /* a REQUEST; its descriptors, body and trace are here */
    struct cule_buf body;
    uint8_t trace[CULE_TRACE_SIZE];
};

/* Release is due in each case. */
int call_request_make(struct call_request *q, const struct cule_cli *cli, const struct call_common *o,
                      struct cule_err *err);
void call_request_release(struct call_request *q);

#endif

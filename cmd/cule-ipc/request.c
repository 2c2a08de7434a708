/* cule-ipc request: asks whoever responds on a topic, and prints the answer. */
#include "base/bytes.h"
#include "busclient.h"
#include "common.h"
#include "wire/mirror.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct request_opts {
    BUS_OPTION_FIELDS
    const char *topic, *text, *payload;
    int priority;
};

/* A part of the answer: its payload, or with --json its mirror. */
static int print(const struct cule_cli *cli, const struct cule_msg *m, struct cule_err *err)
{
    struct cule_buf line;
    cule_buf_init(&line, 0);
    int rc = 0;
    if (cli->json) {
        struct cule_mirror mirror;
        cule_mirror_init(&mirror);
        rc = cule_mirror_write_msg(&mirror, m, &line, NULL);
        cule_mirror_release(&mirror);
    } else {
        rc = cule_buf_add(&line, m->body, m->len);
    }
    if (rc == 0) {
        rc = ipc_write_all(STDOUT_FILENO, cule_buf_data(&line), cule_buf_len(&line), err);
    } else {
        cule_err_set(err, rc, "cannot hold an answer of %zu bytes", m->len);
    }
    cule_buf_release(&line);
    return rc;
}

/* Every DATA of the answer's stream, to the last one. */
static int stream(const struct cule_cli *cli, struct cule_link *l, uint64_t id, uint64_t end_ns, struct cule_err *err)
{
    for (;;) {
        struct cule_msg m;
        uint64_t now = cule_now_ns();
        uint64_t left_ms = end_ns == 0 ? 0 : end_ns > now ? (end_ns - now) / 1000000u + 1 : 1;
        int rc = cule_link_next(l, &m, left_ms ? left_ms : UINT32_MAX, err);
        if (rc < 0) {
            return rc;
        }
        if (m.h.id != id || (m.h.kind != CULE_DATA && m.h.kind != CULE_ERROR_FRAME)) {
            continue;
        }
        if ((rc = cule_msg_error(&m, err)) || (rc = print(cli, &m, err))) {
            return rc;
        }
        if (!(m.h.flags & CULE_OPEN)) {
            return 0;
        }
    }
}

static int request_run(struct cule_cli *cli)
{
    const struct request_opts *o = cli->opts;
    const char *payload = o->payload ? o->payload : o->text;
    struct busclient_where w;
    struct cule_link *l = NULL;
    struct cule_buf body, whole;
    struct cule_err err = {0};
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_REQUEST), answer;
    uint64_t end_ns = cli->timeout_ms ? cule_now_ns() + cli->timeout_ms * 1000000u : 0;
    cule_buf_init(&body, 0);
    cule_buf_init(&whole, 0);
    int rc = busclient_where(&w, &o->at, &err);
    if (rc == 0) {
        rc = busclient_check_topic(o->topic, &err);
    }
    if (rc == 0) {
        rc = ipc_payload(&body, payload ? payload : isatty(STDIN_FILENO) ? NULL : "-", CULE_MESSAGE_MAX - 256, &err);
    }
    if (rc == 0 &&
        (rc = busclient_join(&whole, o->topic, strlen(o->topic), cule_buf_data(&body), cule_buf_len(&body)))) {
        cule_err_set(&err, rc, "no memory for the request");
    }
    if (rc == 0) {
        rc = busclient_dial(&w, cli->timeout_ms, &l, &err);
    }
    if (rc == 0) {
        m.h.arg0 = strlen(o->topic);
        m.h.priority = (uint8_t)o->priority;
        m.body = cule_buf_data(&whole);
        m.len = cule_buf_len(&whole);
        rc = cule_link_ask(l, &m, cli->timeout_ms, &answer, &err);
        if (rc) {
            cule_err_context(&err, rc, "request on '%s'", o->topic);
        }
    }
    if (rc == 0) {
        uint64_t id = answer.h.id;
        bool more = (answer.h.flags & CULE_OPEN) != 0;
        if (!more || answer.len > 0) {
            rc = print(cli, &answer, &err);
        }
        if (rc == 0 && more) {
            rc = stream(cli, l, id, end_ns, &err);
        }
    }
    if (l) {
        cule_link_free(l);
    }
    cule_buf_release(&body);
    cule_buf_release(&whole);
    return rc ? cule_cli_fail(cli, &err) : 0;
}

const struct cule_command cule_ipc_request = {
    .name = "request",
    .group = "bus",
    .summary = "ask whoever responds on a topic",
    .about = "The body is TEXT, --payload or standard input. Where nobody responds this is said at once. Parts of a "
             "streaming answer are printed as they come.",
    .example = "cule-ipc request math/sum '1 2 3'",
    .opts_size = sizeof(struct request_opts),
    .options =
        (const struct cule_opt[]){BUS_OPTION_ROWS(struct request_opts),
                                  CULE_OPT_STRING(struct request_opts, payload, 'p', "payload", "TEXT|-|@FILE",
                                                  "the body: a text, standard input, or a file",
                                                  .complete = CULE_COMPLETE_FILE),
                                  CULE_OPT_CHOICE(struct request_opts, priority, 'P', "priority", "PRIORITY",
                                                  "critical|high|normal|low", "which lane it takes", .def = "normal"),
                                  CULE_OPT_END},
    .args = (const struct cule_arg[]){CULE_ARG(struct request_opts, topic, "TOPIC", "what to ask",
                                               .complete = CULE_COMPLETE_TOPIC),
                                      CULE_ARG_OPTIONAL(struct request_opts, text, "TEXT", "the body"), CULE_ARG_END},
    .timeout = "10s",
    .flags = CULE_CMD_JSON,
    .run = request_run,
};

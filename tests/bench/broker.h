/* A broker of our own for the measures, and links to it. */
#ifndef CULE_BENCH_BROKER_H
#define CULE_BENCH_BROKER_H

#include "io/link.h"
#include "measure.h"

struct broker {
    pid_t pid;
    char endpoint[128];
};

/* Starts `cule-ipc bus` from PATH (tests/bench/run.sh puts it there) and waits until it is ready. */
UNUSED static void broker_start(struct broker *b, const char *topic_policy)
{
    static int n;
    int ready[2];
    char c;
    snprintf(b->endpoint, sizeof b->endpoint, "unix:/tmp/cule-bench-bus.%d.%d", (int)getpid(), n++);
    if (pipe(ready)) {
        die("pipe");
    }
    b->pid = child();
    if (b->pid == 0) {
        char fd[16];
        snprintf(fd, sizeof fd, "%d", ready[1]);
        setenv("CULE_READY_FD", fd, 1);
        unpin();
        execlp("cule-ipc", "cule-ipc", "bus", "--listen", b->endpoint, "--topic", topic_policy, "--slow", "1h",
               (char *)NULL);
        fprintf(stderr, "%s: cannot run cule-ipc: %s\n", program_invocation_short_name, strerror(errno));
        _exit(127);
    }
    close(ready[1]);
    if (read(ready[0], &c, 1) != 1) {
        fprintf(stderr, "%s: the bus did not start\n", program_invocation_short_name);
        exit(4);
    }
    close(ready[0]);
}

UNUSED static void broker_stop(struct broker *b)
{
    reap(b->pid);
    unlink(b->endpoint + strlen("unix:"));
}

/* A link in a loop that has the broker's first grants of credit, or dies. */
struct joined {
    struct cule_loop *loop;
    struct cule_link *link;
    bool answered;
};

UNUSED static void joined_answer(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct joined *j = arg;
    struct cule_err err;
    if (cule_msg_error(answer, &err)) {
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, err.text);
        _exit(4);
    }
    j->answered = true;
}

UNUSED static void joined_ask(struct joined *j, uint32_t service, uint32_t op, const char *json)
{
    struct cule_msg m = cule_msg_make(CULE_REQUEST, service, op);
    m.body = (const uint8_t *)json;
    m.len = strlen(json);
    j->answered = false;
    int rc;
    while ((rc = cule_link_call(j->link, &m, 10000, joined_answer, j, NULL)) == CULE_EAGAIN) {
        cule_loop_turn(j->loop, 100);
    }
    while (rc == 0 && !j->answered) {
        cule_loop_turn(j->loop, 100);
    }
}

UNUSED static void join(struct joined *j, const char *endpoint, const struct cule_link_ops *ops, void *ctx)
{
    const struct cule_link_opts o = {.name = "bench", .ops = ops, .ctx = ctx};
    struct cule_err err;
    if (cule_loop_new(&j->loop, &err) || cule_link_open(j->loop, endpoint, &o, &j->link, &err)) {
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, err.text);
        _exit(4);
    }
    joined_ask(j, CULE_S_CULE, CULE_OP_CULE_ECHO, "");
}

#endif

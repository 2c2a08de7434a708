/* The environment in which a handler sees its request. */
#include "serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What belongs to this program and not to its handlers, and what a handler of ours that calls serve again has left. */
static bool ours(const char *entry)
{
    static const char *const names[] = {
        "CULE_READY_FD=", "NOTIFY_SOCKET=",    "LISTEN_FDS=",   "LISTEN_PID=", "LISTEN_FDNAMES=", "CULE_KIND=",
        "CULE_SERVICE=",  "CULE_OP=",          "CULE_OP_NAME=", "CULE_ID=",    "CULE_ARG0=",      "CULE_ARG1=",
        "CULE_PRIORITY=", "CULE_DEADLINE_MS=", "CULE_SOURCE=",  "CULE_PEER_",  "CULE_TOPIC=",     "CULE_TRACEPARENT=",
        "CULE_CAP=",      "CULE_FDS=",         "CULE_FD0=",     "CULE_FD1=",   "CULE_FD2=",       "CULE_FD3=",
    };
    for (size_t i = 0; i < CULE_COUNT(names); i++) {
        if (strncmp(entry, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

int serve_env_base(struct serve *s)
{
    size_t n = 0;
    while (environ[n]) {
        n++;
    }
    s->env = calloc(n + 1, sizeof *s->env);
    if (!s->env) {
        return CULE_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        if (!ours(environ[i])) {
            s->env[s->nenv++] = environ[i];
        }
    }
    return 0;
}

void serve_env_release(struct serve *s)
{
    free(s->env);
}

/* The variables of one request, one after the other, each ended by a NUL. */
struct text {
    struct cule_buf b;
    unsigned n;
    int rc;
};

static void put(struct text *t, const char *fmt, ...) CULE_PRINTF(2, 3);
static void put(struct text *t, const char *fmt, ...)
{
    char one[CULE_ENDPOINT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(one, sizeof one, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : CULE_MIN((size_t)n, sizeof one - 1);
    if (!t->rc) {
        t->rc = cule_buf_add(&t->b, one, len + 1);
        t->n++;
    }
}

static void put_peer(struct text *t, const struct serve_req *q)
{
    if (!q->client) { /* an event whose sender has gone */
        return;
    }
    const struct cule_peer *p = cule_link_peer(q->client->link);
    const char *name = cule_link_peer_name(q->client->link);
    put(t, "CULE_PEER_ADDRESS=%s", p->address);
    if (p->has_cred) {
        put(t, "CULE_PEER_PID=%ld", (long)p->pid);
        put(t, "CULE_PEER_UID=%lu", (unsigned long)p->uid);
        put(t, "CULE_PEER_GID=%lu", (unsigned long)p->gid);
    }
    if (name[0]) {
        put(t, "CULE_PEER_NAME=%s", name);
    }
    if (p->identity[0]) {
        put(t, "CULE_PEER_CERT=%s", p->identity);
    }
}

static void put_header(struct text *t, const struct cule_msg *m)
{
    char service[CULE_SERVICE_TEXT];
    const char *op = cule_op_name(m->h.service, m->h.op);
    put(t, "CULE_KIND=%s", cule_kind_name(m->h.kind));
    put(t, "CULE_SERVICE=%s", cule_service_text(m->h.service, service));
    put(t, "CULE_OP=%" PRIu32, m->h.op);
    put(t, "CULE_OP_NAME=%s", op ? op : "");
    put(t, "CULE_ID=%" PRIu64, m->h.id);
    put(t, "CULE_ARG0=%" PRIu64, m->h.arg0);
    put(t, "CULE_ARG1=%" PRIu64, m->h.arg1);
    put(t, "CULE_PRIORITY=%s", cule_priority_name(m->h.priority));
    put(t, "CULE_SOURCE=%" PRIu32, m->h.source);
    if (m->h.deadline_ms) {
        put(t, "CULE_DEADLINE_MS=%" PRIu32, m->h.deadline_ms);
    }
    if (m->h.cap) {
        put(t, "CULE_CAP=0x%016" PRIx64, m->h.cap);
    }
}

char **serve_env_make(const struct serve_req *q, const struct cule_msg *m, const char *topic, size_t topic_len)
{
    struct text t = {0};
    char trace[CULE_TRACEPARENT_SIZE];
    char **env = NULL;
    cule_buf_init(&t.b, 0);
    put_header(&t, m);
    put_peer(&t, q);
    if (topic) {
        put(&t, "CULE_TOPIC=%.*s", (int)topic_len, topic);
    }
    if (q->traced) {
        put(&t, "CULE_TRACEPARENT=%s", cule_traceparent_format(&q->trace, trace));
    }
    if (m->nfds) {
        put(&t, "CULE_FDS=%u", m->nfds);
    }
    for (unsigned i = 0; i < m->nfds; i++) {
        put(&t, "CULE_FD%u=%d", i, m->fds[i]);
    }
    size_t bytes = cule_buf_len(&t.b);
    size_t slots = q->s->nenv + t.n + 1;
    env = t.rc ? NULL : malloc(slots * sizeof *env + bytes);
    if (env) {
        char *at = (char *)(env + slots);
        memcpy(at, cule_buf_data(&t.b), bytes);
        memcpy(env, q->s->env, q->s->nenv * sizeof *env);
        for (unsigned i = 0; i < t.n; i++) {
            env[q->s->nenv + i] = at;
            at += strlen(at) + 1;
        }
        env[slots - 1] = NULL;
    }
    cule_buf_release(&t.b);
    return env;
}

void serve_env_free(char **env)
{
    free(env);
}

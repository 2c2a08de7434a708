/* Accepting links on an endpoint. */
#include "io/link_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_BATCH = 64, ACCEPT_PAUSE_MS = 50 };

struct cule_listener {
    struct cule_loop *loop;
    struct cule_endpoint ep;
    char bound[CULE_ENDPOINT_MAX];
    int fd; /* -1: standard input and output */
    struct cule_watch *watch;
    struct cule_timer *timer; /* ends a pause */
    struct cule_defer stdio;
    struct cule_link_opts opts;
    cule_accept_fn *fn;
    void *ctx;
    void *tls_config;
    uint64_t paused;
    struct cule_link *first; /* `-`: the link that the first turn hands over */
    bool busy;               /* inside fn, which may free the listener */
    bool doomed;
};

/* The link over an accepted socket; fd is closed on failure. */
static int link_over(struct cule_listener *s, int fd, struct cule_link **l, struct cule_err *err)
{
    struct cule_carrier *c = NULL;
    int rc;
    if (s->ep.type == CULE_EP_RING) {
        rc = cule_link_create_ring(s->loop, fd, s->ep.trust_same_uid, &s->opts, l, err);
        fd = -1;
    } else if (s->ep.type == CULE_EP_TLS) {
        rc = cule_tls_hook_get(NULL)->carrier(&c, s->tls_config, fd, true, err);
        if (!rc) {
            fd = -1;
            rc = cule_link_open_carrier(s->loop, c, &s->opts, l, err);
            if (rc) {
                c->ops->close(c);
            }
        }
    } else {
        rc = cule_link_open_fd(s->loop, fd, fd, &s->opts, l, err);
    }
    if (rc && fd >= 0) {
        close(fd);
    }
    return rc;
}

static void resume(void *ctx)
{
    struct cule_listener *s = ctx;
    cule_watch_set(s->watch, POLLIN);
}

/* Out of descriptors or memory: the backlog holds the askers until some are free again. */
static void pause_accepting(struct cule_listener *s)
{
    s->paused++;
    cule_watch_set(s->watch, 0);
    cule_timer_start(s->timer, ACCEPT_PAUSE_MS, 0);
}

/* Whether accept may be called again at once: what went wrong was that one asker's. */
static bool askers_fault(int sys)
{
    return sys == ECONNABORTED || sys == EINTR || sys == EPROTO || sys == ENETDOWN || sys == ENOPROTOOPT ||
           sys == EHOSTDOWN || sys == ENONET || sys == EHOSTUNREACH || sys == EOPNOTSUPP || sys == ENETUNREACH ||
           sys == EPERM;
}

static void on_incoming(void *ctx, int events)
{
    struct cule_listener *s = ctx;
    (void)events;
    s->busy = true;
    for (int i = 0; i < ACCEPT_BATCH && !s->doomed; i++) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || askers_fault(errno))) {
            if (errno == EAGAIN) {
                break;
            }
            continue;
        }
        struct cule_link *l;
        int rc = fd < 0 ? CULE_ENOFD : link_over(s, fd, &l, NULL);
        if (!rc) {
            s->fn(s, s->ctx, l);
        } else if (rc == CULE_ENOFD || rc == CULE_ENOMEM) {
            pause_accepting(s);
            break;
        }
    }
    s->busy = false;
    if (s->doomed) {
        free(s);
    }
}

static void take_stdio(void *ctx)
{
    struct cule_listener *s = ctx;
    struct cule_link *l = s->first;
    s->first = NULL;
    s->fn(s, s->ctx, l);
}

/* The link is made now, so that a failure is the caller's to see, and handed over in the first turn, before it can have
 * done anything. */
static int listen_stdio(struct cule_listener *s, struct cule_err *err)
{
    s->bound[0] = '-'; /* the rest is zeros */
    cule_loop_defer(s->loop, &s->stdio);
    return cule_link_open_fd(s->loop, 0, 1, &s->opts, &s->first, err);
}

int cule_listen(struct cule_loop *loop, const char *endpoint, const struct cule_link_opts *o,
                const struct cule_listen_opts *lo, cule_accept_fn *fn, void *ctx, struct cule_listener **out,
                struct cule_err *err)
{
    struct cule_listener *s = calloc(1, sizeof *s);
    if (!s) {
        return cule_err_set(err, CULE_ENOMEM, "cannot listen on '%s': out of memory", endpoint);
    }
    s->loop = loop;
    s->fd = -1;
    s->opts = *o;
    s->opts.is_server = true;
    s->fn = fn;
    s->ctx = ctx;
    cule_defer_init(&s->stdio, take_stdio, s);
    int rc = cule_endpoint_parse(&s->ep, endpoint, err);
    bool stdio = s->ep.type == CULE_EP_STDIO;
    if (!rc && s->ep.type == CULE_EP_TLS) {
        const struct cule_tls_hook *tls = cule_tls_hook_get(err);
        rc = tls ? tls->config_new(&s->tls_config, &s->ep, true, err) : CULE_EUNSUPPORTED;
    }
    rc = rc ? rc : cule_timer_new(loop, &s->timer, resume, s, err);
    if (!rc && stdio) {
        rc = listen_stdio(s, err);
    } else if (!rc) {
        rc = cule_endpoint_listen(&s->ep, lo, &s->fd, err);
        rc = rc ? rc : cule_watch_new(loop, &s->watch, s->fd, POLLIN, on_incoming, s, err);
    }
    if (rc) {
        cule_listener_free(s);
        return rc;
    }
    if (!stdio) {
        cule_endpoint_bound(&s->ep, s->fd, s->bound, sizeof s->bound);
    }
    *out = s;
    return 0;
}

const char *cule_listener_endpoint(const struct cule_listener *s)
{
    return s->bound;
}

uint64_t cule_listener_paused_count(const struct cule_listener *s)
{
    return s->paused;
}

void cule_listener_free(struct cule_listener *s)
{
    if (!s) {
        return;
    }
    cule_defer_cancel(&s->stdio);
    cule_link_free(s->first);
    cule_watch_free(s->watch);
    cule_timer_free(s->timer);
    if (s->fd >= 0) {
        cule_endpoint_unlisten(&s->ep, s->fd);
        close(s->fd);
    }
    if (s->tls_config) {
        cule_tls_hook_get(NULL)->config_free(s->tls_config);
    }
    s->doomed = true;
    if (!s->busy) {
        free(s);
    }
}

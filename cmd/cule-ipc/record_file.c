/* Reading and writing recordings. */
#include "record_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int recording_open(struct recording *r, const char *path, struct cule_err *err)
{
    *r = (struct recording){.first = true};
    return ipc_frames_open(&r->in, path, false, err);
}

void recording_close(struct recording *r)
{
    ipc_frames_close(&r->in);
}

static void take_mark(struct recorded *x, const struct cule_frame *mark)
{
    x->time_ns = mark->arg0;
    x->link = mark->arg1 >> 1;
    x->answer = mark->arg1 & 1;
}

/* The next frame inside a NESTED payload: 1 with *x, 0 when it is used up or broken. */
static int next_nested(struct recording *r, struct recorded *x)
{
    while (r->nested_len) {
        size_t used = 0;
        struct cule_frame f;
        const uint8_t *payload;
        if (cule_frame_nested(r->nested, r->nested_len, &f, &payload, &used, NULL) <= 0) {
            r->nested_len = 0;
            r->in.d.bad_bodies++;
            break;
        }
        r->nested += used;
        r->nested_len -= used;
        if (!r->marked && f.kind == CULE_MARK && r->nested_len) {
            r->mark = f;
            r->marked = true;
            continue;
        }
        x->f = f;
        x->f.magic[0] = 'C';
        x->f.magic[1] = 'U';
        x->payload = payload;
        return 1;
    }
    return 0;
}

static bool enters(const struct recording *r, const struct cule_frame *f)
{
    return !r->marked && (f->flags & CULE_NESTED) && (f->kind == CULE_DATA || f->kind == CULE_MARK);
}

static int finish(struct recording *r, struct recorded *x)
{
    if (r->marked) {
        take_mark(x, &r->mark);
        r->marked = false;
    }
    r->frames++;
    return 1;
}

int recording_next(struct recording *r, struct recorded *x, struct cule_err *err)
{
    *x = (struct recorded){0};
    if (next_nested(r, x)) {
        return finish(r, x);
    }
    r->marked = r->marked && r->nested_len;
    for (;;) {
        int rc = ipc_frames_next(&r->in, &x->f, &x->payload, err);
        if (rc <= 0) {
            return rc;
        }
        if (rc == CULE_DECODED_GAP) {
            r->marked = false;
            continue;
        }
        x->bad = rc == CULE_DECODED_BAD_BODY;
        bool first = r->first;
        r->first = false;
        if (first && x->f.kind == CULE_HELLO) {
            continue;
        }
        if (x->f.kind == CULE_MARK && !r->marked) {
            r->mark = x->f;
            r->marked = true;
            if (!(x->f.flags & CULE_NESTED)) {
                continue;
            }
            r->nested = x->payload;
            r->nested_len = x->f.length;
        } else if (enters(r, &x->f)) {
            r->nested = x->payload;
            r->nested_len = x->f.length;
        } else {
            return finish(r, x);
        }
        x->bad = false;
        if (next_nested(r, x)) {
            return finish(r, x);
        }
        r->marked = false;
    }
}

/* --- writing --- */

static int add_hello(struct recorder *w, const char *name)
{
    struct cule_frame f;
    cule_frame_init(&f, CULE_HELLO);
    f.arg1 = CULE_MESSAGE_MAX;
    f.length = (uint32_t)strlen(name);
    return cule_frame_add(&w->buf, &f, false, name);
}

int recorder_open_plain(struct recorder *w, const char *path, bool append, struct cule_err *err)
{
    *w = (struct recorder){.fd = STDOUT_FILENO};
    cule_buf_init(&w->buf, 0);
    if (strcmp(path, "-") == 0) {
        return 0;
    }
    w->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
    w->owns_fd = w->fd >= 0;
    return w->owns_fd ? 0 : cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot write '%s'", path);
}

int recorder_open(struct recorder *w, const char *path, bool append, const char *name, struct cule_err *err)
{
    struct stat st;
    int rc = recorder_open_plain(w, path, append, err);
    if (rc || (append && fstat(w->fd, &st) == 0 && st.st_size > 0)) {
        return rc;
    }
    rc = add_hello(w, name);
    if (rc) {
        return cule_err_set(err, rc, "out of memory");
    }
    rc = recorder_flush(w, err);
    return rc ? cule_err_context(err, rc, "'%s'", path) : 0;
}

/* Inside its own mark; false where that would not fit into one frame. */
static bool add_inside(struct recorder *w, struct cule_frame *mark, const struct cule_frame *f, const uint8_t *tail,
                       int *rc)
{
    static const uint8_t crc_room = 4;
    size_t n = CULE_HEADER_SIZE + cule_frame_tail(f);
    uint8_t inner[CULE_PAYLOAD_MAX];
    if (n + crc_room > sizeof inner) {
        return false;
    }
    cule_frame_encode(f, true, inner);
    memcpy(inner + CULE_HEADER_SIZE, tail, n - CULE_HEADER_SIZE);
    mark->flags = CULE_NESTED;
    mark->length = (uint32_t)n;
    *rc = cule_frame_add(&w->buf, mark, false, inner);
    return true;
}

int recorder_add(struct recorder *w, uint64_t time_ns, uint64_t link, bool answer, const struct cule_frame *f,
                 const uint8_t *tail)
{
    struct cule_frame mark;
    uint8_t *at;
    size_t n = cule_frame_tail(f);
    int rc = 0;
    cule_frame_init(&mark, CULE_MARK);
    mark.arg0 = time_ns;
    mark.arg1 = link << 1 | (answer ? 1 : 0);
    w->frames++;
    if (f->kind == CULE_MARK && add_inside(w, &mark, f, tail, &rc)) {
        return rc;
    }
    rc = cule_buf_reserve(&w->buf, 2 * CULE_HEADER_SIZE + n, &at);
    if (rc) {
        return rc;
    }
    cule_frame_encode(&mark, false, at);
    cule_frame_encode(f, false, at + CULE_HEADER_SIZE);
    if (n) {
        memcpy(at + 2 * CULE_HEADER_SIZE, tail, n);
    }
    cule_buf_commit(&w->buf, 2 * CULE_HEADER_SIZE + n);
    return 0;
}

int recorder_add_message(struct recorder *w, uint64_t time_ns, uint64_t link, bool answer, const struct cule_msg *m)
{
    struct cule_split s;
    struct cule_frame f;
    const uint8_t *trace, *part;
    size_t n;
    int rc = 0;
    cule_split_init(&s, m, 0);
    while (rc == 0 && cule_split_next(&s, &f, &trace, &part, &n)) {
        uint8_t whole[CULE_FRAME_MAX];
        uint8_t bytes[CULE_FRAME_MAX];
        size_t at = 0;
        if (trace) {
            memcpy(whole, trace, CULE_TRACE_SIZE);
            at = CULE_TRACE_SIZE;
        }
        if (n) {
            memcpy(whole + at, part, n);
        }
        cule_frame_write(&f, false, whole, bytes);
        rc = recorder_add(w, time_ns, link, answer, &f, bytes + CULE_HEADER_SIZE);
    }
    return rc;
}

int recorder_flush(struct recorder *w, struct cule_err *err)
{
    int rc = ipc_write_all(w->fd, cule_buf_data(&w->buf), cule_buf_len(&w->buf), err);
    cule_buf_clear(&w->buf);
    return rc;
}

int recorder_close(struct recorder *w, struct cule_err *err)
{
    int rc = w->fd >= 0 ? recorder_flush(w, err) : 0;
    if (w->owns_fd) {
        if (fsync(w->fd) < 0 && errno != EINVAL && errno != EROFS && !rc) {
            rc = cule_err_sys(err, CULE_EDISK, errno, "cannot write the recording");
        }
        close(w->fd);
    }
    cule_buf_release(&w->buf);
    w->fd = -1;
    return rc;
}

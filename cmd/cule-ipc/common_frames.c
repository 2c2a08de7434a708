/* Frames read from a descriptor, one after the other, with what does not hold skipped and told; and waiting for more.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FRAMES_CHUNK = 256 * 1024, FOLLOW_MS = 1000 };

int ipc_frames_open(struct ipc_frames *in, const char *path, bool follow, struct cule_err *err)
{
    bool standard = !path || strcmp(path, "-") == 0;
    *in = (struct ipc_frames){.name = standard ? "standard input" : path, .fd = STDIN_FILENO, .notify = -1};
    cule_decoder_init(&in->d, CULE_DECODE_RESYNC);
    if (!standard) {
        in->fd = open(path, O_RDONLY | O_CLOEXEC);
        in->owns_fd = in->fd >= 0;
        if (in->fd < 0) {
            return cule_err_sys(err, errno == ENOENT ? CULE_ENOT_FOUND : CULE_EIO, errno, "cannot open '%s'", path);
        }
    }
    in->buf = malloc(FRAMES_CHUNK);
    if (!in->buf) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory");
    }
    struct stat st;
    if (follow && fstat(in->fd, &st) == 0 && S_ISREG(st.st_mode)) {
        in->follow = true;
        in->notify = standard ? -1 : inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (in->notify >= 0 && inotify_add_watch(in->notify, path, IN_MODIFY) < 0) {
            close(in->notify);
            in->notify = -1;
        }
    }
    return 0;
}

void ipc_frames_close(struct ipc_frames *in)
{
    cule_decoder_release(&in->d);
    free(in->buf);
    if (in->owns_fd) {
        close(in->fd);
    }
    if (in->notify >= 0) {
        close(in->notify);
    }
}

/* Where the file system tells of no changes (some network ones), a look each second has to do. */
static void wait_for_more(struct ipc_frames *in)
{
    struct pollfd p = {.fd = in->notify, .events = POLLIN};
    char events[4096];
    poll(&p, 1, FOLLOW_MS);
    if (in->notify >= 0 && read(in->notify, events, sizeof events) < 0) {
        return;
    }
}

/* The next chunk for the decoder: 1, 0 at the end, or an error. */
static int feed(struct ipc_frames *in, struct cule_err *err)
{
    int rc = in->idle ? in->idle(in->ctx, err) : 0;
    while (rc == 0) {
        ssize_t n = ipc_read(in->fd, in->buf, FRAMES_CHUNK, in->name, err);
        if (n != 0) {
            if (n > 0) {
                cule_decoder_feed(&in->d, in->buf, (size_t)n);
            }
            return n > 0 ? 1 : (int)n;
        }
        if (!in->follow) {
            return 0;
        }
        wait_for_more(in);
    }
    return rc;
}

int ipc_frames_next(struct ipc_frames *in, struct cule_frame *f, const uint8_t **payload, struct cule_err *err)
{
    for (;;) {
        struct cule_err why = {0};
        int rc = cule_decoder_next(&in->d, f, payload, &why);
        if (rc > 0) {
            in->why = why;
            in->last = rc == CULE_DECODED_GAP ? in->d.gap_offset : in->d.offset - CULE_HEADER_SIZE - cule_frame_tail(f);
            return rc;
        }
        if (rc < 0 || in->eof) {
            return rc < 0 ? cule_err_set(err, rc, "'%s' at byte %" PRIu64 ": %s", in->name, in->d.offset, why.text) : 0;
        }
        rc = feed(in, err);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0) {
            in->eof = true;
            cule_decoder_end(&in->d, &why);
        }
    }
}

int ipc_frames_report(const struct cule_cli *cli, const struct ipc_frames *in)
{
    if (in->d.skipped) {
        cule_cli_warn(cli, "'%s': %" PRIu64 " bytes in %" PRIu64 " place%s were no frames and have been skipped",
                      in->name, in->d.skipped, in->d.gaps, in->d.gaps == 1 ? "" : "s");
    }
    if (in->d.bad_bodies) {
        cule_cli_warn(cli, "'%s': %" PRIu64 " frame%s had a body that does not hold", in->name, in->d.bad_bodies,
                      in->d.bad_bodies == 1 ? "" : "s");
    }
    return in->d.skipped || in->d.bad_bodies ? 3 : 0;
}

int ipc_add_frame(struct cule_buf *out, const struct cule_frame *f, const uint8_t *tail)
{
    size_t n = cule_frame_tail(f);
    uint8_t *at;
    int rc = cule_buf_reserve(out, CULE_HEADER_SIZE + n, &at);
    if (rc) {
        return rc;
    }
    cule_frame_encode(f, false, at);
    if (n) {
        memcpy(at + CULE_HEADER_SIZE, tail, n);
    }
    cule_buf_commit(out, CULE_HEADER_SIZE + n);
    return 0;
}

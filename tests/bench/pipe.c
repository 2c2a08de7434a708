/*
 * A stage of a pipeline that decodes every frame and encodes it again, between a source and a sink.
 *
 *   pipe_stage_64    frames of 64 bytes of payload, read and written in large blocks: frames a second
 *   pipe_stage_header  frames without payload, which are 64 bytes each
 *   pipe_stage_64k   payloads of 64 KiB against a stage that only reads and writes
 *
 * The codec alone (decoder and cule_frame_encode over descriptors) and, named _link, a stage made of two links with
 * their message callback, as a filter would be written. Pipes hold 1 MiB on both sides of the comparison.
 */
#include "base/buf.h"
#include "io/link.h"
#include "measure.h"
#include "wire/decode.h"

#include <fcntl.h>
#include <sys/uio.h>

enum { PIPE = 1024 * 1024, BLOCK = 256 * 1024 };
static const uint64_t bytes_small = 512u * 1024 * 1024, bytes_large = 2048u * 1024 * 1024;

static void make_pipe(int p[2])
{
    if (pipe2(p, O_CLOEXEC)) {
        die("pipe");
    }
    fcntl(p[1], F_SETPIPE_SZ, PIPE);
}

/* Writes `total` bytes of whole frames of that payload size. */
static void source(int fd, uint32_t payload, uint64_t total)
{
    static uint8_t block[2 * BLOCK], body[CULE_PAYLOAD_MAX];
    size_t one = CULE_HEADER_SIZE + cule_pad8(payload), n = 0;
    while (n + one <= BLOCK || n == 0) {
        struct cule_frame f;
        cule_frame_init(&f, CULE_EVENT);
        f.service = CULE_S_BUS;
        f.op = 1;
        f.length = payload;
        n += cule_frame_write(&f, false, body, block + n);
    }
    for (uint64_t sent = 0; sent < total; sent += n) {
        write_full(fd, block, n);
    }
    _exit(0);
}

/* Reads to the end: bytes. */
static uint64_t sink(int fd)
{
    static uint8_t block[BLOCK];
    uint64_t n = 0;
    ssize_t r;
    while ((r = read(fd, block, sizeof block)) > 0) {
        n += (uint64_t)r;
    }
    return n;
}

/* --- stages --- */

static void stage_copy(int in, int out)
{
    static uint8_t block[BLOCK];
    ssize_t n;
    while ((n = read(in, block, sizeof block)) > 0) {
        write_full(out, block, (size_t)n);
    }
    _exit(0);
}

static void flush(int out, struct cule_buf *b)
{
    if (cule_buf_len(b) > 0) {
        write_full(out, cule_buf_data(b), cule_buf_len(b));
        cule_buf_clear(b);
    }
}

/* A header of our own making and the payload where it lies: what a stage that looks at large bodies does. */
static void pass_large(int out, const struct cule_frame *f, const uint8_t *payload)
{
    uint8_t header[CULE_HEADER_SIZE];
    size_t n = cule_frame_tail(f), sent = 0;
    cule_frame_encode(f, false, header);
    while (sent < sizeof header + n) {
        struct iovec v[2] = {{header, sizeof header}, {(void *)(uintptr_t)payload, n}};
        int k = 0;
        if (sent >= sizeof header) {
            k = 1;
            v[1].iov_base = (uint8_t *)v[1].iov_base + (sent - sizeof header);
            v[1].iov_len -= sent - sizeof header;
        } else {
            v[0].iov_base = header + sent;
            v[0].iov_len -= sent;
        }
        ssize_t w = writev(out, v + k, 2 - k);
        if (w <= 0) {
            _exit(4);
        }
        sent += (size_t)w;
    }
}

static void stage_codec(int in, int out)
{
    static uint8_t block[BLOCK];
    struct cule_decoder d;
    struct cule_buf b;
    ssize_t n;
    cule_decoder_init(&d, CULE_DECODE_RESYNC);
    cule_buf_init(&b, 0);
    while ((n = read(in, block, sizeof block)) > 0) {
        struct cule_frame f;
        const uint8_t *payload;
        cule_decoder_feed(&d, block, (size_t)n);
        while (cule_decoder_next(&d, &f, &payload, NULL) == CULE_DECODED_FRAME) {
            if (f.length > 16384) {
                flush(out, &b);
                pass_large(out, &f, payload);
            } else if (cule_frame_add(&b, &f, false, payload)) {
                _exit(4);
            }
        }
        flush(out, &b);
    }
    _exit(0);
}

static struct cule_link *to;

static void on_message(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    (void)ctx;
    int rc = cule_link_send(to, m);
    if (rc == CULE_EAGAIN && cule_link_send_free(to, m) == 0) {
        cule_link_pause(l, true);
    } else if (rc) {
        _exit(4);
    }
}

static struct cule_link *from;

static void on_writable(struct cule_link *l, void *ctx, uint64_t id)
{
    (void)l;
    (void)ctx;
    (void)id;
    if (from) {
        cule_link_pause(from, false);
    }
}

static void on_end(struct cule_link *l, void *ctx, const struct cule_err *why)
{
    (void)why;
    if (l == from) {
        from = NULL;
        cule_link_close(to);
    } else {
        cule_loop_stop(ctx);
    }
}

static void stage_link(int in, int out)
{
    static const struct cule_link_ops ops = {.message = on_message, .writable = on_writable, .closed = on_end};
    struct cule_loop *loop;
    if (cule_loop_new(&loop, NULL)) {
        _exit(4);
    }
    const struct cule_link_opts o = {.ops = &ops, .ctx = loop, .one_way = true};
    if (cule_link_open_fd(loop, in, -1, &o, &from, NULL) || cule_link_open_fd(loop, -1, out, &o, &to, NULL)) {
        _exit(4);
    }
    cule_loop_run(loop);
    _exit(0);
}

/* Bytes a second through source, stage and sink. Three processes on two cores: none is pinned. */
static double run(void (*stage)(int in, int out), uint32_t payload, uint64_t total)
{
    int a[2], b[2];
    make_pipe(a);
    make_pipe(b);
    uint64_t begin = now_ns();
    pid_t s = child();
    if (s == 0) {
        close(a[0]);
        source(a[1], payload, total);
    }
    pid_t t = child();
    if (t == 0) {
        close(a[1]);
        close(b[0]);
        stage(a[0], b[1]);
    }
    close(a[0]);
    close(a[1]);
    close(b[1]);
    uint64_t n = sink(b[0]);
    double seconds = (double)(now_ns() - begin) / 1e9;
    close(b[0]);
    waitpid(s, NULL, 0);
    waitpid(t, NULL, 0);
    if (n < total) {
        fprintf(stderr, "pipe: %llu bytes of %llu came through\n", (unsigned long long)n, (unsigned long long)total);
        exit(4);
    }
    return (double)n / seconds;
}

int main(void)
{
    double v[8][ROUNDS];
    const double f64 = CULE_HEADER_SIZE + 64, f0 = CULE_HEADER_SIZE;
    signal(SIGPIPE, SIG_IGN);
    for (int r = 0; r < ROUNDS; r++) {
        v[0][r] = run(stage_codec, 64, bytes_small) / f64 / 1e6;
        v[1][r] = run(stage_codec, 0, bytes_small) / f0 / 1e6;
        v[2][r] = run(stage_link, 64, bytes_small) / f64 / 1e6;
        v[3][r] = run(stage_codec, 65536, bytes_large) / 1e6;
        v[4][r] = run(stage_link, 65536, bytes_large) / 1e6;
        v[5][r] = run(stage_copy, 65536, bytes_large) / 1e6;
    }
    double raw = median(v[5], ROUNDS);
    emit("pipe_stage_64", median(v[0], ROUNDS), "M frames/s", "5 M frames/s", 5, false, 1);
    emit("pipe_stage_header", median(v[1], ROUNDS), "M frames/s", "5 M frames/s", 5, false, 1);
    emit("pipe_stage_64_link", median(v[2], ROUNDS), "M frames/s", "5 M frames/s", 5, false, NONE);
    emit("pipe_stage_64k", median(v[3], ROUNDS), "MB/s", "raw pipe stage", raw, false, 0.9);
    emit("pipe_stage_64k_link", median(v[4], ROUNDS), "MB/s", "raw pipe stage", raw, false, NONE);
    return 0;
}

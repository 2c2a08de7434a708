/*
 * Whatever a peer says, to a session whose application answers, asks, streams and cancels by the input's own bytes:
 * no crash, every call answered once, nothing left over, and never more held than the limits allow.
 *
 * The first byte chooses the configuration. The rest is taken as raw bytes of a stream (bit 0 clear) or as records of
 * 8 bytes, each of which makes one whole frame or something the application or the clock does.
 */
#include "wire/session.h"
#include "base/pool.h"
#include "wire/ops.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORD = 8, MESSAGE_MAX = 150000, QUEUE = 100000, CALLS = 16, MS = 1000000 };

struct cule_link {
    struct cule_session s;
    unsigned asked, answered; /* calls that began, and terminal answers */
    unsigned turn;
    uint64_t ids[CALLS]; /* requests heard, the latest */
    int fds;
    struct cule_decoder *check; /* what was written is whole frames that hold, in the order of their writing */
};

static uint8_t body[80000];

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void ask(struct cule_link *l, unsigned how);

static void on_answer(struct cule_link *l, void *arg, struct cule_msg *m)
{
    must(arg == l, "the argument");
    must(m->len == 0 || m->body != NULL, "a body");
    l->answered += !(m->h.flags & CULE_OPEN);
    l->turn++;
    if (l->turn % 5 == 0 && (m->h.flags & CULE_OPEN)) {
        cule_session_cancel(&l->s, m->h.id);
    } else if (l->turn % 7 == 0) {
        ask(l, l->turn);
    }
}

static void ask(struct cule_link *l, unsigned how)
{
    struct cule_msg m = {.body = body, .len = how * 37 % 70000};
    cule_frame_init(&m.h, CULE_REQUEST);
    m.h.flags = how & 1 ? CULE_OPEN : 0;
    m.h.priority = how % CULE_PRIORITIES;
    l->asked += cule_session_call(&l->s, &m, how & 2 ? how % 100 : 0, on_answer, l, NULL) == 0;
}

static void answer(struct cule_link *l, uint64_t id, unsigned how)
{
    struct cule_msg m = {.body = body, .len = how * 31 % 70000};
    cule_frame_init(&m.h, how % 5 ? CULE_REPLY : CULE_ERROR_FRAME);
    m.h.id = id;
    m.h.arg0 = 4;
    m.h.flags = how % 3 ? 0 : CULE_OPEN;
    cule_session_answer(&l->s, &m);
}

static void on_message(struct cule_link *l, struct cule_msg *m)
{
    l->turn++;
    must(m->len == 0 || m->body != NULL, "a body");
    if (m->h.kind == CULE_REQUEST) {
        l->ids[l->turn % CALLS] = m->h.id;
        if (l->turn % 3) {
            answer(l, m->h.id, l->turn);
        }
    }
    if (l->turn % 4 == 0) {
        cule_session_consumed(&l->s, m->h.priority, 1, m->h.length);
        cule_session_stream_consumed(&l->s, m->h.id, m->len);
    }
}

static void on_ready(struct cule_link *l)
{
    ask(l, 3);
}

static void on_writable(struct cule_link *l, uint64_t id)
{
    cule_session_data(&l->s, id, body, 100, false);
}

static unsigned take_fds(struct cule_link *l, int *fds, unsigned n)
{
    unsigned got = 0;
    while (got < n && l->turn++ % 16) {
        fds[got++] = 7;
        l->fds++;
    }
    return got;
}

static void close_fds(struct cule_link *l, const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        l->fds -= fds[i] >= 0;
    }
}

static void on_output(struct cule_link *l)
{
    (void)l;
}

static void check_bytes(struct cule_link *l, const void *p, size_t n)
{
    struct cule_frame f;
    const uint8_t *payload;
    int rc;
    cule_decoder_feed(l->check, p, n);
    while ((rc = cule_decoder_next(l->check, &f, &payload, NULL)) > 0) {
        must(rc == CULE_DECODED_FRAME, "a body that was written");
    }
    must(rc == 0, "a header that was written");
}

static size_t on_write(struct cule_link *l, const struct iovec *iov, int n)
{
    size_t left = l->turn % 3 ? l->turn * 9973 % 100000 : 0;
    size_t done = 0;
    for (int i = 0; i < n && left; i++) {
        size_t some = CULE_MIN(left, iov[i].iov_len);
        check_bytes(l, iov[i].iov_base, some);
        left -= some;
        done += some;
    }
    l->turn++;
    return done;
}

static void on_pong(struct cule_link *l, void *arg, uint64_t rtt_ns)
{
    (void)arg;
    (void)rtt_ns;
    l->turn++;
}

static const struct cule_session_ops ops = {.message = on_message,
                                            .ready = on_ready,
                                            .writable = on_writable,
                                            .take_fds = take_fds,
                                            .close_fds = close_fds,
                                            .output = on_output,
                                            .write = on_write};

static void write_out(struct cule_link *l, size_t most)
{
    struct iovec iov[CULE_SESSION_IOV_MAX];
    const int *fds;
    unsigned nfds;
    int n;
    while (most && (n = cule_session_output(&l->s, iov, &fds, &nfds)) > 0) {
        size_t some = CULE_MIN(iov[0].iov_len, most);
        check_bytes(l, iov[0].iov_base, some);
        cule_session_wrote(&l->s, some);
        most -= some;
    }
    cule_session_notify(&l->s);
}

static int step_all(struct cule_link *l)
{
    struct cule_err err;
    int rc;
    while ((rc = cule_session_step(&l->s, &err)) > 0) {
        /* Each frame takes at most its answer or an ERROR's text in return, once the queue is full. */
        must(l->s.assembler.total <= 2 * MESSAGE_MAX, "held in unfinished messages");
        must(l->s.exchanges.count == l->s.calls + l->s.requests, "exchanges");
        must(l->s.requests <= CALLS && l->s.calls <= CALLS, "limits");
    }
    return rc;
}

static int feed(struct cule_link *l, const uint8_t *p, size_t n)
{
    uint8_t *chunk = malloc(n ? n : 1); /* its own memory, so that a read beyond it is seen */
    must(chunk != NULL, "memory");
    memcpy(chunk, p, n);
    cule_session_feed(&l->s, chunk, n);
    int rc = step_all(l);
    free(chunk);
    return rc;
}

/* A frame made of a record. */
static int feed_record(struct cule_link *l, const uint8_t *r)
{
    static uint8_t wire[CULE_FRAME_MAX];
    struct cule_frame f;
    cule_frame_init(&f, r[0] % (CULE_KIND_LAST + 2));
    f.priority = r[1] % CULE_PRIORITIES;
    f.flags = (uint16_t)((r[2] & 0x3f) << 8);
    f.nfds = r[2] & 0x40 ? r[3] % 4 : 0;
    f.id = r[4] % 32;
    f.length = (uint32_t)r[5] * (r[2] & 0x80 ? 257 : 1);
    f.arg0 = r[0] % 13 == CULE_HELLO ? r[6] & 7u : (uint64_t)r[6] << (r[7] & 31);
    f.arg1 = (uint64_t)r[6] << (r[7] >> 3);
    f.deadline_ms = r[7];
    size_t n = cule_frame_write(&f, false, body, wire);
    if (r[7] == 255) {
        wire[n - 1] ^= 1; /* a body, or without one a header, that does not hold */
    }
    return feed(l, wire, n);
}

/* Something that the application, the clock or the carrier does. */
static void act(struct cule_link *l, const uint8_t *r, uint64_t *now)
{
    switch (r[1] % 10) {
    case 0: ask(l, r[2]); break;
    case 1: answer(l, l->ids[r[2] % CALLS], r[3]); break;
    case 2: cule_session_data(&l->s, r[2] % 32, body, r[3] * 200u, r[4] & 1); break;
    case 3: cule_session_cancel(&l->s, r[2] % 32); break;
    case 4: write_out(l, (size_t)r[2] * 100); break;
    case 5: *now += (uint64_t)r[2] * MS; break;
    case 6: cule_session_consumed(&l->s, r[2] % CULE_PRIORITIES, r[3], r[4] * 256u); break;
    case 7: cule_session_ping(&l->s, on_pong, NULL); break;
    case 8:
        if (r[2] == 0) {
            cule_session_half(&l->s);
        }
        break;
    default: {
        struct cule_msg m = {.body = body, .len = r[3] * 300u};
        cule_frame_init(&m.h, CULE_EVENT);
        m.h.priority = r[2] % CULE_PRIORITIES;
        cule_session_send(&l->s, &m, false);
    }
    }
    cule_session_tick(&l->s, *now);
}

static void talk(struct cule_link *l, const uint8_t *data, size_t size, bool records)
{
    uint64_t now = 1000ull * MS;
    size_t at = 0;
    unsigned x = 1;
    int rc = 0;
    while (at < size && rc >= 0) {
        size_t left = size - at;
        if (!records) {
            x = x * 1103515245 + 12345;
            size_t n = CULE_MIN(left, 1 + (x >> 16) % 300);
            rc = feed(l, data + at, n);
            at += n;
        } else {
            if (left < RECORD) {
                break;
            }
            if (data[at] & 0x80) {
                act(l, data + at, &now);
            } else {
                rc = feed_record(l, data + at);
            }
            at += RECORD;
        }
    }
    if (rc >= 0 && cule_session_eof(&l->s, NULL) == 0) {
        step_all(l);
        cule_session_finished(&l->s, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cule_link l;
    struct cule_decoder check;
    struct cule_pool_stats before;
    struct cule_pool_stats after;
    if (size == 0) {
        return 0;
    }
    uint8_t how = data[0];
    struct cule_session_config cfg = {.name = "fuzz",
                                      .message_max = MESSAGE_MAX,
                                      .window_bytes = 20000,
                                      .stream_bytes = 5000,
                                      .queue_bytes = QUEUE,
                                      .window_frames = how & 0x20 ? UINT32_MAX : 10,
                                      .calls_max = CALLS,
                                      .duplex = !(how & 0x40),
                                      .server = how & 2,
                                      .hello_first = !(how & 0x44),
                                      .resync = how & 4,
                                      .manual_credit = how & 8,
                                      .can_pass_fds = how & 16};
    cule_pool_stats(&before);
    memset(&l, 0, sizeof l);
    cule_decoder_init(&check, CULE_DECODE_STRICT);
    l.check = &check;
    cule_session_init(&l.s, &cfg, &ops, &l);
    cule_session_tick(&l.s, 1000ull * MS);
    cule_session_start(&l.s);
    talk(&l, data + 1, size - 1, how & 1);
    if (!l.s.dead) {
        write_out(&l, SIZE_MAX);
    }
    cule_session_end(&l.s, CULE_ECLOSED, "over");
    must(l.asked == l.answered, "each call is answered once");
    must(l.s.exchanges.count == 0 && l.s.deadlines.count == 0, "what is left");
    cule_session_release(&l.s);
    cule_decoder_release(&check);
    must(l.fds == 0, "descriptors");
    cule_pool_stats(&after);
    must(after.held_bytes == before.held_bytes, "memory");
    return 0;
}

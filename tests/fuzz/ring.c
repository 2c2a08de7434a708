/*
 * A ring whose memory the input writes while an honest end uses it. The input is a list of commands: the low three
 * bits of the first byte say which, see run. Nothing may be read out of bounds, and no call may hang.
 */
#include "io/ring.h"
#include "io/ring_impl.h"

#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

static uint64_t take(struct input *in, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n && in->left; i++, in->left--) {
        v |= (uint64_t)*in->at++ << 8 * i;
    }
    return v;
}

/* Somewhere in the mapping, most often where it matters. */
static uint64_t *word_at(struct cule_ring *r, struct input *in, unsigned where)
{
    uint64_t at = take(in, where & 1 ? 1 : 3);
    if (where & 2) {
        return (uint64_t *)(r->rx_slots + at * 8 % ((uint64_t)r->slots * CULE_HEADER_SIZE));
    }
    return (uint64_t *)(r->map->base + at * 8 % r->map->size);
}

static void run(struct cule_ring *r, struct cule_ring *peer, struct input *in)
{
    static uint8_t body[CULE_PAYLOAD_MAX], sink[CULE_PAYLOAD_MAX];
    struct cule_frame f;
    const void *payload;
    unsigned command = (unsigned)take(in, 1);
    switch (command & 7) {
    case 0: *word_at(r, in, command >> 3) = take(in, 8); break;
    case 1: /* a header in the slot that is read next */
        cule_frame_init(&f, CULE_DATA);
        f.kind = (uint8_t)take(in, 1);
        f.flags = (uint16_t)take(in, 2);
        f.length = (uint32_t)take(in, 3);
        memcpy(r->rx_slots + (r->rx_next & (r->slots - 1)) * CULE_HEADER_SIZE, &f, sizeof f);
        break;
    case 2:
        cule_frame_init(&f, CULE_DATA);
        f.length = (uint32_t)take(in, 3);
        cule_ring_send(command & 8 ? peer : r, &f, body);
        break;
    case 3:
        if (cule_ring_recv(r, &f, &payload) == 1) {
            if (f.length > CULE_PAYLOAD_MAX) {
                abort();
            }
            memcpy(sink, payload ? payload : body, f.length);
        }
        break;
    case 4: cule_ring_release(r); break;
    case 5: cule_ring_wait(r, command >> 3 & 3, 0); break;
    case 6:
        if (cule_ring_peek(r, &f) == 1) {
            cule_ring_take(r, sink);
        }
        break;
    default: { /* on the socket, as an answer to the offer too */
        uint8_t bytes[RING_MESSAGE];
        size_t n = command >> 3;
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (uint8_t)take(in, 1);
        }
        send(peer->sock, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        cule_ring_check(r);
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cule_ring *ends[2];
    struct input in = {data, size};
    uint64_t shape = take(&in, 1);
    const struct cule_ring_opts opts = {.slots = 4u << (shape & 3),
                                        .area = CULE_RING_AREA_MIN,
                                        .doorbells = CULE_RING_SOCKET | CULE_RING_FUTEX,
                                        .trust_same_uid = shape & 4,
                                        .spin = CULE_RING_SPIN_NEVER};
    if (cule_ring_pair(ends, &opts, NULL)) {
        return 0;
    }
    ends[0]->accepted = !(shape & 8); /* as a creator that waits for its answer */
    while (in.left) {
        run(ends[0], ends[1], &in);
    }
    cule_ring_close(ends[0]);
    cule_ring_close(ends[1]);
    return 0;
}

/* Making, mapping and closing a ring. */
#include "io/ring_impl.h"

#include "base/pool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static bool power_of_two_within(uint32_t v, uint32_t least, uint32_t most)
{
    return v >= least && v <= most && !(v & (v - 1));
}

int cule_ring_geometry_check(uint32_t slots, uint32_t area, struct cule_err *err)
{
    if (!power_of_two_within(slots, CULE_RING_SLOTS_MIN, CULE_RING_SLOTS_MAX)) {
        return cule_err_set(err, CULE_EUSAGE, "a ring of %u slots cannot be: a power of two from %d to %d", slots,
                            CULE_RING_SLOTS_MIN, CULE_RING_SLOTS_MAX);
    }
    if (!power_of_two_within(area, CULE_RING_AREA_MIN, CULE_RING_AREA_MAX)) {
        return cule_err_set(err, CULE_EUSAGE, "a ring area of %u bytes cannot be: a power of two from %d to %d", area,
                            CULE_RING_AREA_MIN, CULE_RING_AREA_MAX);
    }
    return 0;
}

uint64_t cule_ring_map_size(uint32_t slots, uint32_t area)
{
    uint64_t size = RING_SLOTS_AT + 2 * ((uint64_t)slots * CULE_HEADER_SIZE + area);
    return (size + RING_PAGE - 1) & ~(uint64_t)(RING_PAGE - 1);
}

int cule_ring_map_fd(struct ring_map **out, int fd, size_t size, struct cule_err *err)
{
    struct ring_map *map = malloc(sizeof *map);
    if (!map) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory for a ring");
    }
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        int sys = errno;
        free(map);
        return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot map a ring of %zu bytes", size);
    }
    *map = (struct ring_map){.base = base, .size = size, .refs = 1};
    *out = map;
    return 0;
}

void cule_ring_map_release(struct ring_map *map)
{
    if (__atomic_sub_fetch(&map->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        munmap(map->base, map->size);
        free(map);
    }
}

static void set_pointers(struct cule_ring *r)
{
    uint8_t *base = r->map->base;
    size_t slot_bytes = (size_t)r->slots * CULE_HEADER_SIZE;
    uint8_t *slots[2] = {base + RING_SLOTS_AT, base + RING_SLOTS_AT + slot_bytes};
    uint8_t *areas = base + RING_SLOTS_AT + 2 * slot_bytes;
    uint8_t *area[2] = {areas, areas + r->area};
    int mine = r->creator ? 0 : 1;
    void *sleep[2] = {base + RING_SLEEP_CREATOR, base + RING_SLEEP_ATTACHER};
    /* Indexed by the direction, whose consumer is the other side. */
    void *consumed[2] = {base + RING_CONSUMED_BY_ATTACHER, base + RING_CONSUMED_BY_CREATOR};
    r->tx_slots = slots[mine];
    r->tx_area = area[mine];
    r->tx_shared = consumed[mine];
    r->own_sleep = sleep[mine];
    r->rx_slots = slots[!mine];
    r->rx_area = area[!mine];
    r->rx_shared = consumed[!mine];
    r->peer_sleep = sleep[!mine];
}

int cule_ring_make(struct cule_ring **out, struct ring_map *map, uint32_t slots, uint32_t area, bool creator,
                   const struct cule_ring_opts *opts, struct cule_err *err)
{
    struct cule_ring *r = aligned_alloc(64, (sizeof *r + 63) & ~(size_t)63);
    uint64_t *ends = calloc(slots, sizeof *ends);
    if (!r || !ends) {
        free(r);
        free(ends);
        return cule_err_set(err, CULE_ENOMEM, "out of memory for a ring");
    }
    *r = (struct cule_ring){.slots = slots,
                            .area = area,
                            .creator = creator,
                            .map = map,
                            .tx_end = ends,
                            .tx_phase = RING_PHASE_BIT,
                            .rx_phase = RING_PHASE_BIT,
                            .spin_ns = CULE_RING_SPIN_US * 1000 / 4,
                            .doorbells = CULE_RING_FUTEX | CULE_RING_EVENTFD | CULE_RING_SOCKET,
                            .memfd = -1,
                            .sock = -1,
                            .bell = -1,
                            .peer_bell = -1};
    if (opts) {
        r->spin = opts->spin;
        r->trust_same_uid = opts->trust_same_uid;
        if (opts->doorbells) {
            r->doorbells = opts->doorbells | CULE_RING_SOCKET;
        }
    }
    set_pointers(r);
    *out = r;
    return 0;
}

int cule_ring_lend_set_up(struct cule_ring *r, struct cule_err *err)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (!r->trust_same_uid || getsockopt(r->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.uid != geteuid()) {
        return 0;
    }
    r->rx_end = calloc(r->slots, sizeof *r->rx_end);
    if (!r->rx_end) {
        return cule_err_set(err, CULE_ENOMEM, "out of memory for a ring");
    }
    r->lends = true;
    return 0;
}

/* A memfd of that size which can neither shrink nor grow: reading it can then never fault. */
static int sealed_memfd(uint64_t size, struct cule_err *err)
{
    int fd = memfd_create("cule-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("cule-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* before Linux 6.3 */
    }
    if (fd < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make the memory of a ring");
    }
    if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int sys = errno;
        close(fd);
        return cule_err_sys(err, cule_err_from_errno(sys), sys, "cannot size and seal the memory of a ring");
    }
    return fd;
}

int cule_ring_create(struct cule_ring **out, const struct cule_ring_opts *opts, struct cule_err *err)
{
    uint32_t slots = opts && opts->slots ? opts->slots : CULE_RING_SLOTS;
    uint32_t area = opts && opts->area ? opts->area : CULE_RING_AREA;
    struct ring_map *map = NULL;
    uint64_t size = cule_ring_map_size(slots, area);
    int rc = cule_ring_geometry_check(slots, area, err);
    if (rc) {
        return rc;
    }
    int fd = sealed_memfd(size, err);
    if (fd < 0) {
        return fd;
    }
    rc = cule_ring_map_fd(&map, fd, size, err);
    if (rc) {
        goto out;
    }
    rc = cule_ring_make(out, map, slots, area, true, opts, err);
    if (rc) {
        goto out;
    }
    (*out)->memfd = fd;
    return 0;
out:
    if (map) {
        cule_ring_map_release(map);
    }
    close(fd);
    return rc;
}

static int pair_descriptors(struct cule_ring *a, struct cule_ring *b, struct cule_err *err)
{
    int socks[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, socks) < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make the sockets of a ring");
    }
    a->sock = socks[0];
    b->sock = socks[1];
    struct cule_ring *ends[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        struct cule_ring *own = ends[i], *other = ends[!i];
        if (!(own->doorbells & CULE_RING_EVENTFD)) {
            continue;
        }
        own->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        other->peer_bell = own->bell < 0 ? -1 : fcntl(own->bell, F_DUPFD_CLOEXEC, 0);
        if (other->peer_bell < 0) {
            return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot make a ring's eventfd");
        }
        other->peer_bell_usable = true;
    }
    return 0;
}

int cule_ring_pair(struct cule_ring *out[2], const struct cule_ring_opts *opts, struct cule_err *err)
{
    struct cule_ring *a = NULL, *b = NULL;
    int rc = cule_ring_create(&a, opts, err);
    if (rc) {
        goto out;
    }
    rc = cule_ring_make(&b, a->map, a->slots, a->area, false, opts, err);
    if (rc) {
        goto out;
    }
    __atomic_add_fetch(&a->map->refs, 1, __ATOMIC_RELAXED);
    rc = pair_descriptors(a, b, err);
    if (rc) {
        goto out;
    }
    close(a->memfd);
    a->memfd = -1;
    a->accepted = b->accepted = true;
    rc = cule_ring_lend_set_up(a, err);
    rc = rc ? rc : cule_ring_lend_set_up(b, err);
    if (rc) {
        goto out;
    }
    out[0] = a;
    out[1] = b;
    return 0;
out:
    cule_ring_close(b);
    cule_ring_close(a);
    return rc;
}

void cule_ring_close(struct cule_ring *r)
{
    if (!r) {
        return;
    }
    const int fds[] = {r->memfd, r->sock, r->bell, r->peer_bell};
    for (size_t i = 0; i < CULE_COUNT(fds); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    cule_ring_copy_release(r);
    cule_ring_map_release(r->map);
    free(r->tx_end);
    free(r->rx_end);
    free(r);
}

int cule_ring_fail(struct cule_ring *r, int code, const char *fmt, ...)
{
    va_list ap;
    assert(code < 0);
    if (r->ended && r->ended != CULE_ECLOSED) {
        return r->ended; /* the first reason stays */
    }
    r->ended = code;
    r->why.code = code;
    va_start(ap, fmt);
    vsnprintf(r->why.text, sizeof r->why.text, fmt, ap);
    va_end(ap);
    if (r->sock >= 0) {
        shutdown(r->sock, SHUT_RDWR);
    }
    return code;
}

int cule_ring_fd(const struct cule_ring *r)
{
    return r->bell >= 0 ? r->bell : r->sock;
}

int cule_ring_socket(const struct cule_ring *r)
{
    return r->sock;
}

bool cule_ring_accepted(const struct cule_ring *r)
{
    return r->accepted;
}

bool cule_ring_lends(const struct cule_ring *r)
{
    return r->lends;
}

const struct cule_err *cule_ring_why(const struct cule_ring *r)
{
    return &r->why;
}

void cule_ring_stats(const struct cule_ring *r, struct cule_ring_stats *out)
{
    *out = r->stats;
    out->frames_out = r->tx_tail;
    out->frames_in = r->rx_next;
}

/* The frame's header to and from its 64 wire bytes. */
#include "wire/frame.h"

#include "wire/crc32c.h"

#include <assert.h>

enum {
    MAGIC_PLAIN = 'C' | 'U' << 8,
    MAGIC_NESTED = 'c' | 'u' << 8,
    FLAGS_BAD = 0xff00 & ~CULE_FLAGS_KNOWN_HIGH, /* PHASE among them: the ring takes it off first */
};

void cule_frame_init(struct cule_frame *f, enum cule_kind kind)
{
    *f = (struct cule_frame){
        .magic = {'C', 'U'}, .version = CULE_VERSION_1, .kind = (uint8_t)kind, .priority = CULE_NORMAL};
}

/* Between the two orders; the same function both ways. */
static void swap(struct cule_frame *f)
{
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    f->flags = CULE_LE16(f->flags);
    f->service = CULE_LE32(f->service);
    f->op = CULE_LE32(f->op);
    f->id = CULE_LE64(f->id);
    f->length = CULE_LE32(f->length);
    f->check = CULE_LE32(f->check);
    f->source = CULE_LE32(f->source);
    f->deadline_ms = CULE_LE32(f->deadline_ms);
    f->arg0 = CULE_LE64(f->arg0);
    f->arg1 = CULE_LE64(f->arg1);
    f->cap = CULE_LE64(f->cap);
#else
    (void)f;
#endif
}

void cule_frame_encode(const struct cule_frame *f, bool nested, uint8_t out[CULE_HEADER_SIZE])
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    /* Word by word: what the CRC loads next was then stored with the same width, which forwards. */
    uint64_t word0 = cule_get64(f) & ~((uint64_t)CULE_PHASE << 48 | 0xffff);
    memcpy(out, f, CULE_HEADER_SIZE);
    cule_put64(out, word0 | (uint64_t)(nested ? MAGIC_NESTED : MAGIC_PLAIN));
#else
    struct cule_frame w = *f;
    w.flags &= (uint16_t)~CULE_PHASE;
    swap(&w);
    memcpy(out, &w, CULE_HEADER_SIZE);
    cule_put16(out, nested ? MAGIC_NESTED : MAGIC_PLAIN);
#endif
    cule_put32(out + offsetof(struct cule_frame, check), cule_crc32c_header(out));
}

/* Says which field is wrong; only called when one is. */
static int field_error(const struct cule_frame *f, struct cule_err *err)
{
    if (f->kind < CULE_HELLO || f->kind > CULE_KIND_LAST) {
        return cule_err_set(err, CULE_EMALFORMED, "unknown kind %u in the header", f->kind);
    }
    if (f->priority >= CULE_PRIORITIES) {
        return cule_err_set(err, CULE_EMALFORMED, "unknown priority %u in the header", f->priority);
    }
    if (f->nfds > CULE_FDS_MAX) {
        return cule_err_set(err, CULE_EMALFORMED, "nfds is %u, at most %d may travel", f->nfds, CULE_FDS_MAX);
    }
    if (f->flags & FLAGS_BAD) {
        return cule_err_set(err, CULE_EMALFORMED, "unknown flags 0x%04x in the header",
                            (unsigned)(f->flags & FLAGS_BAD));
    }
    return cule_err_set(err, CULE_EMALFORMED, "length is %u, at most %d fit in a frame", f->length, CULE_PAYLOAD_MAX);
}

static inline bool fields_hold(const struct cule_frame *f)
{
    return (unsigned)f->kind - CULE_HELLO <= CULE_KIND_LAST - CULE_HELLO && f->priority < CULE_PRIORITIES &&
           f->nfds <= CULE_FDS_MAX && !(f->flags & FLAGS_BAD) && f->length <= CULE_PAYLOAD_MAX;
}

static int magic_error(unsigned magic, bool nested, struct cule_err *err)
{
    if (magic == (nested ? MAGIC_PLAIN : MAGIC_NESTED)) {
        return cule_err_set(err, CULE_EMALFORMED,
                            nested ? "magic is that of a frame outside a payload"
                                   : "magic is that of a frame inside a payload");
    }
    return cule_err_set(err, CULE_EMALFORMED, "no frame begins here (magic is 0x%02x 0x%02x)", magic & 0xff,
                        magic >> 8);
}

int cule_frame_decode(struct cule_frame *f, bool nested, const uint8_t in[CULE_HEADER_SIZE], struct cule_err *err)
{
    unsigned magic = cule_get16(in);
    if (magic != (nested ? MAGIC_NESTED : MAGIC_PLAIN)) {
        return magic_error(magic, nested, err);
    }
    memcpy(f, in, CULE_HEADER_SIZE);
    swap(f);
    if (f->version != CULE_VERSION_1) {
        return cule_err_set(err, CULE_EVERSION, "version is %u, this side knows %d", f->version, CULE_VERSION_1);
    }
    uint32_t check = cule_crc32c_header(in);
    if (f->check != check) {
        return cule_err_set(err, CULE_ECHECK, "the header's check is 0x%08x, its bytes give 0x%08x", f->check, check);
    }
    return fields_hold(f) ? 0 : field_error(f, err);
}

int cule_frame_validate(const struct cule_frame *f, struct cule_err *err)
{
    unsigned magic = (unsigned)f->magic[0] | (unsigned)f->magic[1] << 8;
    if (magic != MAGIC_PLAIN) {
        return magic_error(magic, false, err);
    }
    if (f->version != CULE_VERSION_1) {
        return cule_err_set(err, CULE_EVERSION, "version is %u, this side knows %d", f->version, CULE_VERSION_1);
    }
    return fields_hold(f) ? 0 : field_error(f, err);
}

size_t cule_frame_seal(const struct cule_frame *f, bool nested, uint8_t *out)
{
    size_t padded = cule_pad8(f->length);
    uint8_t *at = out + CULE_HEADER_SIZE;
    assert(f->length <= CULE_PAYLOAD_MAX);
    cule_frame_encode(f, nested, out);
    memset(at + f->length, 0, padded - f->length);
    if (f->flags & CULE_CRC) {
        cule_put32(at + padded, cule_crc32c(0, at, padded));
    }
    return CULE_HEADER_SIZE + cule_frame_tail(f);
}

size_t cule_frame_write(const struct cule_frame *f, bool nested, const void *payload, uint8_t *out)
{
    if (f->length) {
        memcpy(out + CULE_HEADER_SIZE, payload, f->length);
    }
    return cule_frame_seal(f, nested, out);
}

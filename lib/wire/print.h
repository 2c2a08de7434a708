/* A frame in one line for people: safe on a terminal whatever the payload holds, and not meant to be read back. */
#ifndef CULE_WIRE_PRINT_H
#define CULE_WIRE_PRINT_H

#include "base/buf.h"
#include "wire/frame.h"

enum { CULE_PRINT_PAYLOAD = 64 }; /* bytes of payload shown unless said */

/*
 * Appends the frame without a newline, as in
 *     request BUS publish id 5 high [ack_wanted] within 250 ms topic 'a/b' 12 bytes 'hello world!'
 * Fields that are 0 are left out. payload may be NULL where only the header is known; at most `show` bytes of it are
 * shown, as text where it is text, else in hex. 0, CULE_ENOMEM or CULE_ELIMIT.
 */
int cule_print_frame(const struct cule_frame *f, const uint8_t *payload, size_t show, struct cule_buf *out);

/* Appends bytes with everything escaped that could move the cursor, change colours or reorder text: controls of both
 * ranges, DEL, bidirectional marks, and what is not UTF-8 as \xNN. */
int cule_print_safe(const void *p, size_t n, struct cule_buf *out);

#endif

/* How a message of the bus reads as a line. */
#ifndef CULE_IPC_BUSLINE_H
#define CULE_IPC_BUSLINE_H

#include "base/buf.h"
#include "wire/message.h"

/* A body and the byte that ends it. Where that is a newline, one inside the body becomes the two characters \n. */
int busline_body(struct cule_buf *out, const uint8_t *body, size_t n, char end);
/* The JSON mirror of a message on one line, with its topic apart and the payload the body behind it. */
int busline_json(struct cule_buf *out, const struct cule_msg *m);

#endif

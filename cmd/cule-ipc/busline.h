/* How a message of the bus reads as a line, and a line as a message. */
#ifndef CULE_IPC_BUSLINE_H
#define CULE_IPC_BUSLINE_H

#include "base/buf.h"
#include "wire/message.h"

/* A body and the byte that ends it. Where that is a newline, one inside the body becomes the two characters \n. */
int busline_body(struct cule_buf *out, const uint8_t *body, size_t n, char end);
/* The JSON mirror of a message on one line, with its topic apart and the payload the body behind it. */
int busline_json(struct cule_buf *out, const struct cule_msg *m);

/* What a JSON line says of a publication: "topic" (to topic, 256 bytes, empty where there is none), "payload_text",
 * "payload_json" or "payload_b64" (none: an empty body), "priority", "retain" or the mirror's "flags". */
struct busline_in {
    struct cule_buf body;
    uint8_t priority;
    bool has_priority;
    bool retain;
};
int busline_parse(struct busline_in *in, const char *line, size_t n, char topic[256], struct cule_err *err);
void busline_release(struct busline_in *in);

#endif

/* How a message of the bus reads as a line, and a line as a message. */
#ifndef CULE_IPC_BUSLINE_H
#define CULE_IPC_BUSLINE_H

#include "base/buf.h"
#include "wire/mirror.h"

/* A body and the byte that ends it. Where that is a newline, one inside the body becomes the two characters \n. */
int busline_body(struct cule_buf *out, const uint8_t *body, size_t n, char end);
/*
 * A JSON line as a publication: with a "kind" the mirror of a frame (cule-frame(5)), which must have a topic; without,
 * an object of "topic" (left out: `topic` is used), "priority", "retain", and one of "payload_text", "payload_json"
 * (any value, as it stands) and "payload_b64", or none for an empty body.
 */
struct busline_in {
    struct cule_mirror mirror;
    struct cule_json doc;
    struct cule_buf body_buf;
    char topic_buf[256];
    /* What came out; holds until the next line. */
    const char *topic; /* not ended by NUL; NULL: the line has none */
    size_t topic_len;
    const uint8_t *body;
    size_t len;
    uint8_t priority;
    bool has_priority, retain;
};
void busline_init(struct busline_in *in);
void busline_release(struct busline_in *in);
int busline_parse(struct busline_in *in, const char *line, size_t n, struct cule_err *err);

#endif

/*
 * Frames and messages as JSON, one object a line, and back, without loss: what write makes of a frame whose header
 * and body hold, read makes the same bytes of. Documented in cule-frame(5).
 *
 * The object's keys are the header's fields by name. A field with its default is left out: priority "normal", all
 * else 0. There is no key for magic, version, length and check, which follow from the rest (given, the first three
 * must be right, check is not looked at).
 *
 *   kind         "request", ...; read: its number too; must be there
 *   priority     "critical", "high", "low"; read: 0 to 3 too
 *   flags        an array of "retain" "redelivered" "ack_wanted" "more" "open" "trace" "crc" "delegate" "nested" and
 *                at most one number with what unknown low bits are set
 *   service      four characters as text ("BUS", "my"), others as \xNN; read: names of the table ("bus") too
 *   op           a number; read: a name of that service or a string of a number too
 *   op_name      for the reader; read: taken where op is missing, else not looked at
 *   id, arg0, arg1, cap
 *                64-bit integers as strings of decimal digits, since jq rounds; read: 0x hex and numbers too
 *   source, deadline_ms, nfds
 *                numbers
 *   trace        the first 32 bytes of the payload, TRACE set: hex of trace id, span id and flags with a "-" between
 *   topic        BUS publish, deliver and request: the first arg0 bytes of the payload behind the trace, where they
 *                are printable UTF-8; arg0 is left out then
 *   payload_frames | payload_json | payload_text | payload_b64
 *                what is left of the payload, none where it is empty: the first of these that fits.
 *                frames: NESTED is set and it is whole frames, each again such an object (up to 4 deep).
 *                json: it is an object or array in the form this library and `jq -c` both write: no white space; no
 *                key twice, at most 512 in one object; strings with \" \\ \b \f \n \r \t and \u00xx (lower case) for
 *                other controls, nothing else escaped, no U+007F; numbers of at most 15 digits without exponent, no
 *                minus before zero, no zero at the end of decimals, at most three behind a leading "0."; at most 60
 *                deep. Read: any JSON, brought to that form but for its numbers, which stay as they are.
 *                text: it is UTF-8. b64: RFC 4648 base64 with padding.
 */
#ifndef CULE_WIRE_MIRROR_H
#define CULE_WIRE_MIRROR_H

#include "base/json.h"
#include "wire/message.h"

enum {
    CULE_MIRROR_NEST_MAX = 4,
    CULE_MIRROR_JSON_DEPTH_MAX = 60,
    /* Of a line: its object, two more for each nested frame, and a payload in the innermost. */
    CULE_MIRROR_LINE_DEPTH_MAX = 1 + 2 * CULE_MIRROR_NEST_MAX + CULE_MIRROR_JSON_DEPTH_MAX,
};

/* Working memory, so that one line after the other allocates nothing. Not for two threads at once. */
struct cule_mirror {
    size_t message_max;   /* bytes of payload a line may make; CULE_MESSAGE_MAX unless set after init */
    struct cule_json doc; /* the line read, or the payload looked at */
    struct cule_buf body; /* the payload read */
    uint32_t service;     /* the service and op written last, and their text: traffic comes in runs */
    uint32_t op;
    unsigned names_len;
    char names[160];
};

void cule_mirror_init(struct cule_mirror *m);
void cule_mirror_release(struct cule_mirror *m);

/* Appends the frame as a line with its newline. 0, CULE_EMALFORMED (TRACE without room for it), CULE_ENOMEM or
 * CULE_ELIMIT; nothing is added then. */
int cule_mirror_write(struct cule_mirror *m, const struct cule_frame *f, const uint8_t *payload, struct cule_buf *out,
                      struct cule_err *err);

/* The same for a message of any length. */
int cule_mirror_write_msg(struct cule_mirror *m, const struct cule_msg *msg, struct cule_buf *out,
                          struct cule_err *err);

/*
 * Reads one line (the newline may be there or not). 0 and *msg: the header with its flags as given, MORE too, length
 * of the payload, nfds 0 descriptors; body and trace hold until the next call. Or CULE_EMALFORMED naming column and
 * key, CULE_ETOO_BIG, CULE_ELIMIT, CULE_ENOMEM.
 */
int cule_mirror_read(struct cule_mirror *m, const char *line, size_t n, struct cule_msg *msg, struct cule_err *err);

/* Reads one line and appends its frame; its frames where the payload is larger than one takes. The same errors;
 * nothing is added then. */
int cule_mirror_encode(struct cule_mirror *m, const char *line, size_t n, struct cule_buf *out, struct cule_err *err);

/* Flags by name: "retain", ...; NULL for a bit that has none. And back: the bit, 0 for an unknown name. */
const char *cule_flag_name(uint16_t bit);
uint16_t cule_flag_parse(const char *name, size_t n);

/* Whether a service's op has a topic before its body. */
bool cule_op_has_topic(uint32_t service, uint32_t op);

#endif

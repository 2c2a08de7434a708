/* Which frames to show: --filter service=S,op=OP,kind=K,topic=PATTERN,id=N; terms of one are and, several are or. */
#ifndef CULE_IPC_DECODE_FILTER_H
#define CULE_IPC_DECODE_FILTER_H

#include "common.h"

struct decode_filter {
    struct decode_rule *rules;
    size_t n; /* 0: everything */
};

int decode_filter_parse(struct decode_filter *f, const struct cule_words *words, struct cule_err *err);
void decode_filter_release(struct decode_filter *f);

/* body is the payload behind the trace prefix. */
bool decode_filter_takes(const struct decode_filter *f, const struct cule_frame *h, const uint8_t *body, size_t n);

#endif

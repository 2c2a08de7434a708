/*
 * Topics and patterns: what they may look like, and which pattern takes which topic.
 *
 * A topic is UTF-8, 1 to 255 bytes, levels separated by '/', no level empty, no control characters, no '+' or '#'.
 * In a pattern a level '+' stands for any one level and a last level '#' for any number of levels, none included.
 * Topics that begin with '$' are the bus's own; only patterns that begin with '$' take them.
 */
#ifndef CULE_CORE_BUS_TOPIC_H
#define CULE_CORE_BUS_TOPIC_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    CULE_TOPIC_MAX = 255,
    CULE_TOPIC_OWN_MAX = 300, /* a topic of the bus's own: a prefix and a whole topic behind it */
};

/* 0, or CULE_EMALFORMED with what is wrong. */
int cule_topic_check(const char *topic, size_t n, struct cule_err *err);
int cule_pattern_check(const char *pattern, size_t n, struct cule_err *err);

/* True if the pattern has no wildcard, so that it is one topic. */
bool cule_pattern_is_topic(const char *pattern, size_t n);

/* Whether a valid pattern takes a valid topic. */
bool cule_pattern_match(const char *pattern, size_t pn, const char *topic, size_t tn);

/* Whether every topic that `inner` takes is taken by `outer` too: what an access rule asks of a subscription. */
bool cule_pattern_covers(const char *outer, size_t on, const char *inner, size_t in);

/* Whether there is a topic that both patterns take. */
bool cule_pattern_overlap(const char *a, size_t an, const char *b, size_t bn);

#endif

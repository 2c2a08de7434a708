/*
 * Topics of the bus and subjects of NATS: how a map turns one into the other.
 *
 * A map is PATTERN=SUBJECT. Both sides have the same wildcards in the same order: "+" stands against "*", a last "#"
 * against a last ">"; what they match is carried over, the rest is replaced. Characters that one side has and the other
 * cannot have are percent-encoded: ". * > % space" of a level in subjects, "/ + #" of a token in topics; and decoded on
 * the way back.
 */
#ifndef CULE_IPC_BRIDGE_MAP_H
#define CULE_IPC_BRIDGE_MAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { BRIDGE_NAME_MAX = 255, BRIDGE_SUBJECT_MAX = 1024, BRIDGE_MAPS_MAX = 64 };

struct bridge_map {
    char pattern[BRIDGE_NAME_MAX + 1];
    char subject[BRIDGE_SUBJECT_MAX];
    bool to_nats, to_bus;
};

/* "a/#=nats.a.>" both ways, "a/#>nats.a.>" only to NATS, "a/#<nats.a.>" only to the bus. 0 or CULE_EUSAGE. */
int bridge_map_parse(struct bridge_map *m, const char *text, struct cule_err *err);

/* The subject for a topic: true; false where the map has none for it, or it would be too long. */
bool bridge_map_subject(const struct bridge_map *m, const char *topic, size_t n, char out[BRIDGE_SUBJECT_MAX]);
/* The topic for a subject. */
bool bridge_map_topic(const struct bridge_map *m, const char *subject, char out[BRIDGE_NAME_MAX + 1]);

#endif

/* The parts of `cule-ipc replay`: what a recording tells, asking it again, answering from it. */
#ifndef CULE_IPC_REPLAY_H
#define CULE_IPC_REPLAY_H

#include "base/map.h"
#include "record_file.h"

struct replay_opts {
    const char *file;
    const char *endpoint;
    double speed;
    bool fast;
    bool compare;
    bool serve;
    struct cule_words listen;
};

enum { STORY_SAMPLE = 96 };

/* Bytes reduced to what is compared and what is shown. */
struct story_bytes {
    uint64_t len, hash;
    uint8_t sample[STORY_SAMPLE];
};

/* What came back for one request, or one EVENT (then only `reply`): everything that counts when two recordings are
 * held against each other, and nothing else. How a stream is cut into DATA is chance and does not count. */
struct story {
    bool replied, streamed, failed, ended;
    uint32_t service, op; /* of an EVENT */
    uint64_t arg0, arg1;  /* of the REPLY or EVENT */
    struct story_bytes reply, data;
    int code; /* of the ERROR */
    uint64_t detail;
    struct story_bytes text;
};

void story_add_bytes(struct story_bytes *b, const void *p, size_t n);
/* Takes REPLY, ERROR, DATA or EVENT. */
void story_add(struct story *s, const struct cule_msg *m);
/* 0 where both tell the same, else a description of the difference is appended to out; a is what was recorded. */
int story_compare(const struct story *a, const struct story *b, struct cule_buf *out);

/* Messages of a recording, put together by link and direction. */
struct replay_source {
    struct recording r;
    struct cule_map assemblers; /* link * 2 + direction -> struct cule_assembler */
    uint64_t fds;               /* messages that had descriptors, which a recording cannot keep */
    uint64_t refused;           /* messages that could not be put together */
};
struct replay_item {
    struct cule_msg m; /* holds until the next call */
    uint64_t time_ns, link;
    bool answer;
};
int replay_source_open(struct replay_source *s, const char *path, struct cule_err *err);
void replay_source_close(struct replay_source *s);
/* 1, 0 at the end, or an error. */
int replay_source_next(struct replay_source *s, struct replay_item *x, struct cule_err *err);

/* The subcommand's two halves: the exit status. */
int replay_ask(struct cule_cli *cli);
int replay_serve(struct cule_cli *cli);

#endif

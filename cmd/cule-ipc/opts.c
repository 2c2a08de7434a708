/*
 * The subcommands of cule-ipc, in the order of --help.
 *
 * A new one is one file, cmd/cule-ipc/NAME.c, that defines its options' struct and
 * `const struct cule_command cule_ipc_NAME`, and one line SUBCOMMAND(NAME) in subcommands.def. Dashes in the
 * subcommand's name are underscores there. cli/opt.h has a worked example. Groups: frames, calls, bus,
 * recording, tools. Then: its section in man/man1/cule-ipc.1, and `make completions`.
 */
#include "ipc.h"

#define SUBCOMMAND(name) extern const struct cule_command cule_ipc_##name;
#include "subcommands.def"
#undef SUBCOMMAND

static const struct cule_command *const commands[] = {
#define SUBCOMMAND(name) &cule_ipc_##name,
#include "subcommands.def"
#undef SUBCOMMAND
    NULL,
};

const struct cule_program cule_ipc = {
    .name = "cule-ipc",
    .summary = "a message bus for the shell, and tools for every stream of frames",
    .commands = commands,
    .complete = cule_ipc_complete,
};

/* cule-ipc: the message bus and the Swiss knife of frames. */
#include "ipc.h"

#include "base/parse.h"
#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A closed standard descriptor would be given to the next thing opened, which then got our output. What only names
 * a directory can neither be written nor opened again for it: using it fails as before. */
static void hold_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)open("/", O_PATH | O_CLOEXEC);
        }
    }
}

/* A number in CULE_READY_FD that was not handed to us must not come to mean what we open ourselves. */
static void check_ready_fd(void)
{
    const char *text = getenv("CULE_READY_FD");
    uint64_t fd;
    if (text && (cule_parse_u64(text, &fd) || fd > INT_MAX || fcntl((int)fd, F_GETFD) < 0)) {
        unsetenv("CULE_READY_FD");
    }
}

int main(int argc, char **argv)
{
    check_ready_fd();
    hold_standard_fds();
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL); /* a reader that goes away is an error code, not our death */
    sigaction(SIGXFSZ, &ignore, NULL); /* and so is a file at its limit */
    umask(077);                        /* sockets, recordings and stores are their owner's alone */
    cule_tls_enable();
    return cule_cli_main(&cule_ipc, argc, argv);
}

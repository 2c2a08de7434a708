/* cule-ipc: the message bus and the Swiss knife of frames. */
#include "ipc.h"

#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* A closed standard descriptor would be given to the next thing opened, which then got our output. Opened the wrong
 * way round, using it still fails. */
static void hold_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)open("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
        }
    }
}

int main(int argc, char **argv)
{
    hold_standard_fds();
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL); /* a reader that goes away is an error code, not our death */
    sigaction(SIGXFSZ, &ignore, NULL); /* and so is a file at its limit */
    umask(077);                        /* sockets, recordings and stores are their owner's alone */
    cule_tls_enable();
    return cule_cli_main(&cule_ipc, argc, argv);
}

/* cule-ipc: the message bus and the Swiss knife of frames. */
#include "ipc.h"

#include "tls/tls.h"

#include <signal.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL); /* a reader that goes away is an error code, not our death */
    umask(077);                        /* sockets, recordings and stores are their owner's alone */
    cule_tls_enable();
    return cule_cli_main(&cule_ipc, argc, argv);
}

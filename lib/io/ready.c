/* Readiness on a descriptor and on systemd's socket. */
#include "io/ready.h"

#include "base/parse.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int notify(const char *name, const char *text, struct cule_err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || n >= sizeof sa.sun_path) {
        return cule_err_set(err, CULE_EUSAGE, "NOTIFY_SOCKET '%s' is neither a path nor an abstract name", name);
    }
    memcpy(sa.sun_path, name, n);
    if (name[0] == '@') {
        sa.sun_path[0] = '\0';
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return cule_err_sys(err, cule_err_from_errno(errno), errno, "cannot tell readiness");
    }
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    ssize_t w = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&sa, len);
    int sys = errno;
    close(fd);
    return w < 0 ? cule_err_sys(err, CULE_EIO, sys, "cannot tell readiness to '%s'", name) : 0;
}

static int newline(const char *number, struct cule_err *err)
{
    uint64_t fd;
    if (cule_parse_u64(number, &fd) || fd > INT32_MAX) {
        return cule_err_set(err, CULE_EUSAGE, "CULE_READY_FD '%s' is no descriptor", number);
    }
    ssize_t w;
    do {
        w = write((int)fd, "\n", 1);
    } while (w < 0 && errno == EINTR);
    int sys = errno;
    if (fd > 2) {
        close((int)fd);
    }
    return w < 0 ? cule_err_sys(err, CULE_EIO, sys, "cannot tell readiness on descriptor %s", number) : 0;
}

int cule_ready(const char *ready_fd, const char *notify_socket, struct cule_err *err)
{
    int rc = ready_fd && *ready_fd ? newline(ready_fd, err) : 0;
    int also = notify_socket && *notify_socket ? notify(notify_socket, "READY=1\n", rc ? NULL : err) : 0;
    return rc ? rc : also;
}

int cule_ready_stopping(const char *notify_socket, struct cule_err *err)
{
    return notify_socket && *notify_socket ? notify(notify_socket, "STOPPING=1\n", err) : 0;
}

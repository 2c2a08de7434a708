/* What the files of the endpoint module share; nobody else includes this. */
#ifndef CULE_IO_ENDPOINT_IMPL_H
#define CULE_IO_ENDPOINT_IMPL_H

#include "io/endpoint.h"

#include <sys/socket.h>
#include <sys/un.h>

/* The socket address of a path with suffix appended, or of an abstract name (@NAME). A path too long for sun_path goes
 * through a descriptor of its directory, which stays open until cule_unix_addr_release. */
struct cule_unix_addr {
    struct sockaddr_un sun;
    socklen_t len;
    int dirfd; /* -1: none needed */
};
int cule_unix_addr_init(struct cule_unix_addr *a, const char *path, const char *suffix, struct cule_err *err);
void cule_unix_addr_release(struct cule_unix_addr *a);

/* The directory part of a path as a string of its own ("." where there is none), and what follows it. */
const char *cule_path_split(const char *path, char *dir, size_t n);

struct addrinfo;
/* Looks up the host and port of a tcp or tls endpoint; freeaddrinfo the result. Names may ask a DNS server and block.
 */
int cule_endpoint_resolve(const struct cule_endpoint *ep, bool passive, struct addrinfo **out, struct cule_err *err);

#endif

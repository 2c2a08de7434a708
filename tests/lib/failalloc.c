/*
 * For LD_PRELOAD: fails one allocation, the FAILALLOC_AT-th of the process, and creates the file FAILALLOC_HIT
 * when it does. Allocations asked for by libraries in FAILALLOC_SKIP (substrings of their paths, separated by
 * colons) are neither counted nor failed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static long fail_at; /* 0: not yet, or never */
static const char *skip_libs;
static const char *hit_file;
static long counted;
static __thread bool inside; /* dladdr may allocate */

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("FAILALLOC_AT");
    skip_libs = getenv("FAILALLOC_SKIP");
    hit_file = getenv("FAILALLOC_HIT");
    fail_at = at ? strtol(at, NULL, 10) : 0;
}

static bool skipped(void *caller)
{
    Dl_info info;
    const char *p = skip_libs;

    if (!p || !dladdr(caller, &info) || !info.dli_fname) {
        return false;
    }
    while (*p) {
        char one[64];
        size_t n = strcspn(p, ":");
        if (n > 0 && n < sizeof one) {
            memcpy(one, p, n);
            one[n] = '\0';
            if (strstr(info.dli_fname, one)) {
                return true;
            }
        }
        p += n + (p[n] == ':');
    }
    return false;
}

static bool fails(void *caller)
{
    if (fail_at == 0 || inside) {
        return false;
    }
    inside = true;
    bool hit = !skipped(caller) && __atomic_add_fetch(&counted, 1, __ATOMIC_RELAXED) == fail_at;
    if (hit) {
        int fd = hit_file ? open(hit_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
        if (fd >= 0) {
            close(fd);
        }
        errno = ENOMEM;
    }
    inside = false;
    return hit;
}

void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

void *memalign(size_t align, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(align, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    if (fails(__builtin_return_address(0))) {
        return ENOMEM;
    }
    void *p = __libc_memalign(align, n);
    if (!p) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

/*
 * Sleeping on a word, the full fence and the spin hint: what the ring, the MPMC queue and the workers stand on.
 * Linux only. Times are nanoseconds of CLOCK_MONOTONIC; a deadline of CULE_NEVER never comes.
 */
#ifndef CULE_IO_FUTEX_H
#define CULE_IO_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CULE_NEVER UINT64_MAX

#if defined(__SANITIZE_THREAD__)
#define CULE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CULE_TSAN 1
#endif
#endif
#ifndef CULE_TSAN
#define CULE_TSAN 0
#endif

static inline uint64_t cule_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The deadline that lies timeout_ms ahead; negative is never. */
static inline uint64_t cule_deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? CULE_NEVER : cule_mono_ns() + (uint64_t)timeout_ms * 1000000u;
}

/* Tells the core that this is a spin loop. */
static inline void cule_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/*
 * A full fence: no load behind it is done before the stores ahead of it are seen by all. The thread sanitizer does
 * not model fences (and gcc refuses to build them for it), so under it a locked read-modify-write of a private word
 * stands in, which orders the same way on the machines it runs on; every use here orders flags, not data, so nothing
 * that the sanitizer watches depends on it.
 */
static inline void cule_full_fence(void)
{
#if CULE_TSAN
    uint32_t word = 0;
    __atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
    __asm__ volatile("" ::"r"(&word) : "memory");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/*
 * Sleeps while *word is value, until woken or until the deadline. Returns false only when the deadline has passed;
 * true says to look again (woken, value differs, interrupted). `shared`: the word lies in memory shared between
 * processes.
 */
static inline bool cule_futex_wait(uint32_t *word, uint32_t value, uint64_t deadline_ns, bool shared)
{
    struct timespec t = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)};
    int op = FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG); /* the only one with an absolute time */
    int saved = errno;
    long rc = syscall(SYS_futex, word, op, value, deadline_ns == CULE_NEVER ? NULL : &t, NULL, FUTEX_BITSET_MATCH_ANY);
    bool late = rc < 0 && errno == ETIMEDOUT;
    errno = saved;
    return !late;
}

/* Wakes at most n sleepers on the word. */
static inline void cule_futex_wake(uint32_t *word, int n, bool shared)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), n, NULL, NULL, 0);
    errno = saved;
}

#endif

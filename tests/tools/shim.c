/* A library to be preloaded, which makes system calls fail the way that systems do. The environment says how:
 *
 *     SHIM_SHORT=N         read and pread return 1 to N bytes, in turn
 *     SHIM_EINTR=1         every second call of read, pread and write fails with EINTR
 *     SHIM_NO_TMPFILE=1    open with O_TMPFILE fails with EOPNOTSUPP
 *     SHIM_FAIL=CALL:K:E   the K-th call (from 1) of CALL fails with error number E; E 0: SIGKILL before it,
 *                          E -1: SIGKILL after it. CALL "alloc" stands for malloc, calloc, realloc together
 *     SHIM_COUNT=FILE      at the end "CALL N" lines say how often each was called
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum call { READ, PREAD, WRITE, FSYNC, RENAME, RENAMEAT2, LINKAT, OPEN, ALLOC, N_CALLS };
static const char *const names[N_CALLS] = {"read",      "pread",  "write", "fsync", "rename",
                                           "renameat2", "linkat", "open",  "alloc"};
static atomic_long n_calls[N_CALLS];
static long fail_call = -1, fail_at, fail_errno, n_short;
static bool eintr, no_tmpfile;
static const char *count_path;

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t n_each);
extern void *__libc_realloc(void *p, size_t n);
ssize_t __read_chk(int fd, void *p, size_t n, size_t n_room);
ssize_t __pread_chk(int fd, void *p, size_t n, off_t off, size_t n_room);

__attribute__((constructor)) static void begin(void)
{
    const char *fail = getenv("SHIM_FAIL"), *colon = fail ? strchr(fail, ':') : NULL;
    for (int i = 0; colon && i < N_CALLS; i++)
        if (strlen(names[i]) == (size_t)(colon - fail) && !strncmp(fail, names[i], strlen(names[i])))
            fail_call = i;
    const char *at_errno = colon ? strchr(colon + 1, ':') : NULL;
    if (colon) fail_at = strtol(colon + 1, NULL, 10);
    if (at_errno) fail_errno = strtol(at_errno + 1, NULL, 10);
    n_short = getenv("SHIM_SHORT") ? strtol(getenv("SHIM_SHORT"), NULL, 10) : 0;
    eintr = getenv("SHIM_EINTR") != NULL;
    no_tmpfile = getenv("SHIM_NO_TMPFILE") != NULL;
    count_path = getenv("SHIM_COUNT");
    for (int i = 0; i < N_CALLS; i++) atomic_store(&n_calls[i], 0);
}

__attribute__((destructor)) static void end(void)
{
    char line[64];
    int fd = count_path ? (int)syscall(SYS_open, count_path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
    for (int i = 0; fd >= 0 && i < N_CALLS; i++) {
        int n = snprintf(line, sizeof line, "%s %ld\n", names[i], atomic_load(&n_calls[i]));
        if (n < 0 || syscall(SYS_write, fd, line, n) != n) break;
    }
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* true: the call fails with errno. *i: its number. */
static bool fails(enum call call, long *i)
{
    *i = atomic_fetch_add(&n_calls[call], 1) + 1;
    if (fail_call != (long)call || *i != fail_at || fail_errno < 0) return false;
    if (fail_errno == 0) die();
    errno = (int)fail_errno;
    return true;
}

static void after(enum call call, long i)
{
    if (fail_call == (long)call && i == fail_at && fail_errno < 0) die();
}

/* How much of n this call may move; 0: it is interrupted. */
static size_t share(enum call call, long i, size_t n)
{
    if (eintr && i % 2 == 0) {
        errno = EINTR;
        return 0;
    }
    size_t n_max = n_short > 0 && call != WRITE ? (size_t)(i % n_short) + 1 : n;
    return n < n_max ? n : n_max;
}

ssize_t read(int fd, void *p, size_t n)
{
    long i;
    if (fails(READ, &i)) return -1;
    size_t n_now = share(READ, i, n);
    return n_now || n == 0 ? syscall(SYS_read, fd, p, n_now) : -1;
}

ssize_t __read_chk(int fd, void *p, size_t n, size_t n_room)
{
    if (n > n_room) abort();
    return read(fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t off)
{
    long i;
    if (fails(PREAD, &i)) return -1;
    size_t n_now = share(PREAD, i, n);
    return n_now || n == 0 ? syscall(SYS_pread64, fd, p, n_now, off) : -1;
}

ssize_t __pread_chk(int fd, void *p, size_t n, off_t off, size_t n_room)
{
    if (n > n_room) abort();
    return pread(fd, p, n, off);
}

ssize_t write(int fd, const void *p, size_t n)
{
    long i;
    if (fd <= STDERR_FILENO && !n_short)
        return syscall(SYS_write, fd, p, n); /* messages are not our subject */
    if (fails(WRITE, &i)) return -1;
    size_t n_now = share(WRITE, i, n);
    ssize_t n_done = n_now || n == 0 ? syscall(SYS_write, fd, p, n_now) : -1;
    after(WRITE, i);
    return n_done;
}

int fsync(int fd)
{
    long i;
    int rc = fails(FSYNC, &i) ? -1 : (int)syscall(SYS_fsync, fd);
    after(FSYNC, i);
    return rc;
}

int rename(const char *from, const char *to)
{
    long i;
    int rc = fails(RENAME, &i) ? -1 : (int)syscall(SYS_rename, from, to);
    after(RENAME, i);
    return rc;
}

int renameat2(int fd_from, const char *from, int fd_to, const char *to, unsigned flags)
{
    long i;
    int rc = fails(RENAMEAT2, &i) ? -1 : (int)syscall(SYS_renameat2, fd_from, from, fd_to, to, flags);
    after(RENAMEAT2, i);
    return rc;
}

int linkat(int fd_from, const char *from, int fd_to, const char *to, int flags)
{
    long i;
    int rc = fails(LINKAT, &i) ? -1 : (int)syscall(SYS_linkat, fd_from, from, fd_to, to, flags);
    after(LINKAT, i);
    return rc;
}

int open(const char *path, int flags, ...)
{
    long i;
    va_list args;
    va_start(args, flags);
    bool has_mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
    unsigned mode = has_mode ? va_arg(args, unsigned) : 0;
    va_end(args);
    if (fails(OPEN, &i)) return -1;
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    after(OPEN, i);
    return fd;
}

/* The dynamic linker and getenv come before begin: until then nothing fails. */
void *malloc(size_t n)
{
    long i;
    return fails(ALLOC, &i) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t n_each)
{
    long i;
    return fails(ALLOC, &i) ? NULL : __libc_calloc(n, n_each);
}

void *realloc(void *p, size_t n)
{
    long i;
    return fails(ALLOC, &i) ? NULL : __libc_realloc(p, n);
}

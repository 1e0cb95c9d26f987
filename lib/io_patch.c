#include "io_patch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool apr_patch_fits(uint64_t off, size_t n)
{
    return n > 0 && n <= APR_PATCH_BLOCK - off % APR_PATCH_BLOCK;
}

enum apr_code apr_patch_block(const char *path, uint64_t off, const void *p, size_t n, struct apr_err *e)
{
    ssize_t got;
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) return apr_fail(e, APR_EIO, "%s: %s", path, strerror(errno));
    do got = pwrite(fd, p, n, (off_t)off);
    while (got < 0 && errno == EINTR);
    bool good = got == (ssize_t)n && fsync(fd) == 0;
    int why = got >= 0 && got != (ssize_t)n ? EIO : errno;
    if (close(fd) != 0 && good) {
        good = false;
        why = errno;
    }
    return good ? APR_OK
                : apr_fail(e, APR_EIO, "%s: byte %" PRIu64 ": writing %zu bytes: %s", path, off, n,
                           strerror(why));
}

static bool write_at(int fd, const uint8_t *p, size_t n, uint64_t off)
{
    while (n > 0) {
        ssize_t got = pwrite(fd, p, n, (off_t)off);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        p += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

enum apr_code apr_sparse_open(struct apr_sparse *s, const void *head, size_t n_head, const void *tail,
                              size_t n_tail, uint64_t n_all, struct apr_err *e)
{
    s->fd = memfd_create("apr", MFD_CLOEXEC);
    if (s->fd >= 0 && n_all <= INT64_MAX && n_head + n_tail <= n_all && ftruncate(s->fd, (off_t)n_all) == 0 &&
        write_at(s->fd, head, n_head, 0) && write_at(s->fd, tail, n_tail, n_all - n_tail)) {
        (void)snprintf(s->path, sizeof s->path, "/dev/fd/%d", s->fd);
        return APR_OK;
    }
    apr_sparse_close(s);
    return apr_fail(e, APR_EIO, "a file in memory of %" PRIu64 " bytes: %s", n_all, strerror(errno));
}

void apr_sparse_close(struct apr_sparse *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

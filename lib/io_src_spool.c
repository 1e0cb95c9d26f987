/* A pipe becomes a file: for formats that have to be read out of order. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io_src.h"

#define COPY_BYTES ((size_t)1 << 20) /* piece of a spool */

static int open_temp(void)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    if (!dir || !*dir) dir = "/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
    int n = snprintf(path, sizeof path, "%s/apr-spool.XXXXXX", dir);
    if (n < 0 || (size_t)n >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) unlink(path);
    return fd;
}

static enum apr_code copy_to(struct apr_src *s, int fd, uint8_t *piece, uint64_t *n_total, struct apr_err *e)
{
    size_t n_got;
    for (;;) {
        TRY(apr_src_read_some(s, piece, COPY_BYTES, &n_got, e));
        if (n_got == 0) return APR_OK;
        for (size_t done = 0; done < n_got;) {
            ssize_t n = write(fd, piece + done, n_got - done);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0)
                return apr_fail(e, APR_EIO,
                                "%s: cannot copy to a temporary file: %s (TMPDIR chooses its place)", s->name,
                                strerror(errno));
            done += (size_t)n;
        }
        *n_total += n_got;
    }
}

enum apr_code apr_src_spool(struct apr_src *s, struct apr_err *e)
{
    if (s->seekable) return APR_OK;
    if (s->pos) return apr_fail(e, APR_EIO, "%s: cannot go back in a pipe", s->name);
    int fd = open_temp();
    if (fd < 0)
        return apr_fail(e, APR_EIO, "cannot create a temporary file: %s (TMPDIR chooses its place)",
                        strerror(errno));
    uint64_t n_total = 0;
    bool with_crc = s->with_crc;
    s->with_crc = false; /* nothing is consumed yet */
    enum apr_code rc = copy_to(s, fd, apr_arena_get(&s->arena, COPY_BYTES), &n_total, e);
    if (rc == APR_OK && lseek(fd, 0, SEEK_SET) != 0) rc = apr_src_read_error(s, 0, e);
    if (rc != APR_OK) {
        close(fd);
        return rc;
    }
    close(s->fd);
    s->fd = fd;
    s->with_crc = with_crc;
    s->seekable = true;
    s->at_end = false;
    s->n_bytes = n_total;
    s->pos = 0;
    s->i_buf = s->n_buf = 0;
    return APR_OK;
}

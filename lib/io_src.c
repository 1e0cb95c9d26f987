/* Sources: a file, or standard input, behind one buffer that can be looked into before it is consumed. */
#include "io_src.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"

#define MAX_IO ((size_t)1 << 30) /* Linux moves at most 2 GiB in one call */

/* One read that is not disturbed by signals or by a non-blocking descriptor that we inherited. */
static ssize_t read_fd(int fd, void *p, size_t n)
{
    if (n > MAX_IO) n = MAX_IO;
    for (;;) {
        ssize_t got = read(fd, p, n);
        if (got >= 0) return got;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd wait = {.fd = fd, .events = POLLIN};
            if (poll(&wait, 1, -1) < 0 && errno != EINTR) return -1;
        } else if (errno != EINTR) {
            return -1;
        }
    }
}

static bool is_fd_path(const char *path)
{
    return !strncmp(path, "/dev/fd/", 8) || !strncmp(path, "/proc/self/fd/", 14) ||
           !strcmp(path, "/dev/stdin");
}

/* What kind of file is behind fd, and may it be read as path? */
static enum apr_code classify(struct apr_src *s, const char *path, struct apr_err *e)
{
    struct stat st;
    bool is_stdin = !strcmp(path, "-");
    if (fstat(s->fd, &st)) return apr_fail(e, APR_EIO, "%s: %s", s->name, strerror(errno));
    if (S_ISDIR(st.st_mode)) return apr_fail(e, APR_EFORMAT, "%s: is a directory, expected a file", s->name);
    if (S_ISREG(st.st_mode)) {
        /* Standard input that somebody read from already is a stream: its byte 0 is not the file's. */
        s->seekable = !is_stdin || lseek(s->fd, 0, SEEK_CUR) == 0;
        if (s->seekable) s->n_bytes = (uint64_t)st.st_size;
        if (s->seekable) posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        return APR_OK;
    }
    if (S_ISFIFO(st.st_mode))
        (void)fcntl(s->fd, F_SETPIPE_SZ, APR_PIPE_BYTES); /* a smaller one works as well */
    if (is_stdin && isatty(s->fd))
        return apr_fail(e, APR_EUSAGE, "standard input is a terminal; expected a file or a pipe");
    if (!is_stdin && !is_fd_path(path))
        return apr_fail(e, APR_EFORMAT, "%s: is not a regular file; use \"-\" for standard input", s->name);
    return APR_OK;
}

static enum apr_code open_fd(struct apr_src *s, const char *path, struct apr_err *e)
{
    if (!strcmp(path, "-")) {
        s->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    } else {
        /* Non-blocking, so that a FIFO without a writer cannot hang us before fstat shows what it is. */
        do s->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        while (s->fd < 0 && errno == EINTR);
    }
    if (s->fd >= 0) return APR_OK;
    bool absent = errno == ENOENT || errno == ENOTDIR;
    return apr_fail(e, absent ? APR_ENOTFOUND : APR_EIO, "%s: %s", s->name, strerror(errno));
}

enum apr_code apr_src_open(struct apr_src **out, const char *path, struct apr_err *e)
{
    struct apr_arena arena;
    char name[512];
    *out = NULL;
    apr_arena_init(&arena);
    struct apr_src *s = apr_arena_get(&arena, sizeof *s);
    apr_escape(name, sizeof name, path, strlen(path));
    s->fd = -1;
    s->n_bytes = UINT64_MAX;
    s->name = strcmp(path, "-") != 0 ? apr_arena_strdup(&arena, name) : "standard input";
    s->arena = arena;
    enum apr_code rc = open_fd(s, path, e);
    if (rc == APR_OK) rc = classify(s, path, e);
    if (rc != APR_OK) {
        apr_src_close(s);
        return rc;
    }
    if (strcmp(path, "-") != 0) fcntl(s->fd, F_SETFL, 0); /* the open file is ours: block from here on */
    *out = s;
    return APR_OK;
}

void apr_src_close(struct apr_src *s)
{
    if (!s) return;
    if (s->map) munmap(s->map, s->n_map_bytes);
    apr_src_sha_stop(s);
    apr_unpacker_close(s->u);
    apr_packed_close(s->packed);
    if (s->fd >= 0) close(s->fd);
    struct apr_arena arena = s->arena;
    apr_arena_free(&arena);
}

const char *apr_src_name(const struct apr_src *s)
{
    return s->name;
}
bool apr_src_seekable(const struct apr_src *s)
{
    return s->seekable;
}
uint64_t apr_src_size(const struct apr_src *s)
{
    return s->n_bytes;
}
bool apr_src_identify(const struct apr_src *s, struct apr_src_id *id)
{
    struct stat st;
    if (!s->seekable || fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_nlink == 0) return false;
    *id = (struct apr_src_id){.device = (uint64_t)st.st_dev,
                              .inode = (uint64_t)st.st_ino,
                              .n_bytes = (uint64_t)st.st_size,
                              .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
    return true;
}
uint64_t apr_src_pos(const struct apr_src *s)
{
    return s->pos;
}

enum apr_code apr_src_read_error(const struct apr_src *s, uint64_t off, struct apr_err *e)
{
    return apr_fail(e, APR_EIO, "%s: byte %" PRIu64 ": cannot read: %s", s->name, off, strerror(errno));
}

enum apr_code apr_src_pread_fd(const struct apr_src *s, uint64_t off, void *dst, size_t n, const char *what,
                               struct apr_err *e)
{
    uint8_t *p = dst;
    while (n) {
        ssize_t got = pread(s->fd, p, n < MAX_IO ? n : MAX_IO, (off_t)off);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return apr_src_read_error(s, off, e);
        if (got == 0)
            return apr_fail(e, APR_EIO, "%s: byte %" PRIu64 ": %s: the file became shorter while it was read",
                            s->name, off, what);
        p += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return APR_OK;
}

/* One read of the content. */
static enum apr_code read_below(struct apr_src *s, void *dst, size_t n, uint64_t off, size_t *n_got,
                                struct apr_err *e)
{
    if (s->u) {
        TRY(apr_unpacker_read(s->u, dst, n, n_got, e));
    } else {
        ssize_t got = read_fd(s->fd, dst, n);
        if (got < 0) return apr_src_read_error(s, off, e);
        *n_got = (size_t)got;
    }
    if (*n_got == 0) s->at_end = true;
    return APR_OK;
}

/* One read behind what is buffered. */
static enum apr_code fill(struct apr_src *s, struct apr_err *e)
{
    if (!s->buf) s->buf = apr_arena_get(&s->arena, APR_SRC_BUF_BYTES);
    if (s->i_buf) memmove(s->buf, s->buf + s->i_buf, s->n_buf - s->i_buf);
    s->n_buf -= s->i_buf;
    s->i_buf = 0;
    size_t n_got;
    TRY(read_below(s, s->buf + s->n_buf, APR_SRC_BUF_BYTES - s->n_buf, s->pos + s->n_buf, &n_got, e));
    s->n_buf += n_got;
    return APR_OK;
}

enum apr_code apr_src_peek(struct apr_src *s, size_t n, const uint8_t **p, size_t *n_got, struct apr_err *e)
{
    static const uint8_t none;
    if (n > APR_SRC_BUF_BYTES) n = APR_SRC_BUF_BYTES;
    while (s->n_buf - s->i_buf < n && !s->at_end) TRY(fill(s, e));
    size_t n_have = s->n_buf - s->i_buf;
    *p = s->buf ? s->buf + s->i_buf : &none;
    *n_got = n_have < n ? n_have : n;
    return APR_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

enum apr_code apr_src_read_some(struct apr_src *s, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    *n_got = 0;
    if (n == 0) return APR_OK;
    if (s->i_buf == s->n_buf && !s->at_end && n < APR_SRC_BUF_BYTES) TRY(fill(s, e));
    size_t n_now = s->n_buf - s->i_buf;
    if (n_now) {
        if (n_now > n) n_now = n;
        memcpy(dst, s->buf + s->i_buf, n_now);
        s->i_buf += n_now;
    } else if (!s->at_end) {
        TRY(read_below(s, dst, n, s->pos, &n_now, e));
    }
    TRY(apr_src_sha_feed(s, s->pos, dst, n_now, e));
    s->pos += n_now;
    if (s->with_crc) s->crc = apr_crc32(s->crc, dst, n_now);
    *n_got = n_now;
    return APR_OK;
}

bool apr_src_ready(const struct apr_src *s)
{
    struct pollfd now = {.fd = s->fd, .events = POLLIN};
    return s->i_buf < s->n_buf || s->at_end || s->seekable || poll(&now, 1, 0) != 0;
}

enum apr_code apr_src_read(struct apr_src *s, void *dst, size_t n, const char *what, struct apr_err *e)
{
    uint8_t *p = dst;
    while (n) {
        size_t n_got;
        TRY(apr_src_read_some(s, p, n, &n_got, e));
        if (n_got == 0)
            return apr_fail(e, APR_EFORMAT, "%s: ends at byte %" PRIu64 " inside %s; expected %zu more bytes",
                            s->name, s->pos, what, n);
        p += n_got;
        n -= n_got;
    }
    return APR_OK;
}

enum apr_code apr_src_skip(struct apr_src *s, uint64_t n, const char *what, struct apr_err *e)
{
    uint8_t drop[APR_SRC_BUF_BYTES / 4];
    while (n) {
        size_t n_now = n < sizeof drop ? (size_t)n : sizeof drop;
        TRY(apr_src_read(s, drop, n_now, what, e));
        n -= n_now;
    }
    return APR_OK;
}

enum apr_code apr_src_pread_stored(struct apr_src *s, uint64_t off, void *dst, size_t n, const char *what,
                                   struct apr_err *e)
{
    if (!s->seekable) return apr_fail(e, APR_EIO, "%s: %s: cannot seek in a pipe", s->name, what);
    return apr_src_pread_fd(s, off, dst, n, what, e);
}

enum apr_code apr_src_pread(struct apr_src *s, uint64_t off, void *dst, size_t n, const char *what,
                            struct apr_err *e)
{
    uint8_t *p = dst;
    if (!s->seekable) return apr_fail(e, APR_EIO, "%s: %s: cannot seek in a pipe", s->name, what);
    if (off > s->n_bytes || n > s->n_bytes - off)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": %s needs %zu bytes, the file ends at byte %" PRIu64, s->name,
                        off, what, n, s->n_bytes);
    if (!s->packed) {
        TRY(apr_src_pread_fd(s, off, dst, n, what, e));
        if (s->sha_defers || !s->sha) return APR_OK; /* several threads may be here */
        return apr_src_sha_feed(s, off, dst, n, e);
    }
    if (off < s->off_pack) {
        size_t n_plain = s->off_pack - off < n ? (size_t)(s->off_pack - off) : n;
        TRY(apr_src_pread_fd(s, off, p, n_plain, what, e));
        off += n_plain;
        p += n_plain;
        n -= n_plain;
    }
    return n ? apr_packed_read(s->packed, off - s->off_pack, p, n, what, e) : APR_OK;
}

/* The content, decoded into memory. */
static enum apr_code map_packed(struct apr_src *s, struct apr_err *e)
{
    uint64_t n_memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (s->n_bytes > n_memory)
        return apr_fail(e, APR_ELOAD,
                        "%s: %" PRIu64 " bytes of content do not fit into memory; convert --compress none "
                        "makes a file that can be mapped",
                        s->name, s->n_bytes);
    void *map = mmap(NULL, (size_t)s->n_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return apr_fail(e, APR_ELOAD, "%s: no memory for %" PRIu64 " bytes of content: %s", s->name,
                        s->n_bytes, strerror(errno));
    s->map = map;
    s->n_map_bytes = (size_t)s->n_bytes;
    return apr_src_pread(s, 0, map, (size_t)s->n_bytes, "the content", e);
}

enum apr_code apr_src_map(struct apr_src *s, const uint8_t **p, struct apr_err *e)
{
    static const uint8_t none;
    *p = &none;
    if (!s->seekable) return apr_fail(e, APR_EIO, "%s: a pipe cannot be mapped", s->name);
    if (s->n_bytes == 0) return APR_OK;
    if (!s->map && s->packed) {
        TRY(map_packed(s, e));
    } else if (!s->map) {
        void *map = mmap(NULL, (size_t)s->n_bytes, PROT_READ, MAP_PRIVATE, s->fd, 0);
        if (map == MAP_FAILED)
            return apr_fail(e, APR_ELOAD, "%s: cannot map %" PRIu64 " bytes: %s", s->name, s->n_bytes,
                            strerror(errno));
        s->map = map;
        s->n_map_bytes = (size_t)s->n_bytes;
    }
    *p = s->map;
    return APR_OK;
}

void apr_src_forget(const struct apr_src *s, const void *p, size_t n)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), map = (uintptr_t)s->map, at = (uintptr_t)p;
    if (!s->map || s->packed || at < map || at - map > s->n_map_bytes || n > s->n_map_bytes - (at - map))
        return;
    uintptr_t begin = (at + page - 1) / page * page, end = (at + n) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* ---- compressed --------------------------------------------------------------------------------------- */

/* For the reader in sequence: what was read ahead, then the descriptor. */
static enum apr_code next_stored(void *ctx, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    struct apr_src *s = ctx;
    if (s->n_ahead) {
        *n_got = n < s->n_ahead ? n : s->n_ahead;
        memcpy(dst, s->ahead, *n_got);
        s->ahead += *n_got;
        s->n_ahead -= *n_got;
        return APR_OK;
    }
    ssize_t got = read_fd(s->fd, dst, n);
    if (got < 0) return apr_fail(e, APR_EIO, "%s: cannot read: %s", s->name, strerror(errno));
    *n_got = (size_t)got;
    return APR_OK;
}

static enum apr_code stored_at(void *ctx, uint64_t off, void *dst, size_t n, struct apr_err *e)
{
    return apr_src_pread_fd(ctx, off, dst, n, "compressed data", e);
}

enum apr_code apr_src_unpack(struct apr_src *s, enum apr_pack kind, struct apr_err *e)
{
    size_t n_ahead = s->n_buf - s->i_buf;
    uint8_t *ahead = apr_arena_get(&s->arena, n_ahead + 1);
    if (n_ahead) memcpy(ahead, s->buf + s->i_buf, n_ahead);
    s->ahead = ahead;
    s->n_ahead = n_ahead;
    s->i_buf = s->n_buf = 0;
    apr_src_sha_stop(s);
    s->at_end = false;
    s->pack = kind;
    s->off_pack = s->pos;
    s->u = apr_unpacker_open(kind, s->name, next_stored, s);
    if (!s->seekable) return APR_OK;
    struct apr_pack_in in = {.kind = kind,
                             .file = s->name,
                             .off = s->pos,
                             .n_bytes = s->n_bytes - s->pos,
                             .at = stored_at,
                             .ctx = s};
    TRY(apr_packed_open(&s->packed, &in, e));
    uint64_t n = apr_packed_size(s->packed);
    s->n_bytes = n == UINT64_MAX ? n : n + s->off_pack;
    return APR_OK;
}

enum apr_code apr_src_bound(struct apr_src *s, uint64_t n_max, struct apr_err *e)
{
    if (!s->packed) return APR_OK;
    TRY(apr_packed_bound(s->packed, n_max - s->off_pack, e));
    s->n_bytes = apr_packed_size(s->packed) + s->off_pack;
    return APR_OK;
}

bool apr_src_packed(const struct apr_src *s)
{
    return s->pack != APR_PACK_NONE;
}

void apr_src_crc_begin(struct apr_src *s)
{
    s->with_crc = true;
    s->crc = 0;
}

uint32_t apr_src_crc(const struct apr_src *s)
{
    return s->crc;
}

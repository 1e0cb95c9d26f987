/* Sources: a file, or standard input, behind one buffer that can be looked into before it is consumed. */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "hash.h"

#define BUF_BYTES  ((size_t)65536)      /* what apr_src_peek may ask for */
#define MAX_IO     ((size_t)1 << 30)    /* Linux moves at most 2 GiB in one call */
#define GAP_BYTES  ((uint64_t)16 << 20) /* left out by the reader, and still read for the hash */
#define COPY_BYTES ((size_t)1 << 20)    /* piece of a spool */

struct apr_src {
    struct apr_arena arena; /* owns this struct, name and buf */
    int fd;
    bool seekable, at_end, with_crc;
    const char *name; /* escaped */
    uint64_t n_bytes; /* UINT64_MAX: unknown */
    uint64_t pos;     /* consumed */
    uint8_t *buf;     /* [BUF_BYTES], made when it is first needed */
    size_t i_buf, n_buf;
    void *map;
    size_t n_map_bytes;
    uint32_t crc;
    struct apr_sha256 *sha; /* owned; NULL: not hashed, or not any more */
    uint64_t n_hashed;
    enum apr_code sha_code; /* sticky; of an add */
    struct apr_err sha_why;
    bool sha_defers, sha_patient; /* patient: what is left out is read for the hash, however much */
    /* A compressed rest of the file: */
    enum apr_pack pack;
    uint64_t off_pack;         /* where it begins, in file and content */
    struct apr_unpacker *u;    /* owned; for reading in sequence */
    struct apr_packed *packed; /* owned; seekable sources */
    const uint8_t *ahead;      /* read from the descriptor, not taken by u yet */
    size_t n_ahead;
};

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

static void sha_stop(struct apr_src *s)
{
    if (s->sha) apr_sha256_end(s->sha, NULL);
    s->sha = NULL;
}

void apr_src_close(struct apr_src *s)
{
    if (!s) return;
    if (s->map) munmap(s->map, s->n_map_bytes);
    sha_stop(s);
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

static enum apr_code read_error(const struct apr_src *s, uint64_t off, struct apr_err *e)
{
    return apr_fail(e, APR_EIO, "%s: byte %" PRIu64 ": cannot read: %s", s->name, off, strerror(errno));
}

static enum apr_code pread_fd(const struct apr_src *s, uint64_t off, void *dst, size_t n, const char *what,
                              struct apr_err *e)
{
    uint8_t *p = dst;
    while (n) {
        ssize_t got = pread(s->fd, p, n < MAX_IO ? n : MAX_IO, (off_t)off);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return read_error(s, off, e);
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
        if (got < 0) return read_error(s, off, e);
        *n_got = (size_t)got;
    }
    if (*n_got == 0) s->at_end = true;
    return APR_OK;
}

/* One read behind what is buffered. */
static enum apr_code fill(struct apr_src *s, struct apr_err *e)
{
    if (!s->buf) s->buf = apr_arena_get(&s->arena, BUF_BYTES);
    if (s->i_buf) memmove(s->buf, s->buf + s->i_buf, s->n_buf - s->i_buf);
    s->n_buf -= s->i_buf;
    s->i_buf = 0;
    size_t n_got;
    TRY(read_below(s, s->buf + s->n_buf, BUF_BYTES - s->n_buf, s->pos + s->n_buf, &n_got, e));
    s->n_buf += n_got;
    return APR_OK;
}

enum apr_code apr_src_peek(struct apr_src *s, size_t n, const uint8_t **p, size_t *n_got, struct apr_err *e)
{
    static const uint8_t none;
    if (n > BUF_BYTES) n = BUF_BYTES;
    while (s->n_buf - s->i_buf < n && !s->at_end) TRY(fill(s, e));
    size_t n_have = s->n_buf - s->i_buf;
    *p = s->buf ? s->buf + s->i_buf : &none;
    *n_got = n_have < n ? n_have : n;
    return APR_OK;
}

/* ---- hash --------------------------------------------------------------------------------------------- */

/* Bytes between the last hashed one and off, which nobody else reads. A source that cannot be read for this
 * is an error: without its hash the output would be another one. */
static enum apr_code sha_gap(struct apr_src *s, uint64_t off, struct apr_err *e)
{
    uint8_t piece[BUF_BYTES / 4];
    if (s->sha && s->n_hashed < off && (!s->seekable || (off - s->n_hashed > GAP_BYTES && !s->sha_patient)))
        sha_stop(s);
    while (s->sha && s->n_hashed < off) {
        size_t n = off - s->n_hashed < sizeof piece ? (size_t)(off - s->n_hashed) : sizeof piece;
        TRY(pread_fd(s, s->n_hashed, piece, n, "bytes to hash", e));
        apr_sha256_add(s->sha, piece, n);
        s->n_hashed += n;
    }
    return APR_OK;
}

static enum apr_code sha_add(struct apr_src *s, uint64_t off, const void *p, size_t n, struct apr_err *e)
{
    if (!s->sha || off + n <= s->n_hashed) return APR_OK;
    TRY(sha_gap(s, off, e));
    if (!s->sha) return APR_OK;
    size_t n_known = (size_t)(s->n_hashed - off);
    apr_sha256_add(s->sha, (const uint8_t *)p + n_known, n - n_known);
    s->n_hashed = off + n;
    return APR_OK;
}

enum apr_code apr_src_sha_begin(struct apr_src *s, struct apr_err *e)
{
    sha_stop(s);
    s->n_hashed = 0;
    return apr_sha256_begin(&s->sha, e);
}

void apr_src_sha_patient(struct apr_src *s)
{
    s->sha_patient = true;
}

void apr_src_sha_defer(struct apr_src *s, bool on)
{
    s->sha_defers = on;
}

void apr_src_sha_add(struct apr_src *s, uint64_t off, const void *p, size_t n)
{
    if (s->sha_defers && s->seekable && !s->packed && s->sha_code == APR_OK)
        s->sha_code = sha_add(s, off, p, n, &s->sha_why);
}

enum apr_code apr_src_sha_end(struct apr_src *s, char hex[APR_SHA256_HEX], bool *whole, struct apr_err *e)
{
    *whole = false;
    if (s->sha_code != APR_OK) {
        *e = s->sha_why;
        return s->sha_code;
    }
    if (s->seekable)
        TRY(sha_gap(s, s->n_bytes, e));
    else /* looked at, and not consumed */
        TRY(sha_add(s, s->pos, s->buf + s->i_buf, s->n_buf - s->i_buf, e));
    *whole = s->sha && (s->seekable ? s->n_hashed == s->n_bytes : s->at_end);
    if (*whole) apr_sha256_end(s->sha, hex);
    if (*whole) s->sha = NULL;
    sha_stop(s);
    return APR_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

enum apr_code apr_src_read_some(struct apr_src *s, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    *n_got = 0;
    if (n == 0) return APR_OK;
    if (s->i_buf == s->n_buf && !s->at_end && n < BUF_BYTES) TRY(fill(s, e));
    size_t n_now = s->n_buf - s->i_buf;
    if (n_now) {
        if (n_now > n) n_now = n;
        memcpy(dst, s->buf + s->i_buf, n_now);
        s->i_buf += n_now;
    } else if (!s->at_end) {
        TRY(read_below(s, dst, n, s->pos, &n_now, e));
    }
    TRY(sha_add(s, s->pos, dst, n_now, e));
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
    uint8_t drop[BUF_BYTES / 4];
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
    return pread_fd(s, off, dst, n, what, e);
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
        TRY(pread_fd(s, off, dst, n, what, e));
        if (s->sha_defers || !s->sha) return APR_OK; /* several threads may be here */
        return sha_add(s, off, dst, n, e);
    }
    if (off < s->off_pack) {
        size_t n_plain = s->off_pack - off < n ? (size_t)(s->off_pack - off) : n;
        TRY(pread_fd(s, off, p, n_plain, what, e));
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
    return pread_fd(ctx, off, dst, n, "compressed data", e);
}

enum apr_code apr_src_unpack(struct apr_src *s, enum apr_pack kind, struct apr_err *e)
{
    size_t n_ahead = s->n_buf - s->i_buf;
    uint8_t *ahead = apr_arena_get(&s->arena, n_ahead + 1);
    if (n_ahead) memcpy(ahead, s->buf + s->i_buf, n_ahead);
    s->ahead = ahead;
    s->n_ahead = n_ahead;
    s->i_buf = s->n_buf = 0;
    sha_stop(s);
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

/* ---- spool -------------------------------------------------------------------------------------------- */

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
    if (rc == APR_OK && lseek(fd, 0, SEEK_SET) != 0) rc = read_error(s, 0, e);
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

void apr_src_crc_begin(struct apr_src *s)
{
    s->with_crc = true;
    s->crc = 0;
}

uint32_t apr_src_crc(const struct apr_src *s)
{
    return s->crc;
}

/* Sinks: a file that appears only when it is complete, standard output, or memory.
 *
 * Where the file system can, the temporary has no name until it is complete (O_TMPFILE), so that not even
 * SIGKILL leaves one behind; elsewhere it is .NAME.XXXXXX.tmp beside the target, listed in temps for
 * apr_sink_cleanup.
 */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "arena.h"
#include "hash.h"

#define BUF_BYTES     ((size_t)1 << 16)
#define MAX_IO        ((size_t)1 << 30) /* Linux moves at most 2 GiB in one call */
#define MAX_TEMPS     64
#define MAX_TEMP_NAME 200 /* of the target's name inside the temporary's: the sum stays under NAME_MAX */
#define N_TRIES       100

struct apr_sink {
    struct apr_arena arena; /* owns this struct, its strings and buf */
    int fd, fd_dir;         /* fd_dir < 0: nothing to rename */
    const char *name;       /* escaped, for messages */
    const char *target;     /* resolved path */
    char *temp;             /* NULL while the temporary has no name */
    const char *base;       /* last part of target */
    bool force;
    struct apr_buf *mem;       /* borrowed */
    uint64_t pos, n_stored;    /* of the content; of the file */
    struct apr_packer *packer; /* owned; NULL: stored as it comes */
    uint64_t off_plain;        /* where the compressed stream begins */
    uint32_t crc;
    uint8_t *buf; /* [BUF_BYTES] */
    size_t n_buf;
    enum apr_code code; /* sticky */
    struct apr_err why;
};

static _Atomic(char *) temps[MAX_TEMPS];
static atomic_int temps_owner; /* pid: a forked child must not remove its parent's files */

void apr_sink_cleanup(void)
{
    bool is_owner = atomic_load(&temps_owner) == (int)getpid();
    for (size_t i = 0; is_owner && i < MAX_TEMPS; i++) {
        char *path = atomic_exchange(&temps[i], NULL);
        if (path) unlink(path);
    }
    apr_dir_cleanup();
}

static bool temp_list(char *path)
{
    if (atomic_exchange(&temps_owner, (int)getpid()) == 0) atexit(apr_sink_cleanup);
    for (size_t i = 0; i < MAX_TEMPS; i++) {
        char *none = NULL;
        if (atomic_compare_exchange_strong(&temps[i], &none, path)) return true;
    }
    return false;
}

static void temp_unlist(char *path)
{
    for (size_t i = 0; i < MAX_TEMPS; i++) {
        char *same = path;
        if (path && atomic_compare_exchange_strong(&temps[i], &same, NULL)) return;
    }
}

/* .NAME.XXXXXX.tmp beside the target */
static char *temp_path(struct apr_sink *s)
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char noise[6];
    char mark[sizeof noise + 1];
    if (getrandom(noise, sizeof noise, 0) != sizeof noise) memset(noise, getpid() & 0xff, sizeof noise);
    for (size_t i = 0; i < sizeof noise; i++) mark[i] = digits[noise[i] % (sizeof digits - 1)];
    mark[sizeof noise] = '\0';
    return apr_arena_printf(&s->arena, "%.*s.%.*s.%s.tmp", (int)(s->base - s->target), s->target,
                            MAX_TEMP_NAME, s->base, mark);
}

static enum apr_code open_named(struct apr_sink *s, struct apr_err *e)
{
    for (int i = 0; i < N_TRIES; i++) {
        char *path = temp_path(s);
        if (!temp_list(path)) return apr_fail(e, APR_EIO, "%s: too many outputs at once", s->name);
        s->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (s->fd >= 0) {
            s->temp = path;
            return APR_OK;
        }
        temp_unlist(path);
        if (errno != EEXIST) break;
    }
    return apr_fail(e, APR_EIO, "%s: cannot create: %s", s->name, strerror(errno));
}

static enum apr_code open_temp(struct apr_sink *s, const char *dir, struct apr_err *e)
{
    s->fd_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd_dir < 0) return apr_fail(e, APR_EIO, "%s: cannot create: %s", s->name, strerror(errno));
    if (!access("/proc/self/fd", X_OK)) s->fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    return s->fd >= 0 ? APR_OK : open_named(s, e);
}

/* A link stands for what it points to; devices and pipes are written in place. */
static enum apr_code open_target(struct apr_sink *s, const char *path, struct apr_err *e)
{
    struct stat st;
    char *real = realpath(path, NULL);
    s->target = apr_arena_strdup(&s->arena, real ? real : path);
    free(real);
    const char *slash = strrchr(s->target, '/');
    s->base = slash ? slash + 1 : s->target;
    bool exists = stat(s->target, &st) == 0;
    if (*s->base == '\0' || (exists && S_ISDIR(st.st_mode)))
        return apr_fail(e, APR_EUSAGE, "%s: is a directory, expected a file name", s->name);
    if (exists && !S_ISREG(st.st_mode)) {
        s->fd = open(s->target, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return s->fd >= 0 ? APR_OK : apr_fail(e, APR_EIO, "%s: %s", s->name, strerror(errno));
    }
    if (exists && !s->force)
        return apr_fail(e, APR_EUSAGE, "%s: exists already; --force replaces it", s->name);
    const char *dir = ".";
    if (slash == s->target)
        dir = "/";
    else if (slash)
        dir = apr_arena_strndup(&s->arena, s->target, (size_t)(slash - s->target));
    TRY(open_temp(s, dir, e));
    if (exists && fchmod(s->fd, st.st_mode & 0777))
        return apr_fail(e, APR_EIO, "%s: cannot keep its mode: %s", s->name, strerror(errno));
    return APR_OK;
}

static struct apr_sink *sink_new(const char *path)
{
    struct apr_arena arena;
    char name[512];
    apr_arena_init(&arena);
    struct apr_sink *s = apr_arena_get(&arena, sizeof *s);
    apr_escape(name, sizeof name, path, strlen(path));
    s->name = apr_arena_strdup(&arena, name);
    s->fd = s->fd_dir = -1;
    s->arena = arena;
    return s;
}

enum apr_code apr_sink_open(struct apr_sink **out, const char *path, bool force, struct apr_err *e)
{
    bool is_stdout = !strcmp(path, "-") || !strcmp(path, "/dev/stdout");
    *out = NULL;
    if (is_stdout && isatty(STDOUT_FILENO))
        return apr_fail(e, APR_EUSAGE,
                        "standard output is a terminal; binary data needs -o FILE, a pipe or \">\"");
    struct apr_sink *s = sink_new(is_stdout ? "standard output" : path);
    enum apr_code rc = APR_OK;
    s->force = force;
    if (is_stdout) {
        if (fflush(stdout)) rc = apr_fail(e, APR_EIO, "standard output: %s", strerror(errno));
        if (rc == APR_OK) s->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        if (rc == APR_OK && s->fd < 0) rc = apr_fail(e, APR_EIO, "standard output: %s", strerror(errno));
    } else {
        rc = open_target(s, path, e);
    }
    if (rc != APR_OK) {
        apr_sink_abort(s);
        return rc;
    }
    s->buf = apr_arena_get(&s->arena, BUF_BYTES);
    *out = s;
    return APR_OK;
}

void apr_sink_mem(struct apr_sink **out, struct apr_buf *b)
{
    *out = sink_new("memory");
    (*out)->mem = b;
}

static void stick(struct apr_sink *s, uint64_t off)
{
    s->code =
        apr_fail(&s->why, APR_EIO, "%s: byte %" PRIu64 ": cannot write: %s", s->name, off, strerror(errno));
}

/* off: where p belongs, for the message. */
static void write_all(struct apr_sink *s, const uint8_t *p, size_t n, uint64_t off)
{
    while (n && s->code == APR_OK) {
        ssize_t n_now = write(s->fd, p, n < MAX_IO ? n : MAX_IO);
        if (n_now >= 0) {
            p += n_now;
            n -= (size_t)n_now;
            off += (uint64_t)n_now;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd wait = {.fd = s->fd, .events = POLLOUT};
            if (poll(&wait, 1, -1) < 0 && errno != EINTR) stick(s, off);
        } else if (errno != EINTR) {
            stick(s, off);
        }
    }
}

static void flush(struct apr_sink *s)
{
    write_all(s, s->buf, s->n_buf, s->n_stored - s->n_buf);
    s->n_buf = 0;
}

/* What goes into the file. */
static void store(void *sink, const void *p, size_t n)
{
    struct apr_sink *s = sink;
    if (n == 0 || s->code != APR_OK) return;
    if (s->mem) {
        s->code = apr_buf_append(s->mem, p, n, &s->why);
        s->n_stored += n;
        return;
    }
    if (n > BUF_BYTES - s->n_buf) flush(s);
    if (n >= BUF_BYTES) {
        write_all(s, p, n, s->n_stored);
    } else {
        memcpy(s->buf + s->n_buf, p, n);
        s->n_buf += n;
    }
    s->n_stored += n;
}

void apr_sink_pack(struct apr_sink *s, enum apr_pack kind, uint64_t off_plain, struct apr_pool *pool)
{
    if (kind == APR_PACK_NONE) return;
    s->packer = apr_packer_open(kind, pool, store, s);
    s->off_plain = off_plain;
}

void apr_sink_write(struct apr_sink *s, const void *p, size_t n)
{
    const uint8_t *at = p;
    if (n == 0 || s->code != APR_OK) return;
    s->crc = apr_crc32(s->crc, p, n);
    size_t n_plain = n;
    if (s->packer) n_plain = s->pos >= s->off_plain ? 0 : (size_t)(s->off_plain - s->pos);
    if (n_plain > n) n_plain = n;
    s->pos += n;
    store(s, at, n_plain);
    if (!s->packer || s->code != APR_OK || n == n_plain) return;
    enum apr_code code = apr_packer_add(s->packer, at + n_plain, n - n_plain, &s->why);
    if (s->code == APR_OK) s->code = code;
}

void apr_sink_zeros(struct apr_sink *s, uint64_t n)
{
    static const uint8_t zeros[4096];
    while (n && s->code == APR_OK) {
        size_t n_now = n < sizeof zeros ? (size_t)n : sizeof zeros;
        apr_sink_write(s, zeros, n_now);
        n -= n_now;
    }
}

uint64_t apr_sink_pos(const struct apr_sink *s)
{
    return s->pos;
}
uint32_t apr_sink_crc(const struct apr_sink *s)
{
    return s->crc;
}
uint64_t apr_sink_stored(const struct apr_sink *s)
{
    return s->n_stored;
}
bool apr_sink_failed(const struct apr_sink *s)
{
    return s->code != APR_OK;
}

enum apr_code apr_sink_need(struct apr_sink *s, uint64_t n_bytes, struct apr_err *e)
{
    struct statvfs fs;
    /* How much a compressed output needs is known when it is written. */
    if (s->fd_dir < 0 || s->packer || fstatvfs(s->fd_dir, &fs)) return APR_OK;
    uint64_t n_free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
    if (n_bytes <= n_free) return APR_OK;
    return apr_fail(e, APR_EIO, "%s: needs %" PRIu64 " bytes, its file system has %" PRIu64 " free", s->name,
                    n_bytes, n_free);
}

/* Gives the nameless temporary a name; the target's own, when nothing is there yet. *done: no rename is
 * needed. */
static enum apr_code name_temp(struct apr_sink *s, bool *done, struct apr_err *e)
{
    char self[64];
    *done = false;
    if (s->temp) return APR_OK;
    snprintf(self, sizeof self, "/proc/self/fd/%d", s->fd);
    if (!linkat(AT_FDCWD, self, AT_FDCWD, s->target, AT_SYMLINK_FOLLOW)) {
        *done = true;
        return APR_OK;
    }
    if (errno == EEXIST && !s->force)
        return apr_fail(e, APR_EUSAGE, "%s: was created by somebody else meanwhile; --force replaces it",
                        s->name);
    for (int i = 0; errno == EEXIST && i < N_TRIES; i++) {
        char *path = temp_path(s);
        if (!temp_list(path)) return apr_fail(e, APR_EIO, "%s: too many outputs at once", s->name);
        if (!linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW)) {
            s->temp = path;
            return APR_OK;
        }
        temp_unlist(path);
    }
    return apr_fail(e, APR_EIO, "%s: cannot create: %s", s->name, strerror(errno));
}

static enum apr_code publish(struct apr_sink *s, struct apr_err *e)
{
    bool done;
    if (fsync(s->fd)) return apr_fail(e, APR_EIO, "%s: cannot write: %s", s->name, strerror(errno));
    TRY(name_temp(s, &done, e));
    if (!done && rename(s->temp, s->target))
        return apr_fail(e, APR_EIO, "%s: cannot rename its temporary: %s", s->name, strerror(errno));
    temp_unlist(s->temp);
    s->temp = NULL;
    if (fsync(s->fd_dir) && errno != EINVAL && errno != EROFS)
        return apr_fail(e, APR_EIO, "%s: cannot sync its directory: %s", s->name, strerror(errno));
    return APR_OK;
}

/* The last block, and what ends the compressed stream. */
static void end_pack(struct apr_sink *s)
{
    if (!s->packer || s->code != APR_OK) return;
    enum apr_code code = apr_packer_end(s->packer, &s->why);
    if (s->code == APR_OK) s->code = code;
    apr_packer_close(s->packer);
    s->packer = NULL;
}

void apr_sink_sync(struct apr_sink *s)
{
    end_pack(s);
    if (s->n_buf) flush(s);
    if (s->code == APR_OK && s->fd_dir >= 0 && fsync(s->fd)) stick(s, s->n_stored);
}

enum apr_code apr_sink_finish(struct apr_sink *s, struct apr_err *e)
{
    end_pack(s);
    if (s->n_buf) flush(s);
    enum apr_code rc = s->code;
    if (rc != APR_OK)
        *e = s->why;
    else if (s->fd_dir >= 0)
        rc = publish(s, e);
    if (s->fd >= 0 && close(s->fd) && errno != EINTR && rc == APR_OK)
        rc = apr_fail(e, APR_EIO, "%s: cannot write: %s", s->name, strerror(errno));
    s->fd = -1;
    apr_sink_abort(s);
    return rc;
}

void apr_sink_abort(struct apr_sink *s)
{
    if (!s) return;
    if (s->temp) unlink(s->temp);
    temp_unlist(s->temp);
    if (s->fd >= 0) close(s->fd);
    if (s->fd_dir >= 0) close(s->fd_dir);
    apr_packer_close(s->packer);
    struct apr_arena arena = s->arena;
    apr_arena_free(&arena);
}

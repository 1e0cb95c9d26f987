/* Sinks: a file that appears only when it is complete, standard output, or memory.
 *
 * Where the file system can, the temporary has no name until it is complete (O_TMPFILE), so that not even
 * SIGKILL leaves one behind; elsewhere it is .NAME.XXXXXX.tmp beside the target, listed in temps for
 * apr_sink_cleanup, and removed by the next writer of the target when we are killed (io_temp.h).
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
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "arena.h"
#include "hash.h"
#include "io_temp.h"

#define BUF_BYTES  ((size_t)1 << 16)
#define MAX_IO     ((size_t)1 << 30) /* Linux moves at most 2 GiB in one call */
#define MAX_TEMPS  64
#define N_TRIES    100
#define PUSH_BYTES ((uint64_t)16 << 20)
#define MAX_HOPS   40 /* links that lead to links, as in the kernel */

struct apr_sink {
    struct apr_arena arena; /* owns this struct, its strings and buf */
    int fd, fd_dir;         /* fd_dir < 0: nothing to rename */
    const char *name;       /* escaped, for messages */
    const char *target;     /* resolved path */
    char *temp;             /* NULL while the temporary has no name */
    const char *base;       /* last part of target */
    bool force;
    struct apr_buf *mem;    /* borrowed */
    uint64_t pos, n_stored; /* of the content; of the file */
    enum apr_pack pack;
    struct apr_packer *packer; /* owned; NULL: stored as it comes */
    uint64_t off_plain;        /* where the compressed stream begins */
    uint64_t n_needed;         /* what apr_sink_need was told, for the message of a disk that fills up */
    bool with_crc;
    uint32_t crc;
    uint64_t off_pushed; /* the kernel was told to write what lies before */
    uint8_t *buf;        /* [BUF_BYTES] */
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

static enum apr_code open_named(struct apr_sink *s, struct apr_err *e)
{
    for (int i = 0; i < N_TRIES; i++) {
        char *path = apr_temp_path(&s->arena, s->target, s->base);
        if (!temp_list(path)) return apr_fail(e, APR_EIO, "%s: too many outputs at once", s->name);
        s->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (s->fd >= 0 && apr_temp_lock(s->fd)) {
            s->temp = path;
            return APR_OK;
        }
        temp_unlist(path);
        if (s->fd < 0 && errno != EEXIST) break;
        if (s->fd >= 0) close(s->fd); /* swept between its making and its lock */
        s->fd = -1;
    }
    return apr_fail(e, APR_EIO, "%s: cannot create: %s", s->name, strerror(errno));
}

static void remove_file(const char *path)
{
    unlink(path);
}

static enum apr_code open_temp(struct apr_sink *s, const char *dir, struct apr_err *e)
{
    s->fd_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd_dir < 0) return apr_fail(e, APR_EIO, "%s: cannot create: %s", s->name, strerror(errno));
    apr_temp_sweep(dir, s->base, S_IFREG, remove_file);
    if (!access("/proc/self/fd", X_OK)) s->fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (s->fd < 0) return open_named(s, e);
    flock(s->fd, LOCK_EX | LOCK_NB); /* for the moment between its name and the target's: see name_temp */
    return APR_OK;
}

/* What path stands for: a link for what it points to, also where that is not there yet. */
static enum apr_code resolve(struct apr_sink *s, const char *path, struct apr_err *e)
{
    char to[PATH_MAX];
    char *real = realpath(path, NULL);
    int why = errno;
    s->target = apr_arena_strdup(&s->arena, real ? real : path);
    free(real);
    for (int n_hops = 0; !real && n_hops < MAX_HOPS; n_hops++) {
        ssize_t n = readlink(s->target, to, sizeof to - 1);
        if (n < 0) return APR_OK; /* no link: the place itself, or opening its folder says why not */
        if (why != ENOENT) break;
        to[n] = '\0';
        const char *slash = to[0] == '/' ? NULL : strrchr(s->target, '/');
        int n_dir = slash ? (int)(slash - s->target) + 1 : 0;
        s->target = apr_arena_printf(&s->arena, "%.*s%s", n_dir, s->target, to);
    }
    if (real) return APR_OK;
    return apr_fail(e, APR_EIO, "%s: cannot create: %s", s->name, strerror(why == ENOENT ? ELOOP : why));
}

/* Devices and pipes are written in place. */
static enum apr_code open_target(struct apr_sink *s, const char *path, struct apr_err *e)
{
    struct stat st;
    TRY(resolve(s, path, e));
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

/* What a redirection opened has a path, which the messages then name. */
static void name_stdout(struct apr_sink *s)
{
    char link[PATH_MAX], shown[512], self[64];
    struct stat st;
    if (fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode)) return;
    snprintf(self, sizeof self, "/proc/self/fd/%d", s->fd);
    ssize_t n = readlink(self, link, sizeof link);
    if (n <= 0 || link[0] != '/') return;
    s->name =
        apr_arena_printf(&s->arena, "standard output (%s)", apr_escape(shown, sizeof shown, link, (size_t)n));
}

static enum apr_code open_stdout(struct apr_sink *s, struct apr_err *e)
{
    if (fflush(stdout)) return apr_fail(e, APR_EIO, "standard output: %s", strerror(errno));
    s->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (s->fd < 0) return apr_fail(e, APR_EIO, "standard output: %s", strerror(errno));
    (void)fcntl(s->fd, F_SETPIPE_SZ, APR_PIPE_BYTES); /* where it is a pipe; a smaller one works as well */
    name_stdout(s);
    return APR_OK;
}

enum apr_code apr_sink_open(struct apr_sink **out, const char *path, bool force, struct apr_err *e)
{
    bool is_stdout = !strcmp(path, "-") || !strcmp(path, "/dev/stdout");
    *out = NULL;
    if (is_stdout && isatty(STDOUT_FILENO))
        return apr_fail(e, APR_EUSAGE,
                        "standard output is a terminal; binary data needs -o FILE, a pipe or \">\"");
    struct apr_sink *s = sink_new(is_stdout ? "standard output" : path);
    s->force = force;
    enum apr_code rc = is_stdout ? open_stdout(s, e) : open_target(s, path, e);
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

/* Bytes that can still be stored; false where that is not known, as of a pipe. */
static bool space_of(const struct apr_sink *s, uint64_t *n_free)
{
    struct statvfs fs;
    struct stat st;
    if (s->fd_dir < 0 && (s->fd < 0 || fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode))) return false;
    if (fstatvfs(s->fd_dir >= 0 ? s->fd_dir : s->fd, &fs) != 0) return false;
    *n_free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
    /* A redirection without ">" may write over blocks that the file has. */
    if (s->fd_dir < 0 && s->n_stored == 0 && st.st_blocks > 0) *n_free += (uint64_t)st.st_blocks * 512;
    return true;
}

static void stick(struct apr_sink *s, uint64_t off)
{
    uint64_t n_free;
    char more[96] = "";
    int why = errno;
    if ((why == ENOSPC || why == EDQUOT) && s->n_needed && space_of(s, &n_free))
        snprintf(more, sizeof more, "; needs %s%" PRIu64 " bytes in all, %" PRIu64 " are free now",
                 s->packer ? "at most " : "", s->n_needed, n_free);
    s->code = apr_fail(&s->why, APR_EIO, "%s: byte %" PRIu64 ": cannot write: %s%s", s->name, off,
                       strerror(why), more);
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

/* Files that appear at the end are synced then. The disk works meanwhile, so that little is left to wait for;
 * a file system that cannot do this writes when it likes. */
static void push(struct apr_sink *s)
{
    uint64_t end = s->n_stored - s->n_buf;
    if (s->fd_dir < 0 || end < s->off_pushed + PUSH_BYTES) return;
    (void)sync_file_range(s->fd, (off_t)s->off_pushed, (off_t)(end - s->off_pushed), SYNC_FILE_RANGE_WRITE);
    s->off_pushed = end;
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
    push(s);
}

void apr_sink_pack(struct apr_sink *s, enum apr_pack kind, uint64_t off_plain, struct apr_pool *pool)
{
    if (kind == APR_PACK_NONE) return;
    s->pack = kind;
    s->packer = apr_packer_open(kind, pool, store, s);
    s->off_plain = off_plain;
}

void apr_sink_write(struct apr_sink *s, const void *p, size_t n)
{
    const uint8_t *at = p;
    if (n == 0 || s->code != APR_OK) return;
    if (s->with_crc) s->crc = apr_crc32(s->crc, p, n);
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
void apr_sink_crc_begin(struct apr_sink *s)
{
    s->with_crc = true;
    s->crc = 0;
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
    uint64_t n_free;
    s->n_needed = s->packer ? apr_pack_bound(s->pack, n_bytes) : n_bytes;
    if (s->packer) return APR_OK; /* how much less it needs is known when it is written */
    if (!space_of(s, &n_free) || n_bytes <= n_free) return APR_OK;
    return apr_fail(e, APR_EIO, "%s: needs %" PRIu64 " bytes, its file system has %" PRIu64 " free", s->name,
                    n_bytes, n_free);
}

bool apr_sink_is(const struct apr_sink *s, const struct apr_src *src)
{
    struct apr_src_id id;
    struct stat st;
    return s->fd >= 0 && s->fd_dir < 0 && apr_src_identify(src, &id) && fstat(s->fd, &st) == 0 &&
           (uint64_t)st.st_dev == id.device && (uint64_t)st.st_ino == id.inode;
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
        char *path = apr_temp_path(&s->arena, s->target, s->base);
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

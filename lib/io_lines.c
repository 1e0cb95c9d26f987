/* Lines in, lines out. */
#include "io_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "io.h"

#define READ_BYTES (256u << 10)

struct apr_lines {
    struct apr_src *src; /* owned */
    struct apr_buf b;    /* [i_line_at, n_bytes) is not handed out yet */
    size_t i_at;         /* first byte of the next line */
    size_t n_seen;       /* bytes behind i_at that hold no newline */
    size_t max_bytes;
    uint64_t i_line, off;
    bool at_end, skipping; /* skipping: inside a line that is too long */
};

enum apr_code apr_lines_open(struct apr_lines **out, const char *path, size_t max_bytes, struct apr_err *e)
{
    struct apr_src *src;
    *out = NULL;
    TRY(apr_src_open(&src, path, e));
    struct apr_lines *l = apr_heap_get(sizeof *l);
    *l = (struct apr_lines){.src = src, .max_bytes = max_bytes};
    apr_buf_init(&l->b, max_bytes + 2 * (size_t)READ_BYTES);
    *out = l;
    return APR_OK;
}

void apr_lines_close(struct apr_lines *l)
{
    if (!l) return;
    apr_src_close(l->src);
    apr_buf_free(&l->b);
    apr_heap_free(l);
}

const char *apr_lines_name(const struct apr_lines *l)
{
    return apr_src_name(l->src);
}

uint64_t apr_lines_done(const struct apr_lines *l)
{
    return l->off;
}

uint64_t apr_lines_total(const struct apr_lines *l)
{
    return apr_src_size(l->src);
}

/* Consumes n_bytes of the buffer, n_taken of them a part of the line. */
static void take(struct apr_lines *l, size_t n_bytes)
{
    l->i_at += n_bytes;
    l->off += n_bytes;
    l->n_seen = 0;
}

/* A line that the buffer holds to its end, or the end of the file. false: more must be read. */
static bool look(struct apr_lines *l, struct apr_line *line)
{
    const char *p = (const char *)l->b.data + l->i_at;
    size_t n = l->b.n_bytes - l->i_at;
    const char *newline = n > l->n_seen ? memchr(p + l->n_seen, '\n', n - l->n_seen) : NULL;
    size_t n_line = newline ? (size_t)(newline - p) : n;
    *line = (struct apr_line){.p = p, .n_bytes = n_line, .i_line = l->i_line, .off = l->off};
    if (!newline && !l->at_end) {
        l->n_seen = n;
        if (n > l->max_bytes) l->skipping = true;
        if (l->skipping) take(l, n);
        return false;
    }
    bool is_long = l->skipping || n_line > l->max_bytes;
    line->state = is_long ? APR_LINE_TOO_LONG : newline ? APR_LINE_WHOLE : n ? APR_LINE_CUT : APR_LINE_NONE;
    take(l, n_line + (newline != NULL));
    l->skipping = false;
    if (line->state != APR_LINE_NONE) l->i_line++;
    return true;
}

static enum apr_code fill(struct apr_lines *l, struct apr_err *e)
{
    uint8_t *at;
    size_t n_got;
    apr_buf_drop_front(&l->b, l->i_at);
    l->i_at = 0;
    TRY(apr_buf_reserve(&l->b, READ_BYTES, &at, e));
    TRY(apr_src_read_some(l->src, at, READ_BYTES, &n_got, e));
    apr_buf_commit(&l->b, n_got);
    l->at_end = n_got == 0;
    return APR_OK;
}

enum apr_code apr_lines_next(struct apr_lines *l, bool wait, struct apr_line *line, struct apr_err *e)
{
    while (!look(l, line)) {
        if (!wait && !apr_src_ready(l->src)) {
            line->state = APR_LINE_LATER;
            return APR_OK;
        }
        TRY(fill(l, e));
    }
    return APR_OK;
}

/* ---- journals ----------------------------------------------------------------------------------------- */

struct apr_journal {
    struct apr_buf name; /* for messages */
    int fd;
    bool is_stdout;
    uint64_t n_bytes; /* written */
};

void apr_signals_hold(bool hold)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static const char *name_of(const struct apr_journal *j)
{
    return (const char *)j->name.data;
}

static enum apr_code open_file(struct apr_journal *j, const char *path, enum apr_journal_how how,
                               struct apr_err *e)
{
    struct stat st;
    j->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (how == APR_JOURNAL_NEW ? O_EXCL : 0), 0666);
    if (j->fd < 0 && errno == EEXIST)
        return apr_fail(e, APR_EUSAGE, "%s: exists already; --resume continues it, --force replaces it",
                        name_of(j));
    if (j->fd < 0) return apr_fail(e, APR_EIO, "%s: cannot write: %s", name_of(j), strerror(errno));
    if (flock(j->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return apr_fail(e, APR_EUSAGE, "%s: another process is writing it", name_of(j));
    if (fstat(j->fd, &st)) return apr_fail(e, APR_EIO, "%s: %s", name_of(j), strerror(errno));
    if (how == APR_JOURNAL_RESUME && !S_ISREG(st.st_mode))
        return apr_fail(e, APR_EUSAGE, "%s: --resume needs a regular file", name_of(j));
    if (how == APR_JOURNAL_REPLACE && S_ISREG(st.st_mode)) return apr_journal_cut(j, 0, e);
    return APR_OK;
}

enum apr_code apr_journal_open(struct apr_journal **out, const char *path, enum apr_journal_how how,
                               struct apr_err *e)
{
    char name[1024];
    struct apr_journal *j = apr_heap_get(sizeof *j);
    *out = NULL;
    *j = (struct apr_journal){.fd = -1, .is_stdout = !strcmp(path, "-")};
    apr_buf_init(&j->name, sizeof name);
    apr_escape(name, sizeof name, j->is_stdout ? "standard output" : path,
               strlen(j->is_stdout ? "standard output" : path));
    enum apr_code code = apr_buf_append(&j->name, name, strlen(name), e);
    if (code == APR_OK && j->is_stdout) j->fd = STDOUT_FILENO;
    if (code == APR_OK && !j->is_stdout) code = open_file(j, path, how, e);
    if (code == APR_OK) {
        *out = j;
        return APR_OK;
    }
    struct apr_err ignored;
    if (apr_journal_close(j, &ignored) != APR_OK) return code;
    return code;
}

enum apr_code apr_journal_cut(struct apr_journal *j, uint64_t n_bytes, struct apr_err *e)
{
    if (ftruncate(j->fd, (off_t)n_bytes) || lseek(j->fd, (off_t)n_bytes, SEEK_SET) < 0)
        return apr_fail(e, APR_EIO, "%s: cannot write: %s", name_of(j), strerror(errno));
    j->n_bytes = n_bytes;
    return APR_OK;
}

/* Until the descriptor takes bytes. While nothing of the line is out a signal may end us. */
static void await_room(const struct apr_journal *j)
{
    struct pollfd wait = {.fd = j->fd, .events = POLLOUT};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) continue;
}

static enum apr_code write_line(struct apr_journal *j, const char *p, size_t n, struct apr_err *e)
{
    while (n) {
        ssize_t n_now = write(j->fd, p, n);
        if (n_now >= 0) {
            p += n_now;
            n -= (size_t)n_now;
            j->n_bytes += (uint64_t)n_now;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            await_room(j);
        } else if (errno != EINTR) {
            return apr_fail(e, APR_EIO, "%s: byte %" PRIu64 ": cannot write: %s", name_of(j), j->n_bytes,
                            strerror(errno));
        }
    }
    return APR_OK;
}

enum apr_code apr_journal_put(struct apr_journal *j, const char *p, size_t n_bytes, struct apr_err *e)
{
    await_room(j);
    apr_signals_hold(true);
    enum apr_code code = write_line(j, p, n_bytes, e);
    apr_signals_hold(false);
    return code;
}

enum apr_code apr_journal_close(struct apr_journal *j, struct apr_err *e)
{
    enum apr_code code = APR_OK;
    if (!j) return APR_OK;
    bool is_file = j->fd >= 0 && !j->is_stdout;
    if (is_file && fsync(j->fd) && errno != EINVAL && errno != EROFS)
        code = apr_fail(e, APR_EIO, "%s: cannot write: %s", name_of(j), strerror(errno));
    if (is_file && close(j->fd) && code == APR_OK)
        code = apr_fail(e, APR_EIO, "%s: cannot write: %s", name_of(j), strerror(errno));
    apr_buf_free(&j->name);
    apr_heap_free(j);
    return code;
}

/* A file from a URL. See fetch.h. */
#include "fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log.h"
#include "names.h"

#define READ_BYTES     ((size_t)1 << 20)
#define PROGRESS_BYTES ((uint64_t)1 << 20) /* a try that brought this much does not count */
#define N_SNIFF        64

struct transfer {
    struct fetch *f;
    int fd;
    uint64_t n_have;  /* bytes in the file, all of them in hash */
    uint64_t n_asked; /* offset of the running request */
    uint64_t n_total; /* HTTP_UNKNOWN until somebody says */
    uint64_t n_best;  /* most bytes that a try reached */
    struct apr_sha256 *hash;
    struct apr_progress bar;
    char first[256], last[256]; /* validators for If-Range before and after a redirect */
    bool wrong;                 /* the content cannot be right: the file goes */
    struct apr_err *e;
};

static enum apr_code io_error(const struct transfer *t, const char *doing, struct apr_err *e)
{
    return apr_fail(e, APR_EIO, "%s: cannot %s: %s", t->f->temp, doing, strerror(errno));
}

static void hash_restart(struct transfer *t)
{
    struct apr_err ignored;
    apr_sha256_end(t->hash, NULL);
    /* It worked once at the start; a NULL hash is noticed at the end. */
    if (apr_sha256_begin(&t->hash, &ignored) != APR_OK) t->hash = NULL;
}

static enum apr_code start_over(struct transfer *t, struct apr_err *e)
{
    if (ftruncate(t->fd, 0) || lseek(t->fd, 0, SEEK_SET) < 0) return io_error(t, "empty the file", e);
    hash_restart(t);
    t->n_have = 0;
    return APR_OK;
}

/* The bytes that an earlier run left enter the hash. */
static enum apr_code take_up(struct transfer *t, uint64_t n_bytes, struct apr_err *e)
{
    struct apr_arena a;
    enum apr_code code = APR_OK;
    apr_arena_init(&a);
    uint8_t *buf = apr_arena_get(&a, READ_BYTES);
    while (t->n_have < n_bytes && code == APR_OK) {
        ssize_t n = pread(t->fd, buf, READ_BYTES, (off_t)t->n_have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            code = io_error(t, "read", e);
        } else {
            apr_sha256_add(t->hash, buf, (size_t)n);
            t->n_have += (uint64_t)n;
        }
    }
    apr_arena_free(&a);
    if (code == APR_OK && lseek(t->fd, (off_t)t->n_have, SEEK_SET) < 0) code = io_error(t, "seek", e);
    return code;
}

/* Only a strong validator may continue a body (RFC 9110, 13.1.5). */
static void keep_validator(struct transfer *t, const struct http_answer *a)
{
    const char *v = a->etag[0] && strncmp(a->etag, "W/", 2) != 0 ? a->etag : "";
    snprintf(a->n_hops ? t->last : t->first, sizeof t->first, "%s", v);
}

static enum apr_code wrong_size(struct transfer *t, const struct http_answer *a, uint64_t n_found,
                                struct apr_err *e)
{
    const char *html = strncasecmp(a->content_type, "text/html", 9) == 0 ? " (an HTML page)" : "";
    t->wrong = true;
    return apr_fail(e, APR_EFORMAT, "%s: the server sends %" PRIu64 " bytes%s, expected %" PRIu64,
                    t->f->shown, n_found, html, t->f->n_expected);
}

static enum apr_code on_begin(void *ctx, const struct http_answer *a, struct apr_err *e)
{
    struct transfer *t = ctx;
    struct fetch *f = t->f;
    uint64_t n_total = a->n_length;
    if (a->status == 206) {
        if (a->off_range != t->n_asked || t->n_asked == 0)
            return apr_fail(e, APR_ENET, "%s: asked for byte %" PRIu64 ", the server sends another part",
                            f->shown, t->n_asked);
        n_total = a->n_range_total;
        if (n_total == HTTP_UNKNOWN && a->n_length != HTTP_UNKNOWN) n_total = t->n_asked + a->n_length;
    } else if (t->n_have) {
        apr_verbose("%s: the server starts from the beginning", f->shown);
        TRY(start_over(t, e));
        f->n_resumed = 0;
        t->bar.n_done = 0;
    }
    if (f->n_expected != HTTP_UNKNOWN && n_total != HTTP_UNKNOWN && n_total != f->n_expected)
        return wrong_size(t, a, n_total, e);
    t->n_total = f->n_expected != HTTP_UNKNOWN ? f->n_expected : n_total;
    if (t->n_total != HTTP_UNKNOWN && t->n_total > f->max_bytes)
        return apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " bytes, more than the limit of %" PRIu64, f->shown,
                        t->n_total, f->max_bytes);
    keep_validator(t, a);
    t->bar.n_total = t->n_total == HTTP_UNKNOWN ? 0 : t->n_total;
    return f->on_validator ? f->on_validator(f, a, e) : APR_OK;
}

static enum apr_code on_body(void *ctx, const void *p, size_t n, struct apr_err *e)
{
    struct transfer *t = ctx;
    const uint8_t *from = p;
    uint64_t limit = t->n_total != HTTP_UNKNOWN ? t->n_total : t->f->max_bytes;
    if (n > limit - t->n_have) {
        t->wrong = true;
        return apr_fail(e, APR_EFORMAT, "%s: the server sends more than the expected %" PRIu64 " bytes",
                        t->f->shown, limit);
    }
    apr_sha256_add(t->hash, p, n);
    for (size_t n_done = 0; n_done < n;) {
        ssize_t n_now = write(t->fd, from + n_done, n - n_done);
        if (n_now < 0 && errno != EINTR) {
            /* The hash has run ahead of the file: a later run takes up what is there. */
            return apr_fail(e, APR_EIO, "%s: byte %" PRIu64 ": cannot write: %s", t->f->temp,
                            t->n_have + n_done, strerror(errno));
        }
        if (n_now > 0) n_done += (size_t)n_now;
    }
    t->n_have += n;
    apr_progress_add(&t->bar, n);
    return APR_OK;
}

/* Another program may have finished and renamed the file between our open and our lock. */
static enum apr_code open_temp(struct transfer *t, struct apr_err *e)
{
    const char *temp = t->f->temp;
    for (;;) {
        struct stat ours, there;
        t->fd = open(temp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (t->fd < 0) return io_error(t, "create", e);
        if (flock(t->fd, LOCK_EX | LOCK_NB)) {
            if (errno == EWOULDBLOCK)
                apr_note("%s: waiting for another download of the same file", t->f->shown);
            while (flock(t->fd, LOCK_EX))
                if (errno != EINTR) return io_error(t, "lock", e);
        }
        if (fstat(t->fd, &ours)) return io_error(t, "read", e);
        if (!S_ISREG(ours.st_mode)) return apr_fail(e, APR_EIO, "%s: expected a regular file", temp);
        if (stat(temp, &there) == 0 && ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
            return APR_OK;
        close(t->fd);
        t->fd = -1;
    }
}

static bool can_resume(const struct transfer *t, uint64_t n_bytes)
{
    const struct fetch *f = t->f;
    if (f->fresh || n_bytes == 0) return false;
    if (f->n_expected != HTTP_UNKNOWN && n_bytes > f->n_expected) return false;
    return f->want_sha256 || f->want_git_sha1 || (f->validator && *f->validator);
}

static enum apr_code prepare(struct transfer *t, struct apr_err *e)
{
    struct stat st;
    const struct fetch *f = t->f;
    TRY(apr_sha256_begin(&t->hash, e));
    TRY(open_temp(t, e));
    if (fstat(t->fd, &st)) return io_error(t, "read", e);
    uint64_t n_there = (uint64_t)st.st_size;
    if (!can_resume(t, n_there)) return n_there ? start_over(t, e) : APR_OK;
    TRY(take_up(t, n_there, e));
    t->f->n_resumed = n_there;
    t->n_best = n_there;
    t->n_total = f->n_expected;
    if (f->validator) {
        snprintf(t->first, sizeof t->first, "%s", f->validator);
        snprintf(t->last, sizeof t->last, "%s", f->validator);
    }
    apr_verbose("%s: continuing at byte %" PRIu64, f->shown, n_there);
    return APR_OK;
}

/* One request. *done: the file is as long as it should be. */
static enum apr_code attempt(struct transfer *t, bool *done, struct apr_err *e)
{
    struct fetch *f = t->f;
    struct http_answer *a = &f->answer;
    *done = f->n_expected != HTTP_UNKNOWN && t->n_have == f->n_expected && t->n_have > 0;
    if (*done) return APR_OK;
    t->n_asked = t->n_have;
    struct http_req q = {.url = f->url,
                         .shown = f->shown,
                         .token = f->token,
                         .off = t->n_asked,
                         .if_range_first = t->first,
                         .if_range_last = t->last,
                         .if_none_match = t->n_asked ? NULL : f->if_none_match,
                         .if_modified_since = t->n_asked ? NULL : f->if_modified_since,
                         .begin = on_begin,
                         .body = on_body,
                         .ctx = t};
    TRY(http_run(f->http, &q, a, e));
    if (a->status == 304 && (f->if_none_match || f->if_modified_since)) {
        f->not_modified = *done = true;
        return APR_OK;
    }
    if (a->status == 416 && t->n_asked) { /* what we have does not fit what is there */
        a->again = true;
        TRY(start_over(t, e));
        return apr_fail(e, APR_ENET, "%s: HTTP 416: cannot be continued at byte %" PRIu64, f->shown,
                        t->n_asked);
    }
    if (a->status != 200 && a->status != 206) {
        enum apr_code code = http_status_error(&q, a, e);
        return code;
    }
    *done = t->n_total == HTTP_UNKNOWN || t->n_have == t->n_total;
    if (*done) return APR_OK;
    a->again = true;
    return apr_fail(e, APR_ENET, "%s: the connection ended at byte %" PRIu64 " of %" PRIu64, f->shown,
                    t->n_have, t->n_total);
}

static enum apr_code transfer(struct transfer *t, struct apr_err *e)
{
    bool done = false;
    for (uint64_t i_try = 1;; i_try++) {
        enum apr_code code = attempt(t, &done, e);
        if (code == APR_OK && done) return APR_OK;
        if (t->n_have >= t->n_best + PROGRESS_BYTES) i_try = 1;
        if (t->n_have > t->n_best) t->n_best = t->n_have;
        apr_progress_end(&t->bar);
        if (!http_wait(t->f->http, i_try, &t->f->answer, e)) return code;
    }
}

/* A page that says "not found" or "sign in" with status 200 must not become a model. */
static bool looks_like_html(const struct transfer *t)
{
    char head[N_SNIFF + 1] = "";
    const char *name = name_base(t->f->shown), *p = head;
    ssize_t n = pread(t->fd, head, N_SNIFF, 0);
    if (n <= 0 || name_has_suffix(name, ".html") || name_has_suffix(name, ".htm") ||
        name_has_suffix(name, ".md"))
        return false;
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') p++;
    return strncasecmp(p, "<!doctype html", 14) == 0 || strncasecmp(p, "<html", 5) == 0;
}

static enum apr_code verify(struct transfer *t, struct apr_err *e)
{
    struct fetch *f = t->f;
    char git[DIGEST_SHA1_HEX];
    const char *html = looks_like_html(t) ? " (an HTML page)" : "";
    if (!t->hash) return apr_fail(e, APR_EUNAVAIL, "SHA-256 is not available from OpenSSL");
    apr_sha256_end(t->hash, f->sha256);
    t->hash = NULL;
    f->n_bytes = t->n_have;
    if (f->want_sha256 && strcmp(f->want_sha256, f->sha256) != 0) {
        t->wrong = true;
        return apr_fail(e, APR_EFORMAT, "%s: SHA-256 is %s%s, expected %s", f->shown, f->sha256, html,
                        f->want_sha256);
    }
    if (f->want_git_sha1) {
        TRY(digest_git(f->temp, git, e));
        if (strcmp(f->want_git_sha1, git) == 0) return APR_OK;
        t->wrong = true;
        return apr_fail(e, APR_EFORMAT, "%s: git's SHA-1 is %s%s, expected %s", f->shown, git, html,
                        f->want_git_sha1);
    }
    if (f->want_sha256 || !*html) return APR_OK;
    t->wrong = true;
    return apr_fail(e, APR_EFORMAT, "%s: this is an HTML page, expected a file of a model", f->shown);
}

static enum apr_code publish(struct transfer *t, struct apr_err *e)
{
    const char *path = t->f->path, *base = name_base(path);
    const char *dir = base == path ? "." : apr_arena_strndup(t->f->arena, path, (size_t)(base - path));
    if (fsync(t->fd)) return io_error(t, "write", e);
    if (rename(t->f->temp, path)) return io_error(t, "rename", e);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return apr_fail(e, APR_EIO, "%s: %s", dir, strerror(errno));
    bool synced = fsync(fd) == 0 || errno == EINVAL || errno == EROFS;
    int why = errno;
    close(fd);
    return synced ? APR_OK : apr_fail(e, APR_EIO, "%s: cannot sync the folder: %s", dir, strerror(why));
}

static enum apr_code run(struct transfer *t, struct apr_err *e)
{
    struct fetch *f = t->f;
    TRY(prepare(t, e));
    bool resumed = f->n_resumed > 0;
    apr_progress_begin(&t->bar, name_base(f->shown), f->n_expected == HTTP_UNKNOWN ? 0 : f->n_expected, "B");
    t->bar.n_done = t->n_have;
    enum apr_code code = transfer(t, e);
    if (code == APR_OK && !f->not_modified) code = verify(t, e);
    if (code == APR_EFORMAT && t->wrong && resumed && f->n_resumed > 0) {
        /* The part that an earlier run left may be of another state of the file: once more, from the start.
         */
        apr_note("%s; once more from the beginning", e->text);
        t->wrong = false;
        f->n_resumed = 0;
        t->n_best = 0;
        t->first[0] = t->last[0] = '\0';
        TRY(start_over(t, e));
        code = transfer(t, e);
        if (code == APR_OK) code = verify(t, e);
    }
    apr_progress_end(&t->bar);
    if (code == APR_OK && !f->not_modified) return publish(t, e);
    if ((t->wrong || f->not_modified) && unlink(f->temp)) apr_verbose("%s: %s", f->temp, strerror(errno));
    return code;
}

enum apr_code fetch_file(struct fetch *f, struct apr_err *e)
{
    struct transfer t = {.f = f, .fd = -1, .n_total = HTTP_UNKNOWN, .e = e};
    f->temp = apr_arena_printf(f->arena, "%s.incomplete", f->path);
    enum apr_code code = run(&t, e);
    apr_sha256_end(t.hash, NULL);
    if (t.fd >= 0) close(t.fd);
    return code;
}

enum apr_code fetch_need_space(const char *dir, uint64_t n_bytes, struct apr_err *e)
{
    struct statvfs fs;
    if (statvfs(dir, &fs)) return APR_OK; /* a file system that does not say */
    uint64_t n_free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
    if (n_bytes <= n_free) return APR_OK;
    return apr_fail(e, APR_EIO, "%s: needs %" PRIu64 " bytes, its file system has %" PRIu64 " free", dir,
                    n_bytes, n_free);
}

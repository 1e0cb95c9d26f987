/* The layout of the caches. See cache.h. */
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "io.h"
#include "log.h"
#include "names.h"
#include "tree.h"

#define PREFIX        "models--"
#define MAX_REF_BYTES 256

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* A leading "~/" is the user's home, as in Hugging Face's client. */
static const char *expand(const char *v, struct apr_arena *a)
{
    const char *home = env("HOME");
    if (v && home && v[0] == '~' && (v[1] == '/' || !v[1])) return apr_arena_printf(a, "%s%s", home, v + 1);
    return v;
}

static const char *below_cache(const char *what, struct apr_arena *a)
{
    const char *xdg = env("XDG_CACHE_HOME"), *home = env("HOME");
    if (xdg && *xdg == '/') return apr_arena_printf(a, "%s/%s", xdg, what);
    return home && *home == '/' ? apr_arena_printf(a, "%s/.cache/%s", home, what) : NULL;
}

const char *cache_hf_home(struct apr_arena *a)
{
    const char *v = expand(env("HF_HOME"), a);
    return v ? v : below_cache("huggingface", a);
}

enum apr_code cache_hub_root(const char **root, struct apr_arena *a, struct apr_err *e)
{
    const char *v = env("HF_HUB_CACHE");
    if (!v) v = env("HUGGINGFACE_HUB_CACHE");
    *root = expand(v, a);
    if (!*root) {
        v = cache_hf_home(a);
        if (v) *root = apr_arena_printf(a, "%s/hub", v);
    }
    return *root ? APR_OK : apr_fail(e, APR_EUSAGE, "no place for downloads: set HOME or HF_HOME");
}

enum apr_code cache_apr_root(const char **root, struct apr_arena *a, struct apr_err *e)
{
    *root = expand(env("APR_HOME"), a);
    if (!*root) *root = below_cache("apr/models", a);
    return *root ? APR_OK : apr_fail(e, APR_EUSAGE, "no place for models: set HOME or APR_HOME");
}

enum apr_code cache_repo_at(struct cache_repo *r, const char *repo, struct apr_arena *a, struct apr_err *e)
{
    const char *root, *slash = strchr(repo, '/');
    TRY(cache_hub_root(&root, a, e));
    const char *folder = slash ? apr_arena_printf(a, PREFIX "%.*s--%s", (int)(slash - repo), repo, slash + 1)
                               : apr_arena_printf(a, PREFIX "%s", repo);
    *r = (struct cache_repo){.repo = repo,
                             .dir = apr_arena_printf(a, "%s/%s", root, folder),
                             .locks = apr_arena_printf(a, "%s/.locks/%s", root, folder)};
    return APR_OK;
}

const char *cache_repo_name(const char *folder, struct apr_arena *a)
{
    if (strncmp(folder, PREFIX, sizeof PREFIX - 1) != 0) return NULL;
    folder += sizeof PREFIX - 1;
    const char *dash = strstr(folder, "--");
    const char *name = dash ? apr_arena_printf(a, "%.*s/%s", (int)(dash - folder), folder, dash + 2)
                            : apr_arena_strdup(a, folder);
    return name_is_repo(name) ? name : NULL;
}

enum apr_code cache_ref_read(const struct cache_repo *r, const char *revision, const char **commit,
                             struct apr_arena *a, struct apr_err *e)
{
    struct apr_buf b;
    *commit = NULL;
    if (name_is_commit(revision)) {
        *commit = revision;
        return APR_OK;
    }
    apr_buf_init(&b, MAX_REF_BYTES);
    const char *path = apr_arena_printf(a, "%s/refs/%s", r->dir, revision);
    enum apr_code code = apr_read_file(path, MAX_REF_BYTES, &b, e);
    if (code == APR_OK && b.n_bytes) {
        size_t n = strcspn((const char *)b.data, "\r\n");
        const char *text = apr_arena_strndup(a, (const char *)b.data, n);
        if (name_is_commit(text))
            *commit = text;
        else
            apr_warn("%s: holds no commit; ignored", path);
    }
    apr_buf_free(&b);
    return code == APR_ENOTFOUND ? APR_OK : code;
}

static char *parent_of(const char *path, struct apr_arena *a)
{
    return apr_arena_strndup(a, path, (size_t)(name_base(path) - path - 1));
}

enum apr_code cache_ref_write(const struct cache_repo *r, const char *revision, const char *commit,
                              struct apr_arena *a, struct apr_err *e)
{
    struct apr_sink *s;
    const char *old, *path = apr_arena_printf(a, "%s/refs/%s", r->dir, revision);
    if (name_is_commit(revision)) return APR_OK;
    TRY(cache_ref_read(r, revision, &old, a, e));
    if (old && strcmp(old, commit) == 0) return APR_OK;
    TRY(tree_make(parent_of(path, a), e));
    TRY(apr_sink_open(&s, path, true, e));
    apr_sink_write(s, commit, strlen(commit));
    return apr_sink_finish(s, e);
}

const char *cache_snapshot(const struct cache_repo *r, const char *commit, struct apr_arena *a)
{
    return apr_arena_printf(a, "%s/snapshots/%s", r->dir, commit);
}

const char *cache_blob(const struct cache_repo *r, const char *etag, struct apr_arena *a)
{
    return apr_arena_printf(a, "%s/blobs/%s", r->dir, etag);
}

enum apr_code cache_link(const struct cache_repo *r, const char *commit, const char *name, const char *etag,
                         struct apr_arena *a, struct apr_err *e)
{
    char old[PATH_MAX];
    const char *path = apr_arena_printf(a, "%s/snapshots/%s/%s", r->dir, commit, name);
    char *up = apr_arena_strdup(a, "../../"); /* out of COMMIT and snapshots, and of each folder in name */
    for (const char *p = strchr(name, '/'); p; p = strchr(p + 1, '/')) up = apr_arena_printf(a, "../%s", up);
    const char *target = apr_arena_printf(a, "%sblobs/%s", up, etag);
    ssize_t n = readlink(path, old, sizeof old - 1);
    if (n > 0 && (size_t)n == strlen(target) && memcmp(old, target, (size_t)n) == 0) return APR_OK;
    TRY(tree_make(parent_of(path, a), e));
    const char *temp = apr_arena_printf(a, "%s.%ld.tmp", path, (long)getpid());
    if (unlink(temp) && errno != ENOENT) return apr_fail(e, APR_EIO, "%s: %s", temp, strerror(errno));
    if (symlink(target, temp))
        return apr_fail(e, APR_EIO, "%s: cannot create the link: %s", path, strerror(errno));
    if (rename(temp, path)) {
        enum apr_code code = apr_fail(e, APR_EIO, "%s: cannot create the link: %s", path, strerror(errno));
        if (unlink(temp)) apr_verbose("%s: %s", temp, strerror(errno));
        return code;
    }
    return APR_OK;
}

enum apr_code cache_lock(const struct cache_repo *r, const char *etag, int *fd, struct apr_arena *a,
                         struct apr_err *e)
{
    const char *path = apr_arena_printf(a, "%s/%s.lock", r->locks, etag);
    TRY(tree_make(r->locks, e));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd < 0) return apr_fail(e, APR_EIO, "%s: cannot lock: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return APR_OK;
    if (errno == EWOULDBLOCK) apr_note("%s: waiting for another download of the same file", r->repo);
    while (flock(*fd, LOCK_EX)) {
        if (errno == EINTR) continue;
        int why = errno;
        close(*fd);
        return apr_fail(e, APR_EIO, "%s: cannot lock: %s", path, strerror(why));
    }
    return APR_OK;
}

struct lock_probe {
    struct apr_arena *arena;
    const char *dir;
};

static enum apr_code try_lock(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    const struct lock_probe *probe = ctx;
    const char *path = apr_arena_printf(probe->arena, "%s/%s", probe->dir, name);
    int fd = S_ISREG(st->st_mode) ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0) return APR_OK;
    bool held = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return held ? apr_fail(e, APR_ENO, "%s: held", path) : APR_OK;
}

bool cache_is_idle(const struct cache_repo *r)
{
    struct apr_arena a;
    struct apr_err ignored;
    apr_arena_init(&a);
    struct lock_probe probe = {.arena = &a, .dir = r->locks};
    bool idle = tree_walk(r->locks, try_lock, &probe, &ignored) == APR_OK;
    apr_arena_free(&a);
    return idle;
}

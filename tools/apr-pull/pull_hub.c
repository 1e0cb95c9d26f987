/* A repository of a hub, or one file of it, into Hugging Face's cache. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "digest.h"
#include "fetch.h"
#include "hub.h"
#include "log.h"
#include "names.h"
#include "select.h"
#include "tree.h"
#include "verb_pull.h"

struct job {
    struct pull *p;
    const struct source *s;
    struct apr_arena *arena;
    const char *where; /* "org/name@revision" */
    struct cache_repo cache;
    struct http *http; /* owned; NULL offline */
    struct hub hub;
    const char *commit;
    const char **names;
    size_t n_names;
    struct select sel;
    struct hub_file *files; /* [n_names]; etag is NULL until asked */
    uint64_t n_missing_bytes;
};

static bool is_there(const struct job *j, const struct hub_file *f)
{
    struct stat st;
    struct apr_err ignored;
    char git[DIGEST_SHA1_HEX];
    const char *blob = cache_blob(&j->cache, f->etag, j->arena);
    if (stat(blob, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->n_bytes) return false;
    return !f->git || (digest_git(blob, git, &ignored) == APR_OK && strcmp(git, f->git) == 0);
}

static enum apr_code choose(struct job *j, struct apr_err *e)
{
    const struct pull_args *args = j->p->args;
    select_init(&j->sel, (const char *const *)j->names, j->n_names, j->arena);
    if (j->s->file) return select_file(&j->sel, j->s->file, j->where, e);
    if (args->include.n || args->exclude.n)
        return select_globs(&j->sel, &args->include, &args->exclude, j->where, e);
    return select_default(&j->sel, j->where, e);
}

static void set_path(struct job *j)
{
    const char *dir = cache_snapshot(&j->cache, j->commit, j->arena);
    j->p->revision = j->commit;
    j->p->path = j->sel.main ? apr_arena_printf(j->arena, "%s/%s", dir, j->sel.main) : dir;
}

/* ---- from the cache alone ---- */

static enum apr_code count_name(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    (void)name, (void)e;
    if (!S_ISDIR(st->st_mode)) ++*(size_t *)ctx;
    return APR_OK;
}

static enum apr_code keep_name(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    struct job *j = ctx;
    struct stat target;
    (void)e;
    if (S_ISDIR(st->st_mode)) return APR_OK;
    const char *path =
        apr_arena_printf(j->arena, "%s/%s", cache_snapshot(&j->cache, j->commit, j->arena), name);
    if (stat(path, &target)) { /* a link whose blob is gone */
        apr_warn("%s: %s", path, strerror(errno));
        return APR_OK;
    }
    j->names[j->n_names++] = apr_arena_strdup(j->arena, name);
    return APR_OK;
}

static enum apr_code cached_file(struct job *j, const char *name, struct apr_err *e)
{
    char hex[APR_SHA256_HEX], link[NAME_MAX_PATH];
    struct pull_file *f = &j->p->files[j->p->n_files++];
    const char *path =
        apr_arena_printf(j->arena, "%s/%s", cache_snapshot(&j->cache, j->commit, j->arena), name);
    *f = (struct pull_file){.name = name, .cached = true};
    ssize_t n = readlink(path, link, sizeof link - 1);
    if (n > 0) {
        link[n] = '\0';
        if (name_is_hex(name_base(link), APR_SHA256_HEX - 1)) {
            struct stat st;
            if (stat(path, &st)) return apr_fail(e, APR_EIO, "%s: %s", path, strerror(errno));
            f->n_bytes = (uint64_t)st.st_size;
            f->sha256 = apr_arena_strdup(j->arena, name_base(link));
            return APR_OK;
        }
    }
    TRY(digest_sha256(path, hex, &f->n_bytes, e));
    f->sha256 = apr_arena_strdup(j->arena, hex);
    return APR_OK;
}

static enum apr_code check_sha256(const struct job *j, struct apr_err *e)
{
    const char *want = j->p->args->sha256, *found = j->p->n_files ? j->p->files[0].sha256 : NULL;
    if (!want || !found || strcmp(want, found) == 0) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s/%s: SHA-256 is %s, expected %s", j->where, j->p->files[0].name, found,
                    want);
}

static enum apr_code from_cache(struct job *j, struct apr_err *e)
{
    size_t n = 0;
    TRY(cache_ref_read(&j->cache, j->s->revision, &j->commit, j->arena, e));
    if (j->commit) TRY(tree_walk(cache_snapshot(&j->cache, j->commit, j->arena), count_name, &n, e));
    if (n == 0) return apr_fail(e, APR_ENOTFOUND, "%s: not in the cache, and offline", j->where);
    TRY(apr_arena_try(j->arena, &j->names, n, sizeof *j->names, "the list of files", e));
    TRY(tree_walk(cache_snapshot(&j->cache, j->commit, j->arena), keep_name, j, e));
    enum apr_code code = choose(j, e);
    if (code == APR_OK && j->sel.has_index)
        code = select_shards(
            &j->sel,
            apr_arena_printf(j->arena, "%s/" SELECT_INDEX, cache_snapshot(&j->cache, j->commit, j->arena)),
            &j->p->args->exclude, APR_ENOTFOUND, j->where, e);
    if (code != APR_OK) {
        apr_err_prefix(e, "the cache is incomplete");
        return code;
    }
    TRY(apr_arena_try(j->arena, &j->p->files, n, sizeof *j->p->files, "the list of files", e));
    for (size_t i = 0; i < j->n_names; i++)
        if (j->sel.wanted[i]) TRY(cached_file(j, j->names[i], e));
    set_path(j);
    return check_sha256(j, e);
}

/* ---- from the hub ---- */

static enum apr_code ask(struct job *j, size_t i, struct apr_err *e)
{
    struct hub_file *f = &j->files[i];
    if (f->etag) return APR_OK;
    TRY(hub_file(&j->hub, j->cache.repo, j->commit, j->names[i], f, e));
    const char *want = j->p->args->sha256;
    if (want && f->sha256 && strcmp(want, f->sha256) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: SHA-256 is %s, expected %s", f->shown, f->sha256, want);
    if (f->n_bytes > j->p->max_bytes)
        return apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " bytes, more than the limit of %" PRIu64, f->shown,
                        f->n_bytes, j->p->max_bytes);
    return APR_OK;
}

/* The blob is written under its lock; who waited for it finds it done. *cached: nothing was downloaded. */
static enum apr_code get_blob(struct job *j, const struct hub_file *f, bool *cached, struct apr_err *e)
{
    int fd_lock;
    const char *blob = cache_blob(&j->cache, f->etag, j->arena);
    *cached = !j->p->args->force && is_there(j, f);
    if (*cached) return APR_OK;
    TRY(cache_lock(&j->cache, f->etag, &fd_lock, j->arena, e));
    enum apr_code code = APR_OK;
    *cached = !j->p->args->force && is_there(j, f);
    if (!*cached) {
        struct fetch get = {.http = j->http,
                            .arena = j->arena,
                            .url = f->url,
                            .token = j->hub.token,
                            .shown = f->shown,
                            .path = blob,
                            .n_expected = f->n_bytes,
                            .max_bytes = f->n_bytes,
                            .want_sha256 = f->sha256,
                            .want_git_sha1 = f->git,
                            .fresh = j->p->args->force};
        code = fetch_file(&get, e);
    }
    close(fd_lock);
    return code;
}

static enum apr_code get_file(struct job *j, size_t i, struct apr_err *e)
{
    bool cached;
    char hex[APR_SHA256_HEX];
    uint64_t n_bytes;
    struct hub_file *f = &j->files[i];
    TRY(ask(j, i, e));
    TRY(get_blob(j, f, &cached, e));
    TRY(cache_link(&j->cache, j->commit, f->name, f->etag, j->arena, e));
    struct pull_file *out = &j->p->files[i];
    if (out->name) return APR_OK; /* the index, which came first */
    *out = (struct pull_file){.name = f->name, .sha256 = f->sha256, .n_bytes = f->n_bytes, .cached = cached};
    if (f->sha256) return APR_OK;
    TRY(digest_sha256(cache_blob(&j->cache, f->etag, j->arena), hex, &n_bytes, e));
    out->sha256 = apr_arena_strdup(j->arena, hex);
    return APR_OK;
}

/* The shards are known when the index is here. */
static enum apr_code get_index(struct job *j, struct apr_err *e)
{
    size_t i = 0;
    while (strcmp(j->names[i], SELECT_INDEX) != 0) i++;
    TRY(get_file(j, i, e));
    return select_shards(&j->sel, cache_blob(&j->cache, j->files[i].etag, j->arena), &j->p->args->exclude,
                         APR_EFORMAT, j->where, e);
}

/* Sizes are known before the first byte, so a disk that is too small is told at once. */
static enum apr_code survey(struct job *j, struct apr_err *e)
{
    for (size_t i = 0; i < j->n_names; i++) {
        if (!j->sel.wanted[i]) continue;
        TRY(ask(j, i, e));
        struct hub_file *f = &j->files[i];
        bool cached = !j->p->args->force && is_there(j, f);
        struct stat st;
        uint64_t n_part = 0;
        if (!cached &&
            !stat(apr_arena_printf(j->arena, "%s.incomplete", cache_blob(&j->cache, f->etag, j->arena)), &st))
            n_part = (uint64_t)st.st_size < f->n_bytes ? (uint64_t)st.st_size : 0;
        if (!cached && j->n_missing_bytes <= UINT64_MAX / 2) j->n_missing_bytes += f->n_bytes - n_part;
        if (j->p->args->dry_run)
            j->p->files[i] = (struct pull_file){
                .name = f->name, .sha256 = f->sha256, .n_bytes = f->n_bytes, .cached = cached};
    }
    return APR_OK;
}

static void compact(struct pull *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p->files[i].name) p->files[p->n_files++] = p->files[i];
}

static enum apr_code get_all(struct job *j, struct apr_err *e)
{
    const char *blobs = apr_arena_printf(j->arena, "%s/blobs", j->cache.dir);
    TRY(choose(j, e));
    TRY(tree_make(blobs, e));
    if (j->sel.has_index) TRY(get_index(j, e));
    TRY(survey(j, e));
    if (j->p->args->dry_run) {
        compact(j->p, j->n_names);
        set_path(j);
        return APR_OK;
    }
    TRY(fetch_need_space(blobs, j->n_missing_bytes, e));
    for (size_t i = 0; i < j->n_names; i++)
        if (j->sel.wanted[i]) TRY(get_file(j, i, e));
    compact(j->p, j->n_names);
    TRY(check_sha256(j, e));
    /* Last, so that the name of a revision stands for what is complete. */
    TRY(cache_ref_write(&j->cache, j->s->revision, j->commit, j->arena, e));
    set_path(j);
    return APR_OK;
}

static enum apr_code from_hub(struct job *j, struct apr_err *e)
{
    struct hub_listing list;
    const struct pull_args *args = j->p->args;
    const char *known;
    bool again;
    TRY(hub_init(&j->hub, j->http, j->arena, e));
    TRY(cache_ref_read(&j->cache, j->s->revision, &known, j->arena, e));
    if (known && args->n_retries > 1) http_set_retries(j->http, 1); /* the cache is the better second try */
    enum apr_code code = hub_list(&j->hub, j->cache.repo, j->s->revision, &list, &again, e);
    http_set_retries(j->http, args->n_retries);
    if (code != APR_OK) {
        struct apr_err ignored;
        if (!again || !known || args->force || args->dry_run || from_cache(j, &ignored) != APR_OK)
            return code;
        apr_warn("%s; using the copy in the cache", e->text);
        return APR_OK;
    }
    j->commit = list.commit;
    j->names = list.names;
    j->n_names = list.n_names;
    TRY(apr_arena_try(j->arena, &j->files, j->n_names + 1, sizeof *j->files, "the list of files", e));
    TRY(apr_arena_try(j->arena, &j->p->files, j->n_names + 1, sizeof *j->p->files, "the list of files", e));
    apr_verbose("%s is commit %s", j->where, j->commit);
    return get_all(j, e);
}

enum apr_code pull_hub(struct pull *p, const struct source *s, struct apr_err *e)
{
    struct job j = {.p = p, .s = s, .arena = p->ctx->arena};
    struct http_limits limits = {.n_retries = p->args->n_retries, .stall_s = p->args->stall_s};
    j.where = apr_arena_printf(j.arena, "%s@%s", s->repo, s->revision);
    TRY(cache_repo_at(&j.cache, s->repo, j.arena, e));
    if (p->offline) {
        if (p->args->force)
            return apr_fail(e, APR_EUSAGE, "--force downloads again, which is not possible offline");
        return from_cache(&j, e);
    }
    TRY(http_open(&j.http, &limits, e));
    enum apr_code code = from_hub(&j, e);
    http_close(j.http);
    return code;
}

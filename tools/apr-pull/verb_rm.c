/* rm: takes a repository, a revision or a file out of the caches, and nothing from anywhere else. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "names.h"
#include "source.h"
#include "tree.h"
#include "verbs.h"

struct rm_args {
    bool dry_run;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct rm_args, dry_run, "dry-run", 'n', NULL, "show what would be removed and stop"),
};

struct doomed {
    const char *path;
    uint64_t n_bytes;
};

struct job {
    struct apr_arena *arena;
    const char *operand;
    const char *hub_root, *apr_root; /* resolved; NULL where absent */
    struct doomed *at;
    size_t n, n_cap;
};

static void doom(struct job *j, const char *path, uint64_t n_bytes)
{
    if (j->n == j->n_cap) {
        j->n_cap = j->n_cap ? 2 * j->n_cap : 16;
        struct doomed *more = apr_arena_get(j->arena, j->n_cap * sizeof *more);
        if (j->n) memcpy(more, j->at, j->n * sizeof *more);
        j->at = more;
    }
    j->at[j->n++] = (struct doomed){.path = path, .n_bytes = n_bytes};
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static enum apr_code add_size(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    (void)name, (void)e;
    if (S_ISREG(st->st_mode)) *(uint64_t *)ctx += (uint64_t)st->st_size;
    return APR_OK;
}

static enum apr_code doom_tree(struct job *j, const char *path, struct apr_err *e)
{
    struct stat st;
    uint64_t n_bytes = 0;
    if (lstat(path, &st)) return APR_OK;
    if (S_ISDIR(st.st_mode)) TRY(tree_walk(path, add_size, &n_bytes, e));
    if (S_ISREG(st.st_mode)) n_bytes = (uint64_t)st.st_size;
    doom(j, path, n_bytes);
    return APR_OK;
}

static bool is_doomed(const struct job *j, const char *path)
{
    for (size_t i = 0; i < j->n; i++) {
        size_t n = strlen(j->at[i].path);
        if (strncmp(path, j->at[i].path, n) == 0 && (path[n] == '\0' || path[n] == '/')) return true;
    }
    return false;
}

/* ---- blobs that nothing refers to once the doomed links are gone ---- */

struct users {
    const struct job *job;
    const char *snapshots, *etag;
    bool used;
};

static enum apr_code on_link(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    struct users *u = ctx;
    char target[PATH_MAX];
    (void)e;
    if (!S_ISLNK(st->st_mode) || u->used) return APR_OK;
    const char *path = apr_arena_printf(u->job->arena, "%s/%s", u->snapshots, name);
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0) return APR_OK;
    target[n] = '\0';
    u->used = strcmp(name_base(target), u->etag) == 0 && !is_doomed(u->job, path);
    return APR_OK;
}

struct blobs {
    struct job *job;
    const struct cache_repo *repo;
};

static enum apr_code on_blob(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    const struct blobs *b = ctx;
    struct users u = {.job = b->job,
                      .snapshots = apr_arena_printf(b->job->arena, "%s/snapshots", b->repo->dir),
                      .etag = name};
    if (!S_ISREG(st->st_mode)) return APR_OK;
    TRY(tree_walk(u.snapshots, on_link, &u, e));
    if (!u.used)
        doom(b->job, cache_blob(b->repo, apr_arena_strdup(b->job->arena, name), b->job->arena),
             (uint64_t)st->st_size);
    return APR_OK;
}

static enum apr_code doom_unused_blobs(struct job *j, const struct cache_repo *repo, struct apr_err *e)
{
    struct blobs b = {.job = j, .repo = repo};
    return tree_walk(apr_arena_printf(j->arena, "%s/blobs", repo->dir), on_blob, &b, e);
}

struct refs {
    struct job *job;
    const struct cache_repo *repo;
    const char *commit;
};

static enum apr_code on_ref(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    const struct refs *r = ctx;
    const char *commit;
    if (!S_ISREG(st->st_mode)) return APR_OK;
    TRY(cache_ref_read(r->repo, name, &commit, r->job->arena, e));
    if (commit && strcmp(commit, r->commit) == 0)
        doom(r->job, apr_arena_printf(r->job->arena, "%s/refs/%s", r->repo->dir, name), 0);
    return APR_OK;
}

/* ---- what the operand means ---- */

static enum apr_code doom_revision(struct job *j, const struct cache_repo *repo, const struct source *s,
                                   struct apr_err *e)
{
    const char *commit;
    TRY(cache_ref_read(repo, s->revision ? s->revision : "main", &commit, j->arena, e));
    const char *snapshot = commit ? cache_snapshot(repo, commit, j->arena) : NULL;
    const char *path =
        snapshot && s->file ? apr_arena_printf(j->arena, "%s/%s", snapshot, s->file) : snapshot;
    if (!path || !exists(path)) return apr_fail(e, APR_ENOTFOUND, "%s: not in the cache", j->operand);
    TRY(doom_tree(j, path, e));
    if (!s->file) {
        struct refs r = {.job = j, .repo = repo, .commit = commit};
        TRY(tree_walk(apr_arena_printf(j->arena, "%s/refs", repo->dir), on_ref, &r, e));
    }
    return doom_unused_blobs(j, repo, e);
}

static enum apr_code doom_repo(struct job *j, const struct source *s, struct apr_err *e)
{
    struct cache_repo repo;
    TRY(cache_repo_at(&repo, s->repo, j->arena, e));
    if (!exists(repo.dir)) return apr_fail(e, APR_ENOTFOUND, "%s: not in the cache", j->operand);
    if (!cache_is_idle(&repo))
        return apr_fail(e, APR_EIO, "%s: a download is running; nothing was removed", j->operand);
    if (s->revision || s->file) return doom_revision(j, &repo, s, e);
    TRY(doom_tree(j, repo.dir, e));
    return doom_tree(j, repo.locks, e);
}

static void doom_records(struct job *j, const char *path)
{
    static const char *const suffixes[] = {".pull.json", ".incomplete.json", ".incomplete"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        const char *beside = apr_arena_printf(j->arena, "%s%s", path, suffixes[i]);
        struct stat st;
        if (lstat(beside, &st) == 0 && S_ISREG(st.st_mode)) doom(j, beside, (uint64_t)st.st_size);
    }
}

static bool is_below(const char *path, const char *root)
{
    size_t n = root ? strlen(root) : 0;
    return n > 1 && strncmp(path, root, n) == 0 && path[n] == '/' && path[n + 1];
}

/* The folder is resolved and the last name is not: a link in a cache is removed, never what it points to. */
static enum apr_code doom_path(struct job *j, const char *path, struct apr_err *e)
{
    char real[PATH_MAX];
    size_t n_path = strlen(path);
    while (n_path > 1 && path[n_path - 1] == '/') n_path--;
    path = apr_arena_strndup(j->arena, path, n_path);
    const char *base = name_base(path);
    const char *dir = base == path ? "." : apr_arena_strndup(j->arena, path, (size_t)(base - path));
    if (!realpath(dir, real) || !exists(path)) return apr_fail(e, APR_ENOTFOUND, "%s: not found", j->operand);
    const char *full = apr_arena_printf(j->arena, "%s/%s", strcmp(real, "/") == 0 ? "" : real, base);
    if (!strcmp(base, ".") || !strcmp(base, "..") ||
        !(is_below(full, j->hub_root) || is_below(full, j->apr_root)))
        return apr_fail(e, APR_EUSAGE, "%s: outside the caches (%s and %s); nothing was removed", j->operand,
                        j->hub_root ? j->hub_root : "-", j->apr_root ? j->apr_root : "-");
    if (is_below(
            full,
            j->hub_root)) { /* models--org--name[/snapshots/COMMIT[/FILE]] means the repository's parts */
        const char *rest = full + strlen(j->hub_root) + 1, *slash = strchr(rest, '/');
        struct source s = {.kind = SOURCE_HUB};
        s.repo = cache_repo_name(slash ? apr_arena_strndup(j->arena, rest, (size_t)(slash - rest)) : rest,
                                 j->arena);
        if (s.repo && slash && strncmp(slash, "/snapshots/", 11) == 0) {
            const char *file = strchr(slash + 11, '/');
            s.revision =
                file ? apr_arena_strndup(j->arena, slash + 11, (size_t)(file - slash - 11)) : slash + 11;
            s.file = file ? file + 1 : NULL;
        }
        if (s.repo && (!slash || s.revision)) return doom_repo(j, &s, e);
        return apr_fail(e, APR_EUSAGE, "%s: name the repository, a snapshot, or a file of one", j->operand);
    }
    TRY(doom_tree(j, full, e));
    doom_records(j, full);
    return APR_OK;
}

static enum apr_code find(struct job *j, struct apr_err *e)
{
    struct source s;
    struct cache_repo repo;
    struct apr_err not_a_repo;
    const char *p = j->operand;
    if (strncmp(p, "hf://", 5) == 0) {
        TRY(source_parse_repo(&s, p, j->arena, e));
        return doom_repo(j, &s, e);
    }
    bool is_repo = source_parse_repo(&s, p, j->arena, &not_a_repo) == APR_OK;
    if (is_repo) TRY(cache_repo_at(&repo, s.repo, j->arena, e));
    if (is_repo && exists(repo.dir)) return doom_repo(j, &s, e);
    const char *built =
        j->apr_root && name_is_path(p) ? apr_arena_printf(j->arena, "%s/%s", j->apr_root, p) : NULL;
    return doom_path(j, built && exists(built) ? built : p, e);
}

static enum apr_code report(const struct job *j, const struct apr_ctx *ctx, bool dry, struct apr_err *e)
{
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < j->n; i++) n_bytes += j->at[i].n_bytes;
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.rm/1");
    apr_out_bool(o, "dry_run", dry);
    apr_out_arr(o, "removed");
    for (size_t i = 0; i < j->n; i++) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "path", j->at[i].path);
        apr_out_bytes(o, "size_bytes", j->at[i].n_bytes);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_bytes(o, "freed_bytes", n_bytes);
    return apr_out_close(o, e);
}

static const char *resolved(const char *root, struct apr_arena *a)
{
    char real[PATH_MAX];
    return realpath(root, real) ? apr_arena_strdup(a, real) : NULL;
}

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct rm_args *args = p;
    struct job j = {.arena = ctx->arena, .operand = ctx->operands->at[0]};
    const char *hub, *apr;
    TRY(cache_hub_root(&hub, ctx->arena, e));
    TRY(cache_apr_root(&apr, ctx->arena, e));
    j.hub_root = resolved(hub, ctx->arena);
    j.apr_root = resolved(apr, ctx->arena);
    TRY(find(&j, e));
    for (size_t i = 0; i < j.n && !args->dry_run; i++) TRY(tree_remove(j.at[i].path, e));
    return report(&j, ctx, args->dry_run, e);
}

#define RM_DETAILS                                                                                           \
    "Removes a model from the caches: ORG/NAME (also hf://), ORG/NAME@REVISION, ORG/NAME/FILE, a name "      \
    "below\n"                                                                                                \
    "APR_HOME as list shows it, or a path inside the caches. Data that another revision still uses stays.\n" \
    "Nothing outside the caches is ever removed, and nothing is asked; --dry-run only shows.\n"              \
    "Examples:\n"                                                                                            \
    "    apr rm Qwen/Qwen2.5-0.5B-Instruct --dry-run"
#define RM_VERB(name_)                                                                                       \
    {                                                                                                        \
        .name = (name_), .operands = "MODEL", .n_operands_min = 1, .n_operands_max = 1, .opts = opts,        \
        .n_opts = sizeof opts / sizeof opts[0], .args_bytes = sizeof(struct rm_args), .run = run,            \
        .details = RM_DETAILS                                                                                \
    }

const struct apr_verb verb_rm = RM_VERB("rm");
const struct apr_verb verb_remove = RM_VERB("remove");

/* The content of the caches. See stock.h. */
#include "stock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cache.h"
#include "log.h"
#include "names.h"
#include "tree.h"

#define INCOMPLETE ".incomplete"

struct reader {
    struct stock *s;
    struct apr_arena *a;
    uint64_t n_cap;
    struct stock_entry *repo; /* the one being walked */
};

static struct stock_entry *add(struct reader *r)
{
    struct stock *s = r->s;
    if (s->n == r->n_cap) {
        r->n_cap = r->n_cap ? 2 * r->n_cap : 16;
        struct stock_entry *more = apr_arena_get(r->a, r->n_cap * sizeof *more);
        if (s->n) memcpy(more, s->at, s->n * sizeof *more);
        s->at = more;
    }
    struct stock_entry *entry = &s->at[s->n++];
    *entry = (struct stock_entry){.format = "-", .complete = true};
    return entry;
}

static const char *format_of(const char *name)
{
    static const char *const formats[] = {"safetensors", "gguf", "apr"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(dot + 1, formats[i]) == 0) return formats[i];
    return NULL;
}

static void note_revision(struct reader *r, const char *revision)
{
    struct stock_entry *repo = r->repo;
    repo->revision = repo->revision ? apr_arena_printf(r->a, "%s,%s", repo->revision, revision)
                                    : apr_arena_strdup(r->a, revision);
}

static bool below(const char *name, const char *dir, const char **rest)
{
    size_t n = strlen(dir);
    if (strncmp(name, dir, n) != 0 || name[n] != '/') return false;
    *rest = name + n + 1;
    return true;
}

static enum apr_code on_repo_entry(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    struct reader *r = ctx;
    struct stock_entry *repo = r->repo;
    struct stat target;
    const char *rest;
    (void)e;
    if (S_ISDIR(st->st_mode)) return APR_OK;
    repo->n_bytes += S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    if (name_has_suffix(name, INCOMPLETE)) repo->complete = false;
    if (below(name, "refs", &rest)) note_revision(r, rest);
    if (!below(name, "snapshots", &rest)) return APR_OK;
    repo->n_files++;
    const char *path = apr_arena_printf(r->a, "%s/%s", repo->path, name);
    if (stat(path, &target)) {
        apr_warn("%s: %s", path, strerror(errno));
        repo->complete = false;
    }
    const char *format = format_of(name);
    if (format && strcmp(repo->format, "safetensors") != 0) repo->format = format;
    return APR_OK;
}

/* Only the top of the hub cache is looked at here; a repository is walked for itself. */
static void read_repo(struct reader *r, const char *folder)
{
    struct apr_err why;
    const char **commits;
    size_t n;
    const char *name = cache_repo_name(folder, r->a);
    if (!name) return;
    struct stock_entry *repo = r->repo = add(r);
    repo->name = name;
    repo->kind = "hub";
    repo->path = apr_arena_printf(r->a, "%s/%s", r->s->hub_root, folder);
    enum apr_code code = tree_walk(repo->path, on_repo_entry, r, &why);
    const char *snapshots = apr_arena_printf(r->a, "%s/snapshots", repo->path);
    if (code == APR_OK && !repo->revision) {
        code = tree_list(snapshots, &commits, &n, r->a, &why);
        for (size_t i = 0; code == APR_OK && i < n; i++) note_revision(r, commits[i]);
    }
    if (code != APR_OK) apr_warn("%s", why.text);
}

static enum apr_code on_home_entry(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    struct reader *r = ctx;
    const char *rest, *shown = name;
    (void)e;
    bool part = name_has_suffix(name, INCOMPLETE), download = below(name, "downloads", &rest);
    if (!S_ISREG(st->st_mode)) return APR_OK;
    if (part) shown = apr_arena_strndup(r->a, name, strlen(name) - strlen(INCOMPLETE));
    const char *format = format_of(shown);
    if (name_has_suffix(name, ".json") || (!format && !download)) return APR_OK; /* records, stamps */
    struct stock_entry *file = add(r);
    *file = (struct stock_entry){.name = apr_arena_strdup(r->a, name),
                                 .kind = download ? "download" : "built",
                                 .format = format ? format : "-",
                                 .path = apr_arena_printf(r->a, "%s/%s", r->s->apr_root, name),
                                 .n_bytes = (uint64_t)st->st_size,
                                 .n_files = 1,
                                 .complete = !part};
    return APR_OK;
}

enum apr_code stock_read(struct stock *s, struct apr_arena *a, struct apr_err *e)
{
    const char **folders;
    size_t n;
    struct reader r = {.s = s, .a = a};
    *s = (struct stock){0};
    TRY(cache_hub_root(&s->hub_root, a, e));
    TRY(cache_apr_root(&s->apr_root, a, e));
    TRY(tree_list(s->hub_root, &folders, &n, a, e));
    for (size_t i = 0; i < n; i++) read_repo(&r, folders[i]);
    TRY(tree_walk(s->apr_root, on_home_entry, &r, e));
    for (uint64_t i = 0; i < s->n; i++) s->n_bytes += s->at[i].n_bytes;
    return APR_OK;
}

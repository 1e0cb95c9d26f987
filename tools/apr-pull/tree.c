/* Folders. See tree.h. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_DEPTH 32

enum apr_code tree_make(const char *dir, struct apr_err *e)
{
    char part[PATH_MAX];
    size_t n = strlen(dir);
    if (n >= sizeof part) return apr_fail(e, APR_EIO, "%.200s...: path too long", dir);
    memcpy(part, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, 0777) && errno != EEXIST)
            return apr_fail(e, APR_EIO, "%s: cannot create the folder: %s", part, strerror(errno));
        part[i] = kept;
    }
    return APR_OK;
}

struct walk {
    tree_fn *fn;
    void *ctx;
    const char *root; /* for messages */
    struct apr_err *e;
};

static enum apr_code walk_dir(const struct walk *w, int fd_parent, const char *base, const char *name,
                              unsigned depth);

static enum apr_code walk_entry(const struct walk *w, int fd, const char *base, const char *name,
                                unsigned depth)
{
    char path[PATH_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s%s%s", name, *name ? "/" : "", base);
    if (n < 0 || (size_t)n >= sizeof path) return apr_fail(w->e, APR_EIO, "%s: a path is too long", w->root);
    if (fstatat(fd, base, &st, AT_SYMLINK_NOFOLLOW)) {
        if (errno == ENOENT) return APR_OK; /* went away meanwhile */
        return apr_fail(w->e, APR_EIO, "%s/%s: %s", w->root, path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) TRY(walk_dir(w, fd, base, path, depth + 1));
    return w->fn(w->ctx, path, &st, w->e);
}

/* Not alphasort: the order must not depend on the locale. */
static int by_bytes(const void *a, const void *b)
{
    const struct dirent *x = *(struct dirent *const *)a, *y = *(struct dirent *const *)b;
    return strcmp(x->d_name, y->d_name);
}

/* base: of the folder below fd_parent; name: relative to the root, "" for the root itself */
static enum apr_code walk_dir(const struct walk *w, int fd_parent, const char *base, const char *name,
                              unsigned depth)
{
    struct dirent **list = NULL;
    enum apr_code code = APR_OK;
    if (depth > MAX_DEPTH) return apr_fail(w->e, APR_EIO, "%s/%s: folders too deep", w->root, name);
    int fd = openat(fd_parent, base, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (depth ? O_NOFOLLOW : 0));
    if (fd < 0) {
        if (errno == ENOENT) return APR_OK;
        return apr_fail(w->e, APR_EIO, "%s/%s: %s", w->root, name, strerror(errno));
    }
    int n = scandirat(fd, ".", &list, NULL, NULL);
    if (n < 0) code = apr_fail(w->e, APR_EIO, "%s/%s: %s", w->root, name, strerror(errno));
    if (n > 1) qsort(list, (size_t)n, sizeof(struct dirent *), by_bytes);
    for (int i = 0; i < n; i++) {
        const char *d = list[i]->d_name;
        if (code == APR_OK && strcmp(d, ".") != 0 && strcmp(d, "..") != 0)
            code = walk_entry(w, fd, d, name, depth);
        free(list[i]);
    }
    free(list);
    close(fd);
    return code;
}

enum apr_code tree_walk(const char *dir, tree_fn *fn, void *ctx, struct apr_err *e)
{
    struct walk w = {.fn = fn, .ctx = ctx, .root = dir, .e = e};
    return walk_dir(&w, AT_FDCWD, dir, "", 0);
}

static enum apr_code remove_entry(void *ctx, const char *name, const struct stat *st, struct apr_err *e)
{
    const char *root = ctx;
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", root, name);
    if (n < 0 || (size_t)n >= sizeof path) return apr_fail(e, APR_EIO, "%s: a path is too long", root);
    if ((S_ISDIR(st->st_mode) ? rmdir(path) : unlink(path)) && errno != ENOENT)
        return apr_fail(e, APR_EIO, "%s: cannot remove: %s", path, strerror(errno));
    return APR_OK;
}

enum apr_code tree_remove(const char *path, struct apr_err *e)
{
    struct stat st;
    if (lstat(path, &st)) {
        if (errno == ENOENT) return APR_OK;
        return apr_fail(e, APR_EIO, "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) TRY(tree_walk(path, remove_entry, (void *)(uintptr_t)path, e));
    if ((S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path)) && errno != ENOENT)
        return apr_fail(e, APR_EIO, "%s: cannot remove: %s", path, strerror(errno));
    return APR_OK;
}

enum apr_code tree_list(const char *dir, const char ***names, size_t *n, struct apr_arena *a,
                        struct apr_err *e)
{
    struct dirent **list = NULL;
    *names = NULL;
    *n = 0;
    int n_all = scandir(dir, &list, NULL, NULL);
    if (n_all < 0)
        return errno == ENOENT ? APR_OK : apr_fail(e, APR_EIO, "%s: cannot read: %s", dir, strerror(errno));
    if (n_all > 1) qsort(list, (size_t)n_all, sizeof(struct dirent *), by_bytes);
    *names = apr_arena_get(a, ((size_t)n_all + 1) * sizeof **names);
    for (int i = 0; i < n_all; i++) {
        struct stat st;
        const char *path = apr_arena_printf(a, "%s/%s", dir, list[i]->d_name);
        bool is_dir = lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
        if (is_dir && strcmp(list[i]->d_name, ".") != 0 && strcmp(list[i]->d_name, "..") != 0)
            (*names)[(*n)++] = apr_arena_strdup(a, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return APR_OK;
}

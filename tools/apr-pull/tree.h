/* Folders: made, walked and removed without ever following a link out of them.
 *
 *     TRY(tree_make(dir, e)); TRY(tree_walk(dir, on_file, ctx, e));
 */
#ifndef APR_PULL_TREE_H
#define APR_PULL_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "arena.h"
#include "err.h"

/* name: relative to the folder walked; st: of the entry itself (lstat). Folders come after their content. */
typedef enum apr_code tree_fn(void *ctx, const char *name, const struct stat *st, struct apr_err *e);

/* The folder and its parents. */
APR_MUST_USE enum apr_code tree_make(const char *dir, struct apr_err *e);
/* Every entry below dir, in order of their bytes; an absent dir has none. */
APR_MUST_USE enum apr_code tree_walk(const char *dir, tree_fn *fn, void *ctx, struct apr_err *e);
/* Names of the folders directly below dir, in order; none when dir is absent. */
APR_MUST_USE enum apr_code tree_list(const char *dir, const char ***names, size_t *n, struct apr_arena *a,
                                     struct apr_err *e);
/* Removes a file, link or folder with all below it. */
APR_MUST_USE enum apr_code tree_remove(const char *path, struct apr_err *e);

#endif

/* Where downloads live: Hugging Face's own cache, and APR_HOME for everything else.
 *
 *     ROOT/models--ORG--NAME/blobs/ETAG                 the data
 *     ROOT/models--ORG--NAME/snapshots/COMMIT/FILE      relative link to a blob
 *     ROOT/models--ORG--NAME/refs/REVISION              COMMIT as text
 *     ROOT/.locks/models--ORG--NAME/ETAG.lock           held (flock) while a blob is written
 * ROOT is HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub,
 * else HOME/.cache/huggingface/hub. Strings live in the given arena.
 *
 *     struct cache_repo r; TRY(cache_repo_at(&r, "org/name", arena, e));
 *     TRY(cache_ref_read(&r, "main", &commit, arena, e));
 */
#ifndef APR_PULL_CACHE_H
#define APR_PULL_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "err.h"

struct cache_repo {
    const char *repo;  /* "org/name" */
    const char *dir;   /* ROOT/models--org--name */
    const char *locks; /* ROOT/.locks/models--org--name */
};

APR_MUST_USE enum apr_code cache_hub_root(const char **root, struct apr_arena *a, struct apr_err *e);
/* APR_HOME, else XDG_CACHE_HOME/apr/models, else HOME/.cache/apr/models. */
APR_MUST_USE enum apr_code cache_apr_root(const char **root, struct apr_arena *a, struct apr_err *e);
/* HF_HOME, else XDG_CACHE_HOME/huggingface, else HOME/.cache/huggingface; NULL without any. */
const char *cache_hf_home(struct apr_arena *a);

APR_MUST_USE enum apr_code cache_repo_at(struct cache_repo *r, const char *repo, struct apr_arena *a,
                                         struct apr_err *e);
/* "models--org--name" -> "org/name"; NULL: not the name of such a folder. */
const char *cache_repo_name(const char *folder, struct apr_arena *a);
/* *commit is NULL when the revision was never pulled. A commit stands for itself. */
APR_MUST_USE enum apr_code cache_ref_read(const struct cache_repo *r, const char *revision,
                                          const char **commit, struct apr_arena *a, struct apr_err *e);
APR_MUST_USE enum apr_code cache_ref_write(const struct cache_repo *r, const char *revision,
                                           const char *commit, struct apr_arena *a, struct apr_err *e);
const char *cache_snapshot(const struct cache_repo *r, const char *commit, struct apr_arena *a);
const char *cache_blob(const struct cache_repo *r, const char *etag, struct apr_arena *a);
/* snapshots/COMMIT/NAME becomes a link to the blob; whoever looks sees the old file or the new one. */
APR_MUST_USE enum apr_code cache_link(const struct cache_repo *r, const char *commit, const char *name,
                                      const char *etag, struct apr_arena *a, struct apr_err *e);
/* Waits for the blob's lock; *fd is closed to release it. */
APR_MUST_USE enum apr_code cache_lock(const struct cache_repo *r, const char *etag, int *fd,
                                      struct apr_arena *a, struct apr_err *e);
/* false: somebody is writing a blob of this repository. */
bool cache_is_idle(const struct cache_repo *r);

#endif

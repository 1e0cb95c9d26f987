/* The hub: what a repository holds, and what a file of it should be. Hugging Face's API.
 *
 *     GET  ENDPOINT/api/models/ORG/NAME/revision/REV    {"sha": commit, "siblings": [{"rfilename": ...}]}
 *     HEAD ENDPOINT/ORG/NAME/resolve/COMMIT/FILE        ETag, X-Linked-ETag, X-Linked-Size
 * ENDPOINT is HF_ENDPOINT, else https://huggingface.co. The token is HF_TOKEN, else the file HF_TOKEN_PATH,
 * else HF_HOME/token (unless HF_HUB_DISABLE_IMPLICIT_TOKEN); it goes to the endpoint's host only. Strings
 * live in the arena.
 *
 *     struct hub hub; TRY(hub_init(&hub, http, arena, e));
 *     TRY(hub_list(&hub, "org/name", "main", &listing, e));
 */
#ifndef APR_PULL_HUB_H
#define APR_PULL_HUB_H

#include "http.h"
#include "arena.h"
#include "hash.h"

struct hub {
    struct http *http;
    struct apr_arena *arena;
    const char *endpoint; /* without a slash at its end */
    const char *token;    /* NULL: none */
};

struct hub_listing {
    const char *commit;
    const char **names; /* checked, in the hub's order, none twice */
    size_t n_names;
};

struct hub_file {
    const char *name, *url, *shown;
    const char *etag;         /* name of its blob */
    const char *sha256, *git; /* what the etag promises; NULL: not that */
    uint64_t n_bytes;
};

APR_MUST_USE enum apr_code hub_init(struct hub *h, struct http *http, struct apr_arena *arena,
                                    struct apr_err *e);
/* *again: the failure is the network's, so that a copy in the cache may do. */
APR_MUST_USE enum apr_code hub_list(const struct hub *h, const char *repo, const char *revision,
                                    struct hub_listing *out, bool *again, struct apr_err *e);
APR_MUST_USE enum apr_code hub_file(const struct hub *h, const char *repo, const char *commit,
                                    const char *name, struct hub_file *out, struct apr_err *e);
/* HF_HUB_OFFLINE (also APR_OFFLINE) is set to 1, on, yes or true. */
bool hub_env_offline(void);

#endif

/* Beginnings of sequences that are kept in case another sequence begins the same: blocks of 16 tokens in a
 * tree, found by hash and compared token by token.
 *
 * A cache that is added lends its whole blocks to the tree, and where the tree has the same tokens already
 * the cache takes the tree's block for its own: the forward pass gives the same bits to the same tokens, so
 * nothing that is computed changes. A new sequence takes over the longest beginning that is whole: every
 * block of layers that see all, and those of local layers that the next token sees. When the pool is full,
 * the blocks that nobody took for longest go first, ends before beginnings.
 *
 * Rotations that depend on the length of the sequence share only among sequences that turn alike. On a device
 * there are no blocks, and nothing is shared. The pool and the forward pass outlive this.
 *
 *     struct apr_prefixes p; apr_prefixes_init(&p, &fwd, &blocks);
 *     TRY(apr_prefixes_begin(&p, &cache, ids, n, e));   // cache.n_pos < n tokens need not be computed
 *     ... TRY(apr_prefixes_add(&p, &cache, e)); ... apr_prefixes_free(&p);
 */
#ifndef APR_INFER_PREFIXES_H
#define APR_INFER_PREFIXES_H

#include "forward.h"

struct apr_prefix;

struct apr_prefixes {
    struct apr_arena arena;      /* owns nodes and buckets */
    const struct apr_forward *f; /* borrowed */
    struct apr_blocks *blocks;   /* borrowed */
    struct apr_prefix **buckets; /* [n_buckets], a power of two; NULL: none yet */
    size_t n_buckets, n_nodes;
    struct apr_prefix *newest, *oldest, *unused;
    uint64_t n_hits, n_misses; /* sequences that found a beginning, or none */
    uint64_t n_toks_saved;     /* tokens that were not computed */
    uint64_t n_evicted;        /* blocks of tokens given up for room */
    uint64_t n_merged;         /* blocks that a cache had computed beside the tree's */
};

void apr_prefixes_init(struct apr_prefixes *p, const struct apr_forward *f, struct apr_blocks *blocks);
void apr_prefixes_free(struct apr_prefixes *p); /* a zeroed struct is fine */
/* c, which is empty, takes over the longest known beginning of the n >= 1 tokens, n - 1 of them at most. */
APR_MUST_USE enum apr_code apr_prefixes_begin(struct apr_prefixes *p, struct apr_cache *c, const int32_t *ids,
                                              size_t n, struct apr_err *e);
/* Keeps the whole blocks of c; at any time, such as when its prompt is computed and when it ends. */
APR_MUST_USE enum apr_code apr_prefixes_add(struct apr_prefixes *p, struct apr_cache *c, struct apr_err *e);

#endif

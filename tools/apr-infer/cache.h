/* Key-value cache of one sequence: a table of blocks from a pool (cache_blocks.h).
 *
 * Caches of a pool may share blocks: apr_cache_fork makes one begin where another was. A shared block is
 * never written; the cache that goes on inside it takes a copy (apr_cache_reserve).
 *
 * Local layers see a window: blocks that no later token can see are let go, but for APR_CACHE_SLACK
 * positions, so that a truncation by as many finds everything. A truncation further back, where pages are
 * missing that the next token sees, makes the cache lost: it has its tokens and no pages, and the forward
 * pass computes them again before it goes on.
 *
 *     struct apr_cache c; TRY(apr_cache_init(&c, &blocks, n_ctx, e));
 *     TRY(apr_cache_reserve(&c, c.n_pos + n, e)); ... c.n_pos += n; ... apr_cache_free(&c);
 */
#ifndef APR_INFER_CACHE_H
#define APR_INFER_CACHE_H

#include "cache_blocks.h"

#define APR_CACHE_SLACK 64u /* positions that a truncation may take back without a loss */

struct apr_cache {
    struct apr_arena arena;    /* owns the tables */
    struct apr_blocks *blocks; /* borrowed */
    /* [n_max / 16]; [first_block, n_blocks) are held, the rest is NULL */
    struct apr_cache_block **table[APR_CACHE_GROUPS];
    size_t first_block[APR_CACHE_GROUPS];
    size_t n_blocks;
    size_t n_max; /* positions */
    size_t n_pos; /* positions filled */
    int32_t *ids; /* [n_max]; [n_pos] are set: what is needed to compute the cache again */
    size_t n_seq; /* the longest that the sequence has been: some rotations depend on it */
    bool is_long; /* keys are rotated by the long set of rope.h */
    bool is_lost; /* no block is held; ids and n_pos say what has to be computed again */
};

/* The pool stays where it is until apr_cache_free. */
APR_MUST_USE enum apr_code apr_cache_init(struct apr_cache *c, struct apr_blocks *blocks, size_t n_max,
                                          struct apr_err *e);
void apr_cache_free(struct apr_cache *c); /* a zeroed struct is fine */
/* Pages for positions < n_pos exist afterwards, but for those that local layers do not see any more, and
 * those from c->n_pos on belong to c alone. Beyond n_max: APR_EUSAGE naming both numbers. */
APR_MUST_USE enum apr_code apr_cache_reserve(struct apr_cache *c, size_t n_pos, struct apr_err *e);
/* Memory of so many positions. */
uint64_t apr_cache_bytes(const struct apr_cache *c, size_t n_pos);
/* Forgets positions >= n_pos and lets their blocks go. */
void apr_cache_truncate(struct apr_cache *c, size_t n_pos);
/* to, which is empty and of the same pool, shares the first n_pos positions of from. */
APR_MUST_USE enum apr_code apr_cache_fork(struct apr_cache *to, const struct apr_cache *from, size_t n_pos,
                                          struct apr_err *e);
/* Lets all pages go; the tokens are computed again by the next step. */
void apr_cache_lose(struct apr_cache *c);
/* The first position whose pages a token at n_pos must find. */
size_t apr_cache_first_seen(const struct apr_blocks *b, enum apr_cache_group group, size_t n_pos);
/* Page i_block of one head: 16 rows of row_bytes[part]; latent attention: of keys, whatever the part. */
void *apr_cache_page(const struct apr_cache *c, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                     size_t i_block);
/* Blocks from i_block on, n_most at most, whose pages of a head follow each other in memory. */
size_t apr_cache_run(const struct apr_cache *c, uint32_t i_layer, size_t i_block, size_t n_most);

#endif

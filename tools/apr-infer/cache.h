/* Key-value cache of one sequence, in pages of 16 positions.
 *
 * A block holds 16 positions of the whole model; inside it each (layer, KV head) has one page of keys
 * [16, k_dim] and one of values [16, v_dim], each of a type of kern/page.h: F16, F32 (reference mode), or
 * blocks of 32 values along the row. Latent attention keeps one head of kv_rank + n_rope values a position
 * and no page of values: they are the first columns of the keys. Blocks are allocated as the sequence grows,
 * up to n_max positions, and stay with the cache until apr_cache_free. The cache owns its memory. ids are the
 * tokens at the filled positions.
 *
 *     struct apr_cache c; TRY(apr_cache_init(&c, cfg, apr_cache_plain(exact), n_ctx, e));
 *     TRY(apr_cache_reserve(&c, c.n_pos + n, e)); ... c.n_pos += n; ... apr_cache_free(&c);
 */
#ifndef APR_INFER_CACHE_H
#define APR_INFER_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "config.h"
#include "err.h"
#include "kern/page.h"

enum apr_cache_part { APR_CACHE_K = 0, APR_CACHE_V = 1, APR_CACHE_N_PARTS = 2 };

struct apr_cache_types {
    const struct apr_page_type *at[APR_CACHE_N_PARTS];
};

struct apr_cache {
    struct apr_arena arena; /* owns blocks and the table */
    uint8_t **blocks;       /* [n_max / 16]; [n_blocks] are allocated */
    size_t n_blocks;
    size_t n_max; /* positions */
    size_t n_pos; /* positions filled */
    int32_t *ids; /* [n_max]; [n_pos] are set: what is needed to compute the cache again */
    bool is_long; /* keys are rotated by the long set of rope.h */
    uint32_t n_layers, n_heads_kv, k_dim, v_dim;
    struct apr_cache_types types;
    size_t row_bytes[APR_CACHE_N_PARTS]; /* of one position of one head; latent attention: values 0 */
    size_t block_bytes;                  /* 16 rows of both * n_heads_kv * n_layers */
};

/* Keys and values in F32 or F16. */
struct apr_cache_types apr_cache_plain(bool is_f32);
/* A head that is no whole number of blocks of its type: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_cache_init(struct apr_cache *c, const struct apr_config *cfg,
                                          struct apr_cache_types types, size_t n_max, struct apr_err *e);
void apr_cache_free(struct apr_cache *c);
/* Pages for positions < n_pos exist afterwards. Beyond n_max: APR_EUSAGE naming both numbers. */
APR_MUST_USE enum apr_code apr_cache_reserve(struct apr_cache *c, size_t n_pos, struct apr_err *e);
/* Memory of so many positions. */
uint64_t apr_cache_bytes(const struct apr_cache *c, size_t n_pos);
/* Forgets positions >= n_pos; the memory is kept for the next ones. */
void apr_cache_truncate(struct apr_cache *c, size_t n_pos);
/* Page i_block of one head: 16 rows of row_bytes[part]; latent attention: of keys, whatever the part. */
void *apr_cache_page(const struct apr_cache *c, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                     size_t i_block);

#endif

/* Grouped-query attention of tokens of any number of sequences over their paged caches, causal, over all
 * positions or a window.
 *
 * Work is split into (tile of a sequence's tokens, KV head, part of the head group), and further where that
 * is less than there are threads, into blocks of positions (attention_tile.h); what is done in which order
 * for an output is fixed, so neither the split nor the chunk nor the other sequences change a bit.
 *
 *     struct apr_attn_shape shape = apr_attn_shape_of(cfg);
 *     TRY(apr_attention_room(&a, &compute, &shape, n_pos, e)); apr_attention(&a, &compute, &shape, &call);
 */
#ifndef APR_INFER_ATTENTION_H
#define APR_INFER_ATTENTION_H

#include "cache.h"
#include "linear.h"

/* Per-thread room: scores of a block, and queries and blocks of a tile. */
struct apr_attn_room {
    struct apr_arena *arena; /* borrowed */
    float *at;               /* [threads] of n_floats */
    size_t n_floats;
    size_t n_parts;    /* of n_floats: what the blocks of a tile may use */
    size_t n_pos_wide; /* positions from which threads share tiles when there are too few; 0 = 256 */
};

/* What attention is, apart from the sequence. */
struct apr_attn_shape {
    uint32_t n_heads, n_heads_kv;
    uint32_t k_dim, v_dim; /* of one head */
    bool v_in_k;           /* values are the first v_dim columns of the keys (latent attention) */
    float scale;           /* of q k */
    float softcap;         /* c * tanh(score / c); 0 = none */
};
struct apr_attn_shape apr_attn_shape_of(const struct apr_config *cfg);

/* Grows the room until n_pos positions can be attended to. */
APR_MUST_USE enum apr_code apr_attention_room(struct apr_attn_room *room, const struct apr_compute *c,
                                              const struct apr_attn_shape *shape, size_t n_pos,
                                              struct apr_err *e);

/* Consecutive tokens of one sequence; their keys and all before them are in the cache. */
struct apr_attn_span {
    const struct apr_cache *cache;
    size_t row0;                 /* of q and out: the first of them */
    size_t pos0, n_toks;         /* token t stands at position pos0 + t */
    size_t i_unit0, n_tile_toks; /* attention.c's own */
};
struct apr_attn_call {
    uint32_t i_layer;
    size_t window; /* positions that a token sees, its own among them; 0 = all before it */
    struct apr_attn_span *spans;
    size_t n_spans; /* >= 1 */
    const float *q; /* [rows, n_heads, k_dim] */
    float *out;     /* [rows, n_heads, v_dim] */
};
/* All spans in one parallel region. */
void apr_attention(const struct apr_attn_room *room, const struct apr_compute *c,
                   const struct apr_attn_shape *shape, const struct apr_attn_call *call);

#endif

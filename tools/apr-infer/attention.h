/* Grouped-query attention of a chunk of tokens over the paged cache, causal.
 *
 * Work is split into (tile of tokens, KV head, part of the head group); every score, every softmax and
 * every output element is one fixed chain (kern.h), so neither the split nor the chunk changes a bit.
 *
 *     TRY(apr_attention_room(&a, &compute, cfg, n_pos, n_toks, e)); apr_attention(&a, ...);
 */
#ifndef APR_INFER_ATTENTION_H
#define APR_INFER_ATTENTION_H

#include "cache.h"
#include "linear.h"

/* Per-thread room: scores of a tile and its gathered queries and outputs. */
struct apr_attn_room {
    struct apr_arena *arena; /* borrowed */
    float *at;               /* [threads] of n_floats */
    size_t n_floats;
    size_t n_scores; /* of n_floats: what scores may use */
};

/* Grows the room until n_pos positions can be attended to. */
APR_MUST_USE enum apr_code apr_attention_room(struct apr_attn_room *room, const struct apr_compute *c,
                                              const struct apr_config *cfg, size_t n_pos, struct apr_err *e);
/* q, out: [n_toks, n_heads, head_dim]; token t stands at position pos0 + t, whose keys and values (and all
 * before it) are in the cache. */
void apr_attention(const struct apr_attn_room *room, const struct apr_compute *c,
                   const struct apr_config *cfg, const struct apr_cache *cache, uint32_t i_layer, size_t pos0,
                   size_t n_toks, const float *q, float *out);

#endif

/* Grouped-query attention of a chunk of tokens over the paged cache, causal, over all positions or a window.
 *
 * Work is split into (tile of tokens, KV head, part of the head group); every score, every softmax and
 * every output element is one fixed chain (kern.h), so neither the split nor the chunk changes a bit.
 *
 *     struct apr_attn_shape shape = apr_attn_shape_of(cfg);
 *     TRY(apr_attention_room(&a, &compute, &shape, n_pos, e)); apr_attention(&a, ...);
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

struct apr_attn_span {
    size_t pos0, n_toks; /* token t stands at position pos0 + t; its key and all before it are in the cache */
    size_t window;       /* positions that a token sees, its own among them; 0 = all before it */
};
/* q: [n_toks, n_heads, k_dim]; out: [n_toks, n_heads, v_dim]. */
void apr_attention(const struct apr_attn_room *room, const struct apr_compute *c,
                   const struct apr_attn_shape *shape, const struct apr_cache *cache, uint32_t i_layer,
                   const struct apr_attn_span *span, const float *q, float *out);

#endif

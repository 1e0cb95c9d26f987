/* The forward pass of a decoder (RMSNorm, rotary GQA attention, SwiGLU), a chunk of tokens at a time.
 *
 * A token's results are the same bits for any chunk, thread count, page layout and kernel table. The
 * reference mode (exact) keeps activations and cache in f32.
 *
 *     struct apr_forward f; TRY(apr_forward_open(&f, &checked, kern, pool, exact, n_batch, e));
 *     TRY(apr_forward_prompt(&f, &cache, ids, n, e));          // any n; the last chunk's rows remain
 *     TRY(apr_forward_logits(&f, &cache, f.n_toks - 1, 1, logits, e)); apr_forward_close(&f);
 */
#ifndef APR_INFER_FORWARD_H
#define APR_INFER_FORWARD_H

#include "attention.h"
#include "cache.h"
#include "weights.h"

struct apr_forward {
    struct apr_arena arena; /* owns all below */
    struct apr_weights w;
    struct apr_compute c;
    struct apr_attn_room attn;
    size_t n_batch; /* most tokens of a chunk */
    size_t n_toks;  /* of the chunk last run */
    size_t pos0;    /* position of its first token */

    float *x;            /* [n_batch, n_hidden] residual stream */
    struct apr_acts h;   /* [n_batch, n_hidden] normed input of a block; its f32 is scratch between blocks */
    struct apr_acts att; /* [n_batch, n_heads * head_dim] output of attention */
    struct apr_acts ffn; /* [n_batch, n_inter] silu(gate) * up */
    float *q, *k, *v, *up, *y;
    float *cos, *sin; /* [n_batch, head_dim / 2] of positions pos0 .. */
    double *inv_freq; /* [head_dim / 2] */
};

APR_MUST_USE enum apr_code apr_forward_open(struct apr_forward *f, const struct apr_checked_model *m,
                                            const struct apr_kern *kern, struct apr_pool *pool, bool exact,
                                            size_t n_batch, struct apr_err *e);
void apr_forward_close(struct apr_forward *f);
/* n <= n_batch tokens at positions cache->n_pos ..; advances the cache. */
APR_MUST_USE enum apr_code apr_forward_chunk(struct apr_forward *f, struct apr_cache *cache,
                                             const int32_t *ids, size_t n, struct apr_err *e);
/* Any n >= 1 tokens, chunk by chunk; afterwards f holds the last chunk. */
APR_MUST_USE enum apr_code apr_forward_prompt(struct apr_forward *f, struct apr_cache *cache,
                                              const int32_t *ids, size_t n, struct apr_err *e);
/* logits: [n_rows, n_vocab] of tokens i_tok .. of the last chunk. NaN or Inf: APR_EINFER naming the position.
 */
APR_MUST_USE enum apr_code apr_forward_logits(struct apr_forward *f, size_t i_tok, size_t n_rows,
                                              float *logits, struct apr_err *e);
/* Runs n tokens and hands out all their logits in order, at most 32 rows at a time: rows of tokens i_tok ..
 */
APR_MUST_USE enum apr_code apr_forward_all_logits(
    struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
    enum apr_code (*take)(void *ctx, size_t i_tok, size_t n_rows, const float *logits, struct apr_err *e),
    void *ctx, struct apr_err *e);

#endif

/* The blocks of a layer. Each reads f->h, which is normed and packed, and leaves in f->y what is to be added
 * to the residual stream, without the bias of its last matrix.
 *
 *     apr_attention_block(f, cache, i); ... apr_ffn_block(f, i);
 */
#ifndef APR_INFER_BLOCKS_H
#define APR_INFER_BLOCKS_H

#include "forward.h"

/* From f->rows to f->x behind the last layer. */
void apr_forward_layers(struct apr_forward *f);
/* Layouts of f->h that the block's first matrices read. */
unsigned apr_attention_wants(const struct apr_forward *f, const struct apr_layer *l);
unsigned apr_ffn_wants(const struct apr_forward *f, const struct apr_layer *l);

void apr_attention_block(struct apr_forward *f, uint32_t i_layer);
void apr_mla_block(struct apr_forward *f, uint32_t i_layer);
void apr_ffn_block(struct apr_forward *f, uint32_t i_layer);
void apr_moe_block(struct apr_forward *f, uint32_t i_layer);

/* Buffers of the two that need their own. */
APR_MUST_USE enum apr_code apr_mla_open(struct apr_forward *f, struct apr_err *e);
APR_MUST_USE enum apr_code apr_moe_open(struct apr_forward *f, struct apr_err *e);

/* Work on single tokens. */
struct apr_token_job {
    struct apr_forward *f;
    void (*fn)(const struct apr_token_job *j, size_t i_tok);
    const struct apr_layer *layer;
    uint32_t i_layer;
    const struct apr_lnorm *norm; /* of x */
    const float *post_norm;       /* of y, or NULL */
    const float *bias;            /* of y, or NULL */
    const struct apr_acts *acts;  /* to be packed */
    unsigned wants;
};
/* All tokens of the chunk; the caller alone where they are few. */
void apr_for_tokens(struct apr_token_job *j);
/* Packs acts as wants says. */
void apr_pack_tokens(struct apr_forward *f, const struct apr_acts *acts, unsigned wants);
/* y = norm(x), n_hidden values. */
void apr_norm_row(const struct apr_forward *f, const struct apr_lnorm *w, const float *x, float *y);
/* Stores one head's key (or value) of a token. */
void apr_store_head(const struct apr_forward *f, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                    size_t i_tok, const float *x);
/* out = attention of all rows with queries q in layer i_layer, by what the layer sees. */
void apr_attend(struct apr_forward *f, uint32_t i_layer, const float *q, float *out);
/* The product after the next one reads a, b and c; any may be NULL or without data, nothing is known then. */
void apr_expect(struct apr_forward *f, const struct apr_mat *a, const struct apr_mat *b,
                const struct apr_mat *c);
/* The same of the feed-forward block of layer i_layer, and of the layer itself; behind the last, of the head.
 */
void apr_expect_ffn(struct apr_forward *f, uint32_t i_layer);
void apr_expect_layer(struct apr_forward *f, uint32_t i_layer);
const struct apr_rope_table *apr_rope_of(const struct apr_forward *f, const struct apr_layer *l);

#endif

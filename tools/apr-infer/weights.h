/* The weights of a decoder, found by role in a checked model and bound to kernels.
 *
 * Matrices stay in the mapped file in their own type. Norms and biases are small and may be any plain
 * float type: they are widened once, into the arena. Everything borrows from the model.
 *
 *     struct apr_weights w; TRY(apr_weights_bind(&w, &checked, kern, &arena, e));
 */
#ifndef APR_INFER_WEIGHTS_H
#define APR_INFER_WEIGHTS_H

#include "contract.h"
#include "linear.h"

struct apr_layer {
    const float *attn_norm, *ffn_norm; /* [n_hidden] */
    struct apr_mat q;                  /* [n_heads * head_dim, n_hidden] */
    struct apr_mat k, v;               /* [n_heads_kv * head_dim, n_hidden] */
    struct apr_mat o;                  /* [n_hidden, n_heads * head_dim] */
    struct apr_mat gate, up;           /* [n_inter, n_hidden] */
    struct apr_mat down;               /* [n_hidden, n_inter] */
};

struct apr_weights {
    const struct apr_config *cfg; /* borrowed from the model */
    const uint8_t *embed;         /* [n_vocab, n_hidden], dequantized a row at a time */
    size_t embed_row_bytes;
    apr_to_f32_fn *embed_to_f32;
    struct apr_layer *layers; /* [n_layers] */
    const float *final_norm;  /* [n_hidden] */
    struct apr_mat head;      /* [n_vocab, n_hidden]; the embedding itself when tied */
    size_t n_bytes;           /* of weights that one token reads */
};

APR_MUST_USE enum apr_code apr_weights_bind(struct apr_weights *w, const struct apr_checked_model *m,
                                            const struct apr_kern *kern, struct apr_arena *arena,
                                            struct apr_err *e);

#endif

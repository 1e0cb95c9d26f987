/* The weights of a decoder, found by role in a checked model and bound to kernels.
 *
 * Matrices stay in the mapped file in their own type; parts of fused ones are row views. What a model does
 * not have stays zero: its data is NULL. Everything borrows from the model or lives in the arena.
 *
 *     struct apr_weights w; TRY(apr_weights_bind(&w, &checked, kern, &arena, e));
 */
#ifndef APR_INFER_WEIGHTS_H
#define APR_INFER_WEIGHTS_H

#include "bind.h"
#include "contract.h"
#include "linear.h"

/* down(act(gate x) * up x), or down(act(up x)) without a gate */
struct apr_ffn_mats {
    struct apr_mat gate, up; /* [n_inter, n_hidden] */
    struct apr_mat down;     /* [n_hidden, n_inter] */
};

struct apr_moe_mats {
    struct apr_mat router;            /* [n_experts, n_hidden], computed in F32 */
    const float *router_bias;         /* [n_experts], for the choice alone; or NULL */
    struct apr_mat *gate, *up, *down; /* [n_experts] */
    struct apr_ffn_mats shared;       /* the shared expert */
    struct apr_mat shared_gate;       /* [1, n_hidden], computed in F32 */
};

/* Multi-head latent attention, keys and values absorbed into the query and the output (DeepSeek-V2, 2.1). */
struct apr_mla_mats {
    struct apr_mat q_a;        /* [q_rank, n_hidden]; q is [n_heads * head_dim, q_rank] then */
    const float *q_a_norm;     /* [q_rank] */
    struct apr_mat kv_a;       /* [kv_rank + n_rope, n_hidden] */
    const float *kv_a_norm;    /* [kv_rank] */
    struct apr_mat kv_b;       /* the whole of k_b and v_b where the file has it so */
    struct apr_mat *k_b, *v_b; /* [n_heads] of [kv_rank, n_nope] and [n_value, kv_rank] */
};

struct apr_layer {
    struct apr_lnorm attn_norm, ffn_norm; /* b: LayerNorm alone */
    const float *post_attn_norm;          /* of what attention adds */
    const float *post_ffn_norm;
    struct apr_mat q;             /* [n_heads * head_dim, n_hidden] */
    struct apr_mat k, v;          /* [n_heads_kv * head_dim, n_hidden] */
    struct apr_mat o;             /* [n_hidden, n_heads * v_dim] */
    const float *q_norm, *k_norm; /* [head_dim] */
    bool is_local;                /* sees config.window positions */
    bool is_moe;
    struct apr_ffn_mats ffn;
    struct apr_mla_mats mla;
    struct apr_moe_mats moe;
};

struct apr_weights {
    const struct apr_config *cfg; /* borrowed from the model */
    struct apr_rows embed;        /* [n_vocab, n_hidden] */
    struct apr_rows positions;    /* [n_positions, n_hidden] */
    const float *rope_freqs, *rope_long, *rope_short;
    struct apr_layer *layers; /* [n_layers] */
    struct apr_lnorm final_norm;
    struct apr_mat head; /* [n_vocab, n_hidden]; the embedding itself when tied */
    size_t n_bytes;      /* of matrices that one token reads */
};

APR_MUST_USE enum apr_code apr_weights_bind(struct apr_weights *w, const struct apr_checked_model *m,
                                            const struct apr_kern *kern, struct apr_arena *arena,
                                            struct apr_err *e);

#endif

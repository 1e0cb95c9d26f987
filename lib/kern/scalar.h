/* The pieces of the scalar table, which is the definition that the other tables must equal.
 *
 * Shared by the scalar*.c files and by the other tables where they have no better form for a rare type.
 * Nothing here is owned; see kern.h for every contract.
 *
 *     [APR_Q4_K] = {apr_scalar_fast_q4_k, APR_ACT_Q8_256, apr_scalar_exact_q4_k},
 */
#ifndef APR_KERN_SCALAR_H
#define APR_KERN_SCALAR_H

#include "kern.h"

/* scalar_plain.c: f32 activations */
apr_matmul_fn apr_scalar_f32, apr_scalar_f16, apr_scalar_bf16, apr_scalar_f64, apr_scalar_i8;
apr_matmul_fn apr_scalar_native_q4, apr_scalar_native_q8;
apr_matmul_fn apr_scalar_exact_q4_0, apr_scalar_exact_q4_1, apr_scalar_exact_q5_0, apr_scalar_exact_q5_1;
apr_matmul_fn apr_scalar_exact_q8_0, apr_scalar_exact_q2_k, apr_scalar_exact_q3_k, apr_scalar_exact_q4_k;
apr_matmul_fn apr_scalar_exact_q5_k, apr_scalar_exact_q6_k;
apr_matmul_fn apr_scalar_exact_iq2_xxs, apr_scalar_exact_iq2_xs, apr_scalar_exact_iq2_s;
apr_matmul_fn apr_scalar_exact_iq3_xxs, apr_scalar_exact_iq3_s, apr_scalar_exact_iq1_s,
    apr_scalar_exact_iq1_m;
apr_matmul_fn apr_scalar_exact_iq4_nl, apr_scalar_exact_iq4_xs;
apr_matmul_fn apr_scalar_exact_tq1_0, apr_scalar_exact_tq2_0, apr_scalar_exact_mxfp4;
/* The first rule of kern.h. */
float apr_scalar_dot(const float *a, const float *b, size_t n);
/* The tree of kern.h over 8 lanes. */
float apr_scalar_tree(const float lane[8]);
double apr_scalar_tree_f64(const double lane[8]);

/* scalar_block.c: block weights x int8 activations */
apr_matmul_fn apr_scalar_fast_q4_0, apr_scalar_fast_q4_1, apr_scalar_fast_q5_0, apr_scalar_fast_q5_1;
apr_matmul_fn apr_scalar_fast_q8_0, apr_scalar_fast_q2_k, apr_scalar_fast_q3_k, apr_scalar_fast_q4_k;
apr_matmul_fn apr_scalar_fast_q5_k, apr_scalar_fast_q6_k;
/* the same from strips */
apr_to_strips_fn apr_scalar_to_strips_q4_0, apr_scalar_to_strips_q4_1, apr_scalar_to_strips_q5_0,
    apr_scalar_to_strips_q5_1, apr_scalar_to_strips_q8_0, apr_scalar_to_strips_q2_k,
    apr_scalar_to_strips_q3_k, apr_scalar_to_strips_q4_k, apr_scalar_to_strips_q5_k,
    apr_scalar_to_strips_q6_k;
apr_matmul_fn apr_scalar_strips_q4_0, apr_scalar_strips_q4_1, apr_scalar_strips_q5_0, apr_scalar_strips_q5_1,
    apr_scalar_strips_q8_0, apr_scalar_strips_q2_k, apr_scalar_strips_q3_k, apr_scalar_strips_q4_k,
    apr_scalar_strips_q5_k, apr_scalar_strips_q6_k;

/* scalar_elem.c: one vector at a time */
float apr_scalar_exp(float x);
void apr_scalar_to_act32(const float *x, struct apr_act32 *a, size_t n);
void apr_scalar_to_act256(const float *x, struct apr_act256 *a, size_t n);
void apr_scalar_rmsnorm(const float *x, const float *w, float eps, float *y, size_t n);
void apr_scalar_layernorm(const float *x, const float *w, const float *b, float eps, float *y, size_t n);
void apr_scalar_add(float *y, const float *x, size_t n);
void apr_scalar_mul(float *y, const float *x, size_t n);
void apr_scalar_scale(float *y, float s, size_t n);
void apr_scalar_add_scaled(float *y, const float *x, float s, size_t n);
void apr_scalar_silu_mul(const float *gate, const float *up, float *y, size_t n);
void apr_scalar_rope_half(float *x, const float *cos, const float *sin, size_t n);
void apr_scalar_rope_pairs(float *x, const float *cos, const float *sin, size_t n);
void apr_scalar_softmax(float *x, size_t n);
void apr_scalar_exps(float *x, float most, size_t n);
float apr_scalar_max(const float *x, size_t n, size_t *i_max);
void apr_scalar_f32_to_f16(const float *x, uint16_t *y, size_t n);
void apr_scalar_stats(const float *x, size_t n, struct apr_stats *s);

/* scalar_act.c: gates and soft caps */
void apr_scalar_silu(const float *x, float *y, size_t n);
void apr_scalar_gelu(const float *x, float *y, size_t n);
void apr_scalar_gelu_tanh(const float *x, float *y, size_t n);
void apr_scalar_relu(const float *x, float *y, size_t n);
void apr_scalar_softcap(float *x, float cap, size_t n);

/* scalar_attn.c: one page of the cache */
void apr_scalar_scores_f16(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos,
                           size_t n_dim, float scale, float *scores, size_t s_stride);
void apr_scalar_values_f16(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v,
                           size_t v_stride, size_t n_pos, size_t n_dim, float *out);
void apr_scalar_scores_f32(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos,
                           size_t n_dim, float scale, float *scores, size_t s_stride);
void apr_scalar_values_f32(const float *weights, size_t w_stride, size_t n_q, const float *v, size_t v_stride,
                           size_t n_pos, size_t n_dim, float *out);

#endif

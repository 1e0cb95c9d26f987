/* The functions of one 128-bit table, by its V(); included once by each of its files, after the header of the
 * instruction set. See kern.h for every contract.
 *
 *     #include "sse4_vec.h"
 *     #include "v128_decl.h"
 */
#ifndef APR_KERN_V128_DECL_H
#define APR_KERN_V128_DECL_H

#include "scalar.h"
#include "v128.h"

/* v128_rows.h, v128_strips.h: products of bytes; P(name): a table's name of a function */
#define V_DECLARE_INTS(P)                                                                                    \
    apr_matmul_fn P(fast_q4_0), P(fast_q4_1), P(fast_q5_0), P(fast_q5_1), P(fast_q8_0);                      \
    apr_matmul_fn P(fast_q2_k), P(fast_q3_k), P(fast_q4_k), P(fast_q5_k), P(fast_q6_k);                      \
    apr_matmul_fn P(strips_q4_0), P(strips_q4_1), P(strips_q5_0), P(strips_q5_1), P(strips_q8_0);            \
    apr_matmul_fn P(strips_q2_k), P(strips_q3_k), P(strips_q4_k), P(strips_q5_k), P(strips_q6_k)
V_DECLARE_INTS(V);

/* v128_plain.h: f32 activations; what its slices need of scratch */
#define APR_V128_PLAIN_BYTES 10240
apr_matmul_fn V(f32), V(f16), V(bf16), V(f64), V(i8), V(native_q4), V(native_q8);
apr_matmul_fn V(exact_q4_0), V(exact_q4_1), V(exact_q5_0), V(exact_q5_1), V(exact_q8_0);
apr_matmul_fn V(exact_q2_k), V(exact_q3_k), V(exact_q4_k), V(exact_q5_k), V(exact_q6_k);
apr_matmul_fn V(exact_iq2_xxs), V(exact_iq2_xs), V(exact_iq2_s), V(exact_iq3_xxs), V(exact_iq3_s);
apr_matmul_fn V(exact_iq1_s), V(exact_iq1_m), V(exact_iq4_nl), V(exact_iq4_xs);
apr_matmul_fn V(exact_tq1_0), V(exact_tq2_0), V(exact_mxfp4);
extern apr_to_f32_fn *const V(to_f32s)[APR_N_TYPES];

/* v128_elem.h, v128_act.h */
void V(to_act32)(const float *x, struct apr_act32 *a, size_t n);
void V(to_act256)(const float *x, struct apr_act256 *a, size_t n);
void V(rmsnorm)(const float *x, const float *w, float eps, float *y, size_t n);
void V(layernorm)(const float *x, const float *w, const float *b, float eps, float *y, size_t n);
void V(add)(float *y, const float *x, size_t n);
void V(mul)(float *y, const float *x, size_t n);
void V(scale)(float *y, float s, size_t n);
void V(add_scaled)(float *y, const float *x, float s, size_t n);
void V(silu_mul)(const float *gate, const float *up, float *y, size_t n);
void V(rope_half)(float *x, const float *cos, const float *sin, size_t n);
void V(rope_pairs)(float *x, const float *cos, const float *sin, size_t n);
void V(softmax)(float *x, size_t n);
void V(exps)(float *x, float most, size_t n);
float V(max)(const float *x, size_t n, size_t *i_max);
void V(f32_to_f16)(const float *x, uint16_t *y, size_t n);
void V(stats)(const float *x, size_t n, struct apr_stats *s);
void V(silu)(const float *x, float *y, size_t n);
void V(gelu)(const float *x, float *y, size_t n);
void V(gelu_tanh)(const float *x, float *y, size_t n);
void V(relu)(const float *x, float *y, size_t n);
void V(softcap)(float *x, float cap, size_t n);

/* v128_attn.h */
void V(scores_f16)(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos, size_t n_dim,
                   float scale, float *scores, size_t s_stride);
void V(values_f16)(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v, size_t v_stride,
                   size_t n_pos, size_t n_dim, float *out);
void V(scores_f32)(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos, size_t n_dim,
                   float scale, float *scores, size_t s_stride);
void V(values_f32)(const float *weights, size_t w_stride, size_t n_q, const float *v, size_t v_stride,
                   size_t n_pos, size_t n_dim, float *out);

#endif

/* The pieces of the AVX2 table (AVX2, FMA, F16C): the same bits as the scalar ones.
 *
 * Shared by the avx2*.c files only. Nothing here is owned; see kern.h for every contract.
 *
 *     [APR_Q4_K] = {apr_avx2_fast_q4_k, APR_ACT_Q8_256, apr_avx2_exact_q4_k},
 */
#ifndef APR_KERN_AVX2_H
#define APR_KERN_AVX2_H

#include "kern.h"

/* The arguments of apr_matmul_fn for one kernel of integer tiles; the number of tokens is the kernel's. */
struct apr_avx2_tiles {
    const uint8_t *w;
    size_t w_row_bytes, n_rows, n_blocks;
    const uint8_t *x;
    size_t x_row_bytes;
    float *y;
    size_t y_stride;
    void *scratch;
};
/* avx2_block256.c */
apr_matmul_fn apr_avx2_fast_q2_k, apr_avx2_fast_q3_k, apr_avx2_fast_q4_k, apr_avx2_fast_q5_k;
apr_matmul_fn apr_avx2_fast_q6_k;
apr_to_f32_fn apr_avx2_q2_k_to_f32, apr_avx2_q3_k_to_f32, apr_avx2_q4_k_to_f32, apr_avx2_q5_k_to_f32;
apr_to_f32_fn apr_avx2_q6_k_to_f32;

/* avx2_panel256.c, avx2_panel32.c: the same products for three and more tokens; their scratch */
#define APR_AVX2_PANEL_BYTES 57344
/* avx2_wide8.c: a block of activations as int16; up to so many tokens have all of their blocks in scratch */
#define APR_AVX2_WIDE32_BYTES 96
#define APR_AVX2_WIDE_TOKS    8
typedef void apr_avx2_panel_fn(const struct apr_avx2_tiles *a, size_t n_toks);
apr_avx2_panel_fn apr_avx2_panel_q2_k, apr_avx2_panel_q3_k, apr_avx2_panel_q4_k, apr_avx2_panel_q5_k;
apr_avx2_panel_fn apr_avx2_panel_q6_k;
apr_avx2_panel_fn apr_avx2_panel_q4_0, apr_avx2_panel_q4_1, apr_avx2_panel_q5_0, apr_avx2_panel_q5_1;
apr_avx2_panel_fn apr_avx2_panel_q8_0;
/* w is strips */
apr_avx2_panel_fn apr_avx2_strip_panel_q2_k, apr_avx2_strip_panel_q3_k, apr_avx2_strip_panel_q4_k;
apr_avx2_panel_fn apr_avx2_strip_panel_q5_k, apr_avx2_strip_panel_q6_k, apr_avx2_strip_panel_q8_0;

/* avx2_block32.c */
apr_matmul_fn apr_avx2_fast_q4_0, apr_avx2_fast_q4_1, apr_avx2_fast_q5_0, apr_avx2_fast_q5_1;
apr_matmul_fn apr_avx2_fast_q8_0;
apr_to_f32_fn apr_avx2_q4_0_to_f32, apr_avx2_q4_1_to_f32, apr_avx2_q5_0_to_f32, apr_avx2_q5_1_to_f32;
apr_to_f32_fn apr_avx2_q8_0_to_f32;

/* avx2_strips.c, avx2_strips256.c, avx2_strips32.c: rows interleaved by 16 */
apr_to_strips_fn apr_avx2_to_strips_q4_0, apr_avx2_to_strips_q4_1, apr_avx2_to_strips_q5_0,
    apr_avx2_to_strips_q5_1, apr_avx2_to_strips_q8_0, apr_avx2_to_strips_q2_k, apr_avx2_to_strips_q3_k,
    apr_avx2_to_strips_q4_k, apr_avx2_to_strips_q5_k, apr_avx2_to_strips_q6_k;
apr_matmul_fn apr_avx2_strips_q4_0, apr_avx2_strips_q4_1, apr_avx2_strips_q5_0, apr_avx2_strips_q5_1,
    apr_avx2_strips_q8_0, apr_avx2_strips_q2_k, apr_avx2_strips_q3_k, apr_avx2_strips_q4_k,
    apr_avx2_strips_q5_k, apr_avx2_strips_q6_k;

/* avx2_plain.c: f32 activations */
apr_matmul_fn apr_avx2_f32, apr_avx2_f16, apr_avx2_bf16, apr_avx2_f64, apr_avx2_i8;
apr_matmul_fn apr_avx2_native_q4, apr_avx2_native_q8;
apr_matmul_fn apr_avx2_exact_q4_0, apr_avx2_exact_q4_1, apr_avx2_exact_q5_0, apr_avx2_exact_q5_1;
apr_matmul_fn apr_avx2_exact_q8_0, apr_avx2_exact_q2_k, apr_avx2_exact_q3_k, apr_avx2_exact_q4_k;
apr_matmul_fn apr_avx2_exact_q5_k, apr_avx2_exact_q6_k;
apr_matmul_fn apr_avx2_exact_iq2_xxs, apr_avx2_exact_iq2_xs, apr_avx2_exact_iq2_s, apr_avx2_exact_iq3_xxs;
apr_matmul_fn apr_avx2_exact_iq3_s, apr_avx2_exact_iq1_s, apr_avx2_exact_iq1_m, apr_avx2_exact_iq4_nl;
apr_matmul_fn apr_avx2_exact_iq4_xs, apr_avx2_exact_tq1_0, apr_avx2_exact_tq2_0, apr_avx2_exact_mxfp4;

/* avx2_widen.c */
apr_to_f32_fn apr_avx2_f16_row_to_f32, apr_avx2_bf16_row_to_f32, apr_avx2_f64_to_f32, apr_avx2_i8_to_f32;
apr_to_f32_fn apr_avx2_native_q4_to_f32, apr_avx2_native_q8_row_to_f32;
void apr_avx2_native_q8_to_f32(float scale, const int8_t *q, float *x, size_t n);

/* avx2_elem.c, avx2_stats.c */
void apr_avx2_to_act32(const float *x, struct apr_act32 *a, size_t n);
void apr_avx2_to_act256(const float *x, struct apr_act256 *a, size_t n);
void apr_avx2_rmsnorm(const float *x, const float *w, float eps, float *y, size_t n);
void apr_avx2_layernorm(const float *x, const float *w, const float *b, float eps, float *y, size_t n);
void apr_avx2_add(float *y, const float *x, size_t n);
void apr_avx2_mul(float *y, const float *x, size_t n);
void apr_avx2_scale(float *y, float s, size_t n);
void apr_avx2_add_scaled(float *y, const float *x, float s, size_t n);
void apr_avx2_silu_mul(const float *gate, const float *up, float *y, size_t n);
void apr_avx2_rope_half(float *x, const float *cos, const float *sin, size_t n);
void apr_avx2_rope_pairs(float *x, const float *cos, const float *sin, size_t n);
void apr_avx2_softmax(float *x, size_t n);
void apr_avx2_exps(float *x, float most, size_t n);
float apr_avx2_max(const float *x, size_t n, size_t *i_max);
void apr_avx2_f32_to_f16(const float *x, uint16_t *y, size_t n);
void apr_avx2_split_bf16(const float *x, uint16_t *high, uint16_t *low, size_t n);
void apr_avx2_stats(const float *x, size_t n, struct apr_stats *s);

/* avx2_act.c: gates and soft caps */
void apr_avx2_silu(const float *x, float *y, size_t n);
void apr_avx2_gelu(const float *x, float *y, size_t n);
void apr_avx2_gelu_tanh(const float *x, float *y, size_t n);
void apr_avx2_relu(const float *x, float *y, size_t n);
void apr_avx2_softcap(float *x, float cap, size_t n);

/* avx2_attn.c */
void apr_avx2_scores_f16(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos,
                         size_t n_dim, float scale, float *scores, size_t s_stride);
void apr_avx2_values_f16(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v,
                         size_t v_stride, size_t n_pos, size_t n_dim, float *out);
void apr_avx2_scores_f32(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos,
                         size_t n_dim, float scale, float *scores, size_t s_stride);
void apr_avx2_values_f32(const float *weights, size_t w_stride, size_t n_q, const float *v, size_t v_stride,
                         size_t n_pos, size_t n_dim, float *out);

/* Rows to float; the AVX-512 table has the same. */
extern apr_to_f32_fn *const apr_avx2_to_f32s[APR_N_TYPES];

#endif

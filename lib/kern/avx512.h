/* The pieces of the AVX-512 table (F, BW, DQ, VL, VNNI): the same bits as the scalar ones.
 *
 * Shared by the avx512*.c files only. Nothing here is owned; see kern.h for every contract.
 *
 *     [APR_Q4_K] = {.., apr_avx512_strips_q4_k},
 */
#ifndef APR_KERN_AVX512_H
#define APR_KERN_AVX512_H

#include "kern.h"

/* avx512_strips256.c, avx512_strips32.c */
apr_matmul_fn apr_avx512_strips_q4_0, apr_avx512_strips_q4_1, apr_avx512_strips_q5_0, apr_avx512_strips_q5_1;
apr_matmul_fn apr_avx512_strips_q8_0, apr_avx512_strips_q2_k, apr_avx512_strips_q3_k, apr_avx512_strips_q4_k;
apr_matmul_fn apr_avx512_strips_q5_k, apr_avx512_strips_q6_k;

/* avx512_rows.c */
apr_matmul_fn apr_avx512_fast_q4_0, apr_avx512_fast_q4_1, apr_avx512_fast_q5_0, apr_avx512_fast_q5_1;
apr_matmul_fn apr_avx512_fast_q8_0, apr_avx512_fast_q2_k, apr_avx512_fast_q3_k, apr_avx512_fast_q4_k;
apr_matmul_fn apr_avx512_fast_q5_k, apr_avx512_fast_q6_k;

/* avx512_plain.c */
apr_matmul_fn apr_avx512_f32, apr_avx512_f16, apr_avx512_bf16;

/* avx512_attn.c */
void apr_avx512_scores_f16(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos,
                           size_t n_dim, float scale, float *scores, size_t s_stride);
void apr_avx512_values_f16(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v,
                           size_t v_stride, size_t n_pos, size_t n_dim, float *out);
void apr_avx512_scores_f32(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos,
                           size_t n_dim, float scale, float *scores, size_t s_stride);
void apr_avx512_values_f32(const float *weights, size_t w_stride, size_t n_q, const float *v, size_t v_stride,
                           size_t n_pos, size_t n_dim, float *out);

#endif

/* Attention over one page of the cache: K and V are loaded and converted once for 1..8 query heads.
 *
 * Scores: one accumulator of 8 lanes per head, then the tree. Values: 8 outputs of every head per
 * register, positions ascending. The number of heads is a constant of every kernel. */
#include "avx2.h"

#include <math.h>
#include <string.h>

#include "avx2_vec.h"

typedef __m256 load8_fn(const void *p, size_t i);
typedef float load1_fn(const void *p, size_t i);

APR_INLINE __m256 load8_f16(const void *p, size_t i)
{
    return _mm256_cvtph_ps(apr_load128((const uint16_t *)p + i));
}

APR_INLINE float load1_f16(const void *p, size_t i)
{
    return apr_f16_to_f32(((const uint16_t *)p)[i]);
}

APR_INLINE __m256 load8_f32(const void *p, size_t i)
{
    return _mm256_loadu_ps((const float *)p + i);
}

APR_INLINE float load1_f32(const void *p, size_t i)
{
    return ((const float *)p)[i];
}

struct scores_args {
    const float *q;
    const void *k;
    size_t k_stride_bytes, n_pos, n_dim;
    float scale;
    float *scores;
    size_t s_stride;
};
typedef void scores_fn(const struct scores_args *a);

APR_INLINE void scores(const struct scores_args *a, int n_q, load8_fn *load8, load1_fn *load1)
{
    __m256 mask = _mm256_castsi256_ps(apr_avx2_mask(a->n_dim % 8));
    for (size_t p = 0; p < a->n_pos; p++) {
        const void *k = (const uint8_t *)a->k + p * a->k_stride_bytes;
        __m256 acc[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) acc[j] = _mm256_setzero_ps();
        size_t i = 0;
        for (; i + 8 <= a->n_dim; i += 8) {
            __m256 kv = load8(k, i);
#pragma GCC unroll 8
            for (int j = 0; j < n_q; j++) {
                acc[j] = _mm256_fmadd_ps(_mm256_loadu_ps(a->q + (size_t)j * a->n_dim + i), kv, acc[j]);
            }
        }
        if (i < a->n_dim) {
            float tail[8] = {0};
            for (size_t l = 0; i + l < a->n_dim; l++) tail[l] = load1(k, i + l);
            __m256 kv = _mm256_loadu_ps(tail);
#pragma GCC unroll 8
            for (int j = 0; j < n_q; j++) {
                __m256 qv = _mm256_maskload_ps(a->q + (size_t)j * a->n_dim + i, _mm256_castps_si256(mask));
                acc[j] = _mm256_blendv_ps(acc[j], _mm256_fmadd_ps(qv, kv, acc[j]), mask);
            }
        }
        float dot[8];
        _mm_storeu_ps(dot, apr_avx2_trees(acc[0], acc[1], acc[2], acc[3]));
        if (n_q > 4) _mm_storeu_ps(dot + 4, apr_avx2_trees(acc[4], acc[5], acc[6], acc[7]));
#pragma GCC unroll 8
        for (int j = 0; j < n_q; j++) a->scores[(size_t)j * a->s_stride + p] = a->scale * dot[j];
    }
}

struct values_args {
    const float *weights;
    size_t w_stride;
    const void *v;
    size_t v_stride_bytes, n_pos, n_dim;
    float *out;
};
typedef void values_fn(const struct values_args *a);

/* n_vec vectors of outputs from dimension i on */
APR_INLINE void values_at(const struct values_args *a, size_t i, int n_q, int n_vec, load8_fn *load8)
{
    __m256 acc[8][8];
#pragma GCC unroll 8
    for (int j = 0; j < n_q; j++) {
#pragma GCC unroll 8
        for (int c = 0; c < n_vec; c++) {
            acc[j][c] = _mm256_loadu_ps(a->out + (size_t)j * a->n_dim + i + (size_t)(8 * c));
        }
    }
    const uint8_t *v = a->v;
    for (size_t p = 0; p < a->n_pos; p++, v += a->v_stride_bytes) {
        __m256 vv[8];
#pragma GCC unroll 8
        for (int c = 0; c < n_vec; c++) vv[c] = load8(v, i + (size_t)(8 * c));
#pragma GCC unroll 8
        for (int j = 0; j < n_q; j++) {
            __m256 w = _mm256_broadcast_ss(a->weights + (size_t)j * a->w_stride + p);
#pragma GCC unroll 8
            for (int c = 0; c < n_vec; c++) acc[j][c] = _mm256_fmadd_ps(w, vv[c], acc[j][c]);
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < n_q; j++) {
#pragma GCC unroll 8
        for (int c = 0; c < n_vec; c++) {
            _mm256_storeu_ps(a->out + (size_t)j * a->n_dim + i + (size_t)(8 * c), acc[j][c]);
        }
    }
}

APR_INLINE void values(const struct values_args *a, int n_q, load8_fn *load8, load1_fn *load1)
{
    const int n_vec = n_q == 1 ? 8 : n_q == 2 ? 4 : n_q <= 4 ? 2 : 1;
    size_t i = 0;
    for (; i + (size_t)(8 * n_vec) <= a->n_dim; i += (size_t)(8 * n_vec)) values_at(a, i, n_q, n_vec, load8);
    for (; n_vec > 1 && i + 8 <= a->n_dim; i += 8) values_at(a, i, n_q, 1, load8);
    for (; i < a->n_dim; i++) {
        for (int j = 0; j < n_q; j++) {
            float *o = a->out + (size_t)j * a->n_dim + i;
            const uint8_t *v = a->v;
            for (size_t p = 0; p < a->n_pos; p++, v += a->v_stride_bytes) {
                *o = fmaf(a->weights[(size_t)j * a->w_stride + p], load1(v, i), *o);
            }
        }
    }
}

#define HEADS(t, n)                                                                                          \
    static void scores_##t##_##n(const struct scores_args *a)                                                \
    {                                                                                                        \
        scores(a, n, load8_##t, load1_##t);                                                                  \
    }                                                                                                        \
    static void values_##t##_##n(const struct values_args *a)                                                \
    {                                                                                                        \
        values(a, n, load8_##t, load1_##t);                                                                  \
    }
#define ALL_HEADS(t)                                                                                         \
    HEADS(t, 1)                                                                                              \
    HEADS(t, 2)                                                                                              \
    HEADS(t, 3)                                                                                              \
    HEADS(t, 4)                                                                                              \
    HEADS(t, 5)                                                                                              \
    HEADS(t, 6)                                                                                              \
    HEADS(t, 7)                                                                                              \
    HEADS(t, 8)                                                                                              \
    static scores_fn *const scores_##t[9] = {NULL,           scores_##t##_1, scores_##t##_2,                 \
                                             scores_##t##_3, scores_##t##_4, scores_##t##_5,                 \
                                             scores_##t##_6, scores_##t##_7, scores_##t##_8};                \
    static values_fn *const values_##t[9] = {NULL,           values_##t##_1, values_##t##_2,                 \
                                             values_##t##_3, values_##t##_4, values_##t##_5,                 \
                                             values_##t##_6, values_##t##_7, values_##t##_8};

ALL_HEADS(f16)
ALL_HEADS(f32)

static void scores_by_heads(scores_fn *const *by_heads, struct scores_args a, size_t n_q)
{
    for (; n_q > 0; n_q -= n_q < 8 ? n_q : 8) {
        by_heads[n_q < 8 ? n_q : 8](&a);
        a.q += 8 * a.n_dim;
        a.scores += 8 * a.s_stride;
    }
}

static void values_by_heads(values_fn *const *by_heads, struct values_args a, size_t n_q)
{
    for (; n_q > 0; n_q -= n_q < 8 ? n_q : 8) {
        by_heads[n_q < 8 ? n_q : 8](&a);
        a.weights += 8 * a.w_stride;
        a.out += 8 * a.n_dim;
    }
}

void apr_avx2_scores_f16(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos,
                         size_t n_dim, float scale, float *scores, size_t s_stride)
{
    struct scores_args a = {q, k, k_stride * sizeof *k, n_pos, n_dim, scale, scores, s_stride};
    scores_by_heads(scores_f16, a, n_q);
}

void apr_avx2_values_f16(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v,
                         size_t v_stride, size_t n_pos, size_t n_dim, float *out)
{
    struct values_args a = {weights, w_stride, v, v_stride * sizeof *v, n_pos, n_dim, out};
    values_by_heads(values_f16, a, n_q);
}

void apr_avx2_scores_f32(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos,
                         size_t n_dim, float scale, float *scores, size_t s_stride)
{
    struct scores_args a = {q, k, k_stride * sizeof *k, n_pos, n_dim, scale, scores, s_stride};
    scores_by_heads(scores_f32, a, n_q);
}

void apr_avx2_values_f32(const float *weights, size_t w_stride, size_t n_q, const float *v, size_t v_stride,
                         size_t n_pos, size_t n_dim, float *out)
{
    struct values_args a = {weights, w_stride, v, v_stride * sizeof *v, n_pos, n_dim, out};
    values_by_heads(values_f32, a, n_q);
}

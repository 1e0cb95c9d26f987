/* Attention over one page of the cache: K and V are loaded and converted once for 1..6 query heads.
 *
 * Scores: one accumulator of 8 lanes per head and position, 2 or 4 positions at once, then the tree. Values:
 * 8 outputs of every head per register, positions ascending. The number of heads is a constant of every
 * kernel; up to 12 sums stay in registers, so that fused operations and not loads are the limit. */
#include "avx2.h"

#include <math.h>
#include <string.h>

#include "avx2_vec.h"

#define N_Q 6 /* heads of a kernel */

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

/* n_pos positions from p on; their sums come out head by head. */
APR_INLINE void scores_at(const struct scores_args *a, size_t p, int n_q, int n_pos, load8_fn *load8,
                          load1_fn *load1)
{
    const uint8_t *k = (const uint8_t *)a->k + p * a->k_stride_bytes;
    __m256 acc[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) acc[i] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= a->n_dim; i += 8) {
        __m256 kv[4];
#pragma GCC unroll 4
        for (int c = 0; c < n_pos; c++) kv[c] = load8(k + (size_t)c * a->k_stride_bytes, i);
#pragma GCC unroll 6
        for (int j = 0; j < n_q; j++) {
            __m256 qv = _mm256_loadu_ps(a->q + (size_t)j * a->n_dim + i);
            __asm__("" : "+x"(qv)); /* loaded once: loads would be the limit */
#pragma GCC unroll 4
            for (int c = 0; c < n_pos; c++)
                acc[j * n_pos + c] = _mm256_fmadd_ps(qv, kv[c], acc[j * n_pos + c]);
        }
    }
    if (i < a->n_dim) {
        __m256i mask = apr_avx2_mask(a->n_dim - i);
#pragma GCC unroll 4
        for (int c = 0; c < n_pos; c++) {
            float tail[8] = {0};
            for (size_t l = 0; i + l < a->n_dim; l++)
                tail[l] = load1(k + (size_t)c * a->k_stride_bytes, i + l);
            __m256 kv = _mm256_loadu_ps(tail);
#pragma GCC unroll 6
            for (int j = 0; j < n_q; j++) {
                __m256 qv = _mm256_maskload_ps(a->q + (size_t)j * a->n_dim + i, mask),
                       *to = &acc[j * n_pos + c];
                *to = _mm256_blendv_ps(*to, _mm256_fmadd_ps(qv, kv, *to), _mm256_castsi256_ps(mask));
            }
        }
    }
    float dot[16];
#pragma GCC unroll 4
    for (int n = 0; n < n_q * n_pos; n += 4)
        _mm_storeu_ps(dot + n, _mm_mul_ps(_mm_set1_ps(a->scale),
                                          apr_avx2_trees(acc[n], acc[n + 1], acc[n + 2], acc[n + 3])));
#pragma GCC unroll 6
    for (int j = 0; j < n_q; j++)
        memcpy(a->scores + (size_t)j * a->s_stride + p, dot + j * n_pos, (size_t)n_pos * sizeof *dot);
}

APR_INLINE void scores(const struct scores_args *a, int n_q, load8_fn *load8, load1_fn *load1)
{
    const int n_pos = n_q <= 3 ? 4 : 2;
    size_t p = 0;
    for (; p + (size_t)n_pos <= a->n_pos; p += (size_t)n_pos) scores_at(a, p, n_q, n_pos, load8, load1);
    for (; p < a->n_pos; p++) scores_at(a, p, n_q, 1, load8, load1);
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
    __m256 acc[N_Q][8];
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
    const int n_vec = n_q == 1 ? 8 : n_q <= 3 ? 4 : 2;
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
    static scores_fn *const scores_##t[N_Q + 1] = {NULL,           scores_##t##_1, scores_##t##_2,           \
                                                   scores_##t##_3, scores_##t##_4, scores_##t##_5,           \
                                                   scores_##t##_6};                                          \
    static values_fn *const values_##t[N_Q + 1] = {NULL,           values_##t##_1, values_##t##_2,           \
                                                   values_##t##_3, values_##t##_4, values_##t##_5,           \
                                                   values_##t##_6};

ALL_HEADS(f16)
ALL_HEADS(f32)

/* How many of n_q heads are taken next: a last kernel of one or two heads would be slow. */
static size_t heads_of(size_t n_q)
{
    return n_q <= N_Q ? n_q : n_q <= N_Q + 2 ? 4 : N_Q;
}

static void scores_by_heads(scores_fn *const *by_heads, struct scores_args a, size_t n_q)
{
    for (size_t n; n_q > 0; n_q -= n) {
        n = heads_of(n_q);
        by_heads[n](&a);
        a.q += n * a.n_dim;
        a.scores += n * a.s_stride;
    }
}

static void values_by_heads(values_fn *const *by_heads, struct values_args a, size_t n_q)
{
    for (size_t n; n_q > 0; n_q -= n) {
        n = heads_of(n_q);
        by_heads[n](&a);
        a.weights += n * a.w_stride;
        a.out += n * a.n_dim;
    }
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

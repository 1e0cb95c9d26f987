/* Attention over one page of the cache with registers of 16 floats: the sums of avx2_attn.c in the same
 * order.
 *
 * Scores: the lower 8 lanes belong to one position and the upper 8 to the next one, so that the order of 8
 * lanes holds. Values: 16 outputs of every head per register, positions ascending. K and V are loaded and
 * converted once for 1..8 query heads. What does not fill a register is left to the AVX2 kernels. */
#include "avx512.h"

#include "avx2.h"
#include "avx512_vec.h"

#define N_Q 8 /* heads of a kernel */

typedef __m512 pair8_fn(const uint8_t *row0, const uint8_t *row1, size_t i);
typedef __m512 load16_fn(const uint8_t *row, size_t i);

/* Values i .. i + 7 of two rows. */
APR_INLINE __m512 pair8_f16(const uint8_t *row0, const uint8_t *row1, size_t i)
{
    __m256i v = _mm256_castsi128_si256(apr_load128((const uint16_t *)(const void *)row0 + i));
    return _mm512_cvtph_ps(
        _mm256_inserti128_si256(v, apr_load128((const uint16_t *)(const void *)row1 + i), 1));
}

APR_INLINE __m512 pair8_f32(const uint8_t *row0, const uint8_t *row1, size_t i)
{
    __m512 v = _mm512_castps256_ps512(_mm256_loadu_ps((const float *)(const void *)row0 + i));
    return _mm512_insertf32x8(v, _mm256_loadu_ps((const float *)(const void *)row1 + i), 1);
}

APR_INLINE __m512 load16_f16(const uint8_t *row, size_t i)
{
    return _mm512_cvtph_ps(apr_load((const uint16_t *)(const void *)row + i));
}

APR_INLINE __m512 load16_f32(const uint8_t *row, size_t i)
{
    return _mm512_loadu_ps((const float *)(const void *)row + i);
}

struct scores_args {
    const float *q;
    const uint8_t *k;
    size_t k_stride_bytes, n_pos, n_dim; /* n_dim is a multiple of 8 */
    float scale;
    float *scores;
    size_t s_stride;
};
typedef void scores_fn(const struct scores_args *a);

/* The trees of two heads at four positions: v0 and v1 of one head, v2 and v3 of the other, two positions
 * each. The first four results are the first head's. */
APR_INLINE __m256 trees(__m512 v0, __m512 v1, __m512 v2, __m512 v3)
{
    __m512 a01 = _mm512_add_ps(_mm512_shuffle_f32x4(v0, v1, 0x88), _mm512_shuffle_f32x4(v0, v1, 0xdd));
    __m512 a23 = _mm512_add_ps(_mm512_shuffle_f32x4(v2, v3, 0x88), _mm512_shuffle_f32x4(v2, v3, 0xdd));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(a01, a23), _mm512_unpackhi_ps(a01, a23));
    __m512 sum = _mm512_add_ps(b, _mm512_permute_ps(b, 0x4e));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sum));
}

/* Four positions from p on. */
APR_INLINE void scores_at(const struct scores_args *a, size_t p, int n_q, pair8_fn *pair8)
{
    const uint8_t *k[4];
    __m512 acc[N_Q + 1][2];
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; c++) k[c] = a->k + (p + c) * a->k_stride_bytes;
#pragma GCC unroll 9
    for (int j = 0; j <= N_Q; j++) acc[j][0] = acc[j][1] = _mm512_setzero_ps();
    for (size_t i = 0; i < a->n_dim; i += 8) {
        __m512 k01 = pair8(k[0], k[1], i), k23 = pair8(k[2], k[3], i);
#pragma GCC unroll 8
        for (int j = 0; j < n_q; j++) {
            __m512 qv = _mm512_broadcast_f32x8(_mm256_loadu_ps(a->q + (size_t)j * a->n_dim + i));
            __asm__("" : "+v"(qv)); /* loaded once: loads would be the limit */
            acc[j][0] = _mm512_fmadd_ps(qv, k01, acc[j][0]);
            acc[j][1] = _mm512_fmadd_ps(qv, k23, acc[j][1]);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < n_q; j += 2) {
        __m256 dot = trees(acc[j][0], acc[j][1], acc[j + 1][0], acc[j + 1][1]);
        float *to = a->scores + (size_t)j * a->s_stride + p;
        dot = _mm256_mul_ps(_mm256_set1_ps(a->scale), dot);
        _mm_storeu_ps(to, _mm256_castps256_ps128(dot));
        if (j + 1 < n_q) _mm_storeu_ps(to + a->s_stride, _mm256_extractf128_ps(dot, 1));
    }
}

APR_INLINE void scores(const struct scores_args *a, int n_q, pair8_fn *pair8)
{
    for (size_t p = 0; p < a->n_pos; p += 4) scores_at(a, p, n_q, pair8);
}

struct values_args {
    const float *weights;
    size_t w_stride;
    const uint8_t *v;
    size_t v_stride_bytes, n_pos, n_dim; /* n_dim is a multiple of 16 */
    float *out;
};
typedef void values_fn(const struct values_args *a);

/* n_vec vectors of outputs from dimension i on */
APR_INLINE void values_at(const struct values_args *a, size_t i, int n_q, int n_vec, load16_fn *load16)
{
    __m512 acc[N_Q][8];
#pragma GCC unroll 8
    for (int j = 0; j < n_q; j++) {
#pragma GCC unroll 8
        for (int c = 0; c < n_vec; c++)
            acc[j][c] = _mm512_loadu_ps(a->out + (size_t)j * a->n_dim + i + (size_t)(16 * c));
    }
    const uint8_t *v = a->v;
    for (size_t p = 0; p < a->n_pos; p++, v += a->v_stride_bytes) {
        __m512 vv[8];
#pragma GCC unroll 8
        for (int c = 0; c < n_vec; c++) vv[c] = load16(v, i + (size_t)(16 * c));
#pragma GCC unroll 8
        for (int j = 0; j < n_q; j++) {
            __m512 w = _mm512_set1_ps(a->weights[(size_t)j * a->w_stride + p]);
#pragma GCC unroll 8
            for (int c = 0; c < n_vec; c++) acc[j][c] = _mm512_fmadd_ps(w, vv[c], acc[j][c]);
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < n_q; j++) {
#pragma GCC unroll 8
        for (int c = 0; c < n_vec; c++)
            _mm512_storeu_ps(a->out + (size_t)j * a->n_dim + i + (size_t)(16 * c), acc[j][c]);
    }
}

APR_INLINE void values(const struct values_args *a, int n_q, load16_fn *load16)
{
    const int n_vec = n_q <= 2 ? 8 : n_q <= 6 ? 4 : 2;
    size_t i = 0;
    for (; i + (size_t)(16 * n_vec) <= a->n_dim; i += (size_t)(16 * n_vec))
        values_at(a, i, n_q, n_vec, load16);
    for (; i < a->n_dim; i += 16) values_at(a, i, n_q, 1, load16);
}

#define HEADS(t, n)                                                                                          \
    static void scores_##t##_##n(const struct scores_args *a)                                                \
    {                                                                                                        \
        scores(a, n, pair8_##t);                                                                             \
    }                                                                                                        \
    static void values_##t##_##n(const struct values_args *a)                                                \
    {                                                                                                        \
        values(a, n, load16_##t);                                                                            \
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
    static scores_fn *const scores_##t[N_Q + 1] = {NULL,           scores_##t##_1, scores_##t##_2,           \
                                                   scores_##t##_3, scores_##t##_4, scores_##t##_5,           \
                                                   scores_##t##_6, scores_##t##_7, scores_##t##_8};          \
    static values_fn *const values_##t[N_Q + 1] = {NULL,           values_##t##_1, values_##t##_2,           \
                                                   values_##t##_3, values_##t##_4, values_##t##_5,           \
                                                   values_##t##_6, values_##t##_7, values_##t##_8};

ALL_HEADS(f16)
ALL_HEADS(f32)

static void scores_by_heads(scores_fn *const *by_heads, struct scores_args a, size_t n_q)
{
    for (size_t n; n_q > 0; n_q -= n) {
        n = n_q < N_Q ? n_q : N_Q;
        by_heads[n](&a);
        a.q += n * a.n_dim;
        a.scores += n * a.s_stride;
    }
}

static void values_by_heads(values_fn *const *by_heads, struct values_args a, size_t n_q)
{
    for (size_t n; n_q > 0; n_q -= n) {
        n = n_q < N_Q ? n_q : N_Q;
        by_heads[n](&a);
        a.weights += n * a.w_stride;
        a.out += n * a.n_dim;
    }
}

#define SCORES(t, type)                                                                                      \
    void apr_avx512_scores_##t(const float *q, size_t n_q, const type *k, size_t k_stride, size_t n_pos,     \
                               size_t n_dim, float scale, float *to, size_t s_stride)                        \
    {                                                                                                        \
        size_t n_whole = n_dim % 8 ? 0 : n_pos - n_pos % 4;                                                  \
        struct scores_args a = {                                                                             \
            q, (const uint8_t *)k, k_stride * sizeof *k, n_whole, n_dim, scale, to, s_stride};               \
        scores_by_heads(scores_##t, a, n_whole ? n_q : 0);                                                   \
        if (n_whole < n_pos)                                                                                 \
            apr_avx2_scores_##t(q, n_q, k + n_whole * k_stride, k_stride, n_pos - n_whole, n_dim, scale,     \
                                to + n_whole, s_stride);                                                     \
    }
#define VALUES(t, type)                                                                                      \
    void apr_avx512_values_##t(const float *weights, size_t w_stride, size_t n_q, const type *v,             \
                               size_t v_stride, size_t n_pos, size_t n_dim, float *out)                      \
    {                                                                                                        \
        struct values_args a = {weights, w_stride, (const uint8_t *)v, v_stride * sizeof *v, n_pos,          \
                                n_dim,   out};                                                               \
        if (n_dim % 16)                                                                                      \
            apr_avx2_values_##t(weights, w_stride, n_q, v, v_stride, n_pos, n_dim, out);                     \
        else                                                                                                 \
            values_by_heads(values_##t, a, n_q);                                                             \
    }

SCORES(f16, uint16_t)
SCORES(f32, float)
VALUES(f16, uint16_t)
VALUES(f32, float)

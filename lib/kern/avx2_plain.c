/* Weights as numbers times f32 activations: 8 lanes, lane = k mod 8, one tree (kern.h).
 *
 * Up to 15 tokens: 4 rows at once straight from the weights, few of them bound by memory. More: slices of 16
 * rows are widened to f32 once for up to 96 tokens (plain_slices.h) and multiplied in tiles of 4 rows x 3
 * tokens (12 accumulators, 7 loads for 12 fused operations). */
#include "avx2.h"

#include <string.h>

#include "../quant/blocks.h"
#include "../quant/types.h"
#include "avx2_vec.h"
#include "plain_slices.h"
#include "row_tiles.h"

#define N_ROWS 4
#define N_TOKS 3

/* acc += w x over n columns for 4 rows and n_toks tokens; n is a multiple of 8 unless the row ends. */
APR_INLINE void tile(const float (*w)[APR_SLICE_COLS], const float *const *x, size_t n, int n_toks,
                     float *acc)
{
    __m256 a[3][N_ROWS];
#pragma GCC unroll 3
    for (int t = 0; t < n_toks; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < N_ROWS; r++) a[t][r] = _mm256_loadu_ps(acc + t * APR_SLICE_ACC + r * 8);
    }
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 xv[3];
#pragma GCC unroll 3
        for (int t = 0; t < n_toks; t++) xv[t] = _mm256_loadu_ps(x[t] + k);
#pragma GCC unroll 4
        for (int r = 0; r < N_ROWS; r++) {
            __m256 wv = _mm256_loadu_ps(w[r] + k);
#pragma GCC unroll 3
            for (int t = 0; t < n_toks; t++) a[t][r] = _mm256_fmadd_ps(wv, xv[t], a[t][r]);
        }
    }
    __m256i mask = apr_avx2_mask(n - k);
#pragma GCC unroll 3
    for (int t = 0; t < n_toks; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < N_ROWS; r++) {
            if (k < n) { /* lanes past the end keep their bits, the sign of a zero too */
                __m256 xv = _mm256_maskload_ps(x[t] + k, mask), wv = _mm256_maskload_ps(w[r] + k, mask);
                a[t][r] =
                    _mm256_blendv_ps(a[t][r], _mm256_fmadd_ps(wv, xv, a[t][r]), _mm256_castsi256_ps(mask));
            }
            _mm256_storeu_ps(acc + t * APR_SLICE_ACC + r * 8, a[t][r]);
        }
    }
}

#define TILE(n)                                                                                              \
    static void tile##n(const float(*w)[APR_SLICE_COLS], const float *const *x, size_t n_cols, float *acc)   \
    {                                                                                                        \
        tile(w, x, n_cols, n, acc);                                                                          \
    }
TILE(1)
TILE(2)
TILE(3)
static void trees(const float *acc, size_t n, float *y)
{
    apr_avx2_row_trees(acc, n, y);
}

static apr_slice_tile_fn *const tile_fns[] = {tile1, tile2, tile3};
static const struct apr_slice_tiles tiles = {N_ROWS, N_TOKS, tile_fns, trees};

#define SLICE(lower, block_elems, block_bytes, to_f32)                                                       \
    static void slice_##lower(const uint8_t *row, size_t k0, float *x, size_t n)                             \
    {                                                                                                        \
        to_f32(row + k0 / (block_elems) * (block_bytes), x, n);                                              \
    }
#define ARGS                                                                                                 \
    (&(struct apr_slice_args){w, w_row_bytes, n_rows, n_cols, x, n_toks, x_row_bytes, y, y_stride, scratch})
#define BY_SLICES(name, lower)                                                                               \
    void name(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,                \
              size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)                   \
    {                                                                                                        \
        apr_by_slices(&tiles, slice_##lower, ARGS);                                                          \
    }

static void slice_native_q8(const uint8_t *row, size_t k0, float *x, size_t n)
{
    const struct apr_head_native_q8 *head = (const void *)row;
    apr_avx2_native_q8_to_f32(head->scale, (const int8_t *)(head + 1) + k0, x, n);
}

SLICE(f32, 1, 4, apr_f32_to_f32)
SLICE(f16, 1, 2, apr_avx2_f16_row_to_f32)
SLICE(bf16, 1, 2, apr_avx2_bf16_row_to_f32)
SLICE(f64, 1, 8, apr_avx2_f64_to_f32)
SLICE(i8, 1, 1, apr_avx2_i8_to_f32)
SLICE(native_q4, APR_QK, sizeof(struct apr_block_native_q4), apr_avx2_native_q4_to_f32)
SLICE(q4_0, APR_QK, sizeof(struct apr_block_q4_0), apr_avx2_q4_0_to_f32)
SLICE(q4_1, APR_QK, sizeof(struct apr_block_q4_1), apr_avx2_q4_1_to_f32)
SLICE(q5_0, APR_QK, sizeof(struct apr_block_q5_0), apr_avx2_q5_0_to_f32)
SLICE(q5_1, APR_QK, sizeof(struct apr_block_q5_1), apr_avx2_q5_1_to_f32)
SLICE(q8_0, APR_QK, sizeof(struct apr_block_q8_0), apr_avx2_q8_0_to_f32)
SLICE(q2_k, APR_QKK, sizeof(struct apr_block_q2_k), apr_avx2_q2_k_to_f32)
SLICE(q3_k, APR_QKK, sizeof(struct apr_block_q3_k), apr_avx2_q3_k_to_f32)
SLICE(q4_k, APR_QKK, sizeof(struct apr_block_q4_k), apr_avx2_q4_k_to_f32)
SLICE(q5_k, APR_QKK, sizeof(struct apr_block_q5_k), apr_avx2_q5_k_to_f32)
SLICE(q6_k, APR_QKK, sizeof(struct apr_block_q6_k), apr_avx2_q6_k_to_f32)
SLICE(iq2_xxs, APR_QKK, sizeof(struct apr_block_iq2_xxs), apr_iq2_xxs_to_f32)
SLICE(iq2_xs, APR_QKK, sizeof(struct apr_block_iq2_xs), apr_iq2_xs_to_f32)
SLICE(iq2_s, APR_QKK, sizeof(struct apr_block_iq2_s), apr_iq2_s_to_f32)
SLICE(iq3_xxs, APR_QKK, sizeof(struct apr_block_iq3_xxs), apr_iq3_xxs_to_f32)
SLICE(iq3_s, APR_QKK, sizeof(struct apr_block_iq3_s), apr_iq3_s_to_f32)
SLICE(iq1_s, APR_QKK, sizeof(struct apr_block_iq1_s), apr_iq1_s_to_f32)
SLICE(iq1_m, APR_QKK, sizeof(struct apr_block_iq1_m), apr_iq1_m_to_f32)
SLICE(iq4_nl, APR_QK, sizeof(struct apr_block_iq4_nl), apr_iq4_nl_to_f32)
SLICE(iq4_xs, APR_QKK, sizeof(struct apr_block_iq4_xs), apr_iq4_xs_to_f32)
SLICE(tq1_0, APR_QKK, sizeof(struct apr_block_tq1_0), apr_tq1_0_to_f32)
SLICE(tq2_0, APR_QKK, sizeof(struct apr_block_tq2_0), apr_tq2_0_to_f32)
SLICE(mxfp4, APR_QK, sizeof(struct apr_block_mxfp4), apr_mxfp4_to_f32)

BY_SLICES(apr_avx2_f64, f64)
BY_SLICES(apr_avx2_i8, i8)
BY_SLICES(apr_avx2_native_q4, native_q4)
BY_SLICES(apr_avx2_native_q8, native_q8)
BY_SLICES(apr_avx2_exact_q4_0, q4_0)
BY_SLICES(apr_avx2_exact_q4_1, q4_1)
BY_SLICES(apr_avx2_exact_q5_0, q5_0)
BY_SLICES(apr_avx2_exact_q5_1, q5_1)
BY_SLICES(apr_avx2_exact_q8_0, q8_0)
BY_SLICES(apr_avx2_exact_q2_k, q2_k)
BY_SLICES(apr_avx2_exact_q3_k, q3_k)
BY_SLICES(apr_avx2_exact_q4_k, q4_k)
BY_SLICES(apr_avx2_exact_q5_k, q5_k)
BY_SLICES(apr_avx2_exact_q6_k, q6_k)
BY_SLICES(apr_avx2_exact_iq2_xxs, iq2_xxs)
BY_SLICES(apr_avx2_exact_iq2_xs, iq2_xs)
BY_SLICES(apr_avx2_exact_iq2_s, iq2_s)
BY_SLICES(apr_avx2_exact_iq3_xxs, iq3_xxs)
BY_SLICES(apr_avx2_exact_iq3_s, iq3_s)
BY_SLICES(apr_avx2_exact_iq1_s, iq1_s)
BY_SLICES(apr_avx2_exact_iq1_m, iq1_m)
BY_SLICES(apr_avx2_exact_iq4_nl, iq4_nl)
BY_SLICES(apr_avx2_exact_iq4_xs, iq4_xs)
BY_SLICES(apr_avx2_exact_tq1_0, tq1_0)
BY_SLICES(apr_avx2_exact_tq2_0, tq2_0)
BY_SLICES(apr_avx2_exact_mxfp4, mxfp4)

/* Few tokens, straight from the weights. */

#define N_DIRECT 15 /* tokens up to which widening again for every 3 costs less than a detour by scratch */

typedef __m256 load8_fn(const uint8_t *p); /* 8 values */

APR_INLINE __m256 load8_f32(const uint8_t *p)
{
    return _mm256_loadu_ps((const float *)(const void *)p);
}

APR_INLINE __m256 load8_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(apr_load128(p));
}

APR_INLINE __m256 load8_bf16(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(apr_load128(p)), 16));
}

APR_INLINE void direct(load8_fn *load8, apr_slice_fn *slice, size_t elem_bytes, int n_toks,
                       const uint8_t *const *rows, const uint8_t *next, size_t n_cols, const void *const *x,
                       float *y)
{
    __m256 a[3][N_ROWS], xv[3];
#pragma GCC unroll 12
    for (int i = 0; i < 3 * N_ROWS; i++) a[i / N_ROWS][i % N_ROWS] = _mm256_setzero_ps();
    size_t k = 0;
    for (; k + 8 <= n_cols; k += 8) {
        if (next) apr_avx2_prefetch(next, N_ROWS * k * elem_bytes, N_ROWS * 8 * elem_bytes);
#pragma GCC unroll 3
        for (int t = 0; t < n_toks; t++) xv[t] = _mm256_loadu_ps((const float *)x[t] + k);
#pragma GCC unroll 4
        for (int r = 0; r < N_ROWS; r++) {
            __m256 wv = load8(rows[r] + k * elem_bytes);
#pragma GCC unroll 3
            for (int t = 0; t < n_toks; t++) a[t][r] = _mm256_fmadd_ps(wv, xv[t], a[t][r]);
        }
    }
    if (k < n_cols) { /* lanes past the end keep their bits */
        __m256i mask = apr_avx2_mask(n_cols - k);
#pragma GCC unroll 4
        for (int r = 0; r < N_ROWS; r++) {
            float tail[8] = {0};
            slice(rows[r], k, tail, n_cols - k);
            __m256 wv = _mm256_loadu_ps(tail);
#pragma GCC unroll 3
            for (int t = 0; t < n_toks; t++) {
                __m256 v = _mm256_fmadd_ps(wv, _mm256_maskload_ps((const float *)x[t] + k, mask), a[t][r]);
                a[t][r] = _mm256_blendv_ps(a[t][r], v, _mm256_castsi256_ps(mask));
            }
        }
    }
#pragma GCC unroll 3
    for (int t = 0; t < n_toks; t++)
        _mm_storeu_ps(y + t * N_ROWS, apr_avx2_trees(a[t][0], a[t][1], a[t][2], a[t][3]));
}

#define DIRECT(lower, elem_bytes, n)                                                                         \
    static void lower##_##n(const uint8_t *const *rows, const uint8_t *next, size_t n_cols,                  \
                            const void *const *x, float *y)                                                  \
    {                                                                                                        \
        direct(load8_##lower, slice_##lower, elem_bytes, n, rows, next, n_cols, x, y);                       \
    }
#define PLAIN(lower, elem_bytes)                                                                             \
    DIRECT(lower, elem_bytes, 1)                                                                             \
    DIRECT(lower, elem_bytes, 2)                                                                             \
    DIRECT(lower, elem_bytes, 3)                                                                             \
    void apr_avx2_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,    \
                          size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)       \
    {                                                                                                        \
        static apr_row_tile_fn *const fns[N_TOKS] = {lower##_1, lower##_2, lower##_3};                       \
        static const struct apr_row_tiles row_tiles = {N_ROWS, N_TOKS, fns};                                 \
        if (n_toks <= N_DIRECT) {                                                                            \
            apr_by_rows(&row_tiles, &(struct apr_row_args){w, w_row_bytes, n_rows, n_cols, x, x_row_bytes,   \
                                                           n_toks, y, y_stride, scratch});                   \
            return;                                                                                          \
        }                                                                                                    \
        apr_by_slices(&tiles, slice_##lower, ARGS);                                                          \
    }

PLAIN(f32, 4)
PLAIN(f16, 2)
PLAIN(bf16, 2)

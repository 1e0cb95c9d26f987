/* F32, F16 and BF16 weights times the f32 activations of many tokens, in registers of 16 floats: the lower 8
 * lanes belong to one row and the upper 8 to the next one, so that the order of 8 lanes holds (kern.h).
 *
 * A tile is 8 rows x 6 tokens: 24 accumulators, and 14 loads for 24 fused operations. Up to 6 tokens are
 * bound by memory and left to the AVX2 kernels. */
#include "avx512.h"

#include "avx2.h"
#include "../quant/types.h"
#include "avx512_vec.h"
#include "plain_slices.h"

#define N_PAIRS  4 /* of rows */
#define N_TOKS   6
#define N_DIRECT 6 /* tokens up to which avx2_plain.c reads the weights directly */

/* The same 8 lanes of two rows: p and what stands n_apart floats behind it. */
APR_INLINE __m512 two_rows(const float *p, size_t n_apart)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(p)), _mm256_loadu_ps(p + n_apart), 1);
}

/* acc += w x over n columns for 8 rows and n_toks tokens; n is a multiple of 8 unless the row ends. */
APR_INLINE void tile(const float (*w)[APR_SLICE_COLS], const float *const *x, size_t n, int n_toks,
                     float *acc)
{
    __m512 a[N_TOKS][N_PAIRS];
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < N_PAIRS; r++) a[t][r] = _mm512_loadu_ps(acc + t * APR_SLICE_ACC + r * 16);
    }
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m512 wv[N_PAIRS];
#pragma GCC unroll 4
        for (int r = 0; r < N_PAIRS; r++) wv[r] = two_rows(w[2 * r] + k, APR_SLICE_COLS);
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            __m512 xv = _mm512_broadcast_f32x8(_mm256_loadu_ps(x[t] + k));
#pragma GCC unroll 4
            for (int r = 0; r < N_PAIRS; r++) a[t][r] = _mm512_fmadd_ps(wv[r], xv, a[t][r]);
        }
    }
    if (k < n) { /* lanes past the end keep their bits, the sign of a zero too */
        __mmask8 half = (__mmask8)((1u << (n - k)) - 1);
        __mmask16 both = (__mmask16)(half | half << 8);
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            __m512 xv = _mm512_broadcast_f32x8(_mm256_maskz_loadu_ps(half, x[t] + k));
#pragma GCC unroll 4
            for (int r = 0; r < N_PAIRS; r++)
                a[t][r] = _mm512_mask3_fmadd_ps(two_rows(w[2 * r] + k, APR_SLICE_COLS), xv, a[t][r], both);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < N_PAIRS; r++) _mm512_storeu_ps(acc + t * APR_SLICE_ACC + r * 16, a[t][r]);
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
TILE(4)
TILE(5)
TILE(6)
static apr_slice_tile_fn *const tile_fns[] = {tile1, tile2, tile3, tile4, tile5, tile6};
static const struct apr_slice_tiles tiles = {2 * N_PAIRS, N_TOKS, tile_fns};

#define PLAIN(lower, type, to_f32)                                                                           \
    static void slice_##lower(const uint8_t *row, size_t k0, float *x, size_t n)                             \
    {                                                                                                        \
        to_f32((const type *)(const void *)row + k0, x, n);                                                  \
    }                                                                                                        \
    void apr_avx512_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,  \
                            size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)     \
    {                                                                                                        \
        if (n_toks <= N_DIRECT) {                                                                            \
            apr_avx2_##lower(w, w_row_bytes, n_rows, n_cols, x, x_row_bytes, n_toks, y, y_stride, scratch);  \
            return;                                                                                          \
        }                                                                                                    \
        const struct apr_slice_args a = {w,      w_row_bytes, n_rows, n_cols,   x,                           \
                                         n_toks, x_row_bytes, y,      y_stride, scratch};                    \
        apr_by_slices(&tiles, slice_##lower, &a);                                                            \
    }
PLAIN(f32, float, apr_f32_to_f32)
PLAIN(f16, uint16_t, apr_avx2_f16_row_to_f32)
PLAIN(bf16, uint16_t, apr_avx2_bf16_row_to_f32)

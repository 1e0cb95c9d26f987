/* F32, F16 and BF16 weights times f32 activations, in registers of 16 floats: the lower 8 lanes belong to one
 * row and the upper 8 to the next one, so that the order of 8 lanes holds (kern.h).
 *
 * A tile is 8 rows x 6 tokens: 24 accumulators, and 14 loads for 24 fused operations; widening the weights
 * again for every 6 tokens costs less than a detour by memory (one core of Zen 4, K = 1536, 256 tokens of
 * BF16: 56 GMAC/s of 59, by widened slices 49). */
#include "avx512.h"

#include "avx512_vec.h"
#include "row_tiles.h"

#define N_TWOS 4 /* of rows */
#define N_ROWS (2 * N_TWOS)
#define N_TOKS 6
#define N_COLS 8 /* of a step */

/* 8 columns of two rows as floats; has: a mask of those that there are */
typedef __m512 two_rows_fn(const uint8_t *p, const uint8_t *q, __mmask8 has);

APR_INLINE __m512 two_f32(const uint8_t *p, const uint8_t *q, __mmask8 has)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_maskz_loadu_ps(has, p)),
                              _mm256_maskz_loadu_ps(has, q), 1);
}

/* 8 words of two rows */
APR_INLINE __m256i two_words(const uint8_t *p, const uint8_t *q, __mmask8 has)
{
    if (has == 0xff)
        return _mm256_inserti128_si256(_mm256_castsi128_si256(apr_load128(p)), apr_load128(q), 1);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_maskz_loadu_epi16(has, p)),
                                   _mm_maskz_loadu_epi16(has, q), 1);
}

APR_INLINE __m512 two_f16(const uint8_t *p, const uint8_t *q, __mmask8 has)
{
    return _mm512_cvtph_ps(two_words(p, q, has));
}

APR_INLINE __m512 two_bf16(const uint8_t *p, const uint8_t *q, __mmask8 has)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(two_words(p, q, has)), 16));
}

/* 16 columns of two rows in BF16, and of these the first or the last 8 of both as floats */
APR_INLINE __m512i sixteen(const uint8_t *p, const uint8_t *q)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(apr_load(p)), apr_load(q), 1);
}

APR_INLINE __m512 eight_of(__m512i v, int i)
{
    const __m512i order = _mm512_add_epi32(
        _mm512_setr_epi32(0x000000, 0x010000, 0x020000, 0x030000, 0x040000, 0x050000, 0x060000, 0x070000,
                          0x100000, 0x110000, 0x120000, 0x130000, 0x140000, 0x150000, 0x160000, 0x170000),
        _mm512_set1_epi32(i ? 0x080000 : 0));
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, order, v));
}

/* a += w x for the 16 columns of BF16 from k on: half as many operations to widen a row as for 8 at a time */
APR_INLINE void sixteen_columns(const uint8_t *const *w, const void *const *x, size_t k, int n_toks,
                                __m512 a[N_TOKS][N_TWOS])
{
    __m512i words[N_TWOS];
#pragma GCC unroll 4
    for (int r = 0; r < N_TWOS; r++)
        words[r] = sixteen(w[2 * r] + k * sizeof(uint16_t), w[2 * r + 1] + k * sizeof(uint16_t));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512 wv[N_TWOS];
#pragma GCC unroll 4
        for (int r = 0; r < N_TWOS; r++) wv[r] = eight_of(words[r], i);
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            __m512 xv = _mm512_broadcast_f32x8(_mm256_loadu_ps((const float *)x[t] + k + (size_t)i * N_COLS));
#pragma GCC unroll 4
            for (int r = 0; r < N_TWOS; r++) a[t][r] = _mm512_fmadd_ps(wv[r], xv, a[t][r]);
        }
    }
}

/* a += w x for the 8 columns from k on */
APR_INLINE void columns(two_rows_fn *two, size_t elem_bytes, const uint8_t *const *w, const void *const *x,
                        size_t k, __mmask8 has, int n_toks, __m512 a[N_TOKS][N_TWOS])
{
    const __mmask16 both = (__mmask16)(has | has << 8);
    __m512 wv[N_TWOS];
#pragma GCC unroll 4
    for (int r = 0; r < N_TWOS; r++)
        wv[r] = two(w[2 * r] + k * elem_bytes, w[2 * r + 1] + k * elem_bytes, has);
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
        __m512 xv = _mm512_broadcast_f32x8(_mm256_maskz_loadu_ps(has, (const float *)x[t] + k));
#pragma GCC unroll 4
        for (int r = 0; r < N_TWOS; r++) { /* lanes past the end keep their bits, the sign of a zero too */
            a[t][r] = has == 0xff ? _mm512_fmadd_ps(wv[r], xv, a[t][r])
                                  : _mm512_mask3_fmadd_ps(wv[r], xv, a[t][r], both);
        }
    }
}

APR_INLINE void tile(two_rows_fn *two, size_t elem_bytes, const uint8_t *const *rows, const uint8_t *next,
                     size_t n_cols, const void *const *x, int n_toks, float *y)
{
    __m512 a[N_TOKS][N_TWOS];
#pragma GCC unroll 24
    for (int i = 0; i < n_toks * N_TWOS; i++) a[i / N_TWOS][i % N_TWOS] = _mm512_setzero_ps();
    size_t k = 0;
    for (; two == two_bf16 && k + 2 * N_COLS <= n_cols; k += 2 * N_COLS) {
        if (next) apr_avx2_prefetch(next, N_ROWS * k * elem_bytes, N_ROWS * 2 * N_COLS * elem_bytes);
        sixteen_columns(rows, x, k, n_toks, a);
    }
    for (; k + N_COLS <= n_cols; k += N_COLS) {
        if (next) apr_avx2_prefetch(next, N_ROWS * k * elem_bytes, N_ROWS * N_COLS * elem_bytes);
        columns(two, elem_bytes, rows, x, k, 0xff, n_toks, a);
    }
    if (k < n_cols) columns(two, elem_bytes, rows, x, k, (__mmask8)((1u << (n_cols - k)) - 1), n_toks, a);
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < N_TWOS; r += 2)
            _mm_storeu_ps(y + t * N_ROWS + 2 * r, apr_avx512_trees(a[t][r], a[t][r + 1]));
    }
}

#define TILE(lower, elem_bytes, n)                                                                           \
    static void lower##_##n(const uint8_t *const *rows, const uint8_t *next, size_t n_cols,                  \
                            const void *const *x, float *y)                                                  \
    {                                                                                                        \
        tile(two_##lower, elem_bytes, rows, next, n_cols, x, n, y);                                          \
    }
#define PLAIN(lower, elem_bytes)                                                                             \
    TILE(lower, elem_bytes, 1)                                                                               \
    TILE(lower, elem_bytes, 2)                                                                               \
    TILE(lower, elem_bytes, 3)                                                                               \
    TILE(lower, elem_bytes, 4)                                                                               \
    TILE(lower, elem_bytes, 5)                                                                               \
    TILE(lower, elem_bytes, 6)                                                                               \
    void apr_avx512_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,  \
                            size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)     \
    {                                                                                                        \
        static apr_row_tile_fn *const fns[] = {lower##_1, lower##_2, lower##_3,                              \
                                               lower##_4, lower##_5, lower##_6};                             \
        static const struct apr_row_tiles tiles = {N_ROWS, N_TOKS, fns};                                     \
        const struct apr_row_args a = {w,           w_row_bytes, n_rows, n_cols,   x,                        \
                                       x_row_bytes, n_toks,      y,      y_stride, scratch};                 \
        apr_by_rows(&tiles, &a);                                                                             \
    }
PLAIN(f32, 4)
PLAIN(f16, 2)
PLAIN(bf16, 2)

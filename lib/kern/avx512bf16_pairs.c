/* BF16 weights times activations rounded to BF16, by vdpbf16ps: of each pair of columns the odd one is
 * multiplied and added first, then the even one, each rounded to nearest even ("Intel 64 and IA-32
 * Architectures Software Developer's Manual", VDPBF16PS; AMD's Zen 4 gives the same bits).
 *
 * The lower 8 lanes of a register belong to one row and the upper 8 to the next one. A tile is 8 rows x 6
 * tokens: 24 accumulators, and 14 loads for 24 steps of 32 products. */
#include "avx512bf16.h"

#include "avx512_vec.h"
#include "row_tiles.h"

#define N_TWOS     4 /* of rows */
#define N_ROWS     (2 * N_TWOS)
#define N_TOKS     6
#define STEP_BYTES 32 /* 16 columns of a row */
#define N_STEPS    2  /* a line at once: it may be gone the next time */

/* The same 16 columns of two rows; has: the columns that there are */
APR_INLINE __m512i two_rows(const uint8_t *p, const uint8_t *q, __mmask16 has)
{
    __m256i low = has == 0xffff ? apr_load(p) : _mm256_maskz_loadu_epi16(has, p);
    __m256i high = has == 0xffff ? apr_load(q) : _mm256_maskz_loadu_epi16(has, q);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* a += w x for 16 columns, from byte b of the rows on; n_toks is constant wherever it is inlined */
APR_INLINE void columns(const uint8_t *const *w, const void *const *x, size_t b, __mmask16 has, int n_toks,
                        __m512 a[N_TOKS][N_TWOS])
{
    __m512i wv[N_TWOS];
#pragma GCC unroll 4
    for (int r = 0; r < N_TWOS; r++) wv[r] = two_rows(w[2 * r] + b, w[2 * r + 1] + b, has);
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
        const uint8_t *p = (const uint8_t *)x[t] + b;
        __m256i v = has == 0xffff ? apr_load(p) : _mm256_maskz_loadu_epi16(has, p);
        __m512i xv = _mm512_broadcast_i64x4(v);
#pragma GCC unroll 4
        for (int r = 0; r < N_TWOS; r++) a[t][r] = _mm512_dpbf16_ps(a[t][r], (__m512bh)wv[r], (__m512bh)xv);
    }
}

/* n columns; next: rows to fetch meanwhile, or NULL */
APR_INLINE void all_columns(const uint8_t *const *w, const uint8_t *next, const void *const *x, size_t n,
                            int n_toks, __m512 a[N_TOKS][N_TWOS])
{
    size_t b = 0, end = n / 16 * STEP_BYTES;
    for (; end - b >= N_STEPS * STEP_BYTES; b += N_STEPS * STEP_BYTES) {
        if (next) apr_avx2_prefetch(next, N_ROWS * b, N_ROWS * N_STEPS * STEP_BYTES);
#pragma GCC unroll 2
        for (int i = 0; i < N_STEPS; i++) columns(w, x, b + (size_t)i * STEP_BYTES, 0xffff, n_toks, a);
    }
    for (; b < end; b += STEP_BYTES) columns(w, x, b, 0xffff, n_toks, a);
    if (n % 16) columns(w, x, b, (__mmask16)((1u << n % 16) - 1), n_toks, a);
}

APR_INLINE void tile(const uint8_t *const *rows, const uint8_t *next, size_t n_cols, const void *const *x,
                     int n_toks, float *y)
{
    __m512 a[N_TOKS][N_TWOS];
#pragma GCC unroll 24
    for (int i = 0; i < n_toks * N_TWOS; i++) a[i / N_TWOS][i % N_TWOS] = _mm512_setzero_ps();
    all_columns(rows, next, x, n_cols, n_toks, a);
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < N_TWOS; r += 2)
            _mm_storeu_ps(y + t * N_ROWS + 2 * r, apr_avx512_trees(a[t][r], a[t][r + 1]));
    }
}

#define TILES(n)                                                                                             \
    static void tile_##n(const uint8_t *const *rows, const uint8_t *next, size_t n_cols,                     \
                         const void *const *x, float *y)                                                     \
    {                                                                                                        \
        tile(rows, next, n_cols, x, n, y);                                                                   \
    }
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
static apr_row_tile_fn *const tile_fns[] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
static const struct apr_row_tiles tiles = {N_ROWS, N_TOKS, tile_fns};

void apr_avx512bf16_rounded_bf16(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,
                                 const void *x, size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride,
                                 void *scratch)
{
    const struct apr_row_args a = {w,           w_row_bytes, n_rows, n_cols,   x,
                                   x_row_bytes, n_toks,      y,      y_stride, scratch};
    apr_by_rows(&tiles, &a);
}

/* Q2_K .. Q6_K times int8 activations.
 *
 * A tile has 8 lanes = n_rows rows x n_toks tokens, lane = row * n_toks + token; 8 x 1 is decode, 1 x 8
 * prefill. Inside a block of 256 a weight is unpacked once to unsigned bytes and multiplied with the
 * activations of every token of the tile by maddubs (pairs stay in int16: 2 * 63 * 127), then by its
 * scale. The sums of the 8 lanes are exact; the float chain of kern.h runs with one lane per result. */
#include "avx2.h"

#include <stddef.h>

#include "avx2_k.h"

/* int16 lanes: all of one half become the lane g of that half. */
APR_INLINE __m256i spread(__m256i by_group, int g)
{
    return _mm256_shuffle_epi8(by_group, _mm256_set1_epi16((short)(2 * g | (2 * g + 1) << 8)));
}

APR_INLINE void tile_row(const struct ktype k, const uint8_t *block, const struct apr_act256 *const *act,
                         size_t i_block, int n_toks, __m256i *sum, __m256i *sum_min)
{
    struct scales s = k.scales(block);
    __m256i q[8], scale[8];
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        q[g] = k.group(block, g);
        scale[g] = spread(s.by_group, g);
    }
    for (int t = 0; t < n_toks; t++) {
        const struct apr_act256 *a = act[t] + i_block;
        __m256i v = _mm256_setzero_si256();
        if (k.offset_log2) {
            v = _mm256_sub_epi32(
                v, _mm256_slli_epi32(_mm256_madd_epi16(s.natural, apr_load(a->sums)), k.offset_log2));
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m256i pairs = _mm256_maddubs_epi16(q[g], apr_load(a->q + 32 * g));
            v = _mm256_add_epi32(v, _mm256_madd_epi16(pairs, scale[g]));
        }
        sum[t] = v;
        if (k.has_min) sum_min[t] = _mm256_madd_epi16(s.min, apr_load(a->sums));
    }
}

/* One tile: 8 / n_toks rows; next: the row behind them; dy: [n_blocks, 8] scales of the activations by lane,
 * only for n_toks > 1 */
APR_INLINE __m256 tile(const struct ktype k, const uint8_t *const *rows, const uint8_t *next,
                       const struct apr_act256 *const *act, const float *dy, size_t n_blocks, int n_toks)
{
    __m256 acc = _mm256_setzero_ps();
    for (size_t i = 0; i < n_blocks; i++) {
        const uint8_t *block[8];
        __m256i sum[8], sum_min[8];
        for (int j = 0; j < 8 / n_toks; j++) {
            block[j] = rows[j] + i * k.block_bytes;
            if (n_toks == 1) apr_avx2_prefetch(next, (8 * i + (size_t)j) * k.block_bytes, k.block_bytes);
            tile_row(k, block[j], act, i, n_toks, sum + j * n_toks, sum_min + j * n_toks);
        }
        __m256 dyi = n_toks == 1 ? _mm256_set1_ps(act[0][i].d) : _mm256_loadu_ps(dy + 8 * i);
        if (k.has_min) {
            __m256 dmin = _mm256_mul_ps(apr_avx2_halves(block, k.off_dmin, n_toks), dyi);
            acc = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(apr_avx2_sums(sum_min)), acc);
        }
        __m256 d = _mm256_mul_ps(apr_avx2_halves(block, k.off_d, n_toks), dyi);
        acc = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(apr_avx2_sums(sum)), acc);
    }
    return acc;
}

/* All rows for n_toks tokens (1 or 2). */
APR_INLINE void tiles(const struct ktype k, const struct apr_avx2_tiles *a, int n_toks)
{
    const struct apr_act256 *act[8];
    float *dy = a->scratch;
    for (int t = 0; t < n_toks; t++) act[t] = (const void *)(a->x + (size_t)t * a->x_row_bytes);
    for (size_t i = 0; i < a->n_blocks && n_toks > 1; i++) {
        for (int l = 0; l < 8; l++) dy[8 * i + (size_t)l] = act[l % n_toks][i].d;
    }
    size_t n_tile = (size_t)(8 / n_toks);
    for (size_t r = 0; r < a->n_rows; r += n_tile) {
        const uint8_t *rows[8];
        size_t n = a->n_rows - r < n_tile ? a->n_rows - r : n_tile;
        for (size_t j = 0; j < n_tile; j++) rows[j] = a->w + (r + (j < n ? j : n - 1)) * a->w_row_bytes;
        float lane[8];
        _mm256_storeu_ps(lane,
                         tile(k, rows, rows[0] + n_tile * a->w_row_bytes, act, dy, a->n_blocks, n_toks));
        for (size_t j = 0; j < n; j++) {
            for (size_t t = 0; t < (size_t)n_toks; t++) {
                a->y[t * a->y_stride + r + j] = lane[j * (size_t)n_toks + t];
            }
        }
    }
}

/* dl * (float)(q - offset) - ml with dl = d * scale, ml = dmin * min: as the types define it */
APR_INLINE void widen(const struct ktype k, const uint8_t *block, float *x, size_t n_elems)
{
    for (size_t i = 0; i < n_elems / APR_QKK; i++, block += k.block_bytes, x += APR_QKK) {
        float d = _cvtsh_ss(apr_u16_at(block + k.off_d)),
              dmin = k.has_min ? _cvtsh_ss(apr_u16_at(block + k.off_dmin)) : 0;
        struct scales s = k.scales(block);
        int16_t scale[16], min[16];
        _mm256_storeu_si256((__m256i *)(void *)scale, s.by_group);
        if (k.has_min) _mm256_storeu_si256((__m256i *)(void *)min, s.min);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            uint8_t q[32];
            _mm256_storeu_si256((__m256i *)(void *)q, k.group(block, g));
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const int half = j / 2; /* sub-block 2 g + half */
                __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(q + 8 * j)));
                if (k.offset_log2) v = _mm256_sub_epi32(v, _mm256_set1_epi32(1 << k.offset_log2));
                __m256 y =
                    _mm256_mul_ps(_mm256_set1_ps(d * (float)scale[half * 8 + g]), _mm256_cvtepi32_ps(v));
                if (k.has_min) y = _mm256_sub_ps(y, _mm256_set1_ps(dmin * (float)min[2 * g + half]));
                _mm256_storeu_ps(x + 32 * g + 8 * j, y);
            }
        }
    }
}

#define KTYPE(lower)                                                                                         \
    void apr_avx2_fast_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,              \
                               const void *x, size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride,  \
                               void *scratch)                                                                \
    {                                                                                                        \
        struct apr_avx2_tiles a = {w,           w_row_bytes, n_rows,   n_cols / APR_QKK, x,                  \
                                   x_row_bytes, y,           y_stride, scratch};                             \
        if (n_toks == 1) tiles(k_##lower, &a, 1);                                                            \
        if (n_toks == 2) tiles(k_##lower, &a, 2);                                                            \
        if (n_toks > 2) apr_avx2_panel_##lower(&a, n_toks);                                                  \
    }                                                                                                        \
    void apr_avx2_##lower##_to_f32(const void *blocks, float *x, size_t n_elems)                             \
    {                                                                                                        \
        widen(k_##lower, blocks, x, n_elems);                                                                \
    }

KTYPE(q2_k)
KTYPE(q3_k)
KTYPE(q4_k)
KTYPE(q5_k)
KTYPE(q6_k)

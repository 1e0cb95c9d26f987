/* Q4_0 .. Q8_0 times int8 activations, and their widening.
 *
 * Tiles as in avx2_block256.c: 8 lanes = n_rows rows x n_toks tokens, lane = row * n_toks + token. A block
 * of 32 is one vector of bytes; its integer sums of 8 lanes are reduced together, and the float chain of
 * kern.h runs with one lane per result. */
#include "avx2.h"

#include <string.h>

#include "avx2_q.h"

/* Eight partial sums of q * a. In int16: two products of at most 128 * 127. */
APR_INLINE __m256i products(const struct type32 k, __m256i q, __m256i a)
{
    __m256i pairs = k.is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(a, q))
                                : _mm256_maddubs_epi16(q, a);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* What the 8 lanes need of the activations of one block. */
struct lanes {
    float d[8];
    int32_t sum[8];
};

/* One tile: 8 / n_toks rows; next: the row behind them; lanes: [n_blocks], only for n_toks > 1 */
APR_INLINE __m256 tile(const struct type32 k, const uint8_t *const *rows, const uint8_t *next,
                       const struct apr_act32 *const *act, const struct lanes *lanes, size_t n_blocks,
                       int n_toks)
{
    __m256 acc = _mm256_setzero_ps();
    for (size_t i = 0; i < n_blocks; i++) {
        const uint8_t *block[8];
        if (n_toks == 1) apr_avx2_prefetch(next, 8 * i * k.block_bytes, 8 * k.block_bytes);
        __m256i part[8], q = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int l = 0; l < 8; l++) {
            int j = l / n_toks, t = l % n_toks;
            if (t == 0) {
                block[j] = rows[j] + i * k.block_bytes;
                q = k.quants(block[j]);
            }
            part[l] = products(k, q, apr_load(act[t][i].q));
        }
        __m256 dy = n_toks == 1 ? _mm256_set1_ps(act[0][i].d) : _mm256_loadu_ps(lanes[i].d);
        __m256i sum_act = n_toks == 1 ? _mm256_set1_epi32(act[0][i].sum) : apr_load(lanes[i].sum);
        __m256i sum = apr_avx2_sums(part);
        if (k.offset_log2) sum = _mm256_sub_epi32(sum, _mm256_slli_epi32(sum_act, k.offset_log2));
        if (k.has_m) {
            __m256 m = _mm256_mul_ps(apr_avx2_halves(block, k.off_m, n_toks), dy);
            acc = _mm256_fmadd_ps(m, _mm256_cvtepi32_ps(sum_act), acc);
        }
        __m256 d = _mm256_mul_ps(apr_avx2_halves(block, k.off_d, n_toks), dy);
        acc = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(sum), acc);
    }
    return acc;
}

/* All rows for n_toks tokens (1 or 2). */
APR_INLINE void tiles(const struct type32 k, const struct apr_avx2_tiles *a, int n_toks)
{
    const struct apr_act32 *act[8];
    struct lanes *lanes = a->scratch;
    for (int t = 0; t < n_toks; t++) act[t] = (const void *)(a->x + (size_t)t * a->x_row_bytes);
    for (size_t i = 0; i < a->n_blocks && n_toks > 1; i++) {
        for (int l = 0; l < 8; l++) {
            lanes[i].d[l] = act[l % n_toks][i].d;
            lanes[i].sum[l] = act[l % n_toks][i].sum;
        }
    }
    size_t n_tile = (size_t)(8 / n_toks);
    for (size_t r = 0; r < a->n_rows; r += n_tile) {
        const uint8_t *rows[8];
        size_t n = a->n_rows - r < n_tile ? a->n_rows - r : n_tile;
        for (size_t j = 0; j < n_tile; j++) rows[j] = a->w + (r + (j < n ? j : n - 1)) * a->w_row_bytes;
        float lane[8];
        _mm256_storeu_ps(lane,
                         tile(k, rows, rows[0] + n_tile * a->w_row_bytes, act, lanes, a->n_blocks, n_toks));
        for (size_t j = 0; j < n; j++) {
            for (size_t t = 0; t < (size_t)n_toks; t++) {
                a->y[t * a->y_stride + r + j] = lane[j * (size_t)n_toks + t];
            }
        }
    }
}

/* (float)(q - offset) * d, or q * d + m: two roundings, as the types define it */
APR_INLINE void widen(const struct type32 k, const uint8_t *block, float *x, size_t n_elems)
{
    for (size_t i = 0; i < n_elems / APR_QK; i++, block += k.block_bytes, x += APR_QK) {
        uint16_t h[2] = {0};
        memcpy(&h[0], block + k.off_d, sizeof h[0]);
        if (k.has_m) memcpy(&h[1], block + k.off_m, sizeof h[1]);
        __m256 d = _mm256_set1_ps(_cvtsh_ss(h[0])), m = _mm256_set1_ps(_cvtsh_ss(h[1]));
        __m256i q = k.quants(block);
        if (k.offset_log2) q = _mm256_sub_epi8(q, _mm256_set1_epi8((char)(1 << k.offset_log2)));
        int8_t bytes[32];
        _mm256_storeu_si256((__m256i *)(void *)bytes, q);
#pragma GCC unroll 4
        for (int j = 0; j < 32; j += 8) {
            __m256 v = _mm256_cvtepi32_ps(
                _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(bytes + j))));
            v = _mm256_mul_ps(v, d);
            _mm256_storeu_ps(x + j, k.has_m ? _mm256_add_ps(v, m) : v);
        }
    }
}

#define TYPE32(lower)                                                                                        \
    void apr_avx2_fast_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,              \
                               const void *x, size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride,  \
                               void *scratch)                                                                \
    {                                                                                                        \
        struct apr_avx2_tiles a = {w,           w_row_bytes, n_rows,   n_cols / APR_QK, x,                   \
                                   x_row_bytes, y,           y_stride, scratch};                             \
        if (n_toks == 1) tiles(t_##lower, &a, 1);                                                            \
        if (n_toks == 2) tiles(t_##lower, &a, 2);                                                            \
        if (n_toks > 2) apr_avx2_panel_##lower(&a, n_toks);                                                  \
    }                                                                                                        \
    void apr_avx2_##lower##_to_f32(const void *blocks, float *x, size_t n_elems)                             \
    {                                                                                                        \
        widen(t_##lower, blocks, x, n_elems);                                                                \
    }

TYPE32(q4_0)
TYPE32(q4_1)
TYPE32(q5_0)
TYPE32(q5_1)
TYPE32(q8_0)

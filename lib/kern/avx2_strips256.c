/* Strips of Q2_K .. Q6_K times int8 activations.
 *
 * A vector holds 4 consecutive columns of 8 rows, half of what stands in the strip. Its unsigned bytes are
 * multiplied with one broadcast of 4 activations; pairs are summed in int16 as long as they fit, then
 * multiplied with the scale of their sub-block. A lane is a row: the float chain of kern.h runs in registers
 * from the first block to the last. A tile is 16 rows x 1 or 2 tokens, or 8 rows x 4 or 6. */
#include "avx2.h"

#include "avx2_kstrip.h"
#include "avx2_strips.h"

/* sum over sub-blocks of v * (sum of activations), for every token */
APR_INLINE void by_sums(const struct kstrip k, const struct bytes v, const struct apr_act256 *const *act,
                        int n_toks, __m256i *sum)
{
#pragma GCC unroll 8
    for (int p = 0; p < k.n_subs / 2; p++) {
        __m256i pair = pair_of(v.at[p / 2], p % 2 * 2, p % 2 * 2 + 1);
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            const int16_t *sums = k.n_subs == 8 ? act[t]->sums32 : act[t]->sums;
            __m256i v32 = _mm256_madd_epi16(pair, apr_avx2_four(sums + 2 * p));
            sum[t] = p ? _mm256_add_epi32(sum[t], v32) : v32;
        }
    }
}

/* The min term, onto acc, or the offset's into sum. */
APR_INLINE void begin_block(const struct kstrip k, const struct bytes mins, __m256 dmin,
                            const struct apr_act256 *const *act, int n_toks, __m256i *sum, __m256 *acc)
{
    by_sums(k, mins, act, n_toks, sum);
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
        if (k.has_min) {
            acc[t] = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, _mm256_set1_ps(act[t]->d)),
                                      _mm256_cvtepi32_ps(sum[t]), acc[t]);
            sum[t] = _mm256_setzero_si256();
        } else {
            sum[t] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum[t], k.offset_log2));
        }
    }
}

/* The n_groups (1, or n_shared) groups of 32 columns from group g0 on, onto sum. */
APR_INLINE void groups(const struct kstrip k, const uint8_t *words, size_t r0, const struct bytes scales,
                       int g0, int n_groups, const struct apr_act256 *const *act, int n_toks, __m256i *sum)
{
    const int n_quads = 64 / k.n_subs; /* of a sub-block */
#pragma GCC unroll 2
    for (int i0 = 0; i0 < 8; i0 += n_quads) {
        __m256i scale[4];
#pragma GCC unroll 4
        for (int j = 0; j < n_groups; j++) {
            int s = ((g0 + j) * 8 + i0) / n_quads;
            scale[j] = pair_of(scales.at[s / 4], s % 4, s % 4);
        }
#pragma GCC unroll 4
        for (int i = i0; i < i0 + n_quads; i += k.n_steps) {
            __m256i part[4][6];
#pragma GCC unroll 8
            for (int u = i; u < i + k.n_steps; u++) {
#pragma GCC unroll 4
                for (int j = 0; j < n_groups; j++) {
                    __m256i q = k.quad(words, r0, g0 + j, u);
#pragma GCC unroll 6
                    for (int t = 0; t < n_toks; t++) {
                        __m256i v = _mm256_maddubs_epi16(q, apr_avx2_four(act[t]->q + 32 * (g0 + j) + 4 * u));
                        part[j][t] = u > i ? _mm256_add_epi16(part[j][t], v) : v;
                        /* keeps the sums in registers: without it the compiler reorders the steps and spills
                         */
                        __asm__("" : "+x"(part[j][t]));
                    }
                }
            }
#pragma GCC unroll 4
            for (int j = 0; j < n_groups; j++) {
#pragma GCC unroll 6
                for (int t = 0; t < n_toks; t++)
                    sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(part[j][t], scale[j]));
            }
        }
    }
}

/* One block of 8 rows from r0 on times one block of every token, onto acc. */
APR_INLINE void block_step(const struct kstrip k, const uint8_t *b, size_t r0,
                           const struct apr_act256 *const *act, int n_toks, __m256 *acc)
{
    const size_t n_halves = k.has_min ? 2 : 1, n_bytes = k.words_bytes + n_halves * APR_HALVES_BYTES;
    const int n_groups = n_toks <= 2 ? k.n_shared : 1;
    const uint8_t *words = b + apr_strip_off_words(b, n_halves);
    const uint8_t *d_dmin = b + apr_strip_off_halves(b, k.words_bytes) + 2 * r0;
    __m256 dmin = k.has_min ? _mm256_cvtph_ps(apr_load128(d_dmin + APR_HALVES_BYTES)) : _mm256_setzero_ps();
    __m256i sum[6];
    const struct bytes scales = k.scales(words, r0);
    begin_block(k, k.has_min ? k.mins(words, r0) : scales, dmin, act, n_toks, sum, acc);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g += n_groups) {
        size_t c0 = r0 + (size_t)g, c1 = c0 + (size_t)n_groups; /* of 16: both halves fetch a half */
        if (n_toks <= 2) apr_strip_prefetch(b, n_bytes * c0 / 16, n_bytes * c1 / 16);
        groups(k, words, r0, scales, g, n_groups, act, n_toks, sum);
    }
    __m256 d = _mm256_cvtph_ps(apr_load128(d_dmin));
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
        acc[t] =
            _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(act[t]->d)), _mm256_cvtepi32_ps(sum[t]), acc[t]);
    }
}

/* One strip, n_halves of 8 rows at a time. */
APR_INLINE void tile(const struct kstrip k, const uint8_t *strip, size_t n_blocks, const uint8_t *x,
                     size_t x_row_bytes, int n_toks, int n_halves, float *y, size_t y_stride)
{
    for (size_t r0 = 0; r0 < APR_STRIP_ROWS; r0 += 8 * (size_t)n_halves) {
        const struct apr_act256 *act[6];
        const uint8_t *b = strip;
        __m256 acc[2][6];
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            act[t] = (const void *)(x + (size_t)t * x_row_bytes);
            acc[0][t] = acc[1][t] = _mm256_setzero_ps();
        }
        const size_t n_bytes = k.words_bytes + (k.has_min ? 2 : 1) * APR_HALVES_BYTES;
        for (size_t i = 0; i < n_blocks; i++, b += n_bytes) {
            if (n_halves == 1) apr_strip_fetch_next(strip, n_blocks, n_bytes, r0 / 8 * n_blocks + i);
#pragma GCC unroll 2
            for (int h = 0; h < n_halves; h++) block_step(k, b, r0 + 8 * (size_t)h, act, n_toks, acc[h]);
#pragma GCC unroll 6
            for (int t = 0; t < n_toks; t++) act[t]++;
        }
#pragma GCC unroll 2
        for (int h = 0; h < n_halves; h++) {
#pragma GCC unroll 6
            for (int t = 0; t < n_toks; t++)
                _mm256_storeu_ps(y + (size_t)t * y_stride + r0 + (size_t)(8 * h), acc[h][t]);
        }
    }
}

/* From so many tokens on, a panel that is unpacked once is faster. */
#define TOKS_PANEL 12

#define KSTRIP(lower)                                                                                        \
    APR_STRIP_TILES(lower)                                                                                   \
    void apr_avx2_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,            \
                                 const void *x, size_t x_row_bytes, size_t n_toks, float *y,                 \
                                 size_t y_stride, void *scratch)                                             \
    {                                                                                                        \
        struct apr_avx2_tiles a = {w,           w_row_bytes, n_rows,   n_cols / APR_QKK, x,                  \
                                   x_row_bytes, y,           y_stride, scratch};                             \
        if (n_toks >= TOKS_PANEL) {                                                                          \
            apr_avx2_strip_panel_##lower(&a, n_toks);                                                        \
            return;                                                                                          \
        }                                                                                                    \
        apr_strip_walk(lower##_tiles, w, w_row_bytes, n_rows, n_cols / APR_QKK, x, x_row_bytes, n_toks, y,   \
                       y_stride);                                                                            \
    }

KSTRIP(q2_k)
KSTRIP(q3_k)
KSTRIP(q4_k)
KSTRIP(q5_k)
KSTRIP(q6_k)

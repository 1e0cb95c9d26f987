/* Q2_K .. Q6_K times int8 activations.
 *
 * A tile has 8 lanes = n_rows rows x n_toks tokens, lane = row * n_toks + token; 8 x 1 is decode, 1 x 8
 * prefill. Inside a block of 256 a weight is unpacked once to unsigned bytes and multiplied with the
 * activations of every token of the tile by maddubs (pairs stay in int16: 2 * 63 * 127), then by its
 * scale. The sums of the 8 lanes are exact; the float chain of kern.h runs with one lane per result. */
#include "avx2.h"

#include <stddef.h>
#include <string.h>

#include "../quant/blocks.h"
#include "avx2_vec.h"

/* Scales of one block. Group g is values 32 g .. 32 g + 31: two sub-blocks of 16. */
struct scales {
    __m256i by_group; /* int16; low half: lane g = scale of sub-block 2 g, high half: of 2 g + 1 */
    __m256i natural;  /* int16 by sub-block of 16; only of types with an offset */
    __m256i min;      /* int16 by sub-block of 16; only of types with mins */
};
/* Unsigned quants of group g of block b. g is a constant after inlining. */
typedef __m256i group_fn(const void *b, int g);
typedef struct scales scales_fn(const void *b);
struct ktype {
    size_t block_bytes, off_d, off_dmin;
    group_fn *group;
    scales_fn *scales;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    bool has_min;
};

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* 16 bytes in sub-block order to scales.by_group */
APR_INLINE __m256i by_group(__m128i bytes)
{
    const __m128i even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, even_odd));
}

/* The 12 packed bytes of Q4_K and Q5_K: the same as apr_q4_k_scale_min, four sub-blocks at a time. */
APR_INLINE struct scales scales_45(const uint8_t *p)
{
    uint32_t a = u32_at(p), b = u32_at(p + 4), c = u32_at(p + 8);
    uint32_t scale_hi = (c & 0x0f0f0f0fU) | (a >> 2 & 0x30303030U);
    uint32_t min_hi = (c >> 4 & 0x0f0f0f0fU) | (b >> 2 & 0x30303030U);
    __m128i scale = _mm_cvtsi64_si128((int64_t)(a & 0x3f3f3f3fU) | (int64_t)((uint64_t)scale_hi << 32));
    __m128i min = _mm_cvtsi64_si128((int64_t)(b & 0x3f3f3f3fU) | (int64_t)((uint64_t)min_hi << 32));
    return (struct scales){
        .by_group = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(scale)),
        .min = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(min, min)),
    };
}

/* Bits shift .. shift + n - 1 of every byte, shift negative to the left; mask: the bits after shifting. */
APR_INLINE __m256i bits(__m256i v, int shift, int mask)
{
    __m256i moved = shift > 0 ? _mm256_srli_epi16(v, shift) : shift < 0 ? _mm256_slli_epi16(v, -shift) : v;
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

APR_INLINE __m256i group_q2_k(const void *block, int g)
{
    const struct apr_block_q2_k *b = block;
    return bits(apr_load(b->qs + g / 4 * 32), g % 4 * 2, 3);
}

APR_INLINE struct scales scales_q2_k(const void *block)
{
    const struct apr_block_q2_k *b = block;
    __m128i v = apr_load128(b->scales), low = _mm_set1_epi8(15);
    return (struct scales){
        .by_group = by_group(_mm_and_si128(v, low)),
        .min = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(v, 4), low)),
    };
}

APR_INLINE __m256i group_q3_k(const void *block, int g)
{
    const struct apr_block_q3_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs + g / 4 * 32), g % 4 * 2, 3),
                           bits(apr_load(b->hmask), g - 2, 4));
}

APR_INLINE struct scales scales_q3_k(const void *block)
{
    const struct apr_block_q3_k *b = block;
    uint32_t l0 = u32_at(b->scales), l1 = u32_at(b->scales + 4), h = u32_at(b->scales + 8);
    const uint32_t low = 0x0f0f0f0fU, high = 0x30303030U;
    __m128i v = _mm_setr_epi32((int)((l0 & low) | (h << 4 & high)), (int)((l1 & low) | (h << 2 & high)),
                               (int)((l0 >> 4 & low) | (h & high)), (int)((l1 >> 4 & low) | (h >> 2 & high)));
    v = _mm_sub_epi8(v, _mm_set1_epi8(32));
    return (struct scales){.by_group = by_group(v), .natural = _mm256_cvtepi8_epi16(v)};
}

APR_INLINE __m256i group_q4_k(const void *block, int g)
{
    const struct apr_block_q4_k *b = block;
    return bits(apr_load(b->qs + g / 2 * 32), g % 2 * 4, 15);
}

APR_INLINE struct scales scales_q4_k(const void *block)
{
    return scales_45(((const struct apr_block_q4_k *)block)->scales);
}

APR_INLINE __m256i group_q5_k(const void *block, int g)
{
    const struct apr_block_q5_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs + g / 2 * 32), g % 2 * 4, 15),
                           bits(apr_load(b->qh), g - 4, 16));
}

APR_INLINE struct scales scales_q5_k(const void *block)
{
    return scales_45(((const struct apr_block_q5_k *)block)->scales);
}

APR_INLINE __m256i group_q6_k(const void *block, int g)
{
    const struct apr_block_q6_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->ql + g / 4 * 64 + g % 2 * 32), g % 4 / 2 * 4, 15),
                           bits(apr_load(b->qh + g / 4 * 32), g % 4 * 2 - 4, 0x30));
}

APR_INLINE struct scales scales_q6_k(const void *block)
{
    __m128i v = apr_load128(((const struct apr_block_q6_k *)block)->scales);
    return (struct scales){.by_group = by_group(v), .natural = _mm256_cvtepi8_epi16(v)};
}

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

/* All rows for n_toks tokens (1, 2, 4 or 8). */
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
            for (int j = 0; j < 4; j++) { /* sub-block 2 g + j / 2 */
                __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(q + 8 * j)));
                if (k.offset_log2) v = _mm256_sub_epi32(v, _mm256_set1_epi32(1 << k.offset_log2));
                __m256 y =
                    _mm256_mul_ps(_mm256_set1_ps(d * (float)scale[j / 2 * 8 + g]), _mm256_cvtepi32_ps(v));
                if (k.has_min) y = _mm256_sub_ps(y, _mm256_set1_ps(dmin * (float)min[2 * g + j / 2]));
                _mm256_storeu_ps(x + 32 * g + 8 * j, y);
            }
        }
    }
}

#define KTYPE(lower, off_dmin_, offset_log2_, has_min_)                                                      \
    static const struct ktype k_##lower = {                                                                  \
        .block_bytes = sizeof(struct apr_block_##lower),                                                     \
        .off_d = offsetof(struct apr_block_##lower, d),                                                      \
        .off_dmin = off_dmin_,                                                                               \
        .group = group_##lower,                                                                              \
        .scales = scales_##lower,                                                                            \
        .offset_log2 = offset_log2_,                                                                         \
        .has_min = has_min_,                                                                                 \
    };                                                                                                       \
    static void lower##_8(const struct apr_avx2_tiles *a)                                                    \
    {                                                                                                        \
        tiles(k_##lower, a, 8);                                                                              \
    }                                                                                                        \
    static void lower##_4(const struct apr_avx2_tiles *a)                                                    \
    {                                                                                                        \
        tiles(k_##lower, a, 4);                                                                              \
    }                                                                                                        \
    static void lower##_2(const struct apr_avx2_tiles *a)                                                    \
    {                                                                                                        \
        tiles(k_##lower, a, 2);                                                                              \
    }                                                                                                        \
    static void lower##_1(const struct apr_avx2_tiles *a)                                                    \
    {                                                                                                        \
        tiles(k_##lower, a, 1);                                                                              \
    }                                                                                                        \
    void apr_avx2_fast_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,              \
                               const void *x, size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride,  \
                               void *scratch)                                                                \
    {                                                                                                        \
        static const struct apr_avx2_widths by = {{lower##_8, lower##_4, lower##_2, lower##_1}};             \
        struct apr_avx2_tiles a = {w,           w_row_bytes, n_rows,   n_cols / APR_QKK, x,                  \
                                   x_row_bytes, y,           y_stride, scratch};                             \
        apr_avx2_by_width(&by, a, n_toks);                                                                   \
    }                                                                                                        \
    void apr_avx2_##lower##_to_f32(const void *blocks, float *x, size_t n_elems)                             \
    {                                                                                                        \
        widen(k_##lower, blocks, x, n_elems);                                                                \
    }

KTYPE(q2_k, offsetof(struct apr_block_q2_k, dmin), 0, true)
KTYPE(q3_k, 0, 2, false)
KTYPE(q4_k, offsetof(struct apr_block_q4_k, dmin), 0, true)
KTYPE(q5_k, offsetof(struct apr_block_q5_k, dmin), 0, true)
KTYPE(q6_k, 0, 5, false)

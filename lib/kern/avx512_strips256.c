/* Strips of Q2_K .. Q6_K times int8 activations.
 *
 * A vector holds 4 consecutive columns of 16 rows. Its unsigned bytes are multiplied with one broadcast of 4
 * activations by vpdpbusd, whose sums are exact, and the sums of a sub-block then by its scale. A lane is a
 * row: the float chain of kern.h runs in registers from the first block to the last. A tile is 16 rows x 1,
 * 2, 4 or 8 tokens; what it unpacks serves all its tokens. */
#include "avx512.h"

#include "../quant/blocks.h"
#include "avx512_vec.h"
#include "strips.h"

/* Four vectors of bytes, a word per row: byte j of at[i] belongs to sub-block 4 i + j. */
struct bytes {
    __m512i at[4];
};
/* Columns 32 g + 4 i .. + 3; g and i are constants after inlining. */
typedef __m512i quad_fn(const void *block, int g, int i);
typedef struct bytes bytes_fn(const void *block);
struct kstrip {
    size_t words_bytes;
    quad_fn *quad;
    bytes_fn *scales, *mins;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    int n_subs;      /* sub-blocks: 8 of 32 or 16 of 16 columns */
    int n_shared;    /* groups of 32 columns whose quads stand in the same bytes */
    bool has_min;
};

/* Bits shift .. of every byte, shift negative to the left; mask: the bits after shifting. */
APR_INLINE __m512i masked(__m512i v, int shift, int mask)
{
    return _mm512_and_si512(apr_shift512(v, shift), _mm512_set1_epi8((char)mask));
}

/* low | (high shifted & mask) */
APR_INLINE __m512i with_bits(__m512i low, __m512i high, int shift, int mask)
{
    return _mm512_ternarylogic_epi32(low, apr_shift512(high, shift), _mm512_set1_epi8((char)mask), 0xf8);
}

APR_INLINE __m512i quad_q2_k(const void *block, int g, int i)
{
    const struct apr_strip_q2_k *b = block;
    return masked(apr_load512(b->qs[g / 4 * 8 + i]), g % 4 * 2, 3);
}

APR_INLINE struct bytes scales_q2_k(const void *block)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = masked(apr_load512(b->scales[i]), 0, 15);
    return s;
}

APR_INLINE struct bytes mins_q2_k(const void *block)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = masked(apr_load512(b->scales[i]), 4, 15);
    return s;
}

APR_INLINE __m512i quad_q3_k(const void *block, int g, int i)
{
    const struct apr_strip_q3_k *b = block;
    return with_bits(masked(apr_load512(b->qs[g / 4 * 8 + i]), g % 4 * 2, 3), apr_load512(b->hmask[i]), g - 2,
                     4);
}

APR_INLINE struct bytes scales_q3_k(const void *block)
{
    const struct apr_strip_q3_k *b = block;
    __m512i l0 = apr_load512(b->scales[0]), l1 = apr_load512(b->scales[1]), h = apr_load512(b->scales[2]);
    __m512i v[4] = {with_bits(masked(l0, 0, 15), h, -4, 0x30), with_bits(masked(l1, 0, 15), h, -2, 0x30),
                    with_bits(masked(l0, 4, 15), h, 0, 0x30), with_bits(masked(l1, 4, 15), h, 2, 0x30)};
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = _mm512_sub_epi8(v[i], _mm512_set1_epi8(32));
    return s;
}

APR_INLINE __m512i quad_q4_k(const void *block, int g, int i)
{
    const struct apr_strip_q4_k *b = block;
    return masked(apr_load512(b->qs[g / 2 * 8 + i]), g % 2 * 4, 15);
}

/* The 12 packed bytes of Q4_K and Q5_K, a word per row: apr_q4_k_scale_min for 16 rows. */
APR_INLINE struct bytes scales_45(const apr_words *w)
{
    __m512i a = apr_load512(w[0]), c = apr_load512(w[2]);
    return (struct bytes){{masked(a, 0, 63), with_bits(masked(c, 0, 15), a, 2, 0x30)}};
}

APR_INLINE struct bytes mins_45(const apr_words *w)
{
    __m512i b = apr_load512(w[1]), c = apr_load512(w[2]);
    return (struct bytes){{masked(b, 0, 63), with_bits(masked(c, 4, 15), b, 2, 0x30)}};
}

APR_INLINE struct bytes scales_q4_k(const void *block)
{
    return scales_45(((const struct apr_strip_q4_k *)block)->scales);
}

APR_INLINE struct bytes mins_q4_k(const void *block)
{
    return mins_45(((const struct apr_strip_q4_k *)block)->scales);
}

APR_INLINE __m512i quad_q5_k(const void *block, int g, int i)
{
    const struct apr_strip_q5_k *b = block;
    return with_bits(masked(apr_load512(b->qs[g / 2 * 8 + i]), g % 2 * 4, 15), apr_load512(b->qh[i]), g - 4,
                     16);
}

APR_INLINE struct bytes scales_q5_k(const void *block)
{
    return scales_45(((const struct apr_strip_q5_k *)block)->scales);
}

APR_INLINE struct bytes mins_q5_k(const void *block)
{
    return mins_45(((const struct apr_strip_q5_k *)block)->scales);
}

APR_INLINE __m512i quad_q6_k(const void *block, int g, int i)
{
    const struct apr_strip_q6_k *b = block;
    int step = g / 4 * 8 + i;
    return with_bits(masked(apr_load512(b->step[step].ql[g % 2]), g % 4 / 2 * 4, 15),
                     apr_load512(b->step[step].qh), g % 4 * 2 - 4, 0x30);
}

APR_INLINE struct bytes scales_q6_k(const void *block)
{
    const struct apr_strip_q6_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = apr_load512(b->scales[i]);
    return s;
}

#define KSTRIP(lower, offset_log2_, has_min_, n_subs_, n_shared_, mins_)                                     \
    static const struct kstrip k_##lower = {                                                                 \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .scales = scales_##lower,                                                                            \
        .mins = (mins_),                                                                                     \
        .offset_log2 = (offset_log2_),                                                                       \
        .n_subs = (n_subs_),                                                                                 \
        .n_shared = (n_shared_),                                                                             \
        .has_min = (has_min_),                                                                               \
    };
KSTRIP(q2_k, 0, true, 16, 4, mins_q2_k)
KSTRIP(q3_k, 2, false, 16, 4, NULL)
KSTRIP(q4_k, 0, true, 8, 2, mins_q4_k)
KSTRIP(q5_k, 0, true, 8, 2, mins_q5_k)
KSTRIP(q6_k, 5, false, 16, 4, NULL)
#undef KSTRIP

/* Sub-block s as a signed dword per row. */
APR_INLINE __m512i scale_of(const struct bytes *v, int s)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(v->at[s / 4], (unsigned)(24 - s % 4 * 8)), 24);
}

/* Sub-blocks 2 p and 2 p + 1 as a pair of signed words per row. */
APR_INLINE __m512i pair_of(const struct bytes *v, int p)
{
    int low = p % 2 * 2; /* bytes of each dword: 0, low, 0, low + 1 */
    const int order = (int)(0x00800080U | (unsigned)low << 8 | (unsigned)(low + 1) << 24);
    const __m512i base = _mm512_set4_epi32(0x0c000c00, 0x08000800, 0x04000400, 0);
    __m512i control = _mm512_or_si512(_mm512_set1_epi32(order), base);
    return _mm512_srai_epi16(_mm512_shuffle_epi8(v->at[p / 2], control), 8);
}

/* sum over sub-blocks of v * (sum of activations), for every token */
APR_INLINE void by_sums(const struct kstrip k, const struct bytes v, const struct apr_act256 *const *act,
                        int n_toks, __m512i *sum)
{
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) sum[t] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int p = 0; p < k.n_subs / 2; p++) {
        __m512i pair = pair_of(&v, p);
#pragma GCC unroll 8
        for (int t = 0; t < n_toks; t++) {
            const int16_t *sums = k.n_subs == 8 ? act[t]->sums32 : act[t]->sums;
            sum[t] = _mm512_dpwssd_epi32(sum[t], pair, apr_four512(sums + 2 * p));
        }
    }
}

APR_INLINE __m512 halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(apr_load(p));
}

/* The min term, onto acc, or the offset's into sum. */
APR_INLINE void begin_block(const struct kstrip k, const uint8_t *words, const uint8_t *d_dmin,
                            const struct bytes scales, const struct apr_act256 *const *act, int n_toks,
                            __m512i *sum, __m512 *acc)
{
    by_sums(k, k.has_min ? k.mins(words) : scales, act, n_toks, sum);
    __m512 dmin = k.has_min ? halves(d_dmin + APR_HALVES_BYTES) : _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) {
        if (k.has_min) {
            acc[t] = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, _mm512_set1_ps(act[t]->d)),
                                      _mm512_cvtepi32_ps(sum[t]), acc[t]);
            sum[t] = _mm512_setzero_si512();
        } else {
            sum[t] =
                _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum[t], (unsigned)k.offset_log2));
        }
    }
}

/* The n_groups (1, or n_shared) groups of 32 columns from group g0 on, in parts of a sub-block each, onto
 * sum. */
APR_INLINE void groups(const struct kstrip k, const uint8_t *words, const struct bytes scales, int g0,
                       int n_groups, const struct apr_act256 *const *act, int n_toks, __m512i *sum)
{
    const int n_quads = 64 / k.n_subs; /* of a sub-block */
#pragma GCC unroll 2
    for (int i0 = 0; i0 < 8; i0 += n_quads) {
        __m512i part[4][8];
#pragma GCC unroll 8
        for (int i = i0; i < i0 + n_quads; i++) {
#pragma GCC unroll 4
            for (int j = 0; j < n_groups; j++) {
                __m512i q = k.quad(words, g0 + j, i);
#pragma GCC unroll 8
                for (int t = 0; t < n_toks; t++) {
                    __m512i from = i == i0 ? _mm512_setzero_si512() : part[j][t];
                    part[j][t] = _mm512_dpbusd_epi32(from, q, apr_four512(act[t]->q + 32 * (g0 + j) + 4 * i));
                }
            }
        }
#pragma GCC unroll 4
        for (int j = 0; j < n_groups; j++) {
            __m512i scale = scale_of(&scales, ((g0 + j) * 8 + i0) / n_quads);
#pragma GCC unroll 8
            for (int t = 0; t < n_toks; t++)
                sum[t] = _mm512_add_epi32(sum[t], _mm512_mullo_epi32(part[j][t], scale));
        }
    }
}

/* One block of 16 rows times one block of every token, onto acc. */
APR_INLINE void block_step(const struct kstrip k, const uint8_t *b, const struct apr_act256 *const *act,
                           int n_toks, __m512 *acc)
{
    const size_t n_halves = k.has_min ? 2 : 1;
    const int n_groups = n_toks <= 4 ? k.n_shared : 1; /* more sums do not fit in registers */
    const uint8_t *words = b + apr_strip_off_words(b, n_halves);
    const uint8_t *d_dmin = b + apr_strip_off_halves(b, k.words_bytes);
    __m512i sum[8];
    const struct bytes scales = k.scales(words);
    begin_block(k, words, d_dmin, scales, act, n_toks, sum, acc);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g += n_groups) {
        groups(k, words, scales, g, n_groups, act, n_toks, sum);
    }
    __m512 d = halves(d_dmin);
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) {
        acc[t] =
            _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(act[t]->d)), _mm512_cvtepi32_ps(sum[t]), acc[t]);
    }
}

/* One strip. */
APR_INLINE void tile(const struct kstrip k, const uint8_t *strip, size_t n_blocks, const uint8_t *x,
                     size_t x_row_bytes, int n_toks, float *y, size_t y_stride)
{
    const struct apr_act256 *act[8];
    __m512 acc[8];
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) {
        act[t] = (const void *)(x + (size_t)t * x_row_bytes);
        acc[t] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < n_blocks; i++) {
        block_step(k, strip, act, n_toks, acc);
        strip += k.words_bytes + (k.has_min ? 2 : 1) * APR_HALVES_BYTES;
#pragma GCC unroll 8
        for (int t = 0; t < n_toks; t++) act[t]++;
    }
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) _mm512_storeu_ps(y + (size_t)t * y_stride, acc[t]);
}

APR_AVX512_STRIPS(q2_k, APR_QKK)
APR_AVX512_STRIPS(q3_k, APR_QKK)
APR_AVX512_STRIPS(q4_k, APR_QKK)
APR_AVX512_STRIPS(q5_k, APR_QKK)
APR_AVX512_STRIPS(q6_k, APR_QKK)

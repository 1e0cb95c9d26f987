/* Strips of Q2_K .. Q6_K times int8 activations.
 *
 * A vector holds 4 consecutive columns of 8 rows, half of what stands in the strip. Its unsigned bytes are
 * multiplied with one broadcast of 4 activations; pairs are summed in int16 as long as they fit, then
 * multiplied with the scale of their sub-block. A lane is a row: the float chain of kern.h runs in registers
 * from the first block to the last. A tile is 16 rows x 1 or 2 tokens, or 8 rows x 4 or 6. */
#include "avx2.h"

#include "avx2_strips.h"

/* Four vectors of bytes, a word per row: byte j of at[i] belongs to sub-block 4 i + j. */
struct bytes {
    __m256i at[4];
};
/* Columns 32 g + 4 i .. + 3 of the rows from r0 on; g and i are constants after inlining. */
typedef __m256i quad_fn(const void *block, size_t r0, int g, int i);
typedef struct bytes bytes_fn(const void *block, size_t r0);
struct kstrip {
    size_t words_bytes;
    quad_fn *quad;
    bytes_fn *scales, *mins;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    int n_subs;      /* sub-blocks: 8 of 32 or 16 of 16 columns */
    int n_steps;     /* so many sums of 2 * q_max * 127 fit in int16 */
    bool has_min;
};

/* Bits shift .. of every byte, shift negative to the left; mask: the bits after shifting. */
APR_INLINE __m256i bits(__m256i v, int shift, int mask)
{
    __m256i moved = shift > 0 ? _mm256_srli_epi16(v, shift) : shift < 0 ? _mm256_slli_epi16(v, -shift) : v;
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

APR_INLINE __m256i quad_q2_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q2_k *b = block;
    return bits(apr_load(b->qs[g / 4 * 8 + i] + r0), g % 4 * 2, 3);
}

APR_INLINE struct bytes scales_q2_k(const void *block, size_t r0)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = bits(apr_load(b->scales[i] + r0), 0, 15);
    return s;
}

APR_INLINE struct bytes mins_q2_k(const void *block, size_t r0)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = bits(apr_load(b->scales[i] + r0), 4, 15);
    return s;
}

APR_INLINE __m256i quad_q3_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q3_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs[g / 4 * 8 + i] + r0), g % 4 * 2, 3),
                           bits(apr_load(b->hmask[i] + r0), g - 2, 4));
}

APR_INLINE struct bytes scales_q3_k(const void *block, size_t r0)
{
    const struct apr_strip_q3_k *b = block;
    __m256i l0 = apr_load(b->scales[0] + r0), l1 = apr_load(b->scales[1] + r0),
            h = apr_load(b->scales[2] + r0);
    __m256i low[4] = {bits(l0, 0, 15), bits(l1, 0, 15), bits(l0, 4, 15), bits(l1, 4, 15)};
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        s.at[i] = _mm256_sub_epi8(_mm256_or_si256(low[i], bits(h, 2 * i - 4, 0x30)), _mm256_set1_epi8(32));
    return s;
}

APR_INLINE __m256i quad_q4_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q4_k *b = block;
    return bits(apr_load(b->qs[g / 2 * 8 + i] + r0), g % 2 * 4, 15);
}

/* The 12 packed bytes of Q4_K and Q5_K, a word per row: apr_q4_k_scale_min for 8 rows. */
APR_INLINE struct bytes scales_45(const apr_words *w, size_t r0)
{
    __m256i a = apr_load(w[0] + r0), c = apr_load(w[2] + r0);
    return (struct bytes){{bits(a, 0, 63), _mm256_or_si256(bits(c, 0, 15), bits(a, 2, 0x30))}};
}

APR_INLINE struct bytes mins_45(const apr_words *w, size_t r0)
{
    __m256i b = apr_load(w[1] + r0), c = apr_load(w[2] + r0);
    return (struct bytes){{bits(b, 0, 63), _mm256_or_si256(bits(c, 4, 15), bits(b, 2, 0x30))}};
}

APR_INLINE struct bytes scales_q4_k(const void *block, size_t r0)
{
    return scales_45(((const struct apr_strip_q4_k *)block)->scales, r0);
}

APR_INLINE struct bytes mins_q4_k(const void *block, size_t r0)
{
    return mins_45(((const struct apr_strip_q4_k *)block)->scales, r0);
}

APR_INLINE __m256i quad_q5_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q5_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs[g / 2 * 8 + i] + r0), g % 2 * 4, 15),
                           bits(apr_load(b->qh[i] + r0), g - 4, 16));
}

APR_INLINE struct bytes scales_q5_k(const void *block, size_t r0)
{
    return scales_45(((const struct apr_strip_q5_k *)block)->scales, r0);
}

APR_INLINE struct bytes mins_q5_k(const void *block, size_t r0)
{
    return mins_45(((const struct apr_strip_q5_k *)block)->scales, r0);
}

APR_INLINE __m256i quad_q6_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q6_k *b = block;
    int step = g / 4 * 8 + i;
    return _mm256_or_si256(bits(apr_load(b->step[step].ql[g % 2] + r0), g % 4 / 2 * 4, 15),
                           bits(apr_load(b->step[step].qh + r0), g % 4 * 2 - 4, 0x30));
}

APR_INLINE struct bytes scales_q6_k(const void *block, size_t r0)
{
    const struct apr_strip_q6_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = apr_load(b->scales[i] + r0);
    return s;
}

#define KSTRIP(lower, offset_log2_, has_min_, n_subs_, n_steps_, mins_)                                      \
    static const struct kstrip k_##lower = {                                                                 \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .scales = scales_##lower,                                                                            \
        .mins = (mins_),                                                                                     \
        .offset_log2 = (offset_log2_),                                                                       \
        .n_subs = (n_subs_),                                                                                 \
        .n_steps = (n_steps_),                                                                               \
        .has_min = (has_min_),                                                                               \
    };
KSTRIP(q2_k, 0, true, 16, 4, mins_q2_k)
KSTRIP(q3_k, 2, false, 16, 4, NULL)
KSTRIP(q4_k, 0, true, 8, 8, mins_q4_k)
KSTRIP(q5_k, 0, true, 8, 4, mins_q5_k)
KSTRIP(q6_k, 5, false, 16, 2, NULL)
#undef KSTRIP

/* Sub-blocks low and high, bytes of one dword, as a pair of signed words per row. */
APR_INLINE __m256i pair_of(__m256i v, int low, int high)
{
    const int order = (int)(0x00800080U | (unsigned)low << 8 | (unsigned)high << 24);
    const __m256i base =
        _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0, 0x04000400, 0x08000800, 0x0c000c00);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(v, _mm256_or_si256(_mm256_set1_epi32(order), base)), 8);
}

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

/* One block of 8 rows from r0 on times one block of every token, onto acc. */
APR_INLINE void block_step(const struct kstrip k, const uint8_t *b, size_t r0,
                           const struct apr_act256 *const *act, int n_toks, __m256 *acc)
{
    const size_t n_halves = k.has_min ? 2 : 1, n_bytes = k.words_bytes + n_halves * APR_HALVES_BYTES;
    const uint8_t *words = b + apr_strip_off_words(b, n_halves);
    const uint8_t *d_dmin = b + apr_strip_off_halves(b, k.words_bytes) + 2 * r0;
    __m256 dmin = k.has_min ? _mm256_cvtph_ps(apr_load128(d_dmin + APR_HALVES_BYTES)) : _mm256_setzero_ps();
    __m256i sum[6];
    const struct bytes scales = k.scales(words, r0);
    begin_block(k, k.has_min ? k.mins(words, r0) : scales, dmin, act, n_toks, sum, acc);
#pragma GCC unroll 32
    for (int c = 0; c < 64; c += k.n_steps) {
        size_t c0 = 64 * r0 / 8 + (size_t)c,
               c1 = c0 + (size_t)k.n_steps; /* of 128: both halves fetch a half */
        if (n_toks <= 2) apr_strip_prefetch(b, n_bytes * c0 / 128, n_bytes * c1 / 128);
        __m256i part[6];
#pragma GCC unroll 8
        for (int i = 0; i < k.n_steps; i++) {
            __m256i q = k.quad(words, r0, (c + i) / 8, (c + i) % 8);
#pragma GCC unroll 6
            for (int t = 0; t < n_toks; t++) {
                __m256i v = _mm256_maddubs_epi16(q, apr_avx2_four(act[t]->q + 4 * (c + i)));
                part[t] = i ? _mm256_add_epi16(part[t], v) : v;
                /* keeps the sums in registers: without it the compiler reorders the steps and spills */
                __asm__("" : "+x"(part[t]));
            }
        }
        int s = c * k.n_subs / 64;
        __m256i scale = pair_of(scales.at[s / 4], s % 4, s % 4);
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(part[t], scale));
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
        for (size_t i = 0; i < n_blocks; i++, b += k.words_bytes + (k.has_min ? 2 : 1) * APR_HALVES_BYTES) {
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

APR_STRIP_TYPE(q2_k, APR_QKK)
APR_STRIP_TYPE(q3_k, APR_QKK)
APR_STRIP_TYPE(q4_k, APR_QKK)
APR_STRIP_TYPE(q5_k, APR_QKK)
APR_STRIP_TYPE(q6_k, APR_QKK)

/* Strips of Q4_0 .. Q8_0 times int8 activations: as avx512_strips256.c with one scale for each 32 columns. */
#include "avx512.h"

#include "avx512_vec.h"

/* Columns 4 i .. 4 i + 3 as unsigned bytes; i is a constant after inlining. */
typedef __m512i quad_fn(const void *block, int i);
struct strip32 {
    size_t words_bytes;
    quad_fn *quad;
    int offset_log2; /* the value is d * (q - 2^offset_log2); 0: no offset */
    bool has_m;      /* the value is d * q + m */
};

APR_INLINE __m512i nibbles(const apr_words *qs, int i)
{
    __m512i v = apr_load512(qs[i % 4]);
    return _mm512_and_si512(apr_shift512(v, i < 4 ? 0 : 4), _mm512_set1_epi8(15));
}

/* The fifth bits stand in the bit i of their bytes. */
APR_INLINE __m512i with_fifths(__m512i low, const apr_words *qh, int i)
{
    __m512i v = apr_load512(*qh);
    v = apr_shift512(v, i - 4);
    return _mm512_ternarylogic_epi32(low, v, _mm512_set1_epi8(16), 0xf8); /* low | (v & 16) */
}

APR_INLINE __m512i quad_q4_0(const void *block, int i)
{
    return nibbles(((const struct apr_strip_q4_0 *)block)->qs, i);
}

APR_INLINE __m512i quad_q4_1(const void *block, int i)
{
    return nibbles(((const struct apr_strip_q4_1 *)block)->qs, i);
}

APR_INLINE __m512i quad_q5_0(const void *block, int i)
{
    const struct apr_strip_q5_0 *b = block;
    return with_fifths(nibbles(b->qs, i), &b->qh, i);
}

APR_INLINE __m512i quad_q5_1(const void *block, int i)
{
    const struct apr_strip_q5_1 *b = block;
    return with_fifths(nibbles(b->qs, i), &b->qh, i);
}

/* Signed in the file; 128 more is unsigned. */
APR_INLINE __m512i quad_q8_0(const void *block, int i)
{
    const struct apr_strip_q8_0 *b = block;
    return _mm512_xor_si512(apr_load512(b->qs[i]), _mm512_set1_epi8((char)0x80));
}

#define STRIP32(lower, offset_log2_, has_m_)                                                                 \
    static const struct strip32 k_##lower = {                                                                \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .offset_log2 = (offset_log2_),                                                                       \
        .has_m = (has_m_),                                                                                   \
    };
STRIP32(q4_0, 3, false)
STRIP32(q4_1, 0, true)
STRIP32(q5_0, 4, false)
STRIP32(q5_1, 0, true)
STRIP32(q8_0, 7, false)
#undef STRIP32

/* One block of 16 rows times one block of every token, onto acc. */
APR_INLINE void block_step(const struct strip32 k, const uint8_t *b, const struct apr_act32 *const *act,
                           int n_toks, __m512 *acc)
{
    const size_t n_halves = k.has_m ? 2 : 1;
    const uint8_t *words = b + apr_strip_off_words(b, n_halves);
    const uint8_t *d_m = b + apr_strip_off_halves(b, k.words_bytes);
    __m512i sum[8];
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) { /* -offset * sum of activations, or 0 */
        sum[t] =
            k.offset_log2 ? _mm512_set1_epi32(-act[t]->sum * (1 << k.offset_log2)) : _mm512_setzero_si512();
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512i q = k.quad(words, i);
#pragma GCC unroll 8
        for (int t = 0; t < n_toks; t++)
            sum[t] = _mm512_dpbusd_epi32(sum[t], q, apr_four512(act[t]->q + 4 * i));
    }
    __m512 d = _mm512_cvtph_ps(apr_load(d_m));
    __m512 m = k.has_m ? _mm512_cvtph_ps(apr_load(d_m + APR_HALVES_BYTES)) : d;
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) {
        __m512 dy = _mm512_set1_ps(act[t]->d);
        if (k.has_m) {
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(m, dy), _mm512_cvtepi32_ps(_mm512_set1_epi32(act[t]->sum)),
                                     acc[t]);
        }
        acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(d, dy), _mm512_cvtepi32_ps(sum[t]), acc[t]);
    }
}

/* One strip. */
APR_INLINE void tile(const struct strip32 k, const uint8_t *strip, size_t n_blocks, const uint8_t *x,
                     size_t x_row_bytes, int n_toks, float *y, size_t y_stride)
{
    const struct apr_act32 *act[8];
    __m512 acc[8];
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) {
        act[t] = (const void *)(x + (size_t)t * x_row_bytes);
        acc[t] = _mm512_setzero_ps();
    }
    const size_t n_bytes = k.words_bytes + (k.has_m ? 2 : 1) * APR_HALVES_BYTES;
    for (size_t i = 0; i < n_blocks; i++, strip += n_bytes) {
        if (n_toks > 1) apr_strip_fetch_far(strip, n_bytes);
        block_step(k, strip, act, n_toks, acc);
#pragma GCC unroll 8
        for (int t = 0; t < n_toks; t++) act[t]++;
    }
#pragma GCC unroll 8
    for (int t = 0; t < n_toks; t++) _mm512_storeu_ps(y + (size_t)t * y_stride, acc[t]);
}

APR_AVX512_STRIPS(q4_0, APR_QK)
APR_AVX512_STRIPS(q4_1, APR_QK)
APR_AVX512_STRIPS(q5_0, APR_QK)
APR_AVX512_STRIPS(q5_1, APR_QK)
APR_AVX512_STRIPS(q8_0, APR_QK)

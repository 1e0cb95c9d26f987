/* Rows of plain numbers and of the APR-native types to floats, the bits of lib/quant; floats to BF16. */
#include "avx2.h"

#include <math.h>

#include "../quant/blocks.h"
#include "../quant/types.h"
#include "avx2_vec.h"

void apr_avx2_f16_row_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const uint8_t *p = blocks;
    for (; n_elems >= 8; n_elems -= 8, p += 16, x += 8) _mm256_storeu_ps(x, _mm256_cvtph_ps(apr_load128(p)));
    apr_f16_row_to_f32(p, x, n_elems);
}

void apr_avx2_bf16_row_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const uint8_t *p = blocks;
    for (; n_elems >= 8; n_elems -= 8, p += 16, x += 8) {
        apr_store(x, _mm256_slli_epi32(_mm256_cvtepu16_epi32(apr_load128(p)), 16));
    }
    apr_bf16_row_to_f32(p, x, n_elems);
}

void apr_avx2_f64_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const uint8_t *p = blocks;
    for (; n_elems >= 4; n_elems -= 4, p += 32, x += 4) {
        _mm_storeu_ps(x, _mm256_cvtpd_ps(_mm256_castsi256_pd(apr_load(p))));
    }
    apr_f64_to_f32(p, x, n_elems);
}

/* (float)q * d of the 8 bytes at q */
APR_INLINE __m256 eight(const void *q, __m256 d)
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)q);
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), d);
}

void apr_avx2_i8_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const int8_t *p = blocks;
    for (; n_elems >= 8; n_elems -= 8, p += 8, x += 8) _mm256_storeu_ps(x, eight(p, _mm256_set1_ps(1)));
    apr_i8_to_f32(p, x, n_elems);
}

/* The scale is of the tensor; n values at q. A scale that is no number counts as 0. */
void apr_avx2_native_q8_to_f32(float scale, const int8_t *q, float *x, size_t n)
{
    float d = isfinite(scale) ? scale : 0;
    for (; n >= 8; n -= 8, q += 8, x += 8) _mm256_storeu_ps(x, eight(q, _mm256_set1_ps(d)));
    for (size_t i = 0; i < n; i++) x[i] = (float)q[i] * d;
}

void apr_avx2_native_q8_row_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_head_native_q8 *head = blocks;
    apr_avx2_native_q8_to_f32(head->scale, (const int8_t *)(head + 1), x, n_elems);
}

/* Scales that are no number or below the smallest normal half count as 0. */
void apr_avx2_native_q4_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_native_q4 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, x += APR_QK, b++) {
        float scale = _cvtsh_ss(b->d);
        __m256 d = _mm256_set1_ps(isfinite(scale) && fabsf(scale) >= 0x1p-14f ? scale : 0);
        __m128i v = apr_load128(b->qs), nibble = _mm_set1_epi8(15), eights = _mm_set1_epi8(8);
        __m128i even = _mm_sub_epi8(_mm_and_si128(v, nibble), eights);
        __m128i odd = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(v, 4), nibble), eights);
        int8_t q[APR_QK];
        _mm_storeu_si128((__m128i *)(void *)q, _mm_unpacklo_epi8(even, odd));
        _mm_storeu_si128((__m128i *)(void *)(q + 16), _mm_unpackhi_epi8(even, odd));
        for (int j = 0; j < APR_QK; j += 8) _mm256_storeu_ps(x + j, eight(q + j, d));
    }
    apr_native_q4_to_f32(b, x, n_elems);
}

/* As apr_f32_to_bf16, in lanes of 32 bits. */
APR_INLINE __m256i to_bf16(__m256 x)
{
    __m256i u = _mm256_castps_si256(x), top = _mm256_srli_epi32(u, 16);
    __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(64));
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}

APR_INLINE void store_words(uint16_t *p, __m256i v)
{
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storeu_si128((__m128i *)(void *)p, words);
}

void apr_avx2_split_bf16(const float *x, uint16_t *high, uint16_t *low, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 v = _mm256_loadu_ps(x + k);
        __m256i h = to_bf16(v);
        __m256 wide = _mm256_castsi256_ps(_mm256_slli_epi32(h, 16)), rest = _mm256_sub_ps(v, wide);
        __m256 finite = _mm256_cmp_ps(_mm256_sub_ps(wide, wide), _mm256_setzero_ps(), _CMP_EQ_OQ);
        store_words(high + k, h);
        store_words(low + k, to_bf16(_mm256_and_ps(rest, finite)));
    }
    for (; k < n; k++) {
        high[k] = apr_f32_to_bf16(x[k]);
        float wide = apr_bf16_to_f32(high[k]);
        low[k] = isfinite(wide) ? apr_f32_to_bf16(x[k] - wide) : 0;
    }
}

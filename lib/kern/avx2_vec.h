/* Small vector helpers of the AVX2 files: reductions in the fixed order and the shapes of integer tiles.
 *
 * Only for files compiled with -mavx2 -mfma -mf16c. No state, no ownership.
 *
 *     __m256i lanes = apr_avx2_sums(v); // lane i = sum of v[i]
 */
#ifndef APR_KERN_AVX2_VEC_H
#define APR_KERN_AVX2_VEC_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../quant/quant.h"

#define APR_INLINE static inline __attribute__((always_inline))

APR_INLINE __m256i apr_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

APR_INLINE __m128i apr_load128(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

APR_INLINE void apr_store(void *p, __m256i v)
{
    _mm256_storeu_si256((__m256i *)p, v);
}

APR_INLINE uint16_t apr_u16_at(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* The f16 at byte off of the block of every row of a tile, widened, lane = row * n_toks + token. Put together
 * in integer registers: eight small stores and one large load would wait for each other. */
APR_INLINE __m256 apr_avx2_halves(const uint8_t *const *block, size_t off, int n_toks)
{
    uint64_t h[2] = {0};
    if (n_toks == 8) return _mm256_cvtph_ps(_mm_set1_epi16((short)apr_u16_at(block[0] + off)));
#pragma GCC unroll 8
    for (int l = 0; l < 8; l++) h[l / 4] |= (uint64_t)apr_u16_at(block[l / n_toks] + off) << l % 4 * 16;
    return _mm256_cvtph_ps(_mm_set_epi64x((int64_t)h[1], (int64_t)h[0]));
}

/* Fetches n_bytes from off on into the second cache. Decode walks the rows of a tile side by side, which the
 * hardware prefetcher does not follow; the next tile is fetched in the order of memory instead. An address
 * past the end is harmless: a prefetch never faults. */
APR_INLINE void apr_avx2_prefetch(const uint8_t *next, size_t off, size_t n_bytes)
{
    for (size_t b = 0; b < n_bytes; b += 64) {
        _mm_prefetch((const char *)((uintptr_t)next + off + b), _MM_HINT_T1);
    }
}

/* Lane i of the result is the sum of the 8 lanes of v[i]. */
APR_INLINE __m256i apr_avx2_sums(const __m256i v[8])
{
    __m256i v03 = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    __m256i v47 = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(v03, v47, 0x20),
                            _mm256_permute2x128_si256(v03, v47, 0x31));
}

/* The tree of kern.h: ((0+4)+(2+6)) + ((1+5)+(3+7)). */
APR_INLINE float apr_avx2_tree(__m256 v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* The tree of each of four vectors. */
APR_INLINE __m128 apr_avx2_trees(__m256 v0, __m256 v1, __m256 v2, __m256 v3)
{
    __m128 a0 = _mm_add_ps(_mm256_castps256_ps128(v0), _mm256_extractf128_ps(v0, 1));
    __m128 a1 = _mm_add_ps(_mm256_castps256_ps128(v1), _mm256_extractf128_ps(v1, 1));
    __m128 a2 = _mm_add_ps(_mm256_castps256_ps128(v2), _mm256_extractf128_ps(v2, 1));
    __m128 a3 = _mm_add_ps(_mm256_castps256_ps128(v3), _mm256_extractf128_ps(v3, 1));
    __m128 b01 = _mm_add_ps(_mm_unpacklo_ps(a0, a1), _mm_unpackhi_ps(a0, a1));
    __m128 b23 = _mm_add_ps(_mm_unpacklo_ps(a2, a3), _mm_unpackhi_ps(a2, a3));
    return _mm_add_ps(_mm_movelh_ps(b01, b23), _mm_movehl_ps(b23, b01));
}

/* The tree of each of n rows of 8 lanes; n is a multiple of 4. */
APR_INLINE void apr_avx2_row_trees(const float *lanes, size_t n, float *y)
{
    for (size_t r = 0; r < n; r += 4, lanes += 32)
        _mm_storeu_ps(y + r, apr_avx2_trees(_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8),
                                            _mm256_loadu_ps(lanes + 16), _mm256_loadu_ps(lanes + 24)));
}

/* Eight vectors of dwords: v[i] lane j becomes v[j] lane i. */
APR_INLINE void apr_avx2_transpose(__m256i v[8])
{
    __m256i a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

/* The four bytes at p in every lane. */
APR_INLINE __m256i apr_avx2_four(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Lanes k < n are all ones. n <= 8 */
APR_INLINE __m256i apr_avx2_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#endif

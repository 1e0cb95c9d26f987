/* Small helpers of the AVX-512 files, and the functions of the table for strips.
 *
 * Only for files compiled with the flags of ISA_avx512. No state, no ownership.
 *
 *     part = _mm512_dpbusd_epi32(part, apr_load512(strip), apr_four512(act->q));
 */
#ifndef APR_KERN_AVX512_VEC_H
#define APR_KERN_AVX512_VEC_H

#include "avx2_vec.h"
#include "strip_walk.h"
#include "strips.h"

APR_INLINE __m512i apr_load512(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* The four bytes at p in every lane. */
APR_INLINE __m512i apr_four512(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

/* Every 16-bit word shifted by n, negative to the left. The intrinsics take a count whose sign differs from
 * compiler to compiler. */
APR_INLINE __m512i apr_shift512(__m512i v, int n)
{
    if (n == 0) return v;
    return n > 0 ? (__m512i)((__v32hu)v >> (uint16_t)n) : (__m512i)((__v32hu)v << (uint16_t)-n);
}

/* The trees of kern.h over the lower and the upper lanes of a and of b. */
APR_INLINE __m128 apr_avx512_trees(__m512 a, __m512 b)
{
    return apr_avx2_trees(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1), _mm512_castps512_ps256(b),
                          _mm512_extractf32x8_ps(b, 1));
}

#define APR_AVX512_TILE(lower, n)                                                                            \
    static void lower##_##n(const uint8_t *strip, size_t n_blocks, const uint8_t *x, size_t x_row_bytes,     \
                            float *y, size_t y_stride)                                                       \
    {                                                                                                        \
        tile(k_##lower, strip, n_blocks, x, x_row_bytes, n, y, y_stride);                                    \
    }
/* The table's function of a type whose k_type and tile() stand in the file. */
#define APR_AVX512_STRIPS(lower, block_elems)                                                                \
    APR_AVX512_TILE(lower, 1)                                                                                \
    APR_AVX512_TILE(lower, 2)                                                                                \
    APR_AVX512_TILE(lower, 3)                                                                                \
    APR_AVX512_TILE(lower, 4)                                                                                \
    APR_AVX512_TILE(lower, 5)                                                                                \
    APR_AVX512_TILE(lower, 6)                                                                                \
    APR_AVX512_TILE(lower, 7)                                                                                \
    APR_AVX512_TILE(lower, 8)                                                                                \
    void apr_avx512_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,          \
                                   const void *x, size_t x_row_bytes, size_t n_toks, float *y,               \
                                   size_t y_stride, void *scratch)                                           \
    {                                                                                                        \
        static const struct apr_strip_tile tiles[] = {{8, lower##_8}, {7, lower##_7}, {6, lower##_6},        \
                                                      {5, lower##_5}, {4, lower##_4}, {3, lower##_3},        \
                                                      {2, lower##_2}, {1, lower##_1}};                       \
        (void)scratch;                                                                                       \
        apr_strip_walk(tiles, w, w_row_bytes, n_rows, n_cols / (block_elems), x, x_row_bytes, n_toks, y,     \
                       y_stride);                                                                            \
    }

#endif

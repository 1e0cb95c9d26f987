/* The fit for AVX2: the same vectors in registers. */
#include "fit.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "grids.h"

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t m8 __attribute__((vector_size(32)));

static inline v8 v8_select(m8 mask, v8 a, v8 b)
{
    return _mm256_blendv_ps(b, a, (__m256)mask);
}

static inline v8 v8_max(v8 a, v8 b)
{
    return _mm256_max_ps(a, b); /* a > b ? a : b, as in fit_base.c */
}

static inline v8 v8_min(v8 a, v8 b)
{
    return _mm256_min_ps(a, b);
}

static inline v8 v8_sqrt(v8 a)
{
    return _mm256_sqrt_ps(a);
}

static inline v8 v8_fma(v8 a, v8 b, v8 c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline v8 v8_round(v8 a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline bool v8_any(m8 mask)
{
    return _mm256_movemask_ps((__m256)mask) != 0;
}

static inline v8 v8_lookup(v8 table, m8 index)
{
    return _mm256_permutevar8x32_ps(table, (__m256i)index);
}

/* Pairs of rows are interleaved within the 128-bit halves, then pairs of pairs, then the halves change
 * places.
 */
static inline void v8_transpose(v8 *r)
{
    __m256 a0 = _mm256_unpacklo_ps(r[0], r[1]), a1 = _mm256_unpackhi_ps(r[0], r[1]);
    __m256 a2 = _mm256_unpacklo_ps(r[2], r[3]), a3 = _mm256_unpackhi_ps(r[2], r[3]);
    __m256 a4 = _mm256_unpacklo_ps(r[4], r[5]), a5 = _mm256_unpackhi_ps(r[4], r[5]);
    __m256 a6 = _mm256_unpacklo_ps(r[6], r[7]), a7 = _mm256_unpackhi_ps(r[6], r[7]);
    __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
    __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
    __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
    __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
    r[0] = _mm256_permute2f128_ps(b0, b4, 0x20), r[4] = _mm256_permute2f128_ps(b0, b4, 0x31);
    r[1] = _mm256_permute2f128_ps(b1, b5, 0x20), r[5] = _mm256_permute2f128_ps(b1, b5, 0x31);
    r[2] = _mm256_permute2f128_ps(b2, b6, 0x20), r[6] = _mm256_permute2f128_ps(b2, b6, 0x31);
    r[3] = _mm256_permute2f128_ps(b3, b7, 0x20), r[7] = _mm256_permute2f128_ps(b3, b7, 0x31);
}

#define FIT_NAME apr_fit_avx2
#define FIT_TEXT "avx2"
#include "fit_body.h"

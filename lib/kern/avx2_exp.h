/* exp of eight values, for the files of the AVX2 table: the steps of apr_scalar_exp.
 *
 *     __m256 e = apr_avx2_exp(x);
 */
#ifndef APR_KERN_AVX2_EXP_H
#define APR_KERN_AVX2_EXP_H

#include <math.h>

#include "avx2_vec.h"
#include "exp.h"

APR_INLINE __m256 apr_avx2_exp(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(APR_EXP_MAGIC);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(APR_EXP_LOG2E), magic);
    __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-APR_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-APR_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(r, _mm256_set1_ps(APR_EXP_P4), _mm256_set1_ps(APR_EXP_P3));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(APR_EXP_P2));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(APR_EXP_P1));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(APR_EXP_P0));
    p = _mm256_add_ps(_mm256_set1_ps(1), _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r));
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
    __m256 y = _mm256_castsi256_ps(bits);
    y = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(APR_EXP_MIN), _CMP_LT_OQ), y);
    y = _mm256_blendv_ps(y, _mm256_set1_ps(INFINITY),
                         _mm256_cmp_ps(x, _mm256_set1_ps(APR_EXP_MAX), _CMP_GT_OQ));
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

#endif

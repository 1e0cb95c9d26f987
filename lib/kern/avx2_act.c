/* Gates and soft caps. The formulas are in act.h. */
#include "act.h"
#include "avx2.h"
#include "avx2_exp.h"
#include "scalar.h"

APR_INLINE __m256 set1(float f)
{
    return _mm256_set1_ps(f);
}

APR_INLINE __m256 abs8(__m256 x)
{
    return _mm256_andnot_ps(set1(-0.0f), x);
}

/* x / (1 + exp(u)) */
APR_INLINE __m256 gate8(__m256 x, __m256 u)
{
    return _mm256_div_ps(x, _mm256_add_ps(set1(1), apr_avx2_exp(u)));
}

void apr_avx2_silu(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 v = _mm256_loadu_ps(x + k);
        _mm256_storeu_ps(y + k, gate8(v, _mm256_xor_ps(v, set1(-0.0f))));
    }
    apr_scalar_silu(x + k, y + k, n - k);
}

APR_INLINE __m256 gelu8(__m256 x)
{
    __m256 a = abs8(x), t = _mm256_div_ps(set1(1), _mm256_fmadd_ps(a, set1(0.25f), set1(1)));
    __m256 p = _mm256_fmadd_ps(t, set1(APR_GELU_Q9), set1(APR_GELU_Q8));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q7));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q6));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q5));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q4));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q3));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q2));
    p = _mm256_fmadd_ps(t, p, set1(APR_GELU_Q1));
    __m256 e = apr_avx2_exp(_mm256_mul_ps(_mm256_mul_ps(a, set1(-0.5f)), a));
    __m256 q = _mm256_mul_ps(_mm256_mul_ps(p, t), e);
    __m256 is_negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_mul_ps(x, _mm256_blendv_ps(_mm256_sub_ps(set1(1), q), q, is_negative));
}

void apr_avx2_gelu(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) _mm256_storeu_ps(y + k, gelu8(_mm256_loadu_ps(x + k)));
    apr_scalar_gelu(x + k, y + k, n - k);
}

void apr_avx2_gelu_tanh(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 v = _mm256_loadu_ps(x + k);
        __m256 u = _mm256_fmadd_ps(_mm256_mul_ps(v, v), set1(APR_GELU_TANH_3), set1(APR_GELU_TANH_1));
        _mm256_storeu_ps(y + k, gate8(v, _mm256_mul_ps(u, v)));
    }
    apr_scalar_gelu_tanh(x + k, y + k, n - k);
}

void apr_avx2_relu(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 v = _mm256_loadu_ps(x + k);
        __m256 is_negative = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ);
        _mm256_storeu_ps(y + k, _mm256_andnot_ps(is_negative, v));
    }
    apr_scalar_relu(x + k, y + k, n - k);
}

APR_INLINE __m256 tanh8(__m256 y)
{
    __m256 a = abs8(y), z = _mm256_mul_ps(y, y);
    __m256 p = _mm256_fmadd_ps(z, set1(APR_TANH_P4), set1(APR_TANH_P3));
    p = _mm256_fmadd_ps(z, p, set1(APR_TANH_P2));
    p = _mm256_fmadd_ps(z, p, set1(APR_TANH_P1));
    p = _mm256_fmadd_ps(z, p, set1(APR_TANH_P0));
    __m256 near = _mm256_fmadd_ps(_mm256_mul_ps(y, z), p, y);
    __m256 e = apr_avx2_exp(_mm256_mul_ps(set1(2), a));
    __m256 far = _mm256_sub_ps(set1(1), _mm256_div_ps(set1(2), _mm256_add_ps(e, set1(1))));
    far = _mm256_or_ps(abs8(far), _mm256_and_ps(y, set1(-0.0f)));
    return _mm256_blendv_ps(far, near, _mm256_cmp_ps(a, set1(APR_TANH_CUT), _CMP_LT_OQ));
}

void apr_avx2_softcap(float *x, float cap, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 t = tanh8(_mm256_div_ps(_mm256_loadu_ps(x + k), set1(cap)));
        _mm256_storeu_ps(x + k, _mm256_mul_ps(set1(cap), t));
    }
    apr_scalar_softcap(x + k, cap, n - k);
}

/* One vector at a time: activations to int8, norms, gates, softmax, statistics. */
#include "avx2.h"

#include <math.h>
#include <string.h>

#include "avx2_exp.h"
#include "scalar.h"

APR_INLINE uint32_t max_lane(__m256i v)
{
    __m128i a = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}

/* Bits of the largest |x| of n values: they order as the values do, NaN above infinity. */
APR_INLINE uint32_t amax_bits(const float *x, size_t n)
{
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i a = _mm256_setzero_si256(), b = a;
    for (size_t i = 0; i < n; i += 16) {
        a = _mm256_max_epi32(a, _mm256_and_si256(apr_load(x + i), abs));
        b = _mm256_max_epi32(b, _mm256_and_si256(apr_load(x + i + 8), abs));
    }
    return max_lane(_mm256_max_epi32(a, b));
}

/* As act_scale of scalar_elem.c. */
APR_INLINE float act_scale(uint32_t amax, float *d)
{
    float a;
    memcpy(&a, &amax, sizeof a);
    if (amax >= 0x7f800000U) {
        *d = NAN;
        return 0;
    }
    *d = a >= 0x1p-100f ? a / 127 : 0;
    return a >= 0x1p-100f ? 127 / a : 0;
}

/* 32 values to bytes; 0 where factor is 0, whatever x is */
APR_INLINE __m256i to_q32(const float *x, float factor)
{
    if (factor == 0) return _mm256_setzero_si256();
    __m256 f = _mm256_set1_ps(factor);
    __m256i v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), f));
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Lane i: sum of bytes 4 i .. 4 i + 3 */
APR_INLINE __m256i sums_of_4(__m256i q)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
}

void apr_avx2_to_act32(const float *x, struct apr_act32 *a, size_t n)
{
    for (; n >= 32; n -= 32, x += 32, a++) {
        __m256i q = to_q32(x, act_scale(amax_bits(x, 32), &a->d));
        _mm256_storeu_si256((__m256i *)(void *)a->q, q);
        __m256i sums = sums_of_4(q);
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        a->sum = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    }
}

void apr_avx2_to_act256(const float *x, struct apr_act256 *a, size_t n)
{
    for (; n >= 256; n -= 256, x += 256, a++) {
        float factor = act_scale(amax_bits(x, 256), &a->d);
        __m256i s[8];
        for (int g = 0; g < 8; g++) {
            __m256i q = to_q32(x + 32 * g, factor);
            _mm256_storeu_si256((__m256i *)(void *)(a->q + 32 * g), q);
            s[g] = sums_of_4(q); /* low half: sub-block 2 g, high half: 2 g + 1 */
        }
        __m256i s03 = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
        __m256i s47 = _mm256_hadd_epi32(_mm256_hadd_epi32(s[4], s[5]), _mm256_hadd_epi32(s[6], s[7]));
        __m256i by_parity = _mm256_packs_epi32(s03, s47); /* low half: even sub-blocks */
        __m128i even = _mm256_castsi256_si128(by_parity), odd = _mm256_extracti128_si256(by_parity, 1);
        _mm_storeu_si128((__m128i *)(void *)a->sums, _mm_unpacklo_epi16(even, odd));
        _mm_storeu_si128((__m128i *)(void *)(a->sums + 8), _mm_unpackhi_epi16(even, odd));
        _mm_storeu_si128((__m128i *)(void *)a->sums32, _mm_add_epi16(even, odd));
        memset(a->unused, 0, sizeof a->unused);
    }
}

void apr_avx2_rmsnorm(const float *x, const float *w, float eps, float *y, size_t n)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256d a = _mm256_cvtps_pd(_mm_loadu_ps(x + k)), b = _mm256_cvtps_pd(_mm_loadu_ps(x + k + 4));
        low = _mm256_fmadd_pd(a, a, low);
        high = _mm256_fmadd_pd(b, b, high);
    }
    double lane[8];
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    for (; k < n; k++) lane[k % 8] += (double)x[k] * (double)x[k];
    float s = (float)(1 / sqrt(apr_scalar_tree_f64(lane) / (double)n + (double)eps));
    for (k = 0; k + 8 <= n; k += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(s));
        _mm256_storeu_ps(y + k, _mm256_mul_ps(v, _mm256_loadu_ps(w + k)));
    }
    for (; k < n; k++) y[k] = x[k] * s * w[k];
}

/* Four values as double, less mean. */
APR_INLINE __m256d centred(const float *x, __m256d mean)
{
    return _mm256_sub_pd(_mm256_cvtps_pd(_mm_loadu_ps(x)), mean);
}

APR_INLINE double mean_of(const float *x, size_t n)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    double lane[8];
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm_loadu_ps(x + k)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm_loadu_ps(x + k + 4)));
    }
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    for (; k < n; k++) lane[k % 8] += (double)x[k];
    return apr_scalar_tree_f64(lane) / (double)n;
}

void apr_avx2_layernorm(const float *x, const float *w, const float *b, float eps, float *y, size_t n)
{
    const double mean = mean_of(x, n);
    const __m256d m = _mm256_set1_pd(mean);
    __m256d low = _mm256_setzero_pd(), high = low;
    double lane[8];
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256d c = centred(x + k, m), d = centred(x + k + 4, m);
        low = _mm256_fmadd_pd(c, c, low);
        high = _mm256_fmadd_pd(d, d, high);
    }
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    for (; k < n; k++) lane[k % 8] = fma((double)x[k] - mean, (double)x[k] - mean, lane[k % 8]);
    const double s = 1 / sqrt(apr_scalar_tree_f64(lane) / (double)n + (double)eps);
    for (k = 0; k + 4 <= n; k += 4) {
        __m128 v = _mm256_cvtpd_ps(_mm256_mul_pd(centred(x + k, m), _mm256_set1_pd(s)));
        _mm_storeu_ps(y + k, _mm_fmadd_ps(v, _mm_loadu_ps(w + k), _mm_loadu_ps(b + k)));
    }
    for (; k < n; k++) y[k] = fmaf((float)(((double)x[k] - mean) * s), w[k], b[k]);
}

void apr_avx2_add(float *y, const float *x, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        _mm256_storeu_ps(y + k, _mm256_add_ps(_mm256_loadu_ps(y + k), _mm256_loadu_ps(x + k)));
    }
    for (; k < n; k++) y[k] += x[k];
}

void apr_avx2_mul(float *y, const float *x, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        _mm256_storeu_ps(y + k, _mm256_mul_ps(_mm256_loadu_ps(y + k), _mm256_loadu_ps(x + k)));
    }
    for (; k < n; k++) y[k] *= x[k];
}

void apr_avx2_scale(float *y, float s, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        _mm256_storeu_ps(y + k, _mm256_mul_ps(_mm256_loadu_ps(y + k), _mm256_set1_ps(s)));
    for (; k < n; k++) y[k] *= s;
}

void apr_avx2_add_scaled(float *y, const float *x, float s, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 v = _mm256_fmadd_ps(_mm256_set1_ps(s), _mm256_loadu_ps(x + k), _mm256_loadu_ps(y + k));
        _mm256_storeu_ps(y + k, v);
    }
    for (; k < n; k++) y[k] = fmaf(s, x[k], y[k]);
}

void apr_avx2_silu_mul(const float *gate, const float *up, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 g = _mm256_loadu_ps(gate + k);
        __m256 e = apr_avx2_exp(_mm256_xor_ps(g, _mm256_set1_ps(-0.0f)));
        __m256 v = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1), e));
        _mm256_storeu_ps(y + k, _mm256_mul_ps(v, _mm256_loadu_ps(up + k)));
    }
    apr_scalar_silu_mul(gate + k, up + k, y + k, n - k);
}

void apr_avx2_rope_half(float *x, const float *cos, const float *sin, size_t n)
{
    size_t half = n / 2, i = 0;
    for (; i + 8 <= half; i += 8) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + half);
        __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + i + half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + half] = fmaf(b, cos[i], a * sin[i]);
    }
}

void apr_avx2_rope_pairs(float *x, const float *cos, const float *sin, size_t n)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    size_t half = n / 2, i = 0;
    for (; i + 4 <= half; i += 4) {
        __m256 v = _mm256_loadu_ps(x + 2 * i), swapped = _mm256_permute_ps(v, 0xb1);
        __m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cos + i)), twice);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sin + i)), twice);
        _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, c, _mm256_mul_ps(swapped, s)));
    }
    apr_scalar_rope_pairs(x + 2 * i, cos + i, sin + i, n - 2 * i);
}

/* The largest of n values; *any_nan where one is NaN, then the value means nothing. */
static float max_of(const float *x, size_t n, bool *any_nan)
{
    __m256 m[4], nan = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) m[i] = _mm256_set1_ps(-INFINITY);
    size_t k = 0;
    for (; k + 32 <= n; k += 32) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m256 v = _mm256_loadu_ps(x + k + 8 * i);
            m[i] = _mm256_max_ps(v, m[i]);
            nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        }
    }
    float lane[8];
    _mm256_storeu_ps(lane, _mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])));
    float max = -INFINITY;
    *any_nan = _mm256_movemask_ps(nan) != 0;
    for (int i = 0; i < 8; i++) max = lane[i] > max ? lane[i] : max;
    for (; k < n; k++) {
        max = x[k] > max ? x[k] : max;
        *any_nan = *any_nan || x[k] != x[k];
    }
    return max;
}

void apr_avx2_softmax(float *x, size_t n)
{
    bool any_nan;
    float max = max_of(x, n, &any_nan);
    if (max == -INFINITY) max = 0;
    __m256 sums = _mm256_setzero_ps();
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 e = apr_avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(max)));
        _mm256_storeu_ps(x + k, e);
        sums = _mm256_add_ps(sums, e);
    }
    float lane[8];
    _mm256_storeu_ps(lane, sums);
    for (; k < n; k++) {
        x[k] = apr_scalar_exp(x[k] - max);
        lane[k % 8] += x[k];
    }
    float sum = apr_scalar_tree(lane);
    if (sum == 0) return;
    for (k = 0; k + 8 <= n; k += 8) {
        _mm256_storeu_ps(x + k, _mm256_div_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(sum)));
    }
    for (; k < n; k++) x[k] /= sum;
}

void apr_avx2_exps(float *x, float most, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        _mm256_storeu_ps(x + k, apr_avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(most))));
    for (; k < n; k++) x[k] = apr_scalar_exp(x[k] - most);
}

float apr_avx2_max(const float *x, size_t n, size_t *i_max)
{
    bool any_nan;
    float max = max_of(x, n, &any_nan);
    *i_max = any_nan ? n : 0;
    if (any_nan) return NAN;
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m256 eq = _mm256_cmp_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(max), _CMP_EQ_OQ);
        if (_mm256_movemask_ps(eq)) break;
    }
    while (k < n && x[k] != max) k++;
    *i_max = k < n ? k : 0;
    return k < n ? x[k] : max;
}

void apr_avx2_f32_to_f16(const float *x, uint16_t *y, size_t n)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x + k), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((__m128i *)(void *)(y + k), h);
    }
    for (; k < n; k++) y[k] = apr_f32_to_f16(x[k]);
}

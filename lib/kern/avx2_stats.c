/* Data-quality statistics: counts, sums in double, extremes. */
#include "avx2.h"

#include <math.h>
#include <string.h>

#include "avx2_vec.h"
#include "scalar.h"

#define N_PIECE ((size_t)1 << 24) /* values; counts of a lane stay far below 2^31 */

enum { N_STEPS = 4 };

struct lanes {
    __m256d sum[2], sum_sq[2];    /* lanes 0..3, 4..7 */
    __m256i n_nan, n_inf, n_zero; /* negative counts */
    __m256 min, max;
};

APR_INLINE __m256i bits_of(__m256 x)
{
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

/* x: finite; u: its bits without the sign, which order as the magnitudes do. */
APR_INLINE void add(struct lanes *l, __m256 x, __m256i u)
{
    __m256i small = _mm256_castps_si256(_mm256_set1_ps(1e-10f));
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x)),
            high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    l->n_zero = _mm256_add_epi32(l->n_zero, _mm256_cmpgt_epi32(small, u));
    l->sum[0] = _mm256_add_pd(l->sum[0], low);
    l->sum[1] = _mm256_add_pd(l->sum[1], high);
    l->sum_sq[0] = _mm256_fmadd_pd(low, low, l->sum_sq[0]);
    l->sum_sq[1] = _mm256_fmadd_pd(high, high, l->sum_sq[1]);
}

APR_INLINE void step(struct lanes *l, __m256 x)
{
    const __m256i inf = _mm256_set1_epi32(0x7f800000);
    __m256i u = bits_of(x);
    __m256 finite = _mm256_castsi256_ps(_mm256_cmpgt_epi32(inf, u));
    l->n_nan = _mm256_add_epi32(l->n_nan, _mm256_cmpgt_epi32(u, inf));
    l->n_inf = _mm256_add_epi32(l->n_inf, _mm256_cmpeq_epi32(u, inf));
    l->min = _mm256_min_ps(_mm256_blendv_ps(_mm256_set1_ps(INFINITY), x, finite), l->min);
    l->max = _mm256_max_ps(_mm256_blendv_ps(_mm256_set1_ps(-INFINITY), x, finite), l->max);
    add(l, _mm256_and_ps(x, finite), u);
}

/* N_STEPS vectors; what only values that are not finite need is left out where there are none. */
APR_INLINE void steps(struct lanes *l, const float *p)
{
    __m256 x[N_STEPS];
    __m256i u[N_STEPS], most = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < N_STEPS; i++) {
        x[i] = _mm256_loadu_ps(p + 8 * i);
        u[i] = bits_of(x[i]);
        most = _mm256_max_epi32(most, u[i]);
    }
    if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(most, _mm256_set1_epi32(0x7f7fffff)))) {
#pragma GCC unroll 4
        for (int i = 0; i < N_STEPS; i++) step(l, x[i]);
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < N_STEPS; i++) {
        l->min = _mm256_min_ps(x[i], l->min);
        l->max = _mm256_max_ps(x[i], l->max);
        add(l, x[i], u[i]);
    }
}

static uint64_t counted(__m256i negative)
{
    int32_t lane[8];
    uint64_t n = 0;
    _mm256_storeu_si256((__m256i *)(void *)lane, negative);
    for (int i = 0; i < 8; i++) n += (uint64_t) - (int64_t)lane[i];
    return n;
}

static double tree_of(const __m256d v[2])
{
    double lane[8];
    _mm256_storeu_pd(lane, v[0]);
    _mm256_storeu_pd(lane + 4, v[1]);
    return apr_scalar_tree_f64(lane);
}

void apr_avx2_stats(const float *x, size_t n, struct apr_stats *s)
{
    struct lanes l = {.min = _mm256_set1_ps(s->min), .max = _mm256_set1_ps(s->max)};
    size_t k = 0;
    while (k < n) {
        size_t end = n - k < N_PIECE ? n : k + N_PIECE;
        for (; k + 8 * N_STEPS <= end; k += 8 * N_STEPS) steps(&l, x + k);
        for (; k + 8 <= end; k += 8) step(&l, _mm256_loadu_ps(x + k));
        if (k < end) { /* a tail is NaN in the lanes past the end, which only n_nan sees */
            float tail[8] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
            memcpy(tail, x + k, (end - k) * sizeof *x);
            step(&l, _mm256_loadu_ps(tail));
            s->n_nan -= 8 - (end - k);
            k = end;
        }
        s->n_nan += counted(l.n_nan);
        s->n_inf += counted(l.n_inf);
        s->n_zero += counted(l.n_zero);
        l.n_nan = l.n_inf = l.n_zero = _mm256_setzero_si256();
    }
    float min[8], max[8];
    _mm256_storeu_ps(min, l.min);
    _mm256_storeu_ps(max, l.max);
    for (int i = 0; i < 8; i++) {
        s->min = min[i] < s->min ? min[i] : s->min;
        s->max = max[i] > s->max ? max[i] : s->max;
    }
    s->min += 0.0f;
    s->max += 0.0f;
    s->n += n;
    s->sum += tree_of(l.sum);
    s->sum_sq += tree_of(l.sum_sq);
}

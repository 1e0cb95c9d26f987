/* One vector at a time for the tables of 128 bits: activations to int8, norms, rope, softmax, halves.
 *
 * A body: included once by a file of a table after the header of its instruction set. Eight lanes of kern.h
 * are two vectors. Layer norm, whose fused operations are in double, is the scalar one.
 *
 *     #include "sse4_vec.h"
 *     #include "v128_elem.h"
 */
#ifndef APR_KERN_V128_ELEM_H
#define APR_KERN_V128_ELEM_H

#include "exp.h"
#include "v128_decl.h"

/* Bits of the largest |x| of n values: they order as the values do, NaN above infinity. n is a multiple of 8.
 */
V_INLINE uint32_t amax_bits(const float *x, size_t n)
{
    i32x4 a = v_ints(0), b = a;
    for (size_t i = 0; i < n; i += 8) {
        i32x4 u = (i32x4)v_abs(v_load(x + i)), w = (i32x4)v_abs(v_load(x + i + 4));
        a = v_select_int(u > a, u, a);
        b = v_select_int(w > b, w, b);
    }
    a = v_select_int(a > b, a, b);
    int32_t most = a[0];
    for (int i = 1; i < 4; i++) most = a[i] > most ? a[i] : most;
    return (uint32_t)most;
}

/* As act_scale of scalar_elem.c. */
V_INLINE float act_scale(uint32_t amax, float *d)
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

/* 16 values to bytes, 0 where factor is 0, whatever x is; the sum of the bytes */
V_INLINE int to_q16(const float *x, float factor, int8_t *q)
{
    if (factor == 0) {
        memset(q, 0, 16);
        return 0;
    }
    i32x4 sum = v_ints(0), v[4];
    V_UNROLL
    for (int i = 0; i < 4; i++) {
        /* the magic number leaves the nearest integer in the lowest bits */
        v[i] = ((i32x4)(v_load(x + 4 * i) * factor + APR_EXP_MAGIC) & 0xffffff) - 0x400000;
        sum += v[i];
    }
    i16x8 a = __builtin_shufflevector((i16x8)v[0], (i16x8)v[1], 0, 2, 4, 6, 8, 10, 12, 14);
    i16x8 b = __builtin_shufflevector((i16x8)v[2], (i16x8)v[3], 0, 2, 4, 6, 8, 10, 12, 14);
    i8x16 bytes = __builtin_shufflevector((i8x16)a, (i8x16)b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24,
                                          26, 28, 30);
    memcpy(q, &bytes, sizeof bytes);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void V(to_act32)(const float *x, struct apr_act32 *a, size_t n)
{
    for (; n >= 32; n -= 32, x += 32, a++) {
        float factor = act_scale(amax_bits(x, 32), &a->d);
        a->sum = to_q16(x, factor, a->q) + to_q16(x + 16, factor, a->q + 16);
    }
}

void V(to_act256)(const float *x, struct apr_act256 *a, size_t n)
{
    for (; n >= 256; n -= 256, x += 256, a++) {
        float factor = act_scale(amax_bits(x, 256), &a->d);
        for (size_t s = 0; s < 16; s++) a->sums[s] = (int16_t)to_q16(x + 16 * s, factor, a->q + 16 * s);
        for (size_t s = 0; s < 8; s++) a->sums32[s] = (int16_t)(a->sums[2 * s] + a->sums[2 * s + 1]);
        memset(a->unused, 0, sizeof a->unused);
    }
}

void V(rmsnorm)(const float *x, const float *w, float eps, float *y, size_t n)
{
    f64x2 sum[4] = {{0}, {0}, {0}, {0}};
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        f32x4 a = v_load(x + k), b = v_load(x + k + 4);
        f64x2 v[4] = {v_low_double(a), v_high_double(a), v_low_double(b), v_high_double(b)};
        V_UNROLL
        for (int i = 0; i < 4; i++) sum[i] += v[i] * v[i]; /* the square of a float is exact */
    }
    double lane[8];
    for (int i = 0; i < 4; i++) memcpy(lane + 2 * i, &sum[i], sizeof sum[i]);
    for (; k < n; k++) lane[k % 8] += (double)x[k] * (double)x[k];
    float s = (float)(1 / sqrt(apr_scalar_tree_f64(lane) / (double)n + (double)eps));
    for (k = 0; k + 4 <= n; k += 4) v_store(y + k, v_load(x + k) * s * v_load(w + k));
    for (; k < n; k++) y[k] = x[k] * s * w[k];
}

void V(layernorm)(const float *x, const float *w, const float *b, float eps, float *y, size_t n)
{
    apr_scalar_layernorm(x, w, b, eps, y, n);
}

void V(add)(float *y, const float *x, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(y + k, v_load(y + k) + v_load(x + k));
    for (; k < n; k++) y[k] += x[k];
}

void V(mul)(float *y, const float *x, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(y + k, v_load(y + k) * v_load(x + k));
    for (; k < n; k++) y[k] *= x[k];
}

void V(scale)(float *y, float s, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(y + k, v_load(y + k) * s);
    for (; k < n; k++) y[k] *= s;
}

void V(add_scaled)(float *y, const float *x, float s, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(y + k, v_fma(v_all(s), v_load(x + k), v_load(y + k)));
    for (; k < n; k++) y[k] = fmaf(s, x[k], y[k]);
}

void V(rope_half)(float *x, const float *cos, const float *sin, size_t n)
{
    size_t half = n / 2, i = 0;
    for (; i + 4 <= half; i += 4) {
        f32x4 a = v_load(x + i), b = v_load(x + i + half), c = v_load(cos + i), s = v_load(sin + i);
        v_store(x + i, v_fma(a, c, -(b * s)));
        v_store(x + i + half, v_fma(b, c, a * s));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + half] = fmaf(b, cos[i], a * sin[i]);
    }
}

void V(rope_pairs)(float *x, const float *cos, const float *sin, size_t n)
{
    size_t half = n / 2, i = 0;
    for (; i + 4 <= half; i += 4) {
        f32x4 u = v_load(x + 2 * i), v = v_load(x + 2 * i + 4), c = v_load(cos + i), s = v_load(sin + i);
        f32x4 a = __builtin_shufflevector(u, v, 0, 2, 4, 6), b = __builtin_shufflevector(u, v, 1, 3, 5, 7);
        f32x4 even = v_fma(a, c, -(b * s)), odd = v_fma(b, c, a * s);
        v_store(x + 2 * i, __builtin_shufflevector(even, odd, 0, 4, 1, 5));
        v_store(x + 2 * i + 4, __builtin_shufflevector(even, odd, 2, 6, 3, 7));
    }
    apr_scalar_rope_pairs(x + 2 * i, cos + i, sin + i, n - 2 * i);
}

/* The largest of n values; *any_nan where one is NaN, then the value means nothing. */
V_INLINE float max_of(const float *x, size_t n, bool *any_nan)
{
    f32x4 m[2] = {v_all(-INFINITY), v_all(-INFINITY)};
    i32x4 nan = v_ints(0);
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        f32x4 a = v_load(x + k), b = v_load(x + k + 4);
        m[0] = v_select(a > m[0], a, m[0]);
        m[1] = v_select(b > m[1], b, m[1]);
        nan |= (a != a) | (b != b);
    }
    float max = -INFINITY;
    *any_nan = v_any(nan);
    for (int i = 0; i < 8; i++) max = m[i / 4][i % 4] > max ? m[i / 4][i % 4] : max;
    for (; k < n; k++) {
        max = x[k] > max ? x[k] : max;
        *any_nan = *any_nan || x[k] != x[k];
    }
    return max;
}

float V(max)(const float *x, size_t n, size_t *i_max)
{
    bool any_nan;
    float max = max_of(x, n, &any_nan);
    *i_max = any_nan ? n : 0;
    if (any_nan) return NAN;
    size_t k = 0;
    while (k + 4 <= n && !v_any(v_load(x + k) == max)) k += 4;
    while (k < n && x[k] != max) k++;
    *i_max = k < n ? k : 0;
    return k < n ? x[k] : max;
}

void V(f32_to_f16)(const float *x, uint16_t *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        u16x4 h = v_to_halves(v_load(x + k));
        memcpy(y + k, &h, sizeof h);
    }
    for (; k < n; k++) y[k] = apr_f32_to_f16(x[k]);
}

void V(stats)(const float *x, size_t n, struct apr_stats *s)
{
    apr_scalar_stats(x, n, s);
}

#endif

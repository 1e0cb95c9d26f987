/* exp, softmax, gates and soft caps for the tables of 128 bits: the steps of scalar_elem.c and scalar_act.c.
 *
 * A body: included once by a file of a table after v128_elem.h.
 *
 *     #include "v128_act.h"
 */
#ifndef APR_KERN_V128_ACT_H
#define APR_KERN_V128_ACT_H

#include "act.h"
#include "v128_elem.h"

V_INLINE f32x4 v_exp(f32x4 x)
{
    const f32x4 magic = v_all(APR_EXP_MAGIC);
    f32x4 t = v_fma(x, v_all(APR_EXP_LOG2E), magic), n = t - magic;
    f32x4 r = v_fma(n, v_all(-APR_EXP_LN2_HI), x);
    r = v_fma(n, v_all(-APR_EXP_LN2_LO), r);
    f32x4 p = v_fma(r, v_all(APR_EXP_P4), v_all(APR_EXP_P3));
    p = v_fma(r, p, v_all(APR_EXP_P2));
    p = v_fma(r, p, v_all(APR_EXP_P1));
    p = v_fma(r, p, v_all(APR_EXP_P0));
    p = 1.0f + v_fma(r * r, p, r);
    f32x4 y = (f32x4)((u32x4)p + ((u32x4)t << 23));
    y = (f32x4)((i32x4)y & ~(x < APR_EXP_MIN));
    y = v_select(x > APR_EXP_MAX, v_all(INFINITY), y);
    return v_select(x != x, x, y);
}

void V(softmax)(float *x, size_t n)
{
    bool any_nan;
    float max = max_of(x, n, &any_nan);
    if (max == -INFINITY) max = 0;
    f32x4 sums[2] = {v_all(0), v_all(0)};
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        V_UNROLL
        for (size_t i = 0; i < 2; i++) {
            f32x4 e = v_exp(v_load(x + k + 4 * i) - max);
            v_store(x + k + 4 * i, e);
            sums[i] += e;
        }
    }
    float lane[8];
    for (int i = 0; i < 2; i++) memcpy(lane + 4 * i, &sums[i], sizeof sums[i]);
    for (; k < n; k++) {
        x[k] = apr_scalar_exp(x[k] - max);
        lane[k % 8] += x[k];
    }
    float sum = apr_scalar_tree(lane);
    if (sum == 0) return;
    for (k = 0; k + 4 <= n; k += 4) v_store(x + k, v_load(x + k) / sum);
    for (; k < n; k++) x[k] /= sum;
}

void V(exps)(float *x, float most, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(x + k, v_exp(v_load(x + k) - most));
    for (; k < n; k++) x[k] = apr_scalar_exp(x[k] - most);
}

/* x / (1 + exp(u)) */
V_INLINE f32x4 gate(f32x4 x, f32x4 u)
{
    return x / (1.0f + v_exp(u));
}

void V(silu_mul)(const float *gates, const float *up, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        f32x4 g = v_load(gates + k);
        v_store(y + k, gate(g, -g) * v_load(up + k));
    }
    apr_scalar_silu_mul(gates + k, up + k, y + k, n - k);
}

void V(silu)(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        f32x4 v = v_load(x + k);
        v_store(y + k, gate(v, -v));
    }
    apr_scalar_silu(x + k, y + k, n - k);
}

V_INLINE f32x4 gelu4(f32x4 x)
{
    static const float q[] = {APR_GELU_Q7, APR_GELU_Q6, APR_GELU_Q5, APR_GELU_Q4,
                              APR_GELU_Q3, APR_GELU_Q2, APR_GELU_Q1};
    f32x4 a = v_abs(x), t = 1.0f / v_fma(a, v_all(0.25f), v_all(1));
    f32x4 p = v_fma(t, v_all(APR_GELU_Q9), v_all(APR_GELU_Q8));
    for (size_t i = 0; i < sizeof q / sizeof *q; i++) p = v_fma(t, p, v_all(q[i]));
    f32x4 tail = p * t * v_exp(a * -0.5f * a);
    return x * v_select(x < 0.0f, tail, 1.0f - tail);
}

void V(gelu)(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(y + k, gelu4(v_load(x + k)));
    apr_scalar_gelu(x + k, y + k, n - k);
}

void V(gelu_tanh)(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        f32x4 v = v_load(x + k), u = v_fma(v * v, v_all(APR_GELU_TANH_3), v_all(APR_GELU_TANH_1)) * v;
        v_store(y + k, gate(v, u));
    }
    apr_scalar_gelu_tanh(x + k, y + k, n - k);
}

void V(relu)(const float *x, float *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        f32x4 v = v_load(x + k);
        v_store(y + k, (f32x4)((i32x4)v & ~(v < 0.0f)));
    }
    apr_scalar_relu(x + k, y + k, n - k);
}

V_INLINE f32x4 tanh4(f32x4 y)
{
    f32x4 a = v_abs(y), z = y * y;
    f32x4 p = v_fma(z, v_all(APR_TANH_P4), v_all(APR_TANH_P3));
    p = v_fma(z, p, v_all(APR_TANH_P2));
    p = v_fma(z, p, v_all(APR_TANH_P1));
    p = v_fma(z, p, v_all(APR_TANH_P0));
    f32x4 near = v_fma(y * z, p, y);
    f32x4 far = 1.0f - 2.0f / (v_exp(2.0f * a) + 1.0f);
    i32x4 sign = (i32x4)y & (int32_t)0x80000000;
    return v_select(a < APR_TANH_CUT, near, (f32x4)(((i32x4)far & 0x7fffffff) | sign));
}

void V(softcap)(float *x, float cap, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) v_store(x + k, cap * tanh4(v_load(x + k) / cap));
    apr_scalar_softcap(x + k, cap, n - k);
}

#endif

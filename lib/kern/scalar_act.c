/* Gates and soft caps. The formulas are in act.h. */
#include <math.h>

#include "act.h"
#include "scalar.h"

void apr_scalar_silu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1 + apr_scalar_exp(-x[i]));
}

static float gelu(float x)
{
    float a = fabsf(x), t = 1 / fmaf(a, 0.25f, 1);
    float p = fmaf(t, APR_GELU_Q9, APR_GELU_Q8);
    p = fmaf(t, p, APR_GELU_Q7);
    p = fmaf(t, p, APR_GELU_Q6);
    p = fmaf(t, p, APR_GELU_Q5);
    p = fmaf(t, p, APR_GELU_Q4);
    p = fmaf(t, p, APR_GELU_Q3);
    p = fmaf(t, p, APR_GELU_Q2);
    p = fmaf(t, p, APR_GELU_Q1);
    float q = p * t * apr_scalar_exp(a * -0.5f * a);
    return x * (x < 0 ? q : 1 - q);
}

void apr_scalar_gelu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = gelu(x[i]);
}

void apr_scalar_gelu_tanh(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float u = fmaf(x[i] * x[i], APR_GELU_TANH_3, APR_GELU_TANH_1) * x[i]; /* -2 u of act.h */
        y[i] = x[i] / (1 + apr_scalar_exp(u));
    }
}

void apr_scalar_relu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

static float tanh_of(float y)
{
    float a = fabsf(y), z = y * y;
    if (a < APR_TANH_CUT) {
        float p = fmaf(z, APR_TANH_P4, APR_TANH_P3);
        p = fmaf(z, p, APR_TANH_P2);
        p = fmaf(z, p, APR_TANH_P1);
        p = fmaf(z, p, APR_TANH_P0);
        return fmaf(y * z, p, y);
    }
    return copysignf(1 - 2 / (apr_scalar_exp(2 * a) + 1), y);
}

void apr_scalar_softcap(float *x, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = cap * tanh_of(x[i] / cap);
}

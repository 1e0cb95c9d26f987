/* One vector at a time: activations to int8, norms, gates, softmax, statistics. */
#include "scalar.h"

#include <math.h>
#include <string.h>

#include "exp.h"

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float apr_scalar_exp(float x)
{
    if (x != x) return x;
    if (x < APR_EXP_MIN) return 0;
    if (x > APR_EXP_MAX) return INFINITY;
    float t = fmaf(x, APR_EXP_LOG2E, APR_EXP_MAGIC);
    float n = t - APR_EXP_MAGIC;
    float r = fmaf(n, -APR_EXP_LN2_HI, x);
    r = fmaf(n, -APR_EXP_LN2_LO, r);
    float p = fmaf(r, APR_EXP_P4, APR_EXP_P3);
    p = fmaf(r, p, APR_EXP_P2);
    p = fmaf(r, p, APR_EXP_P1);
    p = fmaf(r, p, APR_EXP_P0);
    p = 1 + fmaf(r * r, p, r);
    /* t holds n in its lowest bits; what is above them leaves on the left */
    return float_of(bits_of(p) + (bits_of(t) << 23));
}

/* d and the factor from x to q of a group whose largest |x| has the bits amax. */
static void act_scale(uint32_t amax, float *d, float *to_q)
{
    *d = 0;
    *to_q = 0;
    if (amax >= 0x7f800000U) {
        *d = NAN;
    } else if (float_of(amax) >= 0x1p-100f) {
        *d = float_of(amax) / 127;
        *to_q = 127 / float_of(amax);
    }
}

static uint32_t amax_bits(const float *x, size_t n)
{
    uint32_t amax = 0; /* bits of |x| order as the values do, NaN above infinity */
    for (size_t i = 0; i < n; i++) {
        uint32_t u = bits_of(x[i]) & 0x7fffffffU;
        amax = u > amax ? u : amax;
    }
    return amax;
}

static int8_t to_q(float x, float factor)
{
    if (factor == 0) return 0; /* also for infinities and NaN, which d tells */
    return (int8_t)(x * factor + APR_EXP_MAGIC - APR_EXP_MAGIC);
}

void apr_scalar_to_act32(const float *x, struct apr_act32 *a, size_t n)
{
    for (; n >= 32; n -= 32, x += 32, a++) {
        float factor;
        act_scale(amax_bits(x, 32), &a->d, &factor);
        a->sum = 0;
        for (int i = 0; i < 32; i++) {
            a->q[i] = to_q(x[i], factor);
            a->sum += a->q[i];
        }
    }
}

void apr_scalar_to_act256(const float *x, struct apr_act256 *a, size_t n)
{
    for (; n >= 256; n -= 256, x += 256, a++) {
        float factor;
        act_scale(amax_bits(x, 256), &a->d, &factor);
        memset(a->unused, 0, sizeof a->unused);
        for (int s = 0; s < 16; s++) {
            int sum = 0;
            for (int i = 16 * s; i < 16 * s + 16; i++) {
                a->q[i] = to_q(x[i], factor);
                sum += a->q[i];
            }
            a->sums[s] = (int16_t)sum;
        }
        for (int s = 0; s < 8; s++) a->sums32[s] = (int16_t)(a->sums[2 * s] + a->sums[2 * s + 1]);
    }
}

void apr_scalar_rmsnorm(const float *x, const float *w, float eps, float *y, size_t n)
{
    double lane[8] = {0}; /* the square of a float is exact in double: fused or not is the same */
    for (size_t k = 0; k < n; k++) lane[k % 8] += (double)x[k] * (double)x[k];
    float s = (float)(1 / sqrt(apr_scalar_tree_f64(lane) / (double)n + (double)eps));
    for (size_t k = 0; k < n; k++) y[k] = x[k] * s * w[k];
}

void apr_scalar_layernorm(const float *x, const float *w, const float *b, float eps, float *y, size_t n)
{
    double lane[8] = {0}, squares[8] = {0};
    for (size_t k = 0; k < n; k++) lane[k % 8] += (double)x[k];
    double mean = apr_scalar_tree_f64(lane) / (double)n;
    for (size_t k = 0; k < n; k++) {
        double d = (double)x[k] - mean;
        squares[k % 8] = fma(d, d, squares[k % 8]);
    }
    double s = 1 / sqrt(apr_scalar_tree_f64(squares) / (double)n + (double)eps);
    for (size_t k = 0; k < n; k++) y[k] = fmaf((float)(((double)x[k] - mean) * s), w[k], b[k]);
}

void apr_scalar_add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

void apr_scalar_mul(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] *= x[i];
}

void apr_scalar_scale(float *y, float s, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] *= s;
}

void apr_scalar_add_scaled(float *y, const float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = fmaf(s, x[i], y[i]);
}

void apr_scalar_silu_mul(const float *gate, const float *up, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1 + apr_scalar_exp(-gate[i])) * up[i];
}

void apr_scalar_rope_half(float *x, const float *cos, const float *sin, size_t n)
{
    size_t half = n / 2;
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + half] = fmaf(b, cos[i], a * sin[i]);
    }
}

void apr_scalar_rope_pairs(float *x, const float *cos, const float *sin, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = fmaf(a, cos[i], -(b * sin[i]));
        x[2 * i + 1] = fmaf(b, cos[i], a * sin[i]);
    }
}

void apr_scalar_softmax(float *x, size_t n)
{
    float max = -INFINITY, lane[8] = {0};
    for (size_t k = 0; k < n; k++) max = x[k] > max ? x[k] : max;
    if (max == -INFINITY) max = 0; /* only masks (all become zero) or NaN (which stays) */
    for (size_t k = 0; k < n; k++) {
        x[k] = apr_scalar_exp(x[k] - max);
        lane[k % 8] += x[k];
    }
    float sum = apr_scalar_tree(lane);
    if (sum == 0) return;
    for (size_t k = 0; k < n; k++) x[k] /= sum;
}

void apr_scalar_exps(float *x, float most, size_t n)
{
    for (size_t k = 0; k < n; k++) x[k] = apr_scalar_exp(x[k] - most);
}

float apr_scalar_max(const float *x, size_t n, size_t *i_max)
{
    float max = -INFINITY;
    *i_max = 0;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != x[i]) {
            *i_max = n;
            return NAN;
        }
        if (x[i] > max) {
            max = x[i];
            *i_max = i;
        }
    }
    return max;
}

void apr_scalar_f32_to_f16(const float *x, uint16_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = apr_f32_to_f16(x[i]);
}

void apr_stats_init(struct apr_stats *s)
{
    *s = (struct apr_stats){.min = INFINITY, .max = -INFINITY};
}

void apr_scalar_stats(const float *x, size_t n, struct apr_stats *s)
{
    double sum[8] = {0}, sum_sq[8] = {0};
    for (size_t k = 0; k < n; k++) {
        uint32_t u = bits_of(x[k]) & 0x7fffffffU;
        s->n_nan += u > 0x7f800000U;
        s->n_inf += u == 0x7f800000U;
        if (u >= 0x7f800000U) continue;
        s->n_zero += float_of(u) < 1e-10f;
        sum[k % 8] += (double)x[k];
        sum_sq[k % 8] += (double)x[k] * (double)x[k];
        s->min = x[k] < s->min ? x[k] : s->min;
        s->max = x[k] > s->max ? x[k] : s->max;
    }
    s->min += 0.0f; /* -0 becomes +0: which zero came first is no property of the data */
    s->max += 0.0f;
    s->n += n;
    s->sum += apr_scalar_tree_f64(sum);
    s->sum_sq += apr_scalar_tree_f64(sum_sq);
}

/* IEEE half: 1 sign, 5 exponent, 10 fraction bits. */
#include "types.h"

#include <string.h>

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

float apr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t rest = h & 0x7fffU;
    if (rest < 0x400U) return float_of(sign | bits_of((float)rest * 0x1p-24f)); /* zero, subnormal */
    if (rest <= 0x7c00U) return float_of(sign | (rest < 0x7c00U ? (rest << 13) + (112U << 23) : 0x7f800000U));
    return float_of(sign | 0x7fc00000U | rest << 13);
}

uint16_t apr_f32_to_f16(float f)
{
    uint32_t u = bits_of(f);
    uint32_t sign = u >> 16 & 0x8000U;
    uint32_t rest = u & 0x7fffffffU;
    if (rest > 0x7f800000U) return (uint16_t)(sign | 0x7e00U | (rest >> 13 & 0x3ffU));
    if (rest >= 0x477ff000U) return (uint16_t)(sign | 0x7c00U); /* >= 65520 rounds to infinity */
    if (rest < 0x38800000U) {
        /* Below 2^-14: adding 0.5 rounds |f| to a multiple of 2^-24, the unit of subnormal halves. */
        return (uint16_t)(sign | (bits_of(float_of(rest) + 0.5f) - 0x3f000000U));
    }
    uint32_t odd = rest >> 13 & 1U;
    return (uint16_t)(sign | ((rest - (112U << 23) + 0xfffU + odd) >> 13));
}

void apr_f16_row_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_elems; i++) {
        uint16_t h;
        memcpy(&h, p + i * sizeof h, sizeof h);
        x[i] = apr_f16_to_f32(h);
    }
}

void apr_f16_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    (void)weights;
    uint8_t *p = blocks;
    for (size_t i = 0; i < n_elems; i++) {
        uint16_t h = apr_f32_to_f16(x[i]);
        memcpy(p + i * sizeof h, &h, sizeof h);
    }
}

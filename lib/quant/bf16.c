/* bfloat16: the upper half of a float. */
#include "types.h"

#include <string.h>

float apr_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t apr_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffU) > 0x7f800000U) return (uint16_t)(u >> 16 | 64U);
    return (uint16_t)((u + 0x7fffU + (u >> 16 & 1U)) >> 16);
}

void apr_bf16_row_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_elems; i++) {
        uint16_t h;
        memcpy(&h, p + i * sizeof h, sizeof h);
        x[i] = apr_bf16_to_f32(h);
    }
}

void apr_bf16_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    (void)weights;
    uint8_t *p = blocks;
    for (size_t i = 0; i < n_elems; i++) {
        uint16_t h = apr_f32_to_bf16(x[i]);
        memcpy(p + i * sizeof h, &h, sizeof h);
    }
}

/* Q8_0: 32 values, one scale, 8 bits. The bytes equal those of GGML's converter and quantizer. */
#include "blocks.h"
#include "types.h"

#include <math.h>

void apr_q8_0_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q8_0 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d);
        for (int j = 0; j < APR_QK; j++) x[j] = (float)b->qs[j] * d;
    }
}

/* Importance weights do not change Q8_0: the scale is fixed by the largest value. */
void apr_q8_0_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    (void)weights;
    struct apr_block_q8_0 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float max_abs = 0;
        for (int j = 0; j < APR_QK; j++) max_abs = fabsf(x[j]) > max_abs ? fabsf(x[j]) : max_abs;
        float d = max_abs / 127, inv = 1 / d;
        if (isinf(inv)) inv = 0; /* zeros, and values far below what a half can scale */
        b->d = apr_f32_to_f16(d);
        for (int j = 0; j < APR_QK; j++) b->qs[j] = (int8_t)apr_round_away(x[j] * inv);
    }
}

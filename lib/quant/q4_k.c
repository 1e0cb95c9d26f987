/* Q4_K: 8 sub-blocks of 32 with a 6-bit scale and a 6-bit minimum, 4 bits. */
#include "blocks.h"
#include "types.h"

void apr_q4_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q4_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d), dmin = apr_f16_to_f32(b->dmin);
        for (unsigned s = 0; s < 8; s++) {
            unsigned scale, min, shift = s % 2 * 4;
            apr_q4_k_scale_min(b->scales, s, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *q = b->qs + s / 2 * 32;
            for (int j = 0; j < 32; j++) x[32 * s + (unsigned)j] = dl * (float)(q[j] >> shift & 15) - ml;
        }
    }
}

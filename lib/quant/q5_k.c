/* Q5_K: 8 sub-blocks of 32 with a 6-bit scale and a 6-bit minimum, 5 bits. */
#include "blocks.h"
#include "types.h"

void apr_q5_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q5_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d), dmin = apr_f16_to_f32(b->dmin);
        for (unsigned s = 0; s < 8; s++) {
            unsigned scale, min, shift = s % 2 * 4;
            apr_q4_k_scale_min(b->scales, s, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *q = b->qs + s / 2 * 32;
            for (unsigned j = 0; j < 32; j++) {
                unsigned v = (q[j] >> shift & 15U) | (b->qh[j] >> s & 1U) << 4;
                x[32 * s + j] = dl * (float)v - ml;
            }
        }
    }
}

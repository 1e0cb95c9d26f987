/* Q2_K: 16 sub-blocks of 16 with a 4-bit scale and a 4-bit minimum, 2 bits. */
#include "blocks.h"
#include "types.h"

void apr_q2_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q2_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d), dmin = apr_f16_to_f32(b->dmin);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)(b->scales[s] & 15), ml = dmin * (float)(b->scales[s] >> 4);
            const uint8_t *q = b->qs + s / 8 * 32 + s % 2 * 16;
            int shift = s % 8 / 2 * 2;
            for (int j = 0; j < 16; j++) x[16 * s + j] = dl * (float)(q[j] >> shift & 3) - ml;
        }
    }
}

/* Q6_K: 16 sub-blocks of 16 with a signed 8-bit scale, 6 bits. */
#include "blocks.h"
#include "types.h"

void apr_q6_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q6_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)b->scales[s];
            int h = s / 8, k = s / 2 % 4;
            const uint8_t *low = b->ql + 64 * h + 32 * (k % 2) + s % 2 * 16,
                          *high = b->qh + 32 * h + s % 2 * 16;
            for (int j = 0; j < 16; j++) {
                int v = (low[j] >> k / 2 * 4 & 15) | (high[j] >> 2 * k & 3) << 4;
                x[16 * s + j] = dl * (float)(v - 32);
            }
        }
    }
}

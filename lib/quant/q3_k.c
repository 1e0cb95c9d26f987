/* Q3_K: 16 sub-blocks of 16 with a signed 6-bit scale, 3 bits. */
#include "blocks.h"
#include "types.h"

static int scale_of(const uint8_t *p, int s)
{
    int low = p[s % 8] >> s / 8 * 4 & 15, high = p[8 + s % 4] >> s / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

void apr_q3_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q3_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)scale_of(b->scales, s);
            const uint8_t *q = b->qs + s / 8 * 32 + s % 2 * 16, *high = b->hmask + s % 2 * 16;
            int shift = s % 8 / 2 * 2;
            for (int j = 0; j < 16; j++) {
                int v = (q[j] >> shift & 3) | (high[j] >> s / 2 & 1) << 2;
                x[16 * s + j] = dl * (float)(v - 4);
            }
        }
    }
}

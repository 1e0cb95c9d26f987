/* Q5_1: 32 values, scale and minimum, 5 bits. */
#include "blocks.h"
#include "types.h"

void apr_q5_1_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q5_1 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d), m = apr_f16_to_f32(b->m);
        for (int j = 0; j < 16; j++) {
            int lo_high = b->qh[j / 8] >> j % 8 & 1, hi_high = b->qh[2 + j / 8] >> j % 8 & 1;
            x[j] = (float)((b->qs[j] & 15) | lo_high << 4) * d + m;
            x[j + 16] = (float)(b->qs[j] >> 4 | hi_high << 4) * d + m;
        }
    }
}

/* Q4_1: 32 values, scale and minimum, 4 bits. */
#include "blocks.h"
#include "types.h"

void apr_q4_1_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q4_1 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d), m = apr_f16_to_f32(b->m);
        for (int j = 0; j < 16; j++) {
            x[j] = (float)(b->qs[j] & 15) * d + m;
            x[j + 16] = (float)(b->qs[j] >> 4) * d + m;
        }
    }
}

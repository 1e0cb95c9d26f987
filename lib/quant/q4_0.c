/* Q4_0: 32 values, one scale, 4 bits. */
#include "blocks.h"
#include "types.h"

void apr_q4_0_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q4_0 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) {
            x[j] = (float)((b->qs[j] & 15) - 8) * d;
            x[j + 16] = (float)((b->qs[j] >> 4) - 8) * d;
        }
    }
}

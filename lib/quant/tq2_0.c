/* TQ2_0: ternary values of two bits, read only. */
#include "blocks.h"
#include "types.h"

void apr_tq2_0_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_tq2_0 *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (unsigned i = 0; i < APR_QKK; i++) {
            int q = b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
            x[i] = (float)(q - 1) * d;
        }
    }
}

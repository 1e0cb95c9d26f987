/* IQ3_S: vectors of 4 from a grid of 512, a sign for every value, read only. */
#include "blocks.h"
#include "grids.h"
#include "types.h"

void apr_iq3_s_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq3_s *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (unsigned i = 0; i < APR_QKK; i++) {
            unsigned scale = b->scales[i / 64] >> i / 32 % 2 * 4 & 15;
            unsigned index = b->qs[i / 4] | ((unsigned)b->qh[i / 32] >> i / 4 % 8 & 1U) << 8;
            unsigned value = 2 * (apr_grid_iq3_s[index] >> 3 * (i % 4) & 7U) + 1;
            x[i] = d * (float)(1 + 2 * scale) * (float)value * apr_sign_of(b->signs[i / 8], i % 8);
        }
    }
}

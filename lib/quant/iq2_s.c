/* IQ2_S: vectors of 8 from a grid of 1024, a sign for every value, read only. */
#include "blocks.h"
#include "grids.h"
#include "types.h"

void apr_iq2_s_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq2_s *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++) {
        float d = apr_f16_to_f32(b->d);
        for (int v = 0; v < 32; v++, x += 8) {
            unsigned scale = b->scales[v / 4] >> v / 2 % 2 * 4 & 15, high = b->qh[v / 4] >> v % 4 * 2 & 3;
            float db = d * (0.5F + (float)scale) * 0.25F;
            apr_iq2_vector(x, db, apr_grid_iq2_s[b->qs[v] | high << 8], b->signs[v]);
        }
    }
}

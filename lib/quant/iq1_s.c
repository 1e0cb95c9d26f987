/* IQ1_S: vectors of 8 ternary values from a grid of 2048, read only. */
#include "blocks.h"
#include "grids.h"
#include "types.h"

void apr_iq1_s_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq1_s *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++) {
        float d = apr_f16_to_f32(b->d);
        for (int v = 0; v < 32; v++, x += 8) {
            unsigned h = apr_u16_of(b->qh[v / 4]), high = h >> 3 * (v % 4) & 7;
            float dl = d * (float)(2 * (h >> 12 & 7) + 1), delta = h >> 15 ? -APR_IQ1_DELTA : APR_IQ1_DELTA;
            apr_iq1_vector(x, dl, apr_grid_iq1[b->qs[v] | high << 8], delta);
        }
    }
}

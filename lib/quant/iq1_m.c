/* IQ1_M: as IQ1_S with finer scales and deltas, read only. */
#include "blocks.h"
#include "grids.h"
#include "types.h"

static float scale_of_block(const struct apr_block_iq1_m *b)
{
    unsigned h = 0;
    for (int i = 0; i < 4; i++) h |= (unsigned)(b->scales[i][1] >> 4) << 4 * i;
    return apr_f16_to_f32((uint16_t)h);
}

void apr_iq1_m_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq1_m *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++) {
        float d = scale_of_block(b);
        for (int v = 0; v < 32; v++, x += 8) {
            unsigned scale = (unsigned)apr_u16_of(b->scales[v / 8]) >> v / 2 % 4 * 3 & 7,
                     h = (unsigned)b->qh[v / 2] >> v % 2 * 4;
            float dl = d * (float)(2 * scale + 1), delta = h & 8 ? -APR_IQ1_DELTA : APR_IQ1_DELTA;
            apr_iq1_vector(x, dl, apr_grid_iq1[b->qs[v] | (h & 7) << 8], delta);
        }
    }
}

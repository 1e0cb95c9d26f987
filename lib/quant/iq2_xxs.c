/* IQ2_XXS: vectors of 8 from a grid of 256, read only. */
#include "blocks.h"
#include "grids.h"
#include "types.h"

void apr_iq2_xxs_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq2_xxs *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++) {
        float d = apr_f16_to_f32(b->d);
        for (int s = 0; s < 8; s++) {
            const uint8_t *sub = b->subs[s];
            uint32_t signs = apr_u32_of(sub + 4);
            float db = d * (0.5F + (float)(signs >> 28)) * 0.25F;
            for (int v = 0; v < 4; v++, x += 8)
                apr_iq2_vector(x, db, apr_grid_iq2_xxs[sub[v]], apr_even_signs(signs >> 7 * v & 127));
        }
    }
}

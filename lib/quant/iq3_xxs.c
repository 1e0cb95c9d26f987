/* IQ3_XXS: vectors of 4 from a grid of 256, read only. */
#include "blocks.h"
#include "grids.h"
#include "types.h"

void apr_iq3_xxs_to_f32(const void *blocks, float *x, size_t n_elems)
{
    static const float values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    const struct apr_block_iq3_xxs *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (unsigned i = 0; i < APR_QKK; i++) {
            uint32_t word = apr_u32_of(b->signs[i / 32]);
            unsigned signs = apr_even_signs(word >> 7 * (i / 8 % 4) & 127);
            float db = d * (0.5F + (float)(word >> 28)) * 0.5F;
            unsigned digit = apr_grid_iq3_xxs[b->qs[i / 4]] >> 3 * (i % 4) & 7;
            x[i] = db * values[digit] * apr_sign_of(signs, i % 8);
        }
    }
}

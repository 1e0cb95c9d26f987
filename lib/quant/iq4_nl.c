/* IQ4_NL: 32 values, one scale, 4 bits that name one of 16 uneven levels. */
#include "block32.h"
#include "grids.h"
#include "types.h"

const int8_t apr_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void apr_iq4_nl_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq4_nl *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) {
            x[j] = d * (float)apr_iq4_values[b->qs[j] & 15];
            x[j + 16] = d * (float)apr_iq4_values[b->qs[j] >> 4];
        }
    }
}

static const struct apr_fit_spec spec = {
    .n_levels = 16, .is_uneven = true, .first = -9, .step = 6, .n_candidates = 10, .n_refits = 1};

void apr_iq4_nl_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_iq4_nl *b = blocks;
    for (size_t n; (n = apr_block32_next(n_elems)) > 0; n_elems -= n * APR_QK, x += n * APR_QK) {
        struct apr_blocks32 s;
        apr_block32_symmetric(&s, fit, &spec, n, x, weights);
        for (size_t j = 0; j < n; j++, b++) {
            const uint8_t *l = s.levels[j];
            b->d = s.d[j];
            for (int i = 0; i < 16; i++) b->qs[i] = (uint8_t)(l[i] | l[i + 16] << 4);
        }
        if (weights) weights += n * APR_QK;
    }
}

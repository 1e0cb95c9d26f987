/* IQ4_XS: 8 sub-blocks of 32 with a 6-bit scale, the levels of IQ4_NL. */
#include "blocks.h"
#include "grids.h"
#include "superblock.h"
#include "types.h"

void apr_iq4_xs_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_iq4_xs *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++) {
        float d = apr_f16_to_f32(b->d);
        for (int s = 0; s < 8; s++, x += 32) {
            int scale = (b->scales_l[s / 2] >> s % 2 * 4 & 15) | (b->scales_h >> 2 * s & 3) << 4;
            float dl = d * (float)(scale - 32);
            const uint8_t *q = b->qs + 16 * s;
            for (int j = 0; j < 16; j++) {
                x[j] = dl * (float)apr_iq4_values[q[j] & 15];
                x[j + 16] = dl * (float)apr_iq4_values[q[j] >> 4];
            }
        }
    }
}

static const struct apr_fit_spec spec = {.n_levels = 16,
                                         .is_uneven = true,
                                         .first = -9,
                                         .step = 6,
                                         .n_candidates = 8,
                                         .n_refits = 1,
                                         .reach = 1,
                                         .max_scale = 31};

static void pack(const struct apr_superblock *s, struct apr_block_iq4_xs *b)
{
    unsigned high = 0;
    b->d = s->d;
    for (int j = 0; j < 8; j++) high |= (unsigned)(s->scales[j] + 32) >> 4 << 2 * j;
    for (int j = 0; j < 4; j++) {
        unsigned even = (unsigned)(s->scales[2 * j] + 32), odd = (unsigned)(s->scales[2 * j + 1] + 32);
        b->scales_l[j] = (uint8_t)((even & 15) | (odd & 15) << 4);
    }
    b->scales_h = (uint16_t)high;
    for (int i = 0; i < 128; i++) {
        int at = i / 16 * 32 + i % 16;
        b->qs[i] = (uint8_t)(s->levels[at] | s->levels[at + 16] << 4);
    }
}

void apr_iq4_xs_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_iq4_xs *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QKK, b++) {
        struct apr_superblock s;
        apr_superblock_symmetric(&s, fit, &spec, 32, weights ? APR_FIT_PLAIN : APR_FIT_LARGER, x + i,
                                 weights ? weights + i : NULL);
        pack(&s, b);
    }
}

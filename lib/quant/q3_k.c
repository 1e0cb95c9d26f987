/* Q3_K: 16 sub-blocks of 16 with a signed 6-bit scale, 3 bits. */
#include "superblock.h"
#include "types.h"

#include <string.h>

static int scale_of(const uint8_t *p, int s)
{
    int low = p[s % 8] >> s / 8 * 4 & 15, high = p[8 + s % 4] >> s / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

void apr_q3_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q3_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)scale_of(b->scales, s);
            const uint8_t *q = b->qs + s / 8 * 32 + s % 2 * 16, *high = b->hmask + s % 2 * 16;
            int shift = s % 8 / 2 * 2;
            for (int j = 0; j < 16; j++) {
                int v = (q[j] >> shift & 3) | (high[j] >> s / 2 & 1) << 2;
                x[16 * s + j] = dl * (float)(v - 4);
            }
        }
    }
}

static const struct apr_fit_spec spec = {.n_levels = 8,
                                         .first = -1.0F,
                                         .step = 0.2F,
                                         .n_candidates = 16,
                                         .n_refits = 1,
                                         .reach = 2,
                                         .max_scale = 31};

static void pack(const struct apr_superblock *s, struct apr_block_q3_k *b)
{
    memset(b, 0, sizeof *b);
    b->d = s->d;
    for (int j = 0; j < 16; j++) {
        unsigned scale = (unsigned)(s->scales[j] + 32);
        b->scales[j % 8] |= (uint8_t)((scale & 15U) << j / 8 * 4);
        b->scales[8 + j % 4] |= (uint8_t)(scale >> 4 << j / 4 * 2);
    }
    for (int i = 0; i < APR_QKK; i++) {
        b->qs[i / 128 * 32 + i % 32] |= (uint8_t)((s->levels[i] & 3U) << i % 128 / 32 * 2);
        b->hmask[i % 32] |= (uint8_t)(s->levels[i] >> 2 << i / 32);
    }
}

void apr_q3_k_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_q3_k *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QKK, b++) {
        struct apr_superblock s;
        enum apr_fit_weight kind = weights ? APR_FIT_PLAIN : APR_FIT_LARGER;
        apr_superblock_symmetric(&s, fit, &spec, 16, kind, x + i, weights ? weights + i : NULL);
        pack(&s, b);
    }
}

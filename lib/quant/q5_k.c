/* Q5_K: 8 sub-blocks of 32 with a 6-bit scale and a 6-bit minimum, 5 bits. */
#include "blocks.h"
#include "superblock.h"
#include "types.h"

#include <string.h>

void apr_q5_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q5_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d), dmin = apr_f16_to_f32(b->dmin);
        for (unsigned s = 0; s < 8; s++) {
            unsigned scale, min, shift = s % 2 * 4;
            apr_q4_k_scale_min(b->scales, s, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *q = b->qs + s / 2 * 32;
            for (unsigned j = 0; j < 32; j++) {
                unsigned v = (q[j] >> shift & 15U) | (b->qh[j] >> s & 1U) << 4;
                x[32 * s + j] = dl * (float)v - ml;
            }
        }
    }
}

static const struct apr_fit_spec spec = {.n_levels = 32,
                                         .first = -1.0F,
                                         .step = 0.25F,
                                         .n_candidates = 8,
                                         .n_more = 4,
                                         .n_refits = 3,
                                         .reach = 1,
                                         .max_scale = 63};

static void pack(const struct apr_superblock *s, struct apr_block_q5_k *b)
{
    b->d = s->d;
    b->dmin = s->dmin;
    apr_q4_k_put_scales(s, b->scales);
    memset(b->qh, 0, sizeof b->qh);
    for (int i = 0; i < 128; i++) {
        int c = i / 32, low = c * 64 + i % 32;
        unsigned l = s->levels[low], h = s->levels[low + 32];
        b->qs[i] = (uint8_t)((l & 15U) | (h & 15U) << 4);
        b->qh[i % 32] |= (uint8_t)((l >> 4) << (2 * c) | (h >> 4) << (2 * c + 1));
    }
}

void apr_q5_k_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    enum apr_fit_weight kind = weights ? APR_FIT_PLAIN : APR_FIT_LARGER;
    struct apr_block_q5_k *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QKK, b++) {
        struct apr_superblock s;
        apr_superblock_affine(&s, fit, &spec, 32, kind, x + i, weights ? weights + i : NULL);
        pack(&s, b);
    }
}

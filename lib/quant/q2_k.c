/* Q2_K: 16 sub-blocks of 16 with a 4-bit scale and a 4-bit minimum, 2 bits. */
#include "superblock.h"
#include "types.h"

#include <string.h>

void apr_q2_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q2_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d), dmin = apr_f16_to_f32(b->dmin);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)(b->scales[s] & 15), ml = dmin * (float)(b->scales[s] >> 4);
            const uint8_t *q = b->qs + s / 8 * 32 + s % 2 * 16;
            int shift = s % 8 / 2 * 2;
            for (int j = 0; j < 16; j++) x[16 * s + j] = dl * (float)(q[j] >> shift & 3) - ml;
        }
    }
}

static const struct apr_fit_spec spec = {.n_levels = 4,
                                         .first = -1.0F,
                                         .step = 0.2F,
                                         .n_candidates = 16,
                                         .n_refits = 2,
                                         .reach = 2,
                                         .max_scale = 15};

static void pack(const struct apr_superblock *s, struct apr_block_q2_k *b)
{
    b->d = s->d;
    b->dmin = s->dmin;
    for (int j = 0; j < 16; j++) b->scales[j] = (uint8_t)(s->scales[j] | s->mins[j] << 4);
    memset(b->qs, 0, sizeof b->qs);
    for (int i = 0; i < APR_QKK; i++)
        b->qs[i / 128 * 32 + i % 32] |= (uint8_t)(s->levels[i] << i % 128 / 32 * 2);
}

void apr_q2_k_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_q2_k *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QKK, b++) {
        struct apr_superblock s;
        apr_superblock_affine(&s, fit, &spec, 16, APR_FIT_LARGER, x + i, weights ? weights + i : NULL);
        pack(&s, b);
    }
}

/* Q4_K: 8 sub-blocks of 32 with a 6-bit scale and a 6-bit minimum, 4 bits. */
#include "blocks.h"
#include "superblock.h"
#include "types.h"

void apr_q4_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q4_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d), dmin = apr_f16_to_f32(b->dmin);
        for (unsigned s = 0; s < 8; s++) {
            unsigned scale, min, shift = s % 2 * 4;
            apr_q4_k_scale_min(b->scales, s, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *q = b->qs + s / 2 * 32;
            for (int j = 0; j < 32; j++) x[32 * s + (unsigned)j] = dl * (float)(q[j] >> shift & 15) - ml;
        }
    }
}

static const struct apr_fit_spec spec = {.n_levels = 16,
                                         .first = -1.2F,
                                         .step = 0.2F,
                                         .n_candidates = 13,
                                         .n_more = 4,
                                         .n_refits = 1,
                                         .reach = 1,
                                         .max_scale = 63};

static void pack(const struct apr_superblock *s, struct apr_block_q4_k *b)
{
    b->d = s->d;
    b->dmin = s->dmin;
    apr_q4_k_put_scales(s, b->scales);
    for (int c = 0; c < 4; c++) {
        const uint8_t *l = s->levels + 64 * c;
        for (int j = 0; j < 32; j++) b->qs[32 * c + j] = (uint8_t)(l[j] | l[j + 32] << 4);
    }
}

void apr_q4_k_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_q4_k *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QKK, b++) {
        struct apr_superblock s;
        apr_superblock_affine(&s, fit, &spec, 32, APR_FIT_PLAIN, x + i, weights ? weights + i : NULL);
        pack(&s, b);
    }
}

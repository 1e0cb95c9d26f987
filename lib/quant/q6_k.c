/* Q6_K: 16 sub-blocks of 16 with a signed 8-bit scale, 6 bits. */
#include "blocks.h"
#include "superblock.h"
#include "types.h"

void apr_q6_k_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q6_k *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++, x += APR_QKK) {
        float d = apr_f16_to_f32(b->d);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)b->scales[s];
            int h = s / 8, k = s / 2 % 4;
            const uint8_t *low = b->ql + 64 * h + 32 * (k % 2) + s % 2 * 16,
                          *high = b->qh + 32 * h + s % 2 * 16;
            for (int j = 0; j < 16; j++) {
                int v = (low[j] >> k / 2 * 4 & 15) | (high[j] >> 2 * k & 3) << 4;
                x[16 * s + j] = dl * (float)(v - 32);
            }
        }
    }
}

static const struct apr_fit_spec spec = {
    .n_levels = 64, .first = -0.8F, .step = 0.4F, .n_candidates = 6, .reach = 2, .max_scale = 127};

static void pack(const struct apr_superblock *s, struct apr_block_q6_k *b)
{
    b->d = s->d;
    for (int j = 0; j < 16; j++) b->scales[j] = (int8_t)s->scales[j];
    for (int h = 0; h < 2; h++) {
        const uint8_t *l = s->levels + 128 * h;
        uint8_t *low = b->ql + 64 * h, *high = b->qh + 32 * h;
        for (int j = 0; j < 64; j++) low[j] = (uint8_t)((l[j] & 15U) | (l[j + 64] & 15U) << 4);
        for (int j = 0; j < 32; j++)
            high[j] = (uint8_t)(l[j] >> 4 | l[j + 32] >> 4 << 2 | l[j + 64] >> 4 << 4 | l[j + 96] >> 4 << 6);
    }
}

void apr_q6_k_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_q6_k *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QKK, b++) {
        struct apr_superblock s;
        apr_superblock_symmetric(&s, fit, &spec, 16, APR_FIT_PLAIN, x + i, weights ? weights + i : NULL);
        pack(&s, b);
    }
}

/* Q5_0: 32 values, one scale, 5 bits. */
#include "block32.h"
#include "types.h"

void apr_q5_0_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_q5_0 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) {
            int lo_high = b->qh[j / 8] >> j % 8 & 1, hi_high = b->qh[2 + j / 8] >> j % 8 & 1;
            x[j] = (float)(((b->qs[j] & 15) | lo_high << 4) - 16) * d;
            x[j + 16] = (float)((b->qs[j] >> 4 | hi_high << 4) - 16) * d;
        }
    }
}

static const struct apr_fit_spec spec = {
    .n_levels = 32, .first = -1.5F, .step = 0.2F, .n_candidates = 16, .n_refits = 1};

static void pack(const struct apr_blocks32 *s, size_t j, struct apr_block_q5_0 *b)
{
    const uint8_t *l = s->levels[j];
    b->d = s->d[j];
    for (int i = 0; i < 16; i++) b->qs[i] = (uint8_t)((l[i] & 15U) | (l[i + 16] & 15U) << 4);
    for (int k = 0; k < 4; k++) {
        unsigned bits = 0;
        for (int i = 0; i < 8; i++) bits |= (unsigned)(l[8 * k + i] >> 4) << i;
        b->qh[k] = (uint8_t)bits;
    }
}

void apr_q5_0_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    const struct apr_fit *fit = apr_fit_pick();
    struct apr_block_q5_0 *b = blocks;
    for (size_t n; (n = apr_block32_next(n_elems)) > 0; n_elems -= n * APR_QK, x += n * APR_QK) {
        struct apr_blocks32 s;
        apr_block32_symmetric(&s, fit, &spec, n, x, weights);
        for (size_t j = 0; j < n; j++) pack(&s, j, b++);
        if (weights) weights += n * APR_QK;
    }
}

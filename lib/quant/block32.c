/* Blocks of 32 values. */
#include "block32.h"

#include <math.h>
#include <string.h>

#include "quant.h"

static const uint16_t infinite = 0x7c00;

size_t apr_block32_next(size_t n_elems)
{
    size_t n = n_elems / APR_QK;
    return n < APR_FIT_LANES ? n : APR_FIT_LANES;
}

static bool in_range(const float *x)
{
    float max_abs = 0;
    for (int i = 0; i < APR_QK; i++) max_abs = fabsf(x[i]) > max_abs ? fabsf(x[i]) : max_abs;
    return max_abs < APR_FIT_MAX;
}

/* Fills a group; lanes without a block, and those with a value that no scale can hold, are zeros. */
static void load_lanes(struct apr_group *g, const struct apr_fit *fit, size_t n_blocks, const float *x,
                       const float *weights, bool *bad)
{
    float values[APR_FIT_LANES * APR_QK] = {0}, importance[APR_FIT_LANES * APR_QK] = {0};
    enum apr_fit_weight kind = weights ? APR_FIT_PLAIN : APR_FIT_LARGER;
    memset(bad, 0, APR_FIT_LANES * sizeof *bad);
    if (n_blocks == APR_FIT_LANES && fit->load(g, x, weights, APR_QK, kind)) return;
    for (size_t j = 0; j < n_blocks; j++) {
        bad[j] = !in_range(x + j * APR_QK);
        if (bad[j]) continue;
        memcpy(values + j * APR_QK, x + j * APR_QK, APR_QK * sizeof *x);
        if (weights) memcpy(importance + j * APR_QK, weights + j * APR_QK, APR_QK * sizeof *x);
    }
    (void)fit->load(g, values, weights ? importance : NULL, APR_QK, kind); /* all are in range now */
}

/* Rounds scales to halves; a lane that cannot be stored gets an infinite one and levels of zeros. */
static void round_scales(const bool *bad, float *scale, uint16_t *d)
{
    for (int j = 0; j < APR_FIT_LANES; j++) {
        d[j] = bad[j] ? infinite : apr_f32_to_f16(scale[j]);
        scale[j] = (d[j] & 0x7fffU) == infinite ? 0 : apr_f16_to_f32(d[j]);
    }
}

void apr_block32_affine(struct apr_blocks32 *s, const struct apr_fit *fit, const struct apr_fit_spec *spec,
                        size_t n_blocks, const float *x, const float *weights)
{
    struct apr_group g;
    bool bad[APR_FIT_LANES];
    _Alignas(32) float scale[APR_FIT_LANES], min[APR_FIT_LANES];
    load_lanes(&g, fit, n_blocks, x, weights, bad);
    fit->affine(&g, spec, scale, min);
    round_scales(bad, scale, s->d);
    for (int j = 0; j < APR_FIT_LANES; j++) min[j] = -min[j]; /* stored as the value of level 0 */
    round_scales(bad, min, s->m);
    for (int j = 0; j < APR_FIT_LANES; j++) min[j] = -min[j];
    fit->affine_levels(&g, spec, scale, min, s->levels[0]);
}

void apr_block32_symmetric(struct apr_blocks32 *s, const struct apr_fit *fit, const struct apr_fit_spec *spec,
                           size_t n_blocks, const float *x, const float *weights)
{
    struct apr_group g;
    bool bad[APR_FIT_LANES];
    _Alignas(32) float scale[APR_FIT_LANES];
    load_lanes(&g, fit, n_blocks, x, weights, bad);
    fit->symmetric(&g, spec, scale);
    round_scales(bad, scale, s->d);
    fit->symmetric_levels(&g, spec, scale, s->levels[0]);
}

/* Super-blocks of 256 values. */
#include "superblock.h"

#include <math.h>
#include <string.h>

#include "quant.h"

enum { MAX_GROUPS = 2 };
static const uint16_t infinite = 0x7c00;

static void set_infinite(struct apr_superblock *s)
{
    memset(s, 0, sizeof *s);
    s->d = infinite;
}

/* Loads all sub-blocks, eight to a group; how many groups, or 0 when a value is too large. */
static uint32_t load_groups(struct apr_group *g, const struct apr_fit *fit, uint32_t n_elems,
                            enum apr_fit_weight kind, const float *x, const float *weights)
{
    uint32_t n_groups = APR_QKK / (APR_FIT_LANES * n_elems);
    for (uint32_t k = 0; k < n_groups; k++) {
        uint32_t at = k * APR_FIT_LANES * n_elems;
        if (!fit->load(&g[k], x + at, weights ? weights + at : NULL, n_elems, kind)) return 0;
    }
    return n_groups;
}

static int32_t nearest_multiple(float v, float unit, int32_t low, int32_t high)
{
    if (unit == 0) return 0;
    float n = rintf(v / unit);
    return n < (float)low ? low : n > (float)high ? high : (int32_t)n;
}

void apr_superblock_affine(struct apr_superblock *s, const struct apr_fit *fit,
                           const struct apr_fit_spec *spec, uint32_t n_elems, enum apr_fit_weight kind,
                           const float *x, const float *weights)
{
    struct apr_group g[MAX_GROUPS];
    _Alignas(32) float scale[16], min[16];
    uint32_t n_groups = load_groups(g, fit, n_elems, kind, x, weights), n_subs = n_groups * APR_FIT_LANES;
    if (n_groups == 0) {
        set_infinite(s);
        return;
    }
    struct apr_fit_spec wide = *spec;
    wide.n_candidates += weights ? spec->n_more : 0;
    for (uint32_t k = 0; k < n_groups; k++) fit->affine(&g[k], &wide, scale + 8 * k, min + 8 * k);

    float max_scale = 0, max_min = 0;
    for (uint32_t j = 0; j < n_subs; j++) {
        max_scale = scale[j] > max_scale ? scale[j] : max_scale;
        max_min = min[j] > max_min ? min[j] : max_min;
    }
    s->d = apr_f32_to_f16(max_scale / (float)spec->max_scale);
    s->dmin = apr_f32_to_f16(max_min / (float)spec->max_scale);
    if (s->d == infinite || s->dmin == infinite) {
        set_infinite(s);
        return;
    }
    float d = apr_f16_to_f32(s->d), dmin = apr_f16_to_f32(s->dmin);
    _Alignas(32) int32_t scales[16], mins[16];
    for (uint32_t j = 0; j < n_subs; j++) {
        scales[j] = nearest_multiple(scale[j], d, 0, spec->max_scale);
        mins[j] = nearest_multiple(min[j], dmin, 0, spec->max_scale);
    }
    for (uint32_t k = 0; k < n_groups; k++) {
        fit->affine_refine(&g[k], spec, d, dmin, scales + 8 * k, mins + 8 * k);
        for (uint32_t j = 8 * k; j < 8 * k + 8; j++) {
            scale[j] = d * (float)scales[j];
            min[j] = dmin * (float)mins[j];
        }
        fit->affine_levels(&g[k], spec, scale + 8 * k, min + 8 * k, s->levels + k * APR_FIT_LANES * n_elems);
    }
    memcpy(s->scales, scales, sizeof scales);
    memcpy(s->mins, mins, sizeof mins);
}

void apr_superblock_symmetric(struct apr_superblock *s, const struct apr_fit *fit,
                              const struct apr_fit_spec *spec, uint32_t n_elems, enum apr_fit_weight kind,
                              const float *x, const float *weights)
{
    struct apr_group g[MAX_GROUPS];
    _Alignas(32) float scale[16];
    uint32_t n_groups = load_groups(g, fit, n_elems, kind, x, weights), n_subs = n_groups * APR_FIT_LANES;
    if (n_groups == 0) {
        set_infinite(s);
        return;
    }
    for (uint32_t k = 0; k < n_groups; k++) fit->symmetric(&g[k], spec, scale + 8 * k);

    /* The scale of largest magnitude becomes the most negative number, which has one step more. */
    float extreme = 0;
    for (uint32_t j = 0; j < n_subs; j++) extreme = fabsf(scale[j]) > fabsf(extreme) ? scale[j] : extreme;
    s->d = apr_f32_to_f16(extreme / (float)(-spec->max_scale - 1));
    s->dmin = 0;
    if ((s->d & 0x7fffU) == infinite) {
        set_infinite(s);
        return;
    }
    float d = apr_f16_to_f32(s->d);
    _Alignas(32) int32_t scales[16];
    for (uint32_t j = 0; j < n_subs; j++) {
        scales[j] = nearest_multiple(scale[j], d, -spec->max_scale - 1, spec->max_scale);
    }
    for (uint32_t k = 0; k < n_groups; k++) {
        fit->symmetric_refine(&g[k], spec, d, scales + 8 * k);
        for (uint32_t j = 8 * k; j < 8 * k + 8; j++) scale[j] = d * (float)scales[j];
        fit->symmetric_levels(&g[k], spec, scale + 8 * k, s->levels + k * APR_FIT_LANES * n_elems);
    }
    memcpy(s->scales, scales, sizeof scales);
    memset(s->mins, 0, sizeof s->mins);
}

void apr_q4_k_put_scales(const struct apr_superblock *s, uint8_t *packed)
{
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)(s->scales[j] | s->scales[j + 4] >> 4 << 6);
        packed[j + 4] = (uint8_t)(s->mins[j] | s->mins[j + 4] >> 4 << 6);
        packed[j + 8] = (uint8_t)((s->scales[j + 4] & 15) | (s->mins[j + 4] & 15) << 4);
    }
}

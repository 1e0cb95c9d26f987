/* The APR-native types: flat, blocks run over the whole tensor. Source: the .apr v2 format document. */
#include "blocks.h"
#include "types.h"

#include <math.h>
#include <string.h>

/* Scales that a reader must take for damage: NaN, infinite, below the smallest normal half. */
static float guarded(float scale)
{
    return isfinite(scale) && fabsf(scale) >= 0x1p-14f ? scale : 0;
}

static float larger(float max_abs, float x)
{
    return fabsf(x) > max_abs ? fabsf(x) : max_abs;
}

/* 1 for zeros, and for subnormal values that no scale can tell from zero. */
static float scale_for(float max_abs, float top)
{
    return max_abs / top > 0 ? max_abs / top : 1;
}

/* Rounding of a subnormal scale can put the largest value beyond the top level. */
static int level(float x, float top)
{
    return apr_round_away(x < -top ? -top : x > top ? top : x);
}

void apr_native_q4_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_native_q4 *b = blocks;
    for (size_t i = 0; i < n_elems; i++) {
        size_t j = i % APR_QK;
        float d = guarded(apr_f16_to_f32(b[i / APR_QK].d));
        int q = b[i / APR_QK].qs[j / 2] >> j % 2 * 4 & 15;
        x[i] = (float)(q - 8) * d;
    }
}

void apr_native_q4_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    (void)weights;
    struct apr_block_native_q4 *b = blocks;
    for (size_t i = 0; i < n_elems; i += APR_QK, b++) {
        size_t n = n_elems - i < APR_QK ? n_elems - i : APR_QK;
        float max_abs = 0;
        for (size_t j = 0; j < n; j++) max_abs = larger(max_abs, x[i + j]);
        float d = scale_for(max_abs, 7);
        b->d = apr_f32_to_f16(d);
        memset(b->qs, 0, sizeof b->qs);
        for (size_t j = 0; j < n; j++) {
            b->qs[j / 2] |= (uint8_t)((level(x[i + j] / d, 7) + 8) << j % 2 * 4);
        }
    }
}

float apr_native_q8_scale(float max_abs)
{
    return scale_for(max_abs, 127);
}

/* The guard on read is for half scales (Q4); an f32 scale may be small, but must be a number. */
void apr_native_q8_to_f32(float scale, const int8_t *q, float *x, size_t n)
{
    float d = isfinite(scale) ? scale : 0;
    for (size_t i = 0; i < n; i++) x[i] = (float)q[i] * d;
}

void apr_native_q8_from_f32(float scale, const float *x, int8_t *q, size_t n)
{
    for (size_t i = 0; i < n; i++) q[i] = (int8_t)level(x[i] / scale, 127);
}

void apr_native_q8_row_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_head_native_q8 *head = blocks;
    apr_native_q8_to_f32(head->scale, (const int8_t *)(head + 1), x, n_elems);
}

void apr_native_q8_row_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    (void)weights;
    struct apr_head_native_q8 *head = blocks;
    float max_abs = 0;
    for (size_t i = 0; i < n_elems; i++) max_abs = larger(max_abs, x[i]);
    head->scale = apr_native_q8_scale(max_abs);
    apr_native_q8_from_f32(head->scale, x, (int8_t *)(head + 1), n_elems);
}

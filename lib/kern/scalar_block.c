/* Block weights times int8 activations: exact integers inside a block, one fmaf chain over blocks.
 *
 * Every type is unpacked to the same form first, and multiplied by one of two loops. */
#include "scalar.h"

#include <math.h>

#include "strips.h"

/* x[k] = d * scale[k / 16] * q[k] - dmin * min[k / 16]; for blocks of 32: x[k] = d * q[k] - dmin. */
struct block {
    float d, dmin;
    int32_t scale[16], min[16];
    int32_t q[APR_QKK];
};
/* row: blocks of one row; i: which of them */
typedef void unpack_fn(const void *row, size_t i, struct block *b);

static void unpack_q4_0(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q4_0 *w = (const struct apr_block_q4_0 *)row + i;
    b->d = apr_f16_to_f32(w->d);
    for (int j = 0; j < 16; j++) {
        b->q[j] = (w->qs[j] & 15) - 8;
        b->q[j + 16] = (w->qs[j] >> 4) - 8;
    }
}

static void unpack_q4_1(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q4_1 *w = (const struct apr_block_q4_1 *)row + i;
    b->d = apr_f16_to_f32(w->d);
    b->dmin = -apr_f16_to_f32(w->m);
    for (int j = 0; j < 16; j++) {
        b->q[j] = w->qs[j] & 15;
        b->q[j + 16] = w->qs[j] >> 4;
    }
}

static int fifth_bit(const uint8_t qh[4], int j)
{
    return (qh[j / 8] >> j % 8 & 1) << 4;
}

static void unpack_q5_0(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q5_0 *w = (const struct apr_block_q5_0 *)row + i;
    b->d = apr_f16_to_f32(w->d);
    for (int j = 0; j < 16; j++) {
        b->q[j] = ((w->qs[j] & 15) | fifth_bit(w->qh, j)) - 16;
        b->q[j + 16] = (w->qs[j] >> 4 | fifth_bit(w->qh, j + 16)) - 16;
    }
}

static void unpack_q5_1(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q5_1 *w = (const struct apr_block_q5_1 *)row + i;
    b->d = apr_f16_to_f32(w->d);
    b->dmin = -apr_f16_to_f32(w->m);
    for (int j = 0; j < 16; j++) {
        b->q[j] = (w->qs[j] & 15) | fifth_bit(w->qh, j);
        b->q[j + 16] = w->qs[j] >> 4 | fifth_bit(w->qh, j + 16);
    }
}

static void unpack_q8_0(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q8_0 *w = (const struct apr_block_q8_0 *)row + i;
    b->d = apr_f16_to_f32(w->d);
    for (int j = 0; j < 32; j++) b->q[j] = w->qs[j];
}

static void unpack_q2_k(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q2_k *w = (const struct apr_block_q2_k *)row + i;
    b->d = apr_f16_to_f32(w->d);
    b->dmin = apr_f16_to_f32(w->dmin);
    for (int s = 0; s < 16; s++) {
        b->scale[s] = w->scales[s] & 15;
        b->min[s] = w->scales[s] >> 4;
    }
    for (int k = 0; k < APR_QKK; k++) b->q[k] = w->qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3;
}

static void unpack_q3_k(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q3_k *w = (const struct apr_block_q3_k *)row + i;
    b->d = apr_f16_to_f32(w->d);
    for (int s = 0; s < 16; s++) {
        int low = w->scales[s % 8] >> s / 8 * 4 & 15, high = w->scales[8 + s % 4] >> s / 4 * 2 & 3;
        b->scale[s] = (low | high << 4) - 32;
    }
    for (int k = 0; k < APR_QKK; k++) {
        int low = w->qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3, high = w->hmask[k % 32] >> k / 32 & 1;
        b->q[k] = (low | high << 2) - 4;
    }
}

/* Eight sub-blocks of 32 are sixteen of 16 with equal pairs. */
static void unpack_scales_45(const uint8_t scales[12], struct block *b)
{
    for (unsigned s = 0; s < 16; s++) {
        unsigned scale, min;
        apr_q4_k_scale_min(scales, s / 2, &scale, &min);
        b->scale[s] = (int32_t)scale;
        b->min[s] = (int32_t)min;
    }
}

static void unpack_q4_k(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q4_k *w = (const struct apr_block_q4_k *)row + i;
    b->d = apr_f16_to_f32(w->d);
    b->dmin = apr_f16_to_f32(w->dmin);
    unpack_scales_45(w->scales, b);
    for (int k = 0; k < APR_QKK; k++) b->q[k] = w->qs[k / 64 * 32 + k % 32] >> k % 64 / 32 * 4 & 15;
}

static void unpack_q5_k(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q5_k *w = (const struct apr_block_q5_k *)row + i;
    b->d = apr_f16_to_f32(w->d);
    b->dmin = apr_f16_to_f32(w->dmin);
    unpack_scales_45(w->scales, b);
    for (int k = 0; k < APR_QKK; k++) {
        int low = w->qs[k / 64 * 32 + k % 32] >> k % 64 / 32 * 4 & 15, high = w->qh[k % 32] >> k / 32 & 1;
        b->q[k] = low | high << 4;
    }
}

static void unpack_q6_k(const void *row, size_t i, struct block *b)
{
    const struct apr_block_q6_k *w = (const struct apr_block_q6_k *)row + i;
    b->d = apr_f16_to_f32(w->d);
    for (int s = 0; s < 16; s++) b->scale[s] = w->scales[s];
    for (int k = 0; k < APR_QKK; k++) {
        int low = w->ql[k / 128 * 64 + k % 64] >> k % 128 / 64 * 4 & 15;
        int high = w->qh[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3;
        b->q[k] = (low | high << 4) - 32;
    }
}

static float step32(const struct block *b, bool has_min, const struct apr_act32 *a, float acc)
{
    int32_t sum = 0;
    for (int k = 0; k < 32; k++) sum += b->q[k] * a->q[k];
    if (has_min) acc = fmaf(-(b->dmin * a->d), (float)a->sum, acc);
    return fmaf(b->d * a->d, (float)sum, acc);
}

/* |sum| <= 16 * 127 * 256 * max|q| * max|scale| / 16: largest for Q6_K, 1.3e8 */
static float step256(const struct block *b, bool has_min, const struct apr_act256 *a, float acc)
{
    int32_t sum = 0, sum_min = 0;
    for (int s = 0; s < 16; s++) {
        int32_t part = 0;
        for (int k = 16 * s; k < 16 * s + 16; k++) part += b->q[k] * a->q[k];
        sum += b->scale[s] * part;
        if (has_min) sum_min += b->min[s] * a->sums[s];
    }
    if (has_min) acc = fmaf(-(b->dmin * a->d), (float)sum_min, acc);
    return fmaf(b->d * a->d, (float)sum, acc);
}

#define BLOCKS(lower, upper, block_elems, act, step, has_min)                                                \
    void apr_scalar_fast_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,            \
                                 const void *x, size_t x_row_bytes, size_t n_toks, float *y,                 \
                                 size_t y_stride, void *scratch)                                             \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        const uint8_t *row = w, *xs = x;                                                                     \
        for (size_t r = 0; r < n_rows; r++, row += w_row_bytes) {                                            \
            for (size_t t = 0; t < n_toks; t++) y[t * y_stride + r] = 0;                                     \
            for (size_t i = 0; i < n_cols / (block_elems); i++) {                                            \
                struct block b;                                                                              \
                unpack_##lower(row, i, &b);                                                                  \
                for (size_t t = 0; t < n_toks; t++) {                                                        \
                    const act *a = (const act *)(const void *)(xs + t * x_row_bytes) + i;                    \
                    y[t * y_stride + r] = step(&b, has_min, a, y[t * y_stride + r]);                         \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    void apr_scalar_to_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,       \
                                      void *out)                                                             \
    {                                                                                                        \
        to_strips(apr_strip_plan_of(upper), w, w_row_bytes, n_rows, n_cols / (block_elems), out);            \
    }                                                                                                        \
    /* Each row is taken out of its strip, a block at a time. */                                             \
    void apr_scalar_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,          \
                                   const void *x, size_t x_row_bytes, size_t n_toks, float *y,               \
                                   size_t y_stride, void *scratch)                                           \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        const struct apr_strip_plan *p = apr_strip_plan_of(upper);                                           \
        const uint8_t *xs = x;                                                                               \
        for (size_t r = 0; r < n_rows; r++) {                                                                \
            const uint8_t *strip = (const uint8_t *)w + r / APR_STRIP_ROWS * APR_STRIP_ROWS * w_row_bytes;   \
            for (size_t t = 0; t < n_toks; t++) y[t * y_stride + r] = 0;                                     \
            for (size_t i = 0; i < n_cols / (block_elems); i++) {                                            \
                struct apr_block_##lower one;                                                                \
                struct block b;                                                                              \
                apr_strip_read(p, strip + i * APR_STRIP_ROWS * sizeof one, r % APR_STRIP_ROWS,               \
                               (uint8_t *)&one);                                                             \
                unpack_##lower(&one, 0, &b);                                                                 \
                for (size_t t = 0; t < n_toks; t++) {                                                        \
                    const act *a = (const act *)(const void *)(xs + t * x_row_bytes) + i;                    \
                    y[t * y_stride + r] = step(&b, has_min, a, y[t * y_stride + r]);                         \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

static void to_strips(const struct apr_strip_plan *p, const uint8_t *w, size_t w_row_bytes, size_t n_rows,
                      size_t n_blocks, uint8_t *out)
{
    size_t n_bytes = APR_STRIP_ROWS * w_row_bytes;
    for (size_t r = 0; r < n_rows; r += APR_STRIP_ROWS, w += n_bytes, out += n_bytes)
        apr_strip_write(p, w, w_row_bytes, n_blocks, out);
}

BLOCKS(q4_0, APR_Q4_0, APR_QK, struct apr_act32, step32, false)
BLOCKS(q4_1, APR_Q4_1, APR_QK, struct apr_act32, step32, true)
BLOCKS(q5_0, APR_Q5_0, APR_QK, struct apr_act32, step32, false)
BLOCKS(q5_1, APR_Q5_1, APR_QK, struct apr_act32, step32, true)
BLOCKS(q8_0, APR_Q8_0, APR_QK, struct apr_act32, step32, false)
BLOCKS(q2_k, APR_Q2_K, APR_QKK, struct apr_act256, step256, true)
BLOCKS(q3_k, APR_Q3_K, APR_QKK, struct apr_act256, step256, false)
BLOCKS(q4_k, APR_Q4_K, APR_QKK, struct apr_act256, step256, true)
BLOCKS(q5_k, APR_Q5_K, APR_QKK, struct apr_act256, step256, true)
BLOCKS(q6_k, APR_Q6_K, APR_QKK, struct apr_act256, step256, false)

/* Weights as numbers times f32 activations for the tables of 128 bits: 8 lanes in two vectors, one tree
 * (kern.h).
 *
 * Slices of 4 rows are widened to f32 once for up to 16 tokens; accumulators rest in scratch between slices,
 * unrounded. A body: included once by a file of a table after the header of its instruction set.
 *
 *     #include "v128_plain.h"
 */
#ifndef APR_KERN_V128_PLAIN_H
#define APR_KERN_V128_PLAIN_H

#include "../quant/blocks.h"
#include "../quant/types.h"
#include "avx2.h" /* scratch counts on the largest of all tables */
#include "v128_decl.h"

enum {
    N_ROWS = 4,
    N_SLICE = 512 /* a multiple of every block */,
    N_GROUP = 16 /* tokens that share a slice */
};

/* scratch of a thread */
struct slices {
    float wide[N_ROWS][N_SLICE];
    float acc[N_GROUP][N_ROWS][8];
};
_Static_assert(sizeof(struct slices) <= APR_V128_PLAIN_BYTES && APR_V128_PLAIN_BYTES <= APR_AVX2_PANEL_BYTES,
               "pick.c counts on it");

/* n values from column k0 on of a row */
typedef void slice_fn(const uint8_t *row, size_t k0, float *x, size_t n);

static void f16_to_f32(const void *halves, float *x, size_t n)
{
    const uint8_t *p = halves;
    for (; n >= 4; n -= 4, p += 8, x += 4) v_store(x, v_halves(p));
    apr_f16_row_to_f32(p, x, n);
}

static void bf16_to_f32(const void *words, float *x, size_t n)
{
    const uint8_t *p = words;
    for (; n >= 8; n -= 8, p += 16, x += 8) {
        u16x8 v = (u16x8)v_bytes(p), zero = {0};
        v_store(x, (f32x4)__builtin_shufflevector(zero, v, 0, 8, 0, 9, 0, 10, 0, 11));
        v_store(x + 4, (f32x4)__builtin_shufflevector(zero, v, 0, 12, 0, 13, 0, 14, 0, 15));
    }
    apr_bf16_row_to_f32(p, x, n);
}

/* (float)q * d of 8 bytes at q */
V_INLINE void eight(const int8_t *q, float d, float *x)
{
    i8x8 bytes;
    memcpy(&bytes, q, sizeof bytes);
    i16x8 v = __builtin_convertvector(bytes, i16x8);
    /* a word twice in 32 bits, shifted, is the word with its sign */
    i32x4 low = (i32x4)__builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3) >> 16,
          high = (i32x4)__builtin_shufflevector(v, v, 4, 4, 5, 5, 6, 6, 7, 7) >> 16;
    v_store(x, v_float(low) * d);
    v_store(x + 4, v_float(high) * d);
}

static void i8_to_f32(const void *bytes, float *x, size_t n)
{
    const int8_t *q = bytes;
    for (; n >= 8; n -= 8, q += 8, x += 8) eight(q, 1, x);
    apr_i8_to_f32(q, x, n);
}

static void q8_0_to_f32(const void *blocks, float *x, size_t n)
{
    const struct apr_block_q8_0 *b = blocks;
    for (; n >= APR_QK; n -= APR_QK, b++, x += APR_QK) {
        float d = apr_f16_to_f32(b->d);
        V_UNROLL
        for (int i = 0; i < APR_QK; i += 8) eight(b->qs + i, d, x + i);
    }
}

/* acc += w[r] * x over n columns; n is a multiple of 8 unless this is the end of the row. */
V_INLINE void plain_tile(const struct slices *s, const float *x, size_t n, float (*acc)[8])
{
    f32x4 low[N_ROWS], high[N_ROWS];
    V_UNROLL
    for (int r = 0; r < N_ROWS; r++) {
        low[r] = v_load(acc[r]);
        high[r] = v_load(acc[r] + 4);
    }
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        f32x4 x0 = v_load(x + k), x1 = v_load(x + k + 4);
        V_UNROLL
        for (int r = 0; r < N_ROWS; r++) {
            low[r] = v_fma(v_load(s->wide[r] + k), x0, low[r]);
            high[r] = v_fma(v_load(s->wide[r] + k + 4), x1, high[r]);
        }
    }
    V_UNROLL
    for (int r = 0; r < N_ROWS; r++) {
        v_store(acc[r], low[r]);
        v_store(acc[r] + 4, high[r]);
        for (size_t l = k; l < n; l++) acc[r][l - k] = fmaf(s->wide[r][l], x[l], acc[r][l - k]);
    }
}

/* One group of 4 rows (their pointers may repeat) and n_toks <= N_GROUP tokens; y: [n_toks, 4] */
static void slices_by_toks(slice_fn *slice, const uint8_t *const *rows, size_t n_cols, const uint8_t *x,
                           size_t x_row_bytes, size_t n_toks, float (*y)[N_ROWS], struct slices *s)
{
    memset(s->acc, 0, n_toks * sizeof s->acc[0]);
    for (size_t k0 = 0; k0 < n_cols; k0 += N_SLICE) {
        size_t n = n_cols - k0 < N_SLICE ? n_cols - k0 : N_SLICE;
        for (size_t r = 0; r < N_ROWS; r++) slice(rows[r], k0, s->wide[r], n);
        for (size_t t = 0; t < n_toks; t++)
            plain_tile(s, (const float *)(const void *)(x + t * x_row_bytes) + k0, n, s->acc[t]);
    }
    for (size_t t = 0; t < n_toks; t++)
        for (size_t r = 0; r < N_ROWS; r++) y[t][r] = v_tree(v_load(s->acc[t][r]), v_load(s->acc[t][r] + 4));
}

static void by_slices(slice_fn *slice, const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,
                      const void *x, size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride,
                      void *scratch)
{
    float lane[N_GROUP][N_ROWS];
    for (size_t r = 0; r < n_rows; r += N_ROWS) {
        const uint8_t *rows[N_ROWS];
        size_t n = n_rows - r < N_ROWS ? n_rows - r : N_ROWS;
        for (size_t j = 0; j < N_ROWS; j++)
            rows[j] = (const uint8_t *)w + (r + (j < n ? j : n - 1)) * w_row_bytes;
        for (size_t t0 = 0; t0 < n_toks; t0 += N_GROUP) {
            size_t n_group = n_toks - t0 < N_GROUP ? n_toks - t0 : N_GROUP;
            slices_by_toks(slice, rows, n_cols, (const uint8_t *)x + t0 * x_row_bytes, x_row_bytes, n_group,
                           lane, scratch);
            for (size_t t = 0; t < n_group; t++)
                memcpy(y + (t0 + t) * y_stride + r, lane[t], n * sizeof **lane);
        }
    }
}

static void slice_native_q8(const uint8_t *row, size_t k0, float *x, size_t n)
{
    const struct apr_head_native_q8 *head = (const void *)row;
    apr_native_q8_to_f32(head->scale, (const int8_t *)(head + 1) + k0, x, n);
}

#define V_PLAIN(name, lower)                                                                                 \
    void V(name)(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,             \
                 size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)                \
    {                                                                                                        \
        by_slices(slice_##lower, w, w_row_bytes, n_rows, n_cols, x, x_row_bytes, n_toks, y, y_stride,        \
                  scratch);                                                                                  \
    }
#define V_SLICED(name, lower, block_elems, block_bytes, to_f32)                                              \
    static void slice_##lower(const uint8_t *row, size_t k0, float *x, size_t n)                             \
    {                                                                                                        \
        to_f32(row + k0 / (block_elems) * (block_bytes), x, n);                                              \
    }                                                                                                        \
    V_PLAIN(name, lower)
#define V_EXACT(lower, block_elems)                                                                          \
    V_SLICED(exact_##lower, lower, block_elems, sizeof(struct apr_block_##lower), apr_##lower##_to_f32)

V_PLAIN(native_q8, native_q8)
V_SLICED(f32, f32, 1, 4, apr_f32_to_f32)
V_SLICED(f16, f16, 1, 2, f16_to_f32)
V_SLICED(bf16, bf16, 1, 2, bf16_to_f32)
V_SLICED(f64, f64, 1, 8, apr_f64_to_f32)
V_SLICED(i8, i8, 1, 1, i8_to_f32)
V_SLICED(native_q4, native_q4, APR_QK, sizeof(struct apr_block_native_q4), apr_native_q4_to_f32)
V_SLICED(exact_q8_0, q8_0, APR_QK, sizeof(struct apr_block_q8_0), q8_0_to_f32)
V_EXACT(q4_0, APR_QK)
V_EXACT(q4_1, APR_QK)
V_EXACT(q5_0, APR_QK)
V_EXACT(q5_1, APR_QK)
V_EXACT(q2_k, APR_QKK)
V_EXACT(q3_k, APR_QKK)
V_EXACT(q4_k, APR_QKK)
V_EXACT(q5_k, APR_QKK)
V_EXACT(q6_k, APR_QKK)
V_EXACT(iq2_xxs, APR_QKK)
V_EXACT(iq2_xs, APR_QKK)
V_EXACT(iq2_s, APR_QKK)
V_EXACT(iq3_xxs, APR_QKK)
V_EXACT(iq3_s, APR_QKK)
V_EXACT(iq1_s, APR_QKK)
V_EXACT(iq1_m, APR_QKK)
V_EXACT(iq4_nl, APR_QK)
V_EXACT(iq4_xs, APR_QKK)
V_EXACT(tq1_0, APR_QKK)
V_EXACT(tq2_0, APR_QKK)
V_EXACT(mxfp4, APR_QK)

/* clang-format off */
apr_to_f32_fn *const V(to_f32s)[APR_N_TYPES] = {
    [APR_F32] = apr_f32_to_f32, [APR_F16] = f16_to_f32, [APR_BF16] = bf16_to_f32,
    [APR_F64] = apr_f64_to_f32, [APR_I8] = i8_to_f32,
    [APR_NATIVE_Q4] = apr_native_q4_to_f32, [APR_NATIVE_Q8] = apr_native_q8_row_to_f32,
    [APR_Q4_0] = apr_q4_0_to_f32, [APR_Q4_1] = apr_q4_1_to_f32,
    [APR_Q5_0] = apr_q5_0_to_f32, [APR_Q5_1] = apr_q5_1_to_f32, [APR_Q8_0] = q8_0_to_f32,
    [APR_Q2_K] = apr_q2_k_to_f32, [APR_Q3_K] = apr_q3_k_to_f32, [APR_Q4_K] = apr_q4_k_to_f32,
    [APR_Q5_K] = apr_q5_k_to_f32, [APR_Q6_K] = apr_q6_k_to_f32,
    [APR_IQ2_XXS] = apr_iq2_xxs_to_f32, [APR_IQ2_XS] = apr_iq2_xs_to_f32,
    [APR_IQ2_S] = apr_iq2_s_to_f32, [APR_IQ3_XXS] = apr_iq3_xxs_to_f32,
    [APR_IQ3_S] = apr_iq3_s_to_f32, [APR_IQ1_S] = apr_iq1_s_to_f32,
    [APR_IQ1_M] = apr_iq1_m_to_f32, [APR_IQ4_NL] = apr_iq4_nl_to_f32,
    [APR_IQ4_XS] = apr_iq4_xs_to_f32, [APR_TQ1_0] = apr_tq1_0_to_f32,
    [APR_TQ2_0] = apr_tq2_0_to_f32, [APR_MXFP4] = apr_mxfp4_to_f32,
};
/* clang-format on */

#endif

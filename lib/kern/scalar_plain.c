/* Weights as numbers times f32 activations: 8 lanes, fused multiply-add, one tree. */
#include "scalar.h"

#include <math.h>

#include "../quant/types.h"

float apr_scalar_tree(const float lane[8])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

double apr_scalar_tree_f64(const double lane[8])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

float apr_scalar_dot(const float *a, const float *b, size_t n)
{
    float lane[8] = {0};
    for (size_t k = 0; k < n; k++) lane[k % 8] = fmaf(a[k], b[k], lane[k % 8]);
    return apr_scalar_tree(lane);
}

/* Widens row by row into scratch, so that a row is converted once for all tokens. */
static void widened(apr_to_f32_fn *to_f32, const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,
                    const void *x, size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride,
                    void *scratch)
{
    const uint8_t *row = w;
    float *wide = scratch; /* [n_cols] */
    for (size_t r = 0; r < n_rows; r++, row += w_row_bytes) {
        to_f32(row, wide, n_cols);
        for (size_t t = 0; t < n_toks; t++) {
            const void *xt = (const uint8_t *)x + t * x_row_bytes;
            y[t * y_stride + r] = apr_scalar_dot(wide, xt, n_cols);
        }
    }
}

#define WIDENED(name, to_f32)                                                                                \
    void name(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,                \
              size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)                   \
    {                                                                                                        \
        widened(to_f32, w, w_row_bytes, n_rows, n_cols, x, x_row_bytes, n_toks, y, y_stride, scratch);       \
    }

WIDENED(apr_scalar_f32, apr_f32_to_f32)
WIDENED(apr_scalar_f16, apr_f16_row_to_f32)
WIDENED(apr_scalar_bf16, apr_bf16_row_to_f32)
WIDENED(apr_scalar_f64, apr_f64_to_f32)
WIDENED(apr_scalar_i8, apr_i8_to_f32)
WIDENED(apr_scalar_native_q4, apr_native_q4_to_f32)
WIDENED(apr_scalar_native_q8, apr_native_q8_row_to_f32)
WIDENED(apr_scalar_exact_q4_0, apr_q4_0_to_f32)
WIDENED(apr_scalar_exact_q4_1, apr_q4_1_to_f32)
WIDENED(apr_scalar_exact_q5_0, apr_q5_0_to_f32)
WIDENED(apr_scalar_exact_q5_1, apr_q5_1_to_f32)
WIDENED(apr_scalar_exact_q8_0, apr_q8_0_to_f32)
WIDENED(apr_scalar_exact_q2_k, apr_q2_k_to_f32)
WIDENED(apr_scalar_exact_q3_k, apr_q3_k_to_f32)
WIDENED(apr_scalar_exact_q4_k, apr_q4_k_to_f32)
WIDENED(apr_scalar_exact_q5_k, apr_q5_k_to_f32)
WIDENED(apr_scalar_exact_q6_k, apr_q6_k_to_f32)
WIDENED(apr_scalar_exact_iq2_xxs, apr_iq2_xxs_to_f32)
WIDENED(apr_scalar_exact_iq2_xs, apr_iq2_xs_to_f32)
WIDENED(apr_scalar_exact_iq2_s, apr_iq2_s_to_f32)
WIDENED(apr_scalar_exact_iq3_xxs, apr_iq3_xxs_to_f32)
WIDENED(apr_scalar_exact_iq3_s, apr_iq3_s_to_f32)
WIDENED(apr_scalar_exact_iq1_s, apr_iq1_s_to_f32)
WIDENED(apr_scalar_exact_iq1_m, apr_iq1_m_to_f32)
WIDENED(apr_scalar_exact_iq4_nl, apr_iq4_nl_to_f32)
WIDENED(apr_scalar_exact_iq4_xs, apr_iq4_xs_to_f32)
WIDENED(apr_scalar_exact_tq1_0, apr_tq1_0_to_f32)
WIDENED(apr_scalar_exact_tq2_0, apr_tq2_0_to_f32)
WIDENED(apr_scalar_exact_mxfp4, apr_mxfp4_to_f32)

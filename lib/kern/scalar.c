/* The scalar table: plain C, any CPU, the definition of every result. */
#include "scalar.h"

#include "../quant/types.h"
#include "slots.h"

static const struct apr_matmul matmul[APR_N_TYPES] = APR_KERN_MATMUL(apr_scalar, apr_scalar);

/* clang-format off */
static apr_to_f32_fn *const to_f32[APR_N_TYPES] = {
    [APR_F32] = apr_f32_to_f32, [APR_F16] = apr_f16_row_to_f32, [APR_BF16] = apr_bf16_row_to_f32,
    [APR_F64] = apr_f64_to_f32, [APR_I8] = apr_i8_to_f32,
    [APR_NATIVE_Q4] = apr_native_q4_to_f32, [APR_NATIVE_Q8] = apr_native_q8_row_to_f32,
    [APR_Q4_0] = apr_q4_0_to_f32, [APR_Q4_1] = apr_q4_1_to_f32,
    [APR_Q5_0] = apr_q5_0_to_f32, [APR_Q5_1] = apr_q5_1_to_f32, [APR_Q8_0] = apr_q8_0_to_f32,
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

const struct apr_kern apr_kern_scalar = {
    .name = "scalar", .matmul = matmul, .to_f32 = to_f32, APR_KERN_SLOTS(apr_scalar)};

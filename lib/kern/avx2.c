/* The table for x86-64 CPUs with AVX2, FMA and F16C. */
#include "avx2.h"

#include "../quant/types.h"
#include "slots.h"

static const struct apr_matmul matmul[APR_N_TYPES] = APR_KERN_MATMUL(apr_avx2, apr_avx2);

/* clang-format off */
apr_to_f32_fn *const apr_avx2_to_f32s[APR_N_TYPES] = {
    [APR_F32] = apr_f32_to_f32, [APR_F16] = apr_avx2_f16_row_to_f32, [APR_BF16] = apr_avx2_bf16_row_to_f32,
    [APR_F64] = apr_avx2_f64_to_f32, [APR_I8] = apr_avx2_i8_to_f32,
    [APR_NATIVE_Q4] = apr_avx2_native_q4_to_f32, [APR_NATIVE_Q8] = apr_avx2_native_q8_row_to_f32,
    [APR_Q4_0] = apr_avx2_q4_0_to_f32, [APR_Q4_1] = apr_avx2_q4_1_to_f32,
    [APR_Q5_0] = apr_avx2_q5_0_to_f32, [APR_Q5_1] = apr_avx2_q5_1_to_f32, [APR_Q8_0] = apr_avx2_q8_0_to_f32,
    [APR_Q2_K] = apr_avx2_q2_k_to_f32, [APR_Q3_K] = apr_avx2_q3_k_to_f32, [APR_Q4_K] = apr_avx2_q4_k_to_f32,
    [APR_Q5_K] = apr_avx2_q5_k_to_f32, [APR_Q6_K] = apr_avx2_q6_k_to_f32,
    [APR_IQ2_XXS] = apr_iq2_xxs_to_f32, [APR_IQ2_XS] = apr_iq2_xs_to_f32,
    [APR_IQ2_S] = apr_iq2_s_to_f32, [APR_IQ3_XXS] = apr_iq3_xxs_to_f32,
    [APR_IQ3_S] = apr_iq3_s_to_f32, [APR_IQ1_S] = apr_iq1_s_to_f32,
    [APR_IQ1_M] = apr_iq1_m_to_f32, [APR_IQ4_NL] = apr_iq4_nl_to_f32,
    [APR_IQ4_XS] = apr_iq4_xs_to_f32, [APR_TQ1_0] = apr_tq1_0_to_f32,
    [APR_TQ2_0] = apr_tq2_0_to_f32, [APR_MXFP4] = apr_mxfp4_to_f32,
};
/* clang-format on */

const struct apr_kern apr_kern_avx2 = {
    .name = "avx2", .matmul = matmul, .to_f32 = apr_avx2_to_f32s, APR_KERN_SLOTS(apr_avx2)};

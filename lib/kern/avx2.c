/* The table for x86-64 CPUs with AVX2, FMA and F16C. */
#include "avx2.h"

#include "../quant/types.h"

/* f32 activations only */
#define ROWS(fn)                                                                                             \
    {                                                                                                        \
        fn, APR_ACT_F32, fn, NULL, NULL                                                                      \
    }
#define STRIPS(lower, act)                                                                                   \
    {                                                                                                        \
        apr_avx2_fast_##lower, act, apr_avx2_exact_##lower, apr_avx2_to_strips_##lower,                      \
            apr_avx2_strips_##lower                                                                          \
    }
/* clang-format off */
static const struct apr_matmul matmul[APR_N_TYPES] = {
    [APR_F32] = ROWS(apr_avx2_f32),
    [APR_F16] = ROWS(apr_avx2_f16),
    [APR_BF16] = ROWS(apr_avx2_bf16),
    [APR_F64] = ROWS(apr_avx2_f64),
    [APR_I8] = ROWS(apr_avx2_i8),
    [APR_NATIVE_Q4] = ROWS(apr_avx2_native_q4),
    [APR_NATIVE_Q8] = ROWS(apr_avx2_native_q8),
    [APR_Q4_0] = STRIPS(q4_0, APR_ACT_Q8_32),
    [APR_Q4_1] = STRIPS(q4_1, APR_ACT_Q8_32),
    [APR_Q5_0] = STRIPS(q5_0, APR_ACT_Q8_32),
    [APR_Q5_1] = STRIPS(q5_1, APR_ACT_Q8_32),
    [APR_Q8_0] = STRIPS(q8_0, APR_ACT_Q8_32),
    [APR_Q2_K] = STRIPS(q2_k, APR_ACT_Q8_256),
    [APR_Q3_K] = STRIPS(q3_k, APR_ACT_Q8_256),
    [APR_Q4_K] = STRIPS(q4_k, APR_ACT_Q8_256),
    [APR_Q5_K] = STRIPS(q5_k, APR_ACT_Q8_256),
    [APR_Q6_K] = STRIPS(q6_k, APR_ACT_Q8_256),
    [APR_IQ2_XXS] = ROWS(apr_avx2_exact_iq2_xxs),
    [APR_IQ2_XS] = ROWS(apr_avx2_exact_iq2_xs),
    [APR_IQ2_S] = ROWS(apr_avx2_exact_iq2_s),
    [APR_IQ3_XXS] = ROWS(apr_avx2_exact_iq3_xxs),
    [APR_IQ3_S] = ROWS(apr_avx2_exact_iq3_s),
    [APR_IQ1_S] = ROWS(apr_avx2_exact_iq1_s),
    [APR_IQ1_M] = ROWS(apr_avx2_exact_iq1_m),
    [APR_IQ4_NL] = ROWS(apr_avx2_exact_iq4_nl),
    [APR_IQ4_XS] = ROWS(apr_avx2_exact_iq4_xs),
    [APR_TQ1_0] = ROWS(apr_avx2_exact_tq1_0),
    [APR_TQ2_0] = ROWS(apr_avx2_exact_tq2_0),
    [APR_MXFP4] = ROWS(apr_avx2_exact_mxfp4),
};
static apr_to_f32_fn *const to_f32[APR_N_TYPES] = {
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
    .name = "avx2",
    .matmul = matmul,
    .to_act32 = apr_avx2_to_act32,
    .to_act256 = apr_avx2_to_act256,
    .to_f32 = to_f32,
    .rmsnorm = apr_avx2_rmsnorm,
    .layernorm = apr_avx2_layernorm,
    .add = apr_avx2_add,
    .mul = apr_avx2_mul,
    .scale = apr_avx2_scale,
    .add_scaled = apr_avx2_add_scaled,
    .silu_mul = apr_avx2_silu_mul,
    .silu = apr_avx2_silu,
    .gelu = apr_avx2_gelu,
    .gelu_tanh = apr_avx2_gelu_tanh,
    .relu = apr_avx2_relu,
    .softcap = apr_avx2_softcap,
    .rope_half = apr_avx2_rope_half,
    .rope_pairs = apr_avx2_rope_pairs,
    .softmax = apr_avx2_softmax,
    .max = apr_avx2_max,
    .attn_scores_f16 = apr_avx2_scores_f16,
    .attn_values_f16 = apr_avx2_values_f16,
    .attn_scores_f32 = apr_avx2_scores_f32,
    .attn_values_f32 = apr_avx2_values_f32,
    .f32_to_f16 = apr_avx2_f32_to_f16,
    .stats = apr_avx2_stats,
};

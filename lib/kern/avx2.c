/* The table for x86-64 CPUs with AVX2, FMA and F16C. */
#include "avx2.h"

#include "../quant/types.h"

/* clang-format off */
static const struct apr_matmul matmul[APR_N_TYPES] = {
    [APR_F32] = {apr_avx2_f32, APR_ACT_F32, apr_avx2_f32},
    [APR_F16] = {apr_avx2_f16, APR_ACT_F32, apr_avx2_f16},
    [APR_BF16] = {apr_avx2_bf16, APR_ACT_F32, apr_avx2_bf16},
    [APR_F64] = {apr_avx2_f64, APR_ACT_F32, apr_avx2_f64},
    [APR_I8] = {apr_avx2_i8, APR_ACT_F32, apr_avx2_i8},
    [APR_NATIVE_Q4] = {apr_avx2_native_q4, APR_ACT_F32, apr_avx2_native_q4},
    [APR_NATIVE_Q8] = {apr_avx2_native_q8, APR_ACT_F32, apr_avx2_native_q8},
    [APR_Q4_0] = {apr_avx2_fast_q4_0, APR_ACT_Q8_32, apr_avx2_exact_q4_0},
    [APR_Q4_1] = {apr_avx2_fast_q4_1, APR_ACT_Q8_32, apr_avx2_exact_q4_1},
    [APR_Q5_0] = {apr_avx2_fast_q5_0, APR_ACT_Q8_32, apr_avx2_exact_q5_0},
    [APR_Q5_1] = {apr_avx2_fast_q5_1, APR_ACT_Q8_32, apr_avx2_exact_q5_1},
    [APR_Q8_0] = {apr_avx2_fast_q8_0, APR_ACT_Q8_32, apr_avx2_exact_q8_0},
    [APR_Q2_K] = {apr_avx2_fast_q2_k, APR_ACT_Q8_256, apr_avx2_exact_q2_k},
    [APR_Q3_K] = {apr_avx2_fast_q3_k, APR_ACT_Q8_256, apr_avx2_exact_q3_k},
    [APR_Q4_K] = {apr_avx2_fast_q4_k, APR_ACT_Q8_256, apr_avx2_exact_q4_k},
    [APR_Q5_K] = {apr_avx2_fast_q5_k, APR_ACT_Q8_256, apr_avx2_exact_q5_k},
    [APR_Q6_K] = {apr_avx2_fast_q6_k, APR_ACT_Q8_256, apr_avx2_exact_q6_k},
};
static apr_to_f32_fn *const to_f32[APR_N_TYPES] = {
    [APR_F32] = apr_f32_to_f32, [APR_F16] = apr_avx2_f16_row_to_f32, [APR_BF16] = apr_avx2_bf16_row_to_f32,
    [APR_F64] = apr_avx2_f64_to_f32, [APR_I8] = apr_avx2_i8_to_f32,
    [APR_NATIVE_Q4] = apr_avx2_native_q4_to_f32, [APR_NATIVE_Q8] = apr_avx2_native_q8_row_to_f32,
    [APR_Q4_0] = apr_avx2_q4_0_to_f32, [APR_Q4_1] = apr_avx2_q4_1_to_f32,
    [APR_Q5_0] = apr_avx2_q5_0_to_f32, [APR_Q5_1] = apr_avx2_q5_1_to_f32, [APR_Q8_0] = apr_avx2_q8_0_to_f32,
    [APR_Q2_K] = apr_avx2_q2_k_to_f32, [APR_Q3_K] = apr_avx2_q3_k_to_f32, [APR_Q4_K] = apr_avx2_q4_k_to_f32,
    [APR_Q5_K] = apr_avx2_q5_k_to_f32, [APR_Q6_K] = apr_avx2_q6_k_to_f32,
};
/* clang-format on */
const struct apr_kern apr_kern_avx2 = {
    .name = "avx2",
    .matmul = matmul,
    .to_act32 = apr_avx2_to_act32,
    .to_act256 = apr_avx2_to_act256,
    .to_f32 = to_f32,
    .rmsnorm = apr_avx2_rmsnorm,
    .add = apr_avx2_add,
    .silu_mul = apr_avx2_silu_mul,
    .rope_half = apr_avx2_rope_half,
    .softmax = apr_avx2_softmax,
    .max = apr_avx2_max,
    .attn_scores_f16 = apr_avx2_scores_f16,
    .attn_values_f16 = apr_avx2_values_f16,
    .attn_scores_f32 = apr_avx2_scores_f32,
    .attn_values_f32 = apr_avx2_values_f32,
    .f32_to_f16 = apr_avx2_f32_to_f16,
    .stats = apr_avx2_stats,
};

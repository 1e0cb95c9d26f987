/* What every table has, listed once: rows of the matrix kernels and the remaining slots, by the prefix of
 * their names. A new type or slot is a line here; a table that lacks the function does not compile.
 *
 *     static const struct apr_matmul matmul[APR_N_TYPES] = APR_KERN_MATMUL(apr_avx2, apr_avx512);
 *     const struct apr_kern apr_kern_avx512 = {.name = "avx512", .matmul = matmul, APR_KERN_SLOTS(apr_avx2)};
 */
#ifndef APR_KERN_SLOTS_H
#define APR_KERN_SLOTS_H

/* clang-format off */

/* f32 activations only, then: activations in int8 */
#define APR_KERN_ROWS(fn) {(fn), APR_ACT_F32, (fn), NULL, NULL}
#define APR_KERN_BLOCKS(P, F, T, S, lower, act) {F##_fast_##lower, act, P##_exact_##lower, T##_to_strips_##lower, S##_strips_##lower}

/* P: of rows and of making strips; S: of strips and of F32, F16 and BF16 */
#define APR_KERN_MATMUL(P, S) APR_KERN_MATMUL_OF(P, S, P, P, S)
/* W: of F32, F16 and BF16; F: of rows in int8; T: of making strips; S: of strips; P: of all the others */
#define APR_KERN_MATMUL_OF(P, W, F, T, S) APR_KERN_MATMUL_BF16(P, W, F, T, S, W##_bf16, APR_ACT_F32, W##_bf16)
/* fast, act, exact: of BF16 */
#define APR_KERN_MATMUL_BF16(P, W, F, T, S, fast, act, exact)  \
    {                                                          \
        [APR_F32] = APR_KERN_ROWS(W##_f32),                    \
        [APR_F16] = APR_KERN_ROWS(W##_f16),                    \
        [APR_BF16] = {(fast), (act), (exact), NULL, NULL},     \
        [APR_F64] = APR_KERN_ROWS(P##_f64),                    \
        [APR_I8] = APR_KERN_ROWS(P##_i8),                      \
        [APR_NATIVE_Q4] = APR_KERN_ROWS(P##_native_q4),        \
        [APR_NATIVE_Q8] = APR_KERN_ROWS(P##_native_q8),        \
        [APR_Q4_0] = APR_KERN_BLOCKS(P, F, T, S, q4_0, APR_ACT_Q8_32), \
        [APR_Q4_1] = APR_KERN_BLOCKS(P, F, T, S, q4_1, APR_ACT_Q8_32), \
        [APR_Q5_0] = APR_KERN_BLOCKS(P, F, T, S, q5_0, APR_ACT_Q8_32), \
        [APR_Q5_1] = APR_KERN_BLOCKS(P, F, T, S, q5_1, APR_ACT_Q8_32), \
        [APR_Q8_0] = APR_KERN_BLOCKS(P, F, T, S, q8_0, APR_ACT_Q8_32), \
        [APR_Q2_K] = APR_KERN_BLOCKS(P, F, T, S, q2_k, APR_ACT_Q8_256), \
        [APR_Q3_K] = APR_KERN_BLOCKS(P, F, T, S, q3_k, APR_ACT_Q8_256), \
        [APR_Q4_K] = APR_KERN_BLOCKS(P, F, T, S, q4_k, APR_ACT_Q8_256), \
        [APR_Q5_K] = APR_KERN_BLOCKS(P, F, T, S, q5_k, APR_ACT_Q8_256), \
        [APR_Q6_K] = APR_KERN_BLOCKS(P, F, T, S, q6_k, APR_ACT_Q8_256), \
        [APR_IQ2_XXS] = APR_KERN_ROWS(P##_exact_iq2_xxs),      \
        [APR_IQ2_XS] = APR_KERN_ROWS(P##_exact_iq2_xs),        \
        [APR_IQ2_S] = APR_KERN_ROWS(P##_exact_iq2_s),          \
        [APR_IQ3_XXS] = APR_KERN_ROWS(P##_exact_iq3_xxs),      \
        [APR_IQ3_S] = APR_KERN_ROWS(P##_exact_iq3_s),          \
        [APR_IQ1_S] = APR_KERN_ROWS(P##_exact_iq1_s),          \
        [APR_IQ1_M] = APR_KERN_ROWS(P##_exact_iq1_m),          \
        [APR_IQ4_NL] = APR_KERN_ROWS(P##_exact_iq4_nl),        \
        [APR_IQ4_XS] = APR_KERN_ROWS(P##_exact_iq4_xs),        \
        [APR_TQ1_0] = APR_KERN_ROWS(P##_exact_tq1_0),          \
        [APR_TQ2_0] = APR_KERN_ROWS(P##_exact_tq2_0),          \
        [APR_MXFP4] = APR_KERN_ROWS(P##_exact_mxfp4),          \
    }

#define APR_KERN_VECTORS(P)             \
    .to_act32 = P##_to_act32,           \
    .to_act256 = P##_to_act256,         \
    .rmsnorm = P##_rmsnorm,             \
    .layernorm = P##_layernorm,         \
    .add = P##_add,                     \
    .mul = P##_mul,                     \
    .scale = P##_scale,                 \
    .add_scaled = P##_add_scaled,       \
    .silu_mul = P##_silu_mul,           \
    .silu = P##_silu,                   \
    .gelu = P##_gelu,                   \
    .gelu_tanh = P##_gelu_tanh,         \
    .relu = P##_relu,                   \
    .softcap = P##_softcap,             \
    .rope_half = P##_rope_half,         \
    .rope_pairs = P##_rope_pairs,       \
    .softmax = P##_softmax,             \
    .exps = P##_exps,                   \
    .max = P##_max,                     \
    .f32_to_f16 = P##_f32_to_f16,       \
    .stats = P##_stats
#define APR_KERN_ATTENTION(P)           \
    .attn_scores_f16 = P##_scores_f16,  \
    .attn_values_f16 = P##_values_f16,  \
    .attn_scores_f32 = P##_scores_f32,  \
    .attn_values_f32 = P##_values_f32
#define APR_KERN_SLOTS(P) APR_KERN_VECTORS(P), APR_KERN_ATTENTION(P)

/* clang-format on */

#endif

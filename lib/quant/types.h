/* The two functions of every type file, for table.c and for the variants that wrap them.
 *
 * Each apr_TYPE_to_f32 and apr_TYPE_from_f32 has the contract of apr_to_f32_fn and apr_from_f32_fn.
 */
#ifndef APR_QUANT_TYPES_H
#define APR_QUANT_TYPES_H

#include "quant.h"

apr_to_f32_fn apr_f32_to_f32, apr_f16_row_to_f32, apr_bf16_row_to_f32, apr_f64_to_f32, apr_i8_to_f32;
apr_to_f32_fn apr_q4_0_to_f32, apr_q4_1_to_f32, apr_q5_0_to_f32, apr_q5_1_to_f32, apr_q8_0_to_f32;
apr_to_f32_fn apr_q2_k_to_f32, apr_q3_k_to_f32, apr_q4_k_to_f32, apr_q5_k_to_f32, apr_q6_k_to_f32;
apr_to_f32_fn apr_iq2_xxs_to_f32, apr_iq2_xs_to_f32, apr_iq2_s_to_f32, apr_iq3_xxs_to_f32, apr_iq3_s_to_f32;
apr_to_f32_fn apr_iq1_s_to_f32, apr_iq1_m_to_f32, apr_iq4_nl_to_f32, apr_iq4_xs_to_f32;
apr_to_f32_fn apr_tq1_0_to_f32, apr_tq2_0_to_f32, apr_mxfp4_to_f32;
apr_to_f32_fn apr_native_q4_to_f32, apr_native_q8_row_to_f32;

apr_from_f32_fn apr_f32_from_f32, apr_f16_from_f32, apr_bf16_from_f32;
apr_from_f32_fn apr_native_q4_from_f32, apr_native_q8_row_from_f32;
apr_from_f32_fn apr_q4_0_from_f32, apr_q4_1_from_f32, apr_q5_0_from_f32, apr_q5_1_from_f32, apr_q2_k_from_f32,
    apr_q3_k_from_f32;
apr_from_f32_fn apr_iq4_nl_from_f32, apr_iq4_xs_from_f32;
apr_from_f32_fn apr_q8_0_from_f32, apr_q4_k_from_f32, apr_q5_k_from_f32, apr_q6_k_from_f32;

/* To the nearest integer, halves away from zero, for |x| < 2^22: roundf without the call. */
static inline int apr_round_away(float x)
{
    return (int)(x + __builtin_copysignf(0x1.fffffep-2F, x));
}

#endif

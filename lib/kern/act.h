/* Constants of the gates, the same in every table; every step is one fused or one plain operation.
 *
 * gelu(x) = x Phi(x), Phi the normal distribution. For a = |x|: 1 - Phi(a) = exp(-a^2 / 2) * Q(t) with
 *   t = 1 / (1 + a / 4), Q of degree 9 without a constant term, a minimax fit for 0 <= a <= 13.3 (its own
 *   error is 5.1e-8, relative; past 13.2 the exp is 0). With rounding |error| <= 2.5e-7 |x|.
 * gelu_tanh(x) = x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + exp(-2 u)).
 * tanh(y): y + y^3 P(y^2) below 0.625 (P of degree 4, its own error is 4.2e-9, relative), above it
 *   1 - 2 / (exp(2 |y|) + 1), with y's sign. With rounding within 3e-7, relative.
 */
#ifndef APR_KERN_ACT_H
#define APR_KERN_ACT_H

#define APR_GELU_Q1 0x1.98cd04p-4f
#define APR_GELU_Q2 0x1.93088cp-4f
#define APR_GELU_Q3 0x1.ac4d82p-4f
#define APR_GELU_Q4 0x1.e8f60ep-6f
#define APR_GELU_Q5 0x1.ab8eb4p-3f
#define APR_GELU_Q6 (-0x1.b9a956p-3f)
#define APR_GELU_Q7 0x1.37dc0ap-2f
#define APR_GELU_Q8 (-0x1.4123dap-3f)
#define APR_GELU_Q9 0x1.b2b0d0p-6f

#define APR_GELU_TANH_1 (-1.5957691216f) /* -2 sqrt(2 / pi) */
#define APR_GELU_TANH_3 (-0.0713548162f) /* the same times 0.044715 */

#define APR_TANH_CUT 0.625f
#define APR_TANH_P0  (-0x1.555534p-2f)
#define APR_TANH_P1  0x1.110760p-3f
#define APR_TANH_P2  (-0x1.b84336p-5f)
#define APR_TANH_P3  0x1.525016p-6f
#define APR_TANH_P4  (-0x1.768e9cp-8f)

#endif

/* Constants of the one exp of all tables: exp(x) = 2^n * (1 + r + r^2 * P(r)).
 *
 * n is x / ln 2 rounded to nearest even by adding 1.5 * 2^23, r = x - n * ln 2 in two fused steps, P a
 * minimax fit of degree 4 over |r| <= ln 2 / 2 (its own error is 3.1e-9; with rounding the result is
 * within 1.5e-7 of exp, relative). 2^n is added to the exponent bits. The cuts keep n in -126 .. 128.
 * Every step is one fused or one plain operation, so that all tables give the same bits.
 */
#ifndef APR_KERN_EXP_H
#define APR_KERN_EXP_H

#define APR_EXP_MIN    (-87.0f) /* below: 0, so that no subnormal slows a loop */
#define APR_EXP_MAX    88.72f   /* above: +inf */
#define APR_EXP_LOG2E  0x1.715476p+0f
#define APR_EXP_MAGIC  0x1.8p+23f
#define APR_EXP_LN2_HI 0x1.62e430p-1f
#define APR_EXP_LN2_LO (-0x1.05c610p-29f)
#define APR_EXP_P0     0x1.fffffcp-2f
#define APR_EXP_P1     0x1.555492p-3f
#define APR_EXP_P2     0x1.5558f2p-5f
#define APR_EXP_P3     0x1.123a20p-7f
#define APR_EXP_P4     0x1.6a23cep-10f

#endif

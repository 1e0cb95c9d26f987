/* What an instruction set without fused multiply-add and without halves does instead, with the same bits.
 *
 * The product of two floats is exact in double. The sum in double is rounded to 53 bits, and then to 24: that
 * is one rounding unless the first result lies exactly in the middle of two floats, or is a subnormal float,
 * whose middles have other bits. Both are rare and are done again with a sum that is rounded to odd, which
 * keeps what the second rounding needs (Boldo and Melquiond, Emulation of FMA and correctly rounded sums,
 * 2008). Included by the headers of such instruction sets after v128.h.
 *
 *     f32x4 y = v_fma(a, b, c);
 */
#ifndef APR_KERN_V128_SOFT_H
#define APR_KERN_V128_SOFT_H

#include "fma_odd.h"
#include "v128.h"

static __attribute__((noinline, unused)) f32x4 v_fma_again(f32x4 a, f32x4 b, f32x4 c)
{
    f32x4 y = {0};
    for (int i = 0; i < 4; i++) y[i] = apr_fma_odd(a[i], b[i], c[i]);
    return y;
}

V_INLINE f32x4 v_fma(f32x4 a, f32x4 b, f32x4 c)
{
    f64x2 low = v_low_double(a) * v_low_double(b) + v_low_double(c);
    f64x2 high = v_high_double(a) * v_high_double(b) + v_high_double(c);
    i32x4 lows = __builtin_shufflevector((i32x4)low, (i32x4)high, 0, 2, 4, 6);
    i32x4 tops = __builtin_shufflevector((i32x4)low, (i32x4)high, 1, 3, 5, 7) & 0x7fffffff;
    i32x4 is_middle = (lows & 0x1fffffff) == 0x10000000;
    i32x4 is_tiny = (tops < 0x38100000) & (tops > 0); /* below 2^-126, not 0 */
    if (__builtin_expect(v_any(is_middle | is_tiny), 0)) return v_fma_again(a, b, c);
    return v_of_doubles(low, high);
}

/* The bits of a half above those of a float's subnormals, times 2^112, are its value; the top exponent is
 * infinity or NaN, which becomes quiet: the bits of apr_f16_to_f32. */
V_INLINE f32x4 v_halves(const void *p)
{
    u16x4 h;
    memcpy(&h, p, sizeof h);
    u32x4 u = __builtin_convertvector(h, u32x4);
    i32x4 rest = (i32x4)((u & 0x7fff) << 13), sign = (i32x4)((u & 0x8000) << 16);
    i32x4 y = (i32x4)((f32x4)rest * 0x1p112f);
    y |= (rest >= 0x0f800000) & 0x7f800000;
    y |= (rest > 0x0f800000) & 0x00400000;
    return (f32x4)(y | sign);
}

/* As apr_f32_to_f16. */
V_INLINE u16x4 v_to_halves(f32x4 x)
{
    i32x4 u = (i32x4)x, sign = (u >> 16) & 0x8000, rest = u & 0x7fffffff;
    i32x4 odd = (rest >> 13) & 1;
    i32x4 y = (rest - (112 << 23) + 0xfff + odd) >> 13;
    i32x4 small = (i32x4)((f32x4)rest + 0.5f) - 0x3f000000;
    i32x4 nan = ((rest >> 13) & 0x3ff) | 0x7e00;
    y = v_select_int(rest < 0x38800000, small, y);
    y = v_select_int(rest >= 0x477ff000, v_ints(0x7c00), y);
    y = v_select_int(rest > 0x7f800000, nan, y);
    return __builtin_convertvector((u32x4)(y | sign), u16x4);
}

#endif

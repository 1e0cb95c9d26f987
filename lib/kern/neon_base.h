/* What both tables of 64-bit ARM have: fused multiply-add, halves, sums across lanes.
 *
 * Included by neon_vec.h and dotprod_vec.h. No state, no ownership.
 *
 *     f32x4 y = v_fma(a, b, c);
 */
#ifndef APR_KERN_NEON_BASE_H
#define APR_KERN_NEON_BASE_H

#include <arm_neon.h>

#include "v128.h"
#include "v128_wide.h"

#define V_TOKS 8

V_INLINE f32x4 v_fma(f32x4 a, f32x4 b, f32x4 c)
{
    return (f32x4)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

V_INLINE f32x4 v_halves(const void *p)
{
    uint16x4_t h;
    memcpy(&h, p, sizeof h);
    return (f32x4)vcvt_f32_f16(vreinterpret_f16_u16(h));
}

V_INLINE u16x4 v_to_halves(f32x4 x)
{
    return (u16x4)vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x));
}

V_INLINE i32x4 v_sums(const i32x4 v[4])
{
    int32x4_t a = vpaddq_s32((int32x4_t)v[0], (int32x4_t)v[1]),
              b = vpaddq_s32((int32x4_t)v[2], (int32x4_t)v[3]);
    return (i32x4)vpaddq_s32(a, b);
}

V_INLINE i32x4 v_madd(i16x8 a, i16x8 b)
{
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return (i32x4)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}

#endif

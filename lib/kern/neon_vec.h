/* NEON for the kernels of v128.h: bytes are multiplied to int16 (smull, smlal) and added there while they
 * fit.
 *
 *     p = v_dot(p, q, a, false);
 */
#ifndef APR_KERN_NEON_VEC_H
#define APR_KERN_NEON_VEC_H

#include "neon_base.h"

#define V(name)    apr_neon_##name
#define V_PART_MAX (32767 / 127)

/* low: products of bytes 0 .. 7, high: of the others */
struct v_part {
    i16x8 low, high;
};

V_INLINE struct v_part v_dot(struct v_part p, u8x16 q, u8x16 a, bool is_signed)
{
    (void)is_signed; /* unsigned ones are below 128 */
    int8x16_t x = (int8x16_t)q, y = (int8x16_t)a;
    return (struct v_part){(i16x8)vmlal_s8((int16x8_t)p.low, vget_low_s8(x), vget_low_s8(y)),
                           (i16x8)vmlal_high_s8((int16x8_t)p.high, x, y)};
}

V_INLINE i32x4 v_part_sum(struct v_part p)
{
    return (i32x4)vpaddq_s32(vpaddlq_s16((int16x8_t)p.low), vpaddlq_s16((int16x8_t)p.high));
}

#endif

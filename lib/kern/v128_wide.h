/* Factors of the kernels of v128.h where sums of bytes are int32 from the start: int32 lanes, multiplied
 * plainly.
 *
 * Included by the headers of instruction sets whose struct v_part holds nothing but what v_part_sum needs.
 *
 *     sum = v_part_scaled(sum, p, v_scale_of(scales, 2));
 */
#ifndef APR_KERN_V128_WIDE_H
#define APR_KERN_V128_WIDE_H

#include "v128.h"

struct v_scale {
    i32x4 v;
};

V_INLINE struct v_scale v_scale_of(u8x16 v, int i)
{
    return (struct v_scale){((i32x4)v << (24 - 8 * i)) >> 24};
}

V_INLINE struct v_scale v_scale_all(int s)
{
    return (struct v_scale){v_ints(s)};
}

#define v_part_scaled(sum, p, s) ((sum) + v_part_sum(p) * (s).v)

struct v_pair {
    i32x4 a, b;
};

V_INLINE struct v_pair v_pair_of(u8x16 v, int i)
{
    return (struct v_pair){v_scale_of(v, i).v, v_scale_of(v, i + 1).v};
}

V_INLINE i32x4 v_pair_add(i32x4 sum, struct v_pair p, const int16_t *two)
{
    return sum + p.a * two[0] + p.b * two[1];
}

#endif

/* NEON with SDOT for the kernels of v128.h. Only for files compiled with +dotprod.
 *
 *     p = v_dot(p, q, a, false);
 */
#ifndef APR_KERN_DOTPROD_VEC_H
#define APR_KERN_DOTPROD_VEC_H

#include "neon_base.h"

#define V(name)    apr_dotprod_##name
#define V_PART_MAX (8 * 128)

struct v_part {
    i32x4 v;
};

V_INLINE struct v_part v_dot(struct v_part p, u8x16 q, u8x16 a, bool is_signed)
{
    (void)is_signed; /* unsigned ones are below 128 */
    return (struct v_part){(i32x4)vdotq_s32((int32x4_t)p.v, (int8x16_t)q, (int8x16_t)a)};
}

V_INLINE i32x4 v_part_sum(struct v_part p)
{
    return p.v;
}

#endif

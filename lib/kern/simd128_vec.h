/* WebAssembly SIMD for the kernels of v128.h. Nothing of relaxed SIMD is used: its results may differ between
 * hosts.
 *
 *     p = v_dot(p, q, a, false);
 */
#ifndef APR_KERN_SIMD128_VEC_H
#define APR_KERN_SIMD128_VEC_H

#include <wasm_simd128.h>

#include "v128.h"
#include "v128_soft.h"
#include "v128_wide.h"

#define V(name)    apr_simd128_##name
#define V_TOKS     4
#define V_PART_MAX (32767 / 127)

V_INLINE i32x4 v_sums(const i32x4 v[4])
{
    i32x4 a =
        __builtin_shufflevector(v[0], v[1], 0, 2, 4, 6) + __builtin_shufflevector(v[0], v[1], 1, 3, 5, 7);
    i32x4 b =
        __builtin_shufflevector(v[2], v[3], 0, 2, 4, 6) + __builtin_shufflevector(v[2], v[3], 1, 3, 5, 7);
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}

V_INLINE i32x4 v_madd(i16x8 a, i16x8 b)
{
    return (i32x4)wasm_i32x4_dot_i16x8((v128_t)a, (v128_t)b);
}

/* low: products of bytes 0 .. 7, high: of the others */
struct v_part {
    i16x8 low, high;
};

V_INLINE struct v_part v_dot(struct v_part p, u8x16 q, u8x16 a, bool is_signed)
{
    (void)is_signed; /* unsigned ones are below 128 */
    v128_t x = (v128_t)q, y = (v128_t)a;
    return (struct v_part){p.low + (i16x8)wasm_i16x8_extmul_low_i8x16(x, y),
                           p.high + (i16x8)wasm_i16x8_extmul_high_i8x16(x, y)};
}

V_INLINE i32x4 v_part_sum(struct v_part p)
{
    i32x4 a = (i32x4)wasm_i32x4_extadd_pairwise_i16x8((v128_t)p.low),
          b = (i32x4)wasm_i32x4_extadd_pairwise_i16x8((v128_t)p.high);
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}

#endif

/* Vectors of 128 bits as the compiler knows them, for the tables of SSE4, NEON and WebAssembly.
 *
 * The kernels of those tables are written once, in the v128_*.h files, with the operators of the compiler's
 * vector types. A file of a table (sse4.c, neon.c ..) includes the header of its instruction set (sse4_vec.h
 * ..) and then the kernels. That header includes this one and adds what operators cannot say: V(name) the
 * function's name in this table: apr_sse4_name v_fma(a, b, c)          a * b + c, rounded once v_halves(p),
 * v_to_halves(x)   four IEEE halves at p to floats, and back v_sums(v)               lane i is the sum of the
 * lanes of v[i] v_madd(a, b)            products of int16 lanes 2 i and 2 i + 1, added struct v_part sums of
 * products of bytes on their way to int32: v_dot(p, q, a, is_signed)     adds bytes 4 i .. 4 i + 3 of q times
 * those of a to lane i; q is unsigned unless is_signed, a is -127 .. 127 V_PART_MAX / q_max      so many
 * v_dot fit into one struct v_part where |q| <= q_max v_part_sum(p)           the sums as int32 struct
 * v_scale, v_scale_of(v, i), v_scale_all(s)   signed byte i of each lane of v, or s, as a factor
 *     v_part_scaled(sum, p, scale)  sum + scale * the sums of p
 *     struct v_pair, v_pair_of(v, i), v_pair_add(sum, pair, two)   sum + byte i * two[0] + byte i + 1 *
 * two[1] V_TOKS                  tokens of the widest tile of strips, by the number of registers No state, no
 * ownership.
 *
 *     f32x4 y = v_fma(v_load(x), v_all(2), v_load(b));
 */
#ifndef APR_KERN_V128_H
#define APR_KERN_V128_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kern.h"

#define V_INLINE static inline __attribute__((always_inline, unused))
#define V_UNROLL _Pragma("GCC unroll 8")

typedef float f32x4 __attribute__((vector_size(16)));
typedef double f64x2 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef int64_t i64x2 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef float f32x2 __attribute__((vector_size(8)));
typedef uint16_t u16x4 __attribute__((vector_size(8)));
typedef int8_t i8x8 __attribute__((vector_size(8)));
typedef uint8_t u8x8 __attribute__((vector_size(8)));

V_INLINE f32x4 v_load(const float *p)
{
    f32x4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

V_INLINE void v_store(float *p, f32x4 v)
{
    memcpy(p, &v, sizeof v);
}

V_INLINE u8x16 v_bytes(const void *p)
{
    u8x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

V_INLINE i16x8 v_shorts(const int16_t *p)
{
    i16x8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

V_INLINE f32x4 v_all(float f)
{
    return (f32x4){f, f, f, f};
}

V_INLINE i32x4 v_ints(int32_t i)
{
    return (i32x4){i, i, i, i};
}

V_INLINE u8x16 v_byte_all(int b)
{
    return (u8x16)v_ints((int32_t)((uint32_t)(uint8_t)b * 0x01010101U));
}

/* mask: lanes of all ones or of zeros */
V_INLINE f32x4 v_select(i32x4 mask, f32x4 a, f32x4 b)
{
    return (f32x4)((mask & (i32x4)a) | (~mask & (i32x4)b));
}

V_INLINE i32x4 v_select_int(i32x4 mask, i32x4 a, i32x4 b)
{
    return (mask & a) | (~mask & b);
}

V_INLINE f32x4 v_abs(f32x4 x)
{
    return (f32x4)((i32x4)x & 0x7fffffff);
}

V_INLINE f32x4 v_float(i32x4 v)
{
    return __builtin_convertvector(v, f32x4);
}

V_INLINE f64x2 v_low_double(f32x4 v)
{
    return __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1), f64x2);
}

V_INLINE f64x2 v_high_double(f32x4 v)
{
    return __builtin_convertvector(__builtin_shufflevector(v, v, 2, 3), f64x2);
}

V_INLINE f32x4 v_of_doubles(f64x2 low, f64x2 high)
{
    f32x2 a = __builtin_convertvector(low, f32x2), b = __builtin_convertvector(high, f32x2);
    return __builtin_shufflevector(a, b, 0, 1, 2, 3);
}

V_INLINE bool v_any(i32x4 mask)
{
    i64x2 v = (i64x2)mask;
    return (v[0] | v[1]) != 0;
}

/* The tree of kern.h over lanes 0 .. 3 and 4 .. 7: ((0+4)+(2+6)) + ((1+5)+(3+7)) */
V_INLINE float v_tree(f32x4 low, f32x4 high)
{
    f32x4 s = low + high;
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Four trees at once. */
V_INLINE f32x4 v_trees(const f32x4 low[4], const f32x4 high[4])
{
    f32x4 a = low[0] + high[0], b = low[1] + high[1], c = low[2] + high[2], d = low[3] + high[3];
    f32x4 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    f32x4 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

/* Lane i (0 .. 3) in all lanes. */
V_INLINE i32x4 v_lane(i32x4 v, int i)
{
    switch (i) {
    case 0:
        return __builtin_shufflevector(v, v, 0, 0, 0, 0);
    case 1:
        return __builtin_shufflevector(v, v, 1, 1, 1, 1);
    case 2:
        return __builtin_shufflevector(v, v, 2, 2, 2, 2);
    }
    return __builtin_shufflevector(v, v, 3, 3, 3, 3);
}

/* Bits shift .. of every byte, shift negative to the left; mask: the bits after shifting */
V_INLINE u8x16 v_bits(u8x16 v, int shift, int mask)
{
    u16x8 moved = shift > 0 ? (u16x8)v >> shift : shift < 0 ? (u16x8)v << -shift : (u16x8)v;
    return (u8x16)moved & v_byte_all(mask);
}

V_INLINE uint16_t v_u16_at(const void *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

V_INLINE uint32_t v_u32_at(const void *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

#endif

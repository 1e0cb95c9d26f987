/* SSE4.1 and SSSE3 for the kernels of v128.h. Only for files compiled with -mssse3 -msse4.1.
 *
 * Bytes are multiplied by pmaddubsw: unsigned by signed, pairs added in int16. Signed by signed moves the
 * sign of q to a. No state, no ownership.
 *
 *     p = v_dot(p, q, a, false);
 */
#ifndef APR_KERN_SSE4_VEC_H
#define APR_KERN_SSE4_VEC_H

#include <smmintrin.h>

#include "v128.h"
#include "v128_soft.h"

#define V(name)    apr_sse4_##name
#define V_TOKS     4
#define V_PART_MAX (32767 / (2 * 127))

V_INLINE i32x4 v_sums(const i32x4 v[4])
{
    __m128i a = _mm_hadd_epi32((__m128i)v[0], (__m128i)v[1]),
            b = _mm_hadd_epi32((__m128i)v[2], (__m128i)v[3]);
    return (i32x4)_mm_hadd_epi32(a, b);
}

V_INLINE i32x4 v_madd(i16x8 a, i16x8 b)
{
    return (i32x4)_mm_madd_epi16((__m128i)a, (__m128i)b);
}

struct v_part {
    i16x8 v;
};

V_INLINE struct v_part v_dot(struct v_part p, u8x16 q, u8x16 a, bool is_signed)
{
    __m128i x = (__m128i)q, y = (__m128i)a;
    __m128i v = is_signed ? _mm_maddubs_epi16(_mm_abs_epi8(x), _mm_sign_epi8(y, x)) : _mm_maddubs_epi16(x, y);
    return (struct v_part){p.v + (i16x8)v};
}

V_INLINE i32x4 v_part_sum(struct v_part p)
{
    return v_madd(p.v, (i16x8)v_ints(0x00010001));
}

struct v_scale {
    i16x8 v; /* the factor twice in each lane of 32 bits */
};

V_INLINE struct v_scale v_scale_of(u8x16 v, int i)
{
    const __m128i order = _mm_add_epi8(_mm_setr_epi32((int)0x00800080, 0x04800480, 0x08800880, 0x0c800c80),
                                       _mm_set1_epi16((short)(i << 8)));
    return (struct v_scale){(i16x8)_mm_srai_epi16(_mm_shuffle_epi8((__m128i)v, order), 8)};
}

V_INLINE struct v_scale v_scale_all(int s)
{
    return (struct v_scale){(i16x8)_mm_set1_epi16((short)s)};
}

V_INLINE i32x4 v_part_scaled(i32x4 sum, struct v_part p, struct v_scale s)
{
    return sum + v_madd(p.v, s.v);
}

struct v_pair {
    i16x8 v;
};

V_INLINE struct v_pair v_pair_of(u8x16 v, int i)
{
    const __m128i order = _mm_add_epi8(_mm_setr_epi32((int)0x01800080, 0x05800480, 0x09800880, 0x0d800c80),
                                       _mm_set1_epi16((short)(i << 8)));
    return (struct v_pair){(i16x8)_mm_srai_epi16(_mm_shuffle_epi8((__m128i)v, order), 8)};
}

V_INLINE i32x4 v_pair_add(i32x4 sum, struct v_pair p, const int16_t *two)
{
    return sum + v_madd(p.v, (i16x8)v_ints((int32_t)v_u32_at(two)));
}

#endif

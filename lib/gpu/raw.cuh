/* Types that the GPU keeps as GGML's blocks: what one block's bytes mean, and the list of them.
 *
 * A tile holds for each of its 16 rows the bytes of 256 columns as the file has them (tiles.cuh); values are
 * decoded where they are used. Adding a type is a function raw_NAME and a row of RAW_TYPES. The functions
 * give the 32 values of sub-block j of 256 bit for bit as lib/quant defines them (tests/unit/test_gpu_raw.c
 * runs them on the CPU), so a multiplication and an addition must stay apart: raw_sub_rn.
 */
#ifndef APR_RAW_CUH
#define APR_RAW_CUH

#include <stdint.h>
#include <string.h>

#include "../quant/quant.h"
#ifdef __CUDACC__
#include <cuda_fp16.h>

#define RAW_FN            static __device__ __forceinline__ void
#define RAW_INLINE        static __device__ __forceinline__
#define APR_GRID(name, n) static __device__ const uint16_t raw_##name[n]
#define RAW_TABLE         static __device__ const
#else
#define RAW_FN            static void
#define RAW_INLINE        static inline
#define APR_GRID(name, n) static const uint16_t raw_##name[n]
#define RAW_TABLE         static const
#endif
#include "../quant/grids.inc"

RAW_TABLE int8_t raw_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

RAW_INLINE float raw_sub_rn(float a, float b, float c) /* a b - c, two roundings */
{
#ifdef __CUDACC__
    return __fsub_rn(__fmul_rn(a, b), c);
#else
    volatile float ab = a * b;
    return ab - c;
#endif
}
RAW_INLINE unsigned raw_u16(const uint8_t *p)
{
    return p[0] | (unsigned)p[1] << 8;
}
RAW_INLINE uint32_t raw_u32(const uint8_t *p)
{
    return raw_u16(p) | (uint32_t)raw_u16(p + 2) << 16;
}
RAW_INLINE float raw_half_of(unsigned bits)
{
#ifdef __CUDACC__
    return __half2float(__ushort_as_half((unsigned short)bits));
#else
    return apr_f16_to_f32((uint16_t)bits);
#endif
}
RAW_INLINE float raw_half(const uint8_t *p)
{
    return raw_half_of(raw_u16(p));
}
RAW_INLINE unsigned raw_even_signs(unsigned seven)
{
#ifdef __CUDACC__
    return seven | (__popc(seven) & 1u) << 7;
#else
    return seven | (unsigned)__builtin_parity(seven) << 7;
#endif
}
RAW_INLINE float raw_signed(float x, unsigned signs, int i)
{
    return signs >> i & 1 ? -x : x;
}

/* ---- blocks of 256 ---- */

RAW_FN raw_q2_k(const uint8_t *b, int j, float *x)
{
    const float d = raw_half(b + 80), dmin = raw_half(b + 82);
    for (int s = 0; s < 2; s++) {
        const unsigned scale = b[2 * j + s];
        const float dl = d * (float)(scale & 15), ml = dmin * (float)(scale >> 4);
        const uint8_t *q = b + 16 + j / 4 * 32 + s * 16;
        for (int i = 0; i < 16; i++) x[16 * s + i] = raw_sub_rn(dl, (float)(q[i] >> j % 4 * 2 & 3), ml);
    }
}

RAW_FN raw_q3_k(const uint8_t *b, int j, float *x)
{
    const float d = raw_half(b + 108);
    for (int h = 0; h < 2; h++) {
        const int s = 2 * j + h;
        const int low = b[96 + s % 8] >> s / 8 * 4 & 15, high = b[104 + s % 4] >> s / 4 * 2 & 3;
        const float dl = d * (float)((low | high << 4) - 32);
        const uint8_t *q = b + 32 + j / 4 * 32 + h * 16, *third = b + h * 16;
        for (int i = 0; i < 16; i++)
            x[16 * h + i] = dl * (float)(((q[i] >> j % 4 * 2 & 3) | (third[i] >> j & 1) << 2) - 4);
    }
}

RAW_FN raw_iq4_xs(const uint8_t *b, int j, float *x)
{
    const int scale = (b[4 + j / 2] >> j % 2 * 4 & 15) | (int)(raw_u16(b + 2) >> 2 * j & 3) << 4;
    const float dl = raw_half(b) * (float)(scale - 32);
    const uint8_t *q = b + 8 + 16 * j;
    for (int i = 0; i < 16; i++) {
        x[i] = dl * (float)raw_iq4[q[i] & 15];
        x[16 + i] = dl * (float)raw_iq4[q[i] >> 4];
    }
}

/* y[0 .. 7] = d * value, digits 0, 1, 2 being 8, 25, 43 */
RAW_FN raw_iq2_vector(float *y, float d, unsigned code, unsigned signs)
{
    for (int i = 0; i < 8; i++) {
        const unsigned digit = code >> 2 * i & 3;
        y[i] = raw_signed(d * (digit == 0 ? 8.0f : digit == 1 ? 25.0f : digit == 2 ? 43.0f : 0.0f), signs, i);
    }
}
RAW_FN raw_iq2_xxs(const uint8_t *b, int j, float *x)
{
    const uint8_t *sub = b + 2 + 8 * j;
    const uint32_t signs = raw_u32(sub + 4);
    const float db = raw_half(b) * (0.5f + (float)(signs >> 28)) * 0.25f;
    for (int v = 0; v < 4; v++)
        raw_iq2_vector(x + 8 * v, db, raw_apr_grid_iq2_xxs[sub[v]], raw_even_signs(signs >> 7 * v & 127));
}
RAW_FN raw_iq2_xs(const uint8_t *b, int j, float *x)
{
    for (int v = 0; v < 4; v++) {
        const unsigned q = raw_u16(b + 2 + 2 * (4 * j + v)), scale = b[66 + j] >> v / 2 * 4 & 15;
        const float db = raw_half(b) * (0.5f + (float)scale) * 0.25f;
        raw_iq2_vector(x + 8 * v, db, raw_apr_grid_iq2_xs[q & 511], raw_even_signs(q >> 9));
    }
}
RAW_FN raw_iq2_s(const uint8_t *b, int j, float *x)
{
    for (int v = 0; v < 4; v++) {
        const unsigned scale = b[74 + j] >> v / 2 * 4 & 15, high = b[66 + j] >> v * 2 & 3;
        const float db = raw_half(b) * (0.5f + (float)scale) * 0.25f;
        raw_iq2_vector(x + 8 * v, db, raw_apr_grid_iq2_s[b[2 + 4 * j + v] | high << 8], b[34 + 4 * j + v]);
    }
}

RAW_FN raw_iq3_xxs(const uint8_t *b, int j, float *x)
{
    const uint32_t word = raw_u32(b + 66 + 4 * j);
    const float db = raw_half(b) * (0.5f + (float)(word >> 28)) * 0.5f;
    for (int i = 0; i < 32; i++) {
        const unsigned digit = raw_apr_grid_iq3_xxs[b[2 + 8 * j + i / 4]] >> 3 * (i % 4) & 7;
        const float value = (float)(digit == 7 ? 62 : 4 + 8 * digit);
        x[i] = raw_signed(db * value, raw_even_signs(word >> 7 * (i / 8) & 127), i % 8);
    }
}
RAW_FN raw_iq3_s(const uint8_t *b, int j, float *x)
{
    const unsigned scale = b[106 + j / 2] >> j % 2 * 4 & 15;
    const float db = raw_half(b) * (float)(1 + 2 * scale);
    for (int i = 0; i < 32; i++) {
        const unsigned index = b[2 + 8 * j + i / 4] | ((unsigned)b[66 + j] >> i / 4 & 1u) << 8;
        const unsigned value = 2 * (raw_apr_grid_iq3_s[index] >> 3 * (i % 4) & 7u) + 1;
        x[i] = raw_signed(db * (float)value, b[74 + 4 * j + i / 8], i % 8);
    }
}

/* y[0 .. 7] = d * (value + delta), digits 0, 1, 2 being -1, 0, 1 */
RAW_FN raw_iq1_vector(float *y, float d, unsigned code, float delta)
{
    for (int i = 0; i < 8; i++) y[i] = d * ((float)((int)(code >> 2 * i & 3) - 1) + delta);
}
RAW_FN raw_iq1_s(const uint8_t *b, int j, float *x)
{
    const unsigned h = raw_u16(b + 34 + 2 * j);
    const float dl = raw_half(b) * (float)(2 * (h >> 12 & 7) + 1), delta = h >> 15 ? -0.125f : 0.125f;
    for (int v = 0; v < 4; v++)
        raw_iq1_vector(x + 8 * v, dl, raw_apr_grid_iq1[b[2 + 4 * j + v] | (h >> 3 * v & 7) << 8], delta);
}
RAW_FN raw_iq1_m(const uint8_t *b, int j, float *x)
{
    unsigned d = 0;
    for (int i = 0; i < 4; i++) d |= (unsigned)(b[49 + 2 * i] >> 4) << 4 * i;
    for (int v = 0; v < 4; v++) {
        const unsigned scale = raw_u16(b + 48 + j / 2 * 2) >> (2 * (j % 2) + v / 2) * 3 & 7,
                       h = (unsigned)b[32 + 2 * j + v / 2] >> v % 2 * 4;
        raw_iq1_vector(x + 8 * v, raw_half_of(d) * (float)(2 * scale + 1),
                       raw_apr_grid_iq1[b[4 * j + v] | (h & 7) << 8], h & 8 ? -0.125f : 0.125f);
    }
}

/* Digit k of byte j of a run of n bytes is value k n + j: 32 bytes and then 16 of five digits, 4 of four. */
RAW_FN raw_tq1_0(const uint8_t *b, int j, float *x)
{
    const float d = raw_half(b + 52);
    for (int i = 0; i < 32; i++) {
        const int at = 32 * j + i, part = at < 160 ? 0 : at < 240 ? 1 : 2;
        const int in = at - (part == 0 ? 0 : part == 1 ? 160 : 240), n = part == 0 ? 32 : part == 1 ? 16 : 4;
        unsigned power = 1;
        for (int k = in / n; k > 0; k--) power *= 3;
        const unsigned rest = b[(part == 0 ? 0 : part == 1 ? 32 : 48) + in % n] * power & 255;
        x[i] = (float)((int)(rest * 3 >> 8) - 1) * d;
    }
}
RAW_FN raw_tq2_0(const uint8_t *b, int j, float *x)
{
    const float d = raw_half(b + 64);
    for (int i = 0; i < 32; i++) x[i] = (float)((b[j / 4 * 32 + i] >> j % 4 * 2 & 3) - 1) * d;
}

/* ---- eight blocks of 32 ---- */

RAW_FN raw_q4_1(const uint8_t *b, int j, float *x)
{
    const uint8_t *q = b + 20 * j;
    const float d = raw_half(q), m = -raw_half(q + 2);
    for (int i = 0; i < 16; i++) {
        x[i] = raw_sub_rn(d, (float)(q[4 + i] & 15), m);
        x[16 + i] = raw_sub_rn(d, (float)(q[4 + i] >> 4), m);
    }
}
RAW_FN raw_q5_1(const uint8_t *b, int j, float *x)
{
    const uint8_t *q = b + 24 * j;
    const float d = raw_half(q), m = -raw_half(q + 2);
    const uint32_t fifth = raw_u32(q + 4);
    for (int i = 0; i < 16; i++) {
        x[i] = raw_sub_rn(d, (float)((q[8 + i] & 15u) | (fifth >> i & 1u) << 4), m);
        x[16 + i] = raw_sub_rn(d, (float)((unsigned)q[8 + i] >> 4 | (fifth >> (16 + i) & 1u) << 4), m);
    }
}
/* Twice the numbers of E2M1; 2^(e - 128) by its bits, subnormal for e = 0 and 1. */
RAW_INLINE float raw_e2m1(unsigned q)
{
    const unsigned v = q & 7;
    const float x = (float)(v < 5 ? v : v == 5 ? 6 : v == 6 ? 8 : 12);
    return v == 0 ? 0.0f : q & 8 ? -x : x;
}
RAW_FN raw_mxfp4(const uint8_t *b, int j, float *x)
{
    const uint8_t *q = b + 17 * j;
    const uint32_t bits = q[0] < 2 ? 0x00200000u << q[0] : (uint32_t)(q[0] - 1) << 23;
    float d;
    memcpy(&d, &bits, sizeof d);
    for (int i = 0; i < 16; i++) {
        /* the value of 4 doubled is 4, of 5 it is 6 */
        x[i] = raw_e2m1(q[1 + i] & 15u) * d;
        x[16 + i] = raw_e2m1(q[1 + i] >> 4) * d;
    }
}
/* A scale that is no number, or below the smallest normal half, is damage and counts as zero. */
RAW_FN raw_native_q4(const uint8_t *b, int j, float *x)
{
    const uint8_t *q = b + 18 * j;
    const unsigned e = raw_u16(q) >> 10 & 31;
    const float d = e == 0 || e == 31 ? 0.0f : raw_half(q);
    for (int i = 0; i < 32; i++) x[i] = (float)((q[2 + i / 2] >> i % 2 * 4 & 15) - 8) * d;
}
/* The row's scale stands before its 256 values in every tile. */
RAW_FN raw_native_q8(const uint8_t *b, int j, float *x)
{
    const uint32_t bits = raw_u32(b);
    float d;
    memcpy(&d, &bits, sizeof d);
    if ((bits & 0x7f800000u) == 0x7f800000u) d = 0;
    for (int i = 0; i < 32; i++) x[i] = (float)(int8_t)b[4 + 32 * j + i] * d;
}

/* name, in the enum of types, values of a block, bytes of a block, bytes in front of a row */
#define RAW_TYPES(X)                                                                                         \
    X(q2_k, APR_Q2_K, 256, 84, 0)                                                                            \
    X(q3_k, APR_Q3_K, 256, 110, 0)                                                                           \
    X(iq4_xs, APR_IQ4_XS, 256, 136, 0)                                                                       \
    X(iq2_xxs, APR_IQ2_XXS, 256, 66, 0)                                                                      \
    X(iq2_xs, APR_IQ2_XS, 256, 74, 0)                                                                        \
    X(iq2_s, APR_IQ2_S, 256, 82, 0)                                                                          \
    X(iq3_xxs, APR_IQ3_XXS, 256, 98, 0)                                                                      \
    X(iq3_s, APR_IQ3_S, 256, 110, 0)                                                                         \
    X(iq1_s, APR_IQ1_S, 256, 50, 0)                                                                          \
    X(iq1_m, APR_IQ1_M, 256, 56, 0)                                                                          \
    X(tq1_0, APR_TQ1_0, 256, 54, 0)                                                                          \
    X(tq2_0, APR_TQ2_0, 256, 66, 0)                                                                          \
    X(q4_1, APR_Q4_1, 32, 20, 0)                                                                             \
    X(q5_1, APR_Q5_1, 32, 24, 0)                                                                             \
    X(mxfp4, APR_MXFP4, 32, 17, 0)                                                                           \
    X(native_q4, APR_NATIVE_Q4, 32, 18, 0)                                                                   \
    X(native_q8, APR_NATIVE_Q8, 1, 1, 4)

#endif

/* Blocks in rows as data, for the tables of 128 bits: how one is unpacked to bytes and int16 scales, 16
 * values at a time. The descriptors are constants that kernels take by value, so that the compiler makes one
 * kernel per type of each template and no call through a pointer remains.
 *
 * A body: included once by a file of a table after the header of its instruction set.
 *
 *     u8x16 q = type_q5_0.half(block, 1); // values 16 .. 31
 */
#ifndef APR_KERN_V128_UNPACK_H
#define APR_KERN_V128_UNPACK_H

#include "../quant/blocks.h"
#include "v128_decl.h"

/* Values 16 h .. 16 h + 15; unsigned unless is_signed. h is a constant after inlining. */
typedef u8x16 half_fn(const void *block, int h);
struct type32 {
    size_t block_bytes, off_d, off_m;
    half_fn *half;
    int offset_log2; /* the value is d * (q - 2^offset_log2); 0: no offset */
    bool has_m;      /* the value is d * q + m */
    bool is_signed;
};

V_INLINE u8x16 nibbles(const uint8_t *qs, int h)
{
    return v_bits(v_bytes(qs), 4 * h, 15);
}

/* Bits 16 h .. 16 h + 15 of the four bytes at qh, as 16 each. */
V_INLINE u8x16 fifth_bits(const uint8_t *qh, int h)
{
    const u8x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    u8x16 v = (u8x16)v_ints(v_u16_at(qh + 2 * h));
    v = __builtin_shufflevector(v, v, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return (u8x16)((v & bit) == bit) & v_byte_all(16);
}

V_INLINE u8x16 half_q4_0(const void *block, int h)
{
    return nibbles(((const struct apr_block_q4_0 *)block)->qs, h);
}

V_INLINE u8x16 half_q4_1(const void *block, int h)
{
    return nibbles(((const struct apr_block_q4_1 *)block)->qs, h);
}

V_INLINE u8x16 half_q5_0(const void *block, int h)
{
    const struct apr_block_q5_0 *b = block;
    return nibbles(b->qs, h) | fifth_bits(b->qh, h);
}

V_INLINE u8x16 half_q5_1(const void *block, int h)
{
    const struct apr_block_q5_1 *b = block;
    return nibbles(b->qs, h) | fifth_bits(b->qh, h);
}

V_INLINE u8x16 half_q8_0(const void *block, int h)
{
    return v_bytes(((const struct apr_block_q8_0 *)block)->qs + 16 * h);
}

#define V_TYPE32(lower, off_m_, offset_log2_, has_m_, is_signed_)                                            \
    static const struct type32 type_##lower = {                                                              \
        .block_bytes = sizeof(struct apr_block_##lower),                                                     \
        .off_d = offsetof(struct apr_block_##lower, d),                                                      \
        .off_m = (off_m_),                                                                                   \
        .half = half_##lower,                                                                                \
        .offset_log2 = (offset_log2_),                                                                       \
        .has_m = (has_m_),                                                                                   \
        .is_signed = (is_signed_),                                                                           \
    };
V_TYPE32(q4_0, 0, 3, false, false)
V_TYPE32(q4_1, offsetof(struct apr_block_q4_1, m), 0, true, false)
V_TYPE32(q5_0, 0, 4, false, false)
V_TYPE32(q5_1, offsetof(struct apr_block_q5_1, m), 0, true, false)
V_TYPE32(q8_0, 0, 0, false, true)

/* By sub-block of 16 values. */
struct scales256 {
    int16_t scale[16], min[16];
};
/* Values 128 h + 16 c .. + 15, unsigned; c is a constant after inlining, h is 0 or 1. */
typedef u8x16 sixteen_fn(const void *block, int h, int c);
typedef void scales_fn(const void *block, struct scales256 *s);
struct type256 {
    size_t block_bytes, off_d, off_dmin;
    sixteen_fn *sixteen;
    scales_fn *scales;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    bool has_min;
};

V_INLINE u8x16 sixteen_q2_k(const void *block, int h, int c)
{
    const struct apr_block_q2_k *b = block;
    return v_bits(v_bytes(b->qs + 32 * h + c % 2 * 16), c / 2 * 2, 3);
}

V_INLINE void scales_q2_k(const void *block, struct scales256 *s)
{
    const struct apr_block_q2_k *b = block;
    for (int i = 0; i < 16; i++) {
        s->scale[i] = b->scales[i] & 15;
        s->min[i] = b->scales[i] >> 4;
    }
}

V_INLINE u8x16 sixteen_q3_k(const void *block, int h, int c)
{
    const struct apr_block_q3_k *b = block;
    u8x16 high = (u8x16)((u16x8)v_bytes(b->hmask + c % 2 * 16) >> 4 * h);
    return v_bits(v_bytes(b->qs + 32 * h + c % 2 * 16), c / 2 * 2, 3) | v_bits(high, c / 2 - 2, 4);
}

V_INLINE void scales_q3_k(const void *block, struct scales256 *s)
{
    const uint8_t *p = ((const struct apr_block_q3_k *)block)->scales;
    for (int i = 0; i < 16; i++)
        s->scale[i] = (int16_t)(((p[i % 8] >> i / 8 * 4 & 15) | (p[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32);
}

/* Eight sub-blocks of 32 are sixteen of 16 with equal pairs; the sums of their activations add up. */
V_INLINE void scales_45(const uint8_t *p, struct scales256 *s)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned scale, min;
        apr_q4_k_scale_min(p, i, &scale, &min);
        s->scale[2 * i] = s->scale[2 * i + 1] = (int16_t)scale;
        s->min[2 * i] = s->min[2 * i + 1] = (int16_t)min;
    }
}

V_INLINE u8x16 sixteen_q4_k(const void *block, int h, int c)
{
    const struct apr_block_q4_k *b = block;
    return v_bits(v_bytes(b->qs + 64 * h + c / 4 * 32 + c % 2 * 16), c / 2 % 2 * 4, 15);
}

V_INLINE void scales_q4_k(const void *block, struct scales256 *s)
{
    scales_45(((const struct apr_block_q4_k *)block)->scales, s);
}

V_INLINE u8x16 sixteen_q5_k(const void *block, int h, int c)
{
    const struct apr_block_q5_k *b = block;
    u8x16 high = (u8x16)((u16x8)v_bytes(b->qh + c % 2 * 16) >> 4 * h);
    return v_bits(v_bytes(b->qs + 64 * h + c / 4 * 32 + c % 2 * 16), c / 2 % 2 * 4, 15) |
           v_bits(high, c / 2 - 4, 16);
}

V_INLINE void scales_q5_k(const void *block, struct scales256 *s)
{
    scales_45(((const struct apr_block_q5_k *)block)->scales, s);
}

V_INLINE u8x16 sixteen_q6_k(const void *block, int h, int c)
{
    const struct apr_block_q6_k *b = block;
    return v_bits(v_bytes(b->ql + 64 * h + c % 4 * 16), c / 4 * 4, 15) |
           v_bits(v_bytes(b->qh + 32 * h + c % 2 * 16), c / 2 * 2 - 4, 0x30);
}

V_INLINE void scales_q6_k(const void *block, struct scales256 *s)
{
    const struct apr_block_q6_k *b = block;
    for (int i = 0; i < 16; i++) s->scale[i] = b->scales[i];
}

#define V_TYPE256(lower, off_dmin_, offset_log2_, has_min_)                                                  \
    static const struct type256 type_##lower = {                                                             \
        .block_bytes = sizeof(struct apr_block_##lower),                                                     \
        .off_d = offsetof(struct apr_block_##lower, d),                                                      \
        .off_dmin = (off_dmin_),                                                                             \
        .sixteen = sixteen_##lower,                                                                          \
        .scales = scales_##lower,                                                                            \
        .offset_log2 = (offset_log2_),                                                                       \
        .has_min = (has_min_),                                                                               \
    };
V_TYPE256(q2_k, offsetof(struct apr_block_q2_k, dmin), 0, true)
V_TYPE256(q3_k, 0, 2, false)
V_TYPE256(q4_k, offsetof(struct apr_block_q4_k, dmin), 0, true)
V_TYPE256(q5_k, offsetof(struct apr_block_q5_k, dmin), 0, true)
V_TYPE256(q6_k, 0, 5, false)

#endif

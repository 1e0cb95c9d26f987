/* Blocks in strips as data, for the tables of 128 bits: how four columns of four rows are unpacked to bytes,
 * and the scales of four rows. The descriptors are constants that kernels take by value, as those of
 * v128_unpack.h.
 *
 * A body: included once by a file of a table after the header of its instruction set.
 *
 *     u8x16 q = strip_q4_k.quad(words, 8, 0, 3, 1); // columns 100 .. 103 of rows 8 .. 11
 */
#ifndef APR_KERN_V128_QUADS_H
#define APR_KERN_V128_QUADS_H

#include "strips.h"
#include "v128_decl.h"

/* Columns 4 i .. 4 i + 3 of rows r0 .. r0 + 3, as bytes; i is a constant after inlining. */
typedef u8x16 quad32_fn(const void *block, size_t r0, int i);
struct strip32 {
    size_t words_bytes;
    quad32_fn *quad;
    int offset_log2; /* the value is d * (q - 2^offset_log2); 0: no offset */
    int n_steps;     /* so many products fit into a struct v_part */
    bool has_m;      /* the value is d * q + m */
    bool is_signed;
};
/* Of q_max: 1, 2, 4 or 8 */
#define V_STEPS(q_max)                                                                                       \
    (V_PART_MAX / (q_max) >= 8 ? 8 : V_PART_MAX / (q_max) >= 4 ? 4 : V_PART_MAX / (q_max) >= 2 ? 2 : 1)

V_INLINE u8x16 quad_nibbles(const apr_words *qs, size_t r0, int i)
{
    return v_bits(v_bytes(qs[i % 4] + r0), i / 4 * 4, 15);
}

/* The fifth bits stand in the bit i of their bytes. */
V_INLINE u8x16 quad_fifths(const apr_words *qh, size_t r0, int i)
{
    return v_bits(v_bytes(*qh + r0), i - 4, 16);
}

V_INLINE u8x16 quad_q4_0(const void *block, size_t r0, int i)
{
    return quad_nibbles(((const struct apr_strip_q4_0 *)block)->qs, r0, i);
}

V_INLINE u8x16 quad_q4_1(const void *block, size_t r0, int i)
{
    return quad_nibbles(((const struct apr_strip_q4_1 *)block)->qs, r0, i);
}

V_INLINE u8x16 quad_q5_0(const void *block, size_t r0, int i)
{
    const struct apr_strip_q5_0 *b = block;
    return quad_nibbles(b->qs, r0, i) | quad_fifths(&b->qh, r0, i);
}

V_INLINE u8x16 quad_q5_1(const void *block, size_t r0, int i)
{
    const struct apr_strip_q5_1 *b = block;
    return quad_nibbles(b->qs, r0, i) | quad_fifths(&b->qh, r0, i);
}

V_INLINE u8x16 quad_q8_0(const void *block, size_t r0, int i)
{
    return v_bytes(((const struct apr_strip_q8_0 *)block)->qs[i] + r0);
}

#define V_STRIP32(lower, offset_log2_, q_max, has_m_, is_signed_)                                            \
    static const struct strip32 strip_##lower = {                                                            \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .offset_log2 = (offset_log2_),                                                                       \
        .n_steps = V_STEPS(q_max),                                                                           \
        .has_m = (has_m_),                                                                                   \
        .is_signed = (is_signed_),                                                                           \
    };
V_STRIP32(q4_0, 3, 15, false, false)
V_STRIP32(q4_1, 0, 15, true, false)
V_STRIP32(q5_0, 4, 31, false, false)
V_STRIP32(q5_1, 0, 31, true, false)
V_STRIP32(q8_0, 0, 128, false, true)

/* Four vectors of bytes, a word per row: byte j of at[i] belongs to sub-block 4 i + j. */
struct bytes {
    u8x16 at[4];
};
/* Columns 128 h + 32 g + 4 i .. + 3 of rows r0 .. r0 + 3; g and i are constants after inlining. */
typedef u8x16 quad256_fn(const void *block, size_t r0, int h, int g, int i);
typedef struct bytes bytes_fn(const void *block, size_t r0);
struct strip256 {
    size_t words_bytes;
    quad256_fn *quad;
    bytes_fn *scales, *mins;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    int n_subs;      /* sub-blocks: 8 of 32 or 16 of 16 columns */
    int n_steps;     /* so many products of a sub-block fit into a struct v_part */
    bool has_min;
};

/* The high bits of half h come down to where those of half 0 are. */
V_INLINE u8x16 quad_high(const uint32_t *p, int h)
{
    return (u8x16)((u16x8)v_bytes(p) >> 4 * h);
}

V_INLINE u8x16 quad_q2_k(const void *block, size_t r0, int h, int g, int i)
{
    const struct apr_strip_q2_k *b = block;
    return v_bits(v_bytes(b->qs[8 * h + i] + r0), 2 * g, 3);
}

V_INLINE struct bytes strip_scales_q2_k(const void *block, size_t r0)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
    V_UNROLL
    for (int i = 0; i < 4; i++) s.at[i] = v_bits(v_bytes(b->scales[i] + r0), 0, 15);
    return s;
}

V_INLINE struct bytes strip_mins_q2_k(const void *block, size_t r0)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
    V_UNROLL
    for (int i = 0; i < 4; i++) s.at[i] = v_bits(v_bytes(b->scales[i] + r0), 4, 15);
    return s;
}

V_INLINE u8x16 quad_q3_k(const void *block, size_t r0, int h, int g, int i)
{
    const struct apr_strip_q3_k *b = block;
    return v_bits(v_bytes(b->qs[8 * h + i] + r0), 2 * g, 3) |
           v_bits(quad_high(b->hmask[i] + r0, h), g - 2, 4);
}

V_INLINE struct bytes strip_scales_q3_k(const void *block, size_t r0)
{
    const struct apr_strip_q3_k *b = block;
    u8x16 l0 = v_bytes(b->scales[0] + r0), l1 = v_bytes(b->scales[1] + r0), high = v_bytes(b->scales[2] + r0);
    u8x16 low[4] = {v_bits(l0, 0, 15), v_bits(l1, 0, 15), v_bits(l0, 4, 15), v_bits(l1, 4, 15)};
    struct bytes s;
    V_UNROLL
    for (int i = 0; i < 4; i++) s.at[i] = (low[i] | v_bits(high, 2 * i - 4, 0x30)) - v_byte_all(32);
    return s;
}

V_INLINE u8x16 quad_q4_k(const void *block, size_t r0, int h, int g, int i)
{
    const struct apr_strip_q4_k *b = block;
    return v_bits(v_bytes(b->qs[16 * h + g / 2 * 8 + i] + r0), g % 2 * 4, 15);
}

/* The 12 packed bytes of Q4_K and Q5_K, a word per row: apr_q4_k_scale_min for 4 rows. */
V_INLINE struct bytes strip_scales_45(const apr_words *w, size_t r0)
{
    u8x16 a = v_bytes(w[0] + r0), c = v_bytes(w[2] + r0);
    return (struct bytes){{v_bits(a, 0, 63), v_bits(c, 0, 15) | v_bits(a, 2, 0x30)}};
}

V_INLINE struct bytes strip_mins_45(const apr_words *w, size_t r0)
{
    u8x16 b = v_bytes(w[1] + r0), c = v_bytes(w[2] + r0);
    return (struct bytes){{v_bits(b, 0, 63), v_bits(c, 4, 15) | v_bits(b, 2, 0x30)}};
}

V_INLINE struct bytes strip_scales_q4_k(const void *block, size_t r0)
{
    return strip_scales_45(((const struct apr_strip_q4_k *)block)->scales, r0);
}

V_INLINE struct bytes strip_mins_q4_k(const void *block, size_t r0)
{
    return strip_mins_45(((const struct apr_strip_q4_k *)block)->scales, r0);
}

V_INLINE u8x16 quad_q5_k(const void *block, size_t r0, int h, int g, int i)
{
    const struct apr_strip_q5_k *b = block;
    return v_bits(v_bytes(b->qs[16 * h + g / 2 * 8 + i] + r0), g % 2 * 4, 15) |
           v_bits(quad_high(b->qh[i] + r0, h), g - 4, 16);
}

V_INLINE struct bytes strip_scales_q5_k(const void *block, size_t r0)
{
    return strip_scales_45(((const struct apr_strip_q5_k *)block)->scales, r0);
}

V_INLINE struct bytes strip_mins_q5_k(const void *block, size_t r0)
{
    return strip_mins_45(((const struct apr_strip_q5_k *)block)->scales, r0);
}

V_INLINE u8x16 quad_q6_k(const void *block, size_t r0, int h, int g, int i)
{
    const struct apr_strip_q6_k *b = block;
    return v_bits(v_bytes(b->step[8 * h + i].ql[g % 2] + r0), g / 2 * 4, 15) |
           v_bits(v_bytes(b->step[8 * h + i].qh + r0), 2 * g - 4, 0x30);
}

V_INLINE struct bytes strip_scales_q6_k(const void *block, size_t r0)
{
    const struct apr_strip_q6_k *b = block;
    struct bytes s;
    V_UNROLL
    for (int i = 0; i < 4; i++) s.at[i] = v_bytes(b->scales[i] + r0);
    return s;
}

#define V_STRIP256(lower, offset_log2_, has_min_, n_subs_, q_max, mins_)                                     \
    static const struct strip256 strip_##lower = {                                                           \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .scales = strip_scales_##lower,                                                                      \
        .mins = (mins_),                                                                                     \
        .offset_log2 = (offset_log2_),                                                                       \
        .n_subs = (n_subs_),                                                                                 \
        .n_steps = V_STEPS(q_max) > 64 / (n_subs_) ? 64 / (n_subs_) : V_STEPS(q_max),                        \
        .has_min = (has_min_),                                                                               \
    };
V_STRIP256(q2_k, 0, true, 16, 3, strip_mins_q2_k)
V_STRIP256(q3_k, 2, false, 16, 7, NULL)
V_STRIP256(q4_k, 0, true, 8, 15, strip_mins_q4_k)
V_STRIP256(q5_k, 0, true, 8, 31, strip_mins_q5_k)
V_STRIP256(q6_k, 5, false, 16, 63, NULL)

#endif

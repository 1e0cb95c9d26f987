/* Block layouts of GGML's quantized types and of the two APR-native ones.
 *
 * All fields are little-endian as in files; d, dmin, m are IEEE halves. The structs are packed, so that a
 * pointer to any byte of a mapped file may be read through them. Source: GGML's published block formats.
 *
 *     const struct apr_block_q4_k *b = row;  float d = apr_f16_to_f32(b[i].d);
 */
#ifndef APR_QUANT_BLOCKS_H
#define APR_QUANT_BLOCKS_H

#include <stdint.h>

#define APR_QK  32  /* values in a block of Q4_0 .. Q8_0 */
#define APR_QKK 256 /* values in a super-block of Q2_K .. Q6_K */

#define APR_BLOCK struct __attribute__((packed))

/* x[j] = d * (nibble - 8); qs[j]: low nibble is value j, high nibble value j + 16 */
APR_BLOCK apr_block_q4_0
{
    uint16_t d;
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_q4_0) == 18, "Q4_0");

/* x[j] = d * nibble + m */
APR_BLOCK apr_block_q4_1
{
    uint16_t d;
    uint16_t m;
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_q4_1) == 20, "Q4_1");

/* x[j] = d * (q - 16); bit j of qh (little-endian u32) is the fifth bit of value j */
APR_BLOCK apr_block_q5_0
{
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_q5_0) == 22, "Q5_0");

/* x[j] = d * q + m */
APR_BLOCK apr_block_q5_1
{
    uint16_t d;
    uint16_t m;
    uint8_t qh[4];
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_q5_1) == 24, "Q5_1");

/* x[j] = d * qs[j] */
APR_BLOCK apr_block_q8_0
{
    uint16_t d;
    int8_t qs[32];
};
_Static_assert(sizeof(struct apr_block_q8_0) == 34, "Q8_0");

/* 16 sub-blocks of 16: x = d * (scales[s] & 15) * q - dmin * (scales[s] >> 4).
 * Value 128 h + 32 k + j (j < 32): bits 2k, 2k+1 of qs[32 h + j]. */
APR_BLOCK apr_block_q2_k
{
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d;
    uint16_t dmin;
};
_Static_assert(sizeof(struct apr_block_q2_k) == 84, "Q2_K");

/* 16 sub-blocks of 16: x = d * (scale - 32) * (q - 4), scale 6 bits, q 3 bits: low two in qs as in Q2_K,
 * third is bit 4 h + k of hmask[j]. Scale s: low four bits are nibble s / 8 of scales[s % 8],
 * high two are bits 2 (s / 4) of scales[8 + s % 4]. */
APR_BLOCK apr_block_q3_k
{
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
};
_Static_assert(sizeof(struct apr_block_q3_k) == 110, "Q3_K");

/* 8 sub-blocks of 32: x = d * scale * q - dmin * min; scale and min 6 bits each (apr_q4_k_scale_min).
 * Value 64 c + j: low nibble of qs[32 c + j]; value 64 c + 32 + j: its high nibble. */
APR_BLOCK apr_block_q4_k
{
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qs[128];
};
_Static_assert(sizeof(struct apr_block_q4_k) == 144, "Q4_K");

/* As Q4_K with a fifth bit: value 64 c + j has bit 2 c of qh[j], value 64 c + 32 + j bit 2 c + 1. */
APR_BLOCK apr_block_q5_k
{
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
};
_Static_assert(sizeof(struct apr_block_q5_k) == 176, "Q5_K");

/* 16 sub-blocks of 16: x = d * scales[s] * (q - 32). Value 128 h + 32 k + j (j < 32): low four bits are
 * nibble k / 2 of ql[64 h + 32 (k % 2) + j], high two are bits 2 k of qh[32 h + j]. */
APR_BLOCK apr_block_q6_k
{
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};
_Static_assert(sizeof(struct apr_block_q6_k) == 210, "Q6_K");

/* IQ4_NL: x[j] = d * apr_iq4_values[nibble], nibbles in Q4_0's order. */
APR_BLOCK apr_block_iq4_nl
{
    uint16_t d;
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_iq4_nl) == 18, "IQ4_NL");

/* 8 sub-blocks of 32 with nibbles as in IQ4_NL: x = d * (scale - 32) * value. The low four bits of scale s
 * are nibble s % 2 of scales_l[s / 2], the high two are bits 2 s of scales_h. */
APR_BLOCK apr_block_iq4_xs
{
    uint16_t d;
    uint16_t scales_h;
    uint8_t scales_l[4];
    uint8_t qs[128];
};
_Static_assert(sizeof(struct apr_block_iq4_xs) == 136, "IQ4_XS");

/* 8 sub-blocks of 32, each 8 bytes: 4 indices, then a little-endian u32 of four times 7 signs
 * (apr_even_signs) and, on top, a scale of 4 bits: x = d * (scale + 1/2) / 4 * value. */
APR_BLOCK apr_block_iq2_xxs
{
    uint16_t d;
    uint8_t subs[8][8];
};
_Static_assert(sizeof(struct apr_block_iq2_xxs) == 66, "IQ2_XXS");

/* 32 vectors of 8: 9 bits of index, then 7 signs; a scale of 4 bits (nibbles) for every two vectors. */
APR_BLOCK apr_block_iq2_xs
{
    uint16_t d;
    uint8_t qs[32][2]; /* little-endian u16 */
    uint8_t scales[8];
};
_Static_assert(sizeof(struct apr_block_iq2_xs) == 74, "IQ2_XS");

/* As IQ2_XS with 8 signs and 10 bits of index: low eight in qs, high two in bits 2 v of qh[s]. */
APR_BLOCK apr_block_iq2_s
{
    uint16_t d;
    uint8_t qs[32];
    uint8_t signs[32];
    uint8_t qh[8];
    uint8_t scales[8];
};
_Static_assert(sizeof(struct apr_block_iq2_s) == 82, "IQ2_S");

/* 64 indices to vectors of 4; then for each 32 values a u32 of signs and scale as in IQ2_XXS:
 * x = d * (scale + 1/2) / 2 * value. */
APR_BLOCK apr_block_iq3_xxs
{
    uint16_t d;
    uint8_t qs[64];
    uint8_t signs[8][4];
};
_Static_assert(sizeof(struct apr_block_iq3_xxs) == 98, "IQ3_XXS");

/* 64 indices of 9 bits (bit v of qh[s] is the ninth of vector v of sub-block s), one sign a value, a scale of
 * 4 bits for each 32: x = d * (2 scale + 1) * value. */
APR_BLOCK apr_block_iq3_s
{
    uint16_t d;
    uint8_t qs[64];
    uint8_t qh[8];
    uint8_t signs[32];
    uint8_t scales[4];
};
_Static_assert(sizeof(struct apr_block_iq3_s) == 110, "IQ3_S");

/* 32 indices of 11 bits; a little-endian u16 for each 32 values: bits 3 v the high bits of index v, then a
 * scale of 3 bits, on top the sign of the delta: x = d * (2 scale + 1) * (value +- 1/8). */
APR_BLOCK apr_block_iq1_s
{
    uint16_t d;
    uint8_t qs[32];
    uint8_t qh[8][2];
};
_Static_assert(sizeof(struct apr_block_iq1_s) == 50, "IQ1_S");

/* As IQ1_S with a scale for each 16 values and a delta for each 8. Nibble v % 2 of qh[v / 2]: three high bits
 * of index v, then the sign of its delta. Four little-endian u16 hold four scales of 3 bits each, and in
 * their top nibbles the half d, lowest nibble first. */
APR_BLOCK apr_block_iq1_m
{
    uint8_t qs[32];
    uint8_t qh[16];
    uint8_t scales[4][2];
};
_Static_assert(sizeof(struct apr_block_iq1_m) == 56, "IQ1_M");

/* x = d * (digit - 1), five ternary digits a byte: the byte is ceil(256 n / 243), so that multiplying by 3
 * pushes the digits out on top, first value first. Values 0 .. 159 are in qs[0 .. 31] (32 k + j: digit k of
 * byte j), 160 .. 239 in qs[32 .. 47] (16 k + j), 240 .. 255 in qh (4 k + j, four digits only). */
APR_BLOCK apr_block_tq1_0
{
    uint8_t qs[48];
    uint8_t qh[4];
    uint16_t d;
};
_Static_assert(sizeof(struct apr_block_tq1_0) == 54, "TQ1_0");

/* x = d * (q - 1), bits 2 k of qs[32 h + j] being value 128 h + 32 k + j. */
APR_BLOCK apr_block_tq2_0
{
    uint8_t qs[64];
    uint16_t d;
};
_Static_assert(sizeof(struct apr_block_tq2_0) == 66, "TQ2_0");

/* OCP microscaling: 32 numbers of E2M1, nibbles in Q4_0's order, times 2^(e - 127). */
APR_BLOCK apr_block_mxfp4
{
    uint8_t e;
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_mxfp4) == 17, "MXFP4");

/* x[i] = scale * (nibble - 8); low nibble of qs[i / 2] for even i, high for odd: not Q4_0's order.
 * Blocks run over the whole tensor, the last one is padded with zero bytes. */
APR_BLOCK apr_block_native_q4
{
    uint16_t d;
    uint8_t qs[16];
};
_Static_assert(sizeof(struct apr_block_native_q4) == 18, "APR Q4");

/* Head of an APR-native Q8 tensor; one int8 per value follows, x[i] = scale * q[i]. */
APR_BLOCK apr_head_native_q8
{
    float scale;
};
_Static_assert(sizeof(struct apr_head_native_q8) == 4, "APR Q8");

/* Little-endian numbers of any alignment. */
static inline uint16_t apr_u16_of(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t apr_u32_of(const uint8_t *p)
{
    return (uint32_t)apr_u16_of(p) | (uint32_t)apr_u16_of(p + 2) << 16;
}

/* The 6-bit scale and min of sub-block s (0..7) from the 12 packed bytes of Q4_K and Q5_K. */
static inline void apr_q4_k_scale_min(const uint8_t *p, unsigned s, unsigned *scale, unsigned *min)
{
    *scale = s < 4 ? p[s] & 63U : (p[s + 4] & 15U) | (unsigned)(p[s - 4] >> 6) << 4;
    *min = s < 4 ? p[s + 4] & 63U : (unsigned)(p[s + 4] >> 4) | (unsigned)(p[s] >> 6) << 4;
}

#endif

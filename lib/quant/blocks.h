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

/* The 6-bit scale and min of sub-block s (0..7) from the 12 packed bytes of Q4_K and Q5_K. */
static inline void apr_q4_k_scale_min(const uint8_t *p, unsigned s, unsigned *scale, unsigned *min)
{
    *scale = s < 4 ? p[s] & 63U : (p[s + 4] & 15U) | (unsigned)(p[s - 4] >> 6) << 4;
    *min = s < 4 ? p[s + 4] & 63U : (unsigned)(p[s + 4] >> 4) | (unsigned)(p[s] >> 6) << 4;
}

#endif

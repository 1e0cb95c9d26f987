/* The five K-types as data: how a block of 256 is unpacked to unsigned bytes and int16 scales.
 *
 * Only for the avx2*.c files. The descriptors are constants that kernels take by value, so that the
 * compiler makes one kernel per type of each template and no call through a pointer remains.
 *
 *     __m256i q = apr_avx2_q4_k.group(block, 3); // values 96 .. 127
 */
#ifndef APR_KERN_AVX2_K_H
#define APR_KERN_AVX2_K_H

#include <stdbool.h>

#include "../quant/blocks.h"
#include "avx2_vec.h"

/* Scales of one block. Group g is values 32 g .. 32 g + 31: two sub-blocks of 16. */
struct scales {
    __m256i by_group; /* int16; low half: lane g = scale of sub-block 2 g, high half: of 2 g + 1 */
    __m256i natural;  /* int16 by sub-block of 16; only of types with an offset */
    __m256i min;      /* int16 by sub-block of 16; only of types with mins */
};
/* Unsigned quants of group g of block b. g is a constant after inlining. */
typedef __m256i group_fn(const void *b, int g);
typedef struct scales scales_fn(const void *b);
struct ktype {
    size_t block_bytes, off_d, off_dmin;
    group_fn *group;
    scales_fn *scales;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    bool has_min;
    int q_max;  /* of the unsigned quants */
    bool is_32; /* sub-blocks of 32: pairs of equal scales */
};

APR_INLINE uint32_t u32_at(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* 16 bytes in sub-block order to scales.by_group */
APR_INLINE __m256i by_group(__m128i bytes)
{
    const __m128i even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, even_odd));
}

/* The 12 packed bytes of Q4_K and Q5_K: the same as apr_q4_k_scale_min, four sub-blocks at a time. */
APR_INLINE struct scales scales_45(const uint8_t *p)
{
    uint32_t a = u32_at(p), b = u32_at(p + 4), c = u32_at(p + 8);
    uint32_t scale_hi = (c & 0x0f0f0f0fU) | (a >> 2 & 0x30303030U);
    uint32_t min_hi = (c >> 4 & 0x0f0f0f0fU) | (b >> 2 & 0x30303030U);
    __m128i scale = _mm_cvtsi64_si128((int64_t)(a & 0x3f3f3f3fU) | (int64_t)((uint64_t)scale_hi << 32));
    __m128i min = _mm_cvtsi64_si128((int64_t)(b & 0x3f3f3f3fU) | (int64_t)((uint64_t)min_hi << 32));
    return (struct scales){
        .by_group = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(scale)),
        .min = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(min, min)),
    };
}

/* Bits shift .. shift + n - 1 of every byte, shift negative to the left; mask: the bits after shifting. */
APR_INLINE __m256i bits(__m256i v, int shift, int mask)
{
    __m256i moved = shift > 0 ? _mm256_srli_epi16(v, shift) : shift < 0 ? _mm256_slli_epi16(v, -shift) : v;
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

APR_INLINE __m256i group_q2_k(const void *block, int g)
{
    const struct apr_block_q2_k *b = block;
    return bits(apr_load(b->qs + g / 4 * 32), g % 4 * 2, 3);
}

APR_INLINE struct scales scales_q2_k(const void *block)
{
    const struct apr_block_q2_k *b = block;
    __m128i v = apr_load128(b->scales), low = _mm_set1_epi8(15);
    return (struct scales){
        .by_group = by_group(_mm_and_si128(v, low)),
        .min = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(v, 4), low)),
    };
}

APR_INLINE __m256i group_q3_k(const void *block, int g)
{
    const struct apr_block_q3_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs + g / 4 * 32), g % 4 * 2, 3),
                           bits(apr_load(b->hmask), g - 2, 4));
}

APR_INLINE struct scales scales_q3_k(const void *block)
{
    const struct apr_block_q3_k *b = block;
    uint32_t l0 = u32_at(b->scales), l1 = u32_at(b->scales + 4), h = u32_at(b->scales + 8);
    const uint32_t low = 0x0f0f0f0fU, high = 0x30303030U;
    __m128i v = _mm_setr_epi32((int)((l0 & low) | (h << 4 & high)), (int)((l1 & low) | (h << 2 & high)),
                               (int)((l0 >> 4 & low) | (h & high)), (int)((l1 >> 4 & low) | (h >> 2 & high)));
    v = _mm_sub_epi8(v, _mm_set1_epi8(32));
    return (struct scales){.by_group = by_group(v), .natural = _mm256_cvtepi8_epi16(v)};
}

APR_INLINE __m256i group_q4_k(const void *block, int g)
{
    const struct apr_block_q4_k *b = block;
    return bits(apr_load(b->qs + g / 2 * 32), g % 2 * 4, 15);
}

APR_INLINE struct scales scales_q4_k(const void *block)
{
    return scales_45(((const struct apr_block_q4_k *)block)->scales);
}

APR_INLINE __m256i group_q5_k(const void *block, int g)
{
    const struct apr_block_q5_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs + g / 2 * 32), g % 2 * 4, 15),
                           bits(apr_load(b->qh), g - 4, 16));
}

APR_INLINE struct scales scales_q5_k(const void *block)
{
    return scales_45(((const struct apr_block_q5_k *)block)->scales);
}

APR_INLINE __m256i group_q6_k(const void *block, int g)
{
    const struct apr_block_q6_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->ql + g / 4 * 64 + g % 2 * 32), g % 4 / 2 * 4, 15),
                           bits(apr_load(b->qh + g / 4 * 32), g % 4 * 2 - 4, 0x30));
}

APR_INLINE struct scales scales_q6_k(const void *block)
{
    __m128i v = apr_load128(((const struct apr_block_q6_k *)block)->scales);
    return (struct scales){.by_group = by_group(v), .natural = _mm256_cvtepi8_epi16(v)};
}

#define KTYPE(lower, off_dmin_, offset_log2_, has_min_, q_max_, is_32_)                                      \
    static const struct ktype k_##lower = {                                                                  \
        .block_bytes = sizeof(struct apr_block_##lower),                                                     \
        .off_d = offsetof(struct apr_block_##lower, d),                                                      \
        .off_dmin = (off_dmin_),                                                                             \
        .group = group_##lower,                                                                              \
        .scales = scales_##lower,                                                                            \
        .offset_log2 = (offset_log2_),                                                                       \
        .has_min = (has_min_),                                                                               \
        .is_32 = (is_32_),                                                                                   \
        .q_max = (q_max_),                                                                                   \
    };

KTYPE(q2_k, offsetof(struct apr_block_q2_k, dmin), 0, true, 3, false)
KTYPE(q3_k, 0, 2, false, 7, false)
KTYPE(q4_k, offsetof(struct apr_block_q4_k, dmin), 0, true, 15, true)
KTYPE(q5_k, offsetof(struct apr_block_q5_k, dmin), 0, true, 31, true)
KTYPE(q6_k, 0, 5, false, 63, false)
#undef KTYPE

#endif

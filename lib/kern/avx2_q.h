/* Q4_0 .. Q8_0 as data: how a block of 32 is unpacked to bytes.
 *
 * Only for the avx2*.c files. The descriptors are constants that kernels take by value, so that the
 * compiler makes one kernel per type of each template and no call through a pointer remains.
 *
 *     __m256i q = t_q5_0.quants(block);
 */
#ifndef APR_KERN_AVX2_Q_H
#define APR_KERN_AVX2_Q_H

#include <stdbool.h>

#include "../quant/blocks.h"
#include "avx2_vec.h"

typedef __m256i quants_fn(const void *block); /* 32 bytes in order; unsigned unless is_signed */
struct type32 {
    size_t block_bytes, off_d, off_m;
    quants_fn *quants;
    int offset_log2; /* the value is d * (q - 2^offset_log2); 0: no offset */
    bool has_m;      /* the value is d * q + m */
    bool is_signed;
    int q_max; /* of the quants' absolute values */
};

/* Low nibbles are values 0..15, high ones 16..31. */
APR_INLINE __m256i nibbles(const uint8_t *qs)
{
    __m128i v = apr_load128(qs);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(v, 4), v), _mm256_set1_epi8(15));
}

/* Bit j of the 32 as 16 in byte j. */
APR_INLINE __m256i fifth_bits(const uint8_t *qh)
{
    int32_t u;
    memcpy(&u, qh, sizeof u);
    const __m256i byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(u), byte_of), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}

APR_INLINE __m256i quants_q4_0(const void *block)
{
    return nibbles(((const struct apr_block_q4_0 *)block)->qs);
}

APR_INLINE __m256i quants_q4_1(const void *block)
{
    return nibbles(((const struct apr_block_q4_1 *)block)->qs);
}

APR_INLINE __m256i quants_q5_0(const void *block)
{
    const struct apr_block_q5_0 *b = block;
    return _mm256_or_si256(nibbles(b->qs), fifth_bits(b->qh));
}

APR_INLINE __m256i quants_q5_1(const void *block)
{
    const struct apr_block_q5_1 *b = block;
    return _mm256_or_si256(nibbles(b->qs), fifth_bits(b->qh));
}

APR_INLINE __m256i quants_q8_0(const void *block)
{
    return apr_load(((const struct apr_block_q8_0 *)block)->qs);
}

#define TYPE32(lower, off_m_, offset_log2_, has_m_, is_signed_, q_max_)                                      \
    static const struct type32 t_##lower = {                                                                 \
        .block_bytes = sizeof(struct apr_block_##lower),                                                     \
        .off_d = offsetof(struct apr_block_##lower, d),                                                      \
        .off_m = (off_m_),                                                                                   \
        .quants = quants_##lower,                                                                            \
        .offset_log2 = (offset_log2_),                                                                       \
        .has_m = (has_m_),                                                                                   \
        .is_signed = (is_signed_),                                                                           \
        .q_max = (q_max_),                                                                                   \
    };

TYPE32(q4_0, 0, 3, false, false, 15)
TYPE32(q4_1, offsetof(struct apr_block_q4_1, m), 0, true, false, 15)
TYPE32(q5_0, 0, 4, false, false, 31)
TYPE32(q5_1, offsetof(struct apr_block_q5_1, m), 0, true, false, 31)
TYPE32(q8_0, 0, 0, false, true, 128)
#undef TYPE32

#endif

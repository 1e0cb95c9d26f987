/* The five K-types in strips, as data: how a block of 16 rows is unpacked, 8 rows at a time.
 *
 * Only for the avx2*.c files. The descriptors are constants that kernels take by value, as those of avx2_k.h.
 *
 *     __m256i q = strip_q4_k.quad(words, 8, 3, 1); // columns 100 .. 103 of rows 8 .. 15
 */
#ifndef APR_KERN_AVX2_KSTRIP_H
#define APR_KERN_AVX2_KSTRIP_H

#include "avx2_k.h"
#include "strips.h"

/* Four vectors of bytes, a word per row: byte j of at[i] belongs to sub-block 4 i + j. */
struct bytes {
    __m256i at[4];
};
/* Columns 32 g + 4 i .. + 3 of the rows from r0 on; g and i are constants after inlining. */
typedef __m256i quad_fn(const void *block, size_t r0, int g, int i);
typedef struct bytes bytes_fn(const void *block, size_t r0);
struct kstrip {
    size_t words_bytes;
    quad_fn *quad;
    bytes_fn *scales, *mins;
    int offset_log2; /* the value is q - 2^offset_log2; 0: no offset */
    int n_subs;      /* sub-blocks: 8 of 32 or 16 of 16 columns */
    int n_steps;     /* so many sums of 2 * q_max * 127 fit in int16 */
    int n_shared;    /* groups of 32 columns whose quads stand in the same bytes */
    bool has_min;
};

APR_INLINE __m256i quad_q2_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q2_k *b = block;
    return bits(apr_load(b->qs[g / 4 * 8 + i] + r0), g % 4 * 2, 3);
}

APR_INLINE struct bytes strip_scales_q2_k(const void *block, size_t r0)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = bits(apr_load(b->scales[i] + r0), 0, 15);
    return s;
}

APR_INLINE struct bytes strip_mins_q2_k(const void *block, size_t r0)
{
    const struct apr_strip_q2_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = bits(apr_load(b->scales[i] + r0), 4, 15);
    return s;
}

APR_INLINE __m256i quad_q3_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q3_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs[g / 4 * 8 + i] + r0), g % 4 * 2, 3),
                           bits(apr_load(b->hmask[i] + r0), g - 2, 4));
}

APR_INLINE struct bytes strip_scales_q3_k(const void *block, size_t r0)
{
    const struct apr_strip_q3_k *b = block;
    __m256i l0 = apr_load(b->scales[0] + r0), l1 = apr_load(b->scales[1] + r0),
            h = apr_load(b->scales[2] + r0);
    __m256i low[4] = {bits(l0, 0, 15), bits(l1, 0, 15), bits(l0, 4, 15), bits(l1, 4, 15)};
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        s.at[i] = _mm256_sub_epi8(_mm256_or_si256(low[i], bits(h, 2 * i - 4, 0x30)), _mm256_set1_epi8(32));
    return s;
}

APR_INLINE __m256i quad_q4_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q4_k *b = block;
    return bits(apr_load(b->qs[g / 2 * 8 + i] + r0), g % 2 * 4, 15);
}

/* The 12 packed bytes of Q4_K and Q5_K, a word per row: apr_q4_k_scale_min for 8 rows. */
APR_INLINE struct bytes strip_scales_45(const apr_words *w, size_t r0)
{
    __m256i a = apr_load(w[0] + r0), c = apr_load(w[2] + r0);
    return (struct bytes){{bits(a, 0, 63), _mm256_or_si256(bits(c, 0, 15), bits(a, 2, 0x30))}};
}

APR_INLINE struct bytes strip_mins_45(const apr_words *w, size_t r0)
{
    __m256i b = apr_load(w[1] + r0), c = apr_load(w[2] + r0);
    return (struct bytes){{bits(b, 0, 63), _mm256_or_si256(bits(c, 4, 15), bits(b, 2, 0x30))}};
}

APR_INLINE struct bytes strip_scales_q4_k(const void *block, size_t r0)
{
    return strip_scales_45(((const struct apr_strip_q4_k *)block)->scales, r0);
}

APR_INLINE struct bytes strip_mins_q4_k(const void *block, size_t r0)
{
    return strip_mins_45(((const struct apr_strip_q4_k *)block)->scales, r0);
}

APR_INLINE __m256i quad_q5_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q5_k *b = block;
    return _mm256_or_si256(bits(apr_load(b->qs[g / 2 * 8 + i] + r0), g % 2 * 4, 15),
                           bits(apr_load(b->qh[i] + r0), g - 4, 16));
}

APR_INLINE struct bytes strip_scales_q5_k(const void *block, size_t r0)
{
    return strip_scales_45(((const struct apr_strip_q5_k *)block)->scales, r0);
}

APR_INLINE struct bytes strip_mins_q5_k(const void *block, size_t r0)
{
    return strip_mins_45(((const struct apr_strip_q5_k *)block)->scales, r0);
}

APR_INLINE __m256i quad_q6_k(const void *block, size_t r0, int g, int i)
{
    const struct apr_strip_q6_k *b = block;
    int step = g / 4 * 8 + i;
    return _mm256_or_si256(bits(apr_load(b->step[step].ql[g % 2] + r0), g % 4 / 2 * 4, 15),
                           bits(apr_load(b->step[step].qh + r0), g % 4 * 2 - 4, 0x30));
}

APR_INLINE struct bytes strip_scales_q6_k(const void *block, size_t r0)
{
    const struct apr_strip_q6_k *b = block;
    struct bytes s;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) s.at[i] = apr_load(b->scales[i] + r0);
    return s;
}

#define KSTRIP(lower, offset_log2_, has_min_, n_subs_, n_steps_, n_shared_, mins_)                           \
    static const struct kstrip strip_##lower = {                                                             \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .scales = strip_scales_##lower,                                                                      \
        .mins = (mins_),                                                                                     \
        .offset_log2 = (offset_log2_),                                                                       \
        .n_subs = (n_subs_),                                                                                 \
        .n_steps = (n_steps_),                                                                               \
        .n_shared = (n_shared_),                                                                             \
        .has_min = (has_min_),                                                                               \
    };
KSTRIP(q2_k, 0, true, 16, 4, 4, strip_mins_q2_k)
KSTRIP(q3_k, 2, false, 16, 4, 4, NULL)
KSTRIP(q4_k, 0, true, 8, 8, 2, strip_mins_q4_k)
KSTRIP(q5_k, 0, true, 8, 4, 2, strip_mins_q5_k)
KSTRIP(q6_k, 5, false, 16, 2, 4, NULL)
#undef KSTRIP

/* Sub-blocks low and high, bytes of one dword, as a pair of signed words per row. */
APR_INLINE __m256i pair_of(__m256i v, int low, int high)
{
    const int order = (int)(0x00800080U | (unsigned)low << 8 | (unsigned)high << 24);
    const __m256i base =
        _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0, 0x04000400, 0x08000800, 0x0c000c00);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(v, _mm256_or_si256(_mm256_set1_epi32(order), base)), 8);
}

#endif

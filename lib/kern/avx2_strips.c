/* Rows to strips: words that follow each other in a block are transposed four at a time, 8 rows in a step;
 * the few others (halves, scales that are no four words, fifth bits) one by one.
 *
 * The order is that of apr_strip_plan (tests compare the bytes), in runs of words: constants, so that the
 * compiler makes straight code for each type. */
#include "avx2.h"

#include "avx2_vec.h"
#include "strips.h"

#define MAX_RUNS 6

/* n_quads times four words from byte off of the block on; they become words to, to + step .. of the strip. */
struct run {
    uint8_t off, n_quads, to, step;
};
struct moves {
    uint8_t block_bytes, n_words;
    uint8_t n_halves, off_halves[2];
    uint8_t n_singles, off_singles; /* the strip's first words */
    bool is_fifth;                  /* a single word is one of fifth bits */
    uint8_t n_runs;
    struct run runs[MAX_RUNS];
};
#define AT(lower, field)       offsetof(struct apr_block_##lower, field)
#define MOVES(lower, n_words_) .block_bytes = sizeof(struct apr_block_##lower), .n_words = (n_words_)
#define SCALES(lower)          .n_singles = 3, .off_singles = AT(lower, scales)
/* clang-format off */
static const struct moves m_q4_0 = {MOVES(q4_0, 4), .n_halves = 1, .off_halves = {AT(q4_0, d)},
    .n_runs = 1, .runs = {{AT(q4_0, qs), 1, 0, 1}}};
static const struct moves m_q4_1 = {MOVES(q4_1, 4), .n_halves = 2, .off_halves = {AT(q4_1, d), AT(q4_1, m)},
    .n_runs = 1, .runs = {{AT(q4_1, qs), 1, 0, 1}}};
static const struct moves m_q5_0 = {MOVES(q5_0, 5), .n_halves = 1, .off_halves = {AT(q5_0, d)},
    .n_singles = 1, .off_singles = AT(q5_0, qh), .is_fifth = true,
    .n_runs = 1, .runs = {{AT(q5_0, qs), 1, 1, 1}}};
static const struct moves m_q5_1 = {MOVES(q5_1, 5), .n_halves = 2, .off_halves = {AT(q5_1, d), AT(q5_1, m)},
    .n_singles = 1, .off_singles = AT(q5_1, qh), .is_fifth = true,
    .n_runs = 1, .runs = {{AT(q5_1, qs), 1, 1, 1}}};
static const struct moves m_q8_0 = {MOVES(q8_0, 8), .n_halves = 1, .off_halves = {AT(q8_0, d)},
    .n_runs = 1, .runs = {{AT(q8_0, qs), 2, 0, 1}}};
static const struct moves m_q2_k = {MOVES(q2_k, 20), .n_halves = 2, .off_halves = {AT(q2_k, d), AT(q2_k, dmin)},
    .n_runs = 2, .runs = {{AT(q2_k, scales), 1, 0, 1}, {AT(q2_k, qs), 4, 4, 1}}};
static const struct moves m_q3_k = {MOVES(q3_k, 27), .n_halves = 1, .off_halves = {AT(q3_k, d)}, SCALES(q3_k),
    .n_runs = 2, .runs = {{AT(q3_k, hmask), 2, 3, 1}, {AT(q3_k, qs), 4, 11, 1}}};
static const struct moves m_q4_k = {MOVES(q4_k, 35), .n_halves = 2, .off_halves = {AT(q4_k, d), AT(q4_k, dmin)},
    SCALES(q4_k), .n_runs = 1, .runs = {{AT(q4_k, qs), 8, 3, 1}}};
static const struct moves m_q5_k = {MOVES(q5_k, 43), .n_halves = 2, .off_halves = {AT(q5_k, d), AT(q5_k, dmin)},
    SCALES(q5_k), .n_runs = 2, .runs = {{AT(q5_k, qh), 2, 3, 1}, {AT(q5_k, qs), 8, 11, 1}}};
/* ql is twice 64 bytes: ql[0] of 8 steps, then their ql[1] */
static const struct moves m_q6_k = {MOVES(q6_k, 52), .n_halves = 1, .off_halves = {AT(q6_k, d)},
    .n_runs = 6, .runs = {{AT(q6_k, scales), 1, 0, 1}, {AT(q6_k, ql), 2, 4, 3}, {AT(q6_k, ql) + 32, 2, 5, 3},
                          {AT(q6_k, ql) + 64, 2, 28, 3}, {AT(q6_k, ql) + 96, 2, 29, 3},
                          {AT(q6_k, qh), 4, 6, 3}}};
/* clang-format on */

/* Words off .. off + 12 of 8 rows to four vectors with a lane per row. */
APR_INLINE void transpose4(const uint8_t *rows, size_t row_bytes, __m256i out[4])
{
    __m256i v[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; r++)
        v[r] = _mm256_set_m128i(apr_load128(rows + (r + 4) * row_bytes), apr_load128(rows + r * row_bytes));
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

APR_INLINE void quad_to_strip(const uint8_t *rows, size_t row_bytes, const struct run r, size_t i,
                              uint8_t *words)
{
    __m256i low[4], high[4];
    transpose4(rows + r.off + 16 * i, row_bytes, low);
    transpose4(rows + 8 * row_bytes + r.off + 16 * i, row_bytes, high);
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        uint8_t *to = words + sizeof(apr_words) * (r.to + (4 * i + j) * r.step);
        apr_store(to, low[j]);
        apr_store(to + 32, high[j]);
    }
}

/* The bits under mask change places with those n above them. */
APR_INLINE __m256i exchange(__m256i v, int mask, int n)
{
    __m256i t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi32(v, n), v), _mm256_set1_epi32(mask));
    return _mm256_xor_si256(_mm256_xor_si256(v, t), _mm256_slli_epi32(t, n));
}

/* apr_strip_fifths of 16 words */
APR_INLINE void order_fifths(uint8_t *words)
{
    for (int h = 0; h < 2; h++) {
        __m256i v = apr_load(words + 32 * h);
        v = exchange(exchange(v, 0x22222222, 1), 0x0a0a0a0a, 3);
        apr_store(words + 32 * h, exchange(exchange(v, 0x00cc00cc, 6), 0x0000f0f0, 12));
    }
}

APR_INLINE void block_to_strip(const struct moves m, const uint8_t *rows, size_t row_bytes, uint8_t *b)
{
    uint8_t *words = b + apr_strip_off_words(b, m.n_halves);
    uint8_t *halves = b + apr_strip_off_halves(b, m.n_words * sizeof(apr_words));
#pragma GCC unroll 6
    for (size_t i = 0; i < m.n_runs; i++) {
#pragma GCC unroll 8
        for (size_t j = 0; j < m.runs[i].n_quads; j++) quad_to_strip(rows, row_bytes, m.runs[i], j, words);
    }
    for (size_t r = 0; r < APR_STRIP_ROWS; r++, rows += row_bytes) {
#pragma GCC unroll 2
        for (size_t h = 0; h < m.n_halves; h++)
            memcpy(halves + h * APR_HALVES_BYTES + 2 * r, rows + m.off_halves[h], 2);
#pragma GCC unroll 3
        for (size_t i = 0; i < m.n_singles; i++) {
            uint32_t u;
            memcpy(&u, rows + m.off_singles + 4 * i, sizeof u);
            memcpy(words + i * sizeof(apr_words) + 4 * r, &u, sizeof u);
        }
    }
    if (m.is_fifth) order_fifths(words);
}

#define TO_STRIPS(lower, block_elems)                                                                        \
    void apr_avx2_to_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,         \
                                    void *out)                                                               \
    {                                                                                                        \
        const size_t n_bytes = n_cols / (block_elems) * sizeof(struct apr_block_##lower);                    \
        for (size_t r = 0; r < n_rows; r += APR_STRIP_ROWS) {                                                \
            const uint8_t *rows = (const uint8_t *)w + r * w_row_bytes;                                      \
            uint8_t *strip = (uint8_t *)out + r * w_row_bytes;                                               \
            for (size_t off = 0; off < n_bytes; off += sizeof(struct apr_block_##lower))                     \
                block_to_strip(m_##lower, rows + off, w_row_bytes, strip + APR_STRIP_ROWS * off);            \
        }                                                                                                    \
    }

TO_STRIPS(q4_0, APR_QK)
TO_STRIPS(q4_1, APR_QK)
TO_STRIPS(q5_0, APR_QK)
TO_STRIPS(q5_1, APR_QK)
TO_STRIPS(q8_0, APR_QK)
TO_STRIPS(q2_k, APR_QKK)
TO_STRIPS(q3_k, APR_QKK)
TO_STRIPS(q4_k, APR_QKK)
TO_STRIPS(q5_k, APR_QKK)
TO_STRIPS(q6_k, APR_QKK)

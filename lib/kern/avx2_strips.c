/* Rows to strips: words that follow each other in a block are transposed four at a time, 8 rows in a step;
 * the few others (halves, scales that are no four words, fifth bits) one by one. */
#include "avx2.h"

#include "avx2_vec.h"
#include "strips.h"

/* Four words in a row in the block, and where they go in the strip. */
struct quad {
    uint8_t off;
    uint8_t to[4]; /* words of the plan */
};
struct moves {
    const struct apr_strip_plan *plan;
    size_t n_quads, n_singles;
    struct quad quads[APR_STRIP_MAX_WORDS / 4];
    uint8_t singles[APR_STRIP_MAX_WORDS]; /* words of the plan */
};

static size_t word_at(const struct apr_strip_plan *p, size_t off)
{
    for (size_t w = 0; w < p->n_words; w++)
        if (p->off_words[w] == off && w != p->i_fifth) return w;
    return p->n_words;
}

static struct moves moves_of(const struct apr_strip_plan *p)
{
    struct moves m = {.plan = p};
    bool done[APR_STRIP_MAX_WORDS + 1] = {0};
    for (size_t w = 0; w < p->n_words; w++) {
        if (done[w]) continue;
        struct quad q = {.off = p->off_words[w]};
        bool whole = w != p->i_fifth;
        for (size_t i = 0; i < 4 && whole; i++) {
            q.to[i] = (uint8_t)word_at(p, q.off + 4 * i);
            whole = !done[q.to[i]] && q.to[i] < p->n_words;
        }
        for (size_t i = 0; i < 4 && whole; i++) done[q.to[i]] = true;
        if (whole)
            m.quads[m.n_quads++] = q;
        else
            m.singles[m.n_singles++] = (uint8_t)w;
    }
    return m;
}

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

static void block_to_strip(const struct moves *m, const uint8_t *rows, size_t row_bytes, uint8_t *b)
{
    const struct apr_strip_plan *p = m->plan;
    uint8_t *words = b + apr_strip_off_words(b, p->n_halves);
    uint8_t *halves = b + apr_strip_off_halves(b, p->n_words * sizeof(apr_words));
    for (size_t i = 0; i < m->n_quads; i++) {
        const struct quad *q = &m->quads[i];
        __m256i low[4], high[4];
        transpose4(rows + q->off, row_bytes, low);
        transpose4(rows + 8 * row_bytes + q->off, row_bytes, high);
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            apr_store(words + sizeof(apr_words) * q->to[j], low[j]);
            apr_store(words + sizeof(apr_words) * q->to[j] + 32, high[j]);
        }
    }
    for (size_t r = 0; r < APR_STRIP_ROWS; r++, rows += row_bytes) {
        for (size_t h = 0; h < p->n_halves; h++)
            memcpy(halves + h * APR_HALVES_BYTES + 2 * r, rows + p->off_halves[h], 2);
        for (size_t i = 0; i < m->n_singles; i++) {
            size_t w = m->singles[i];
            uint32_t u;
            memcpy(&u, rows + p->off_words[w], sizeof u);
            if (w == p->i_fifth) u = apr_strip_fifths(u);
            memcpy(words + w * sizeof(apr_words) + 4 * r, &u, sizeof u);
        }
    }
}

static void to_strips(const struct apr_strip_plan *p, const uint8_t *w, size_t w_row_bytes, size_t n_rows,
                      uint8_t *out)
{
    const struct moves m = moves_of(p);
    for (size_t r = 0; r < n_rows; r += APR_STRIP_ROWS, w += APR_STRIP_ROWS * w_row_bytes) {
        for (size_t off = 0; off < w_row_bytes; off += p->block_bytes) {
            block_to_strip(&m, w + off, w_row_bytes, out);
            out += APR_STRIP_ROWS * p->block_bytes;
        }
    }
}

#define TO_STRIPS(lower, type)                                                                               \
    void apr_avx2_to_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,         \
                                    void *out)                                                               \
    {                                                                                                        \
        (void)n_cols;                                                                                        \
        to_strips(apr_strip_plan_of(type), w, w_row_bytes, n_rows, out);                                     \
    }

TO_STRIPS(q4_0, APR_Q4_0)
TO_STRIPS(q4_1, APR_Q4_1)
TO_STRIPS(q5_0, APR_Q5_0)
TO_STRIPS(q5_1, APR_Q5_1)
TO_STRIPS(q8_0, APR_Q8_0)
TO_STRIPS(q2_k, APR_Q2_K)
TO_STRIPS(q3_k, APR_Q3_K)
TO_STRIPS(q4_k, APR_Q4_K)
TO_STRIPS(q5_k, APR_Q5_K)
TO_STRIPS(q6_k, APR_Q6_K)

/* Strips of Q4_0 .. Q8_0 times int8 activations: as avx2_strips256.c with one scale for each 32 columns. */
#include "avx2.h"

#include "avx2_strips.h"

/* Columns 4 i .. 4 i + 3 of the rows from r0 on, as bytes; i is a constant after inlining. */
typedef __m256i quad_fn(const void *block, size_t r0, int i);
struct strip32 {
    size_t words_bytes;
    quad_fn *quad;
    int offset_log2; /* the value is d * (q - 2^offset_log2); 0: no offset */
    int n_steps;     /* so many sums of 2 * q_max * 127 fit in int16 */
    bool has_m;      /* the value is d * q + m */
    bool is_signed;
};

APR_INLINE __m256i nibbles(const apr_words *qs, size_t r0, int i)
{
    __m256i v = apr_load(qs[i % 4] + r0);
    return _mm256_and_si256(i < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

/* The fifth bits stand in the bit i of their bytes. */
APR_INLINE __m256i fifths(const apr_words *qh, size_t r0, int i)
{
    __m256i v = apr_load(*qh + r0);
    v = i < 4 ? _mm256_slli_epi16(v, 4 - i) : _mm256_srli_epi16(v, i - 4);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

APR_INLINE __m256i quad_q4_0(const void *block, size_t r0, int i)
{
    return nibbles(((const struct apr_strip_q4_0 *)block)->qs, r0, i);
}

APR_INLINE __m256i quad_q4_1(const void *block, size_t r0, int i)
{
    return nibbles(((const struct apr_strip_q4_1 *)block)->qs, r0, i);
}

APR_INLINE __m256i quad_q5_0(const void *block, size_t r0, int i)
{
    const struct apr_strip_q5_0 *b = block;
    return _mm256_or_si256(nibbles(b->qs, r0, i), fifths(&b->qh, r0, i));
}

APR_INLINE __m256i quad_q5_1(const void *block, size_t r0, int i)
{
    const struct apr_strip_q5_1 *b = block;
    return _mm256_or_si256(nibbles(b->qs, r0, i), fifths(&b->qh, r0, i));
}

APR_INLINE __m256i quad_q8_0(const void *block, size_t r0, int i)
{
    return apr_load(((const struct apr_strip_q8_0 *)block)->qs[i] + r0);
}

#define STRIP32(lower, offset_log2_, n_steps_, has_m_, is_signed_)                                           \
    static const struct strip32 strip_##lower = {                                                            \
        .words_bytes = sizeof(struct apr_strip_##lower),                                                     \
        .quad = quad_##lower,                                                                                \
        .offset_log2 = (offset_log2_),                                                                       \
        .n_steps = (n_steps_),                                                                               \
        .has_m = (has_m_),                                                                                   \
        .is_signed = (is_signed_),                                                                           \
    };
STRIP32(q4_0, 3, 8, false, false)
STRIP32(q4_1, 0, 8, true, false)
STRIP32(q5_0, 4, 4, false, false)
STRIP32(q5_1, 0, 4, true, false)
STRIP32(q8_0, 0, 1, false, true)
#undef STRIP32

/* Pairs of q * a in int16; |q| may be 128 where it is signed, a is never -128. */
APR_INLINE __m256i products(const struct strip32 k, __m256i q, const int8_t *a)
{
    __m256i v = apr_avx2_four(a);
    return k.is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(v, q))
                       : _mm256_maddubs_epi16(q, v);
}

/* One block of 8 rows from r0 on times one block of every token, onto acc. */
APR_INLINE void block_step(const struct strip32 k, const uint8_t *b, size_t r0,
                           const struct apr_act32 *const *act, int n_toks, __m256 *acc)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t n_halves = k.has_m ? 2 : 1;
    const uint8_t *words = b + apr_strip_off_words(b, n_halves);
    const uint8_t *d_m = b + apr_strip_off_halves(b, k.words_bytes) + 2 * r0;
    __m256i sum[6];
#pragma GCC unroll 8
    for (int c = 0; c < 8; c += k.n_steps) {
        __m256i part[6];
#pragma GCC unroll 8
        for (int i = 0; i < k.n_steps; i++) {
            __m256i q = k.quad(words, r0, c + i);
#pragma GCC unroll 6
            for (int t = 0; t < n_toks; t++) {
                __m256i v = products(k, q, act[t]->q + 4 * (c + i));
                part[t] = i ? _mm256_add_epi16(part[t], v) : v;
                /* keeps the sums in registers: without it the compiler reorders the steps and spills */
                __asm__("" : "+x"(part[t]));
            }
        }
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            __m256i v = _mm256_madd_epi16(part[t], ones);
            sum[t] = c ? _mm256_add_epi32(sum[t], v) : v;
            __asm__("" : "+x"(sum[t]));
        }
    }
    __m256 d = _mm256_cvtph_ps(apr_load128(d_m));
    __m256 m = k.has_m ? _mm256_cvtph_ps(apr_load128(d_m + APR_HALVES_BYTES)) : d;
#pragma GCC unroll 6
    for (int t = 0; t < n_toks; t++) {
        __m256 dy = _mm256_set1_ps(act[t]->d);
        __m256i sum_act = _mm256_set1_epi32(act[t]->sum);
        if (k.has_m) acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(m, dy), _mm256_cvtepi32_ps(sum_act), acc[t]);
        if (k.offset_log2) sum[t] = _mm256_sub_epi32(sum[t], _mm256_slli_epi32(sum_act, k.offset_log2));
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(d, dy), _mm256_cvtepi32_ps(sum[t]), acc[t]);
    }
}

/* One strip, n_halves of 8 rows at a time. */
APR_INLINE void tile(const struct strip32 k, const uint8_t *strip, size_t n_blocks, const uint8_t *x,
                     size_t x_row_bytes, int n_toks, int n_halves, float *y, size_t y_stride)
{
    for (size_t r0 = 0; r0 < APR_STRIP_ROWS; r0 += 8 * (size_t)n_halves) {
        const struct apr_act32 *act[6];
        const uint8_t *b = strip;
        __m256 acc[2][6];
#pragma GCC unroll 6
        for (int t = 0; t < n_toks; t++) {
            act[t] = (const void *)(x + (size_t)t * x_row_bytes);
            acc[0][t] = acc[1][t] = _mm256_setzero_ps();
        }
        const size_t n_bytes = k.words_bytes + (k.has_m ? 2 : 1) * APR_HALVES_BYTES;
        for (size_t i = 0; i < n_blocks; i++, b += n_bytes) {
            if (n_halves == 1) apr_strip_fetch_next(strip, n_blocks, n_bytes, r0 / 8 * n_blocks + i);
#pragma GCC unroll 2
            for (int h = 0; h < n_halves; h++) block_step(k, b, r0 + 8 * (size_t)h, act, n_toks, acc[h]);
#pragma GCC unroll 6
            for (int t = 0; t < n_toks; t++) act[t]++;
        }
#pragma GCC unroll 2
        for (int h = 0; h < n_halves; h++) {
#pragma GCC unroll 6
            for (int t = 0; t < n_toks; t++)
                _mm256_storeu_ps(y + (size_t)t * y_stride + r0 + (size_t)(8 * h), acc[h][t]);
        }
    }
}

#define STRIP32(lower)                                                                                       \
    APR_STRIP_TILES(lower)                                                                                   \
    void apr_avx2_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,            \
                                 const void *x, size_t x_row_bytes, size_t n_toks, float *y,                 \
                                 size_t y_stride, void *scratch)                                             \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        apr_strip_walk(lower##_tiles, w, w_row_bytes, n_rows, n_cols / APR_QK, x, x_row_bytes, n_toks, y,    \
                       y_stride);                                                                            \
    }

STRIP32(q4_0)
STRIP32(q4_1)
STRIP32(q5_0)
STRIP32(q5_1)

APR_STRIP_TILE(q8_0, 1, 2)

/* For several tokens products of int16 are faster. */
void apr_avx2_strips_q8_0(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,
                          size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)
{
    struct apr_avx2_tiles a = {w, w_row_bytes, n_rows, n_cols / APR_QK, x, x_row_bytes, y, y_stride, scratch};
    if (n_toks > 1) apr_avx2_strip_panel_q8_0(&a, n_toks);
    for (size_t r = 0; r < n_rows && n_toks == 1; r += APR_STRIP_ROWS)
        q8_0_1(a.w + r * w_row_bytes, a.n_blocks, x, x_row_bytes, y + r, y_stride);
}

/* Q8_0 times the int8 activations of three and more tokens, as products of int16.
 *
 * |q| * (a with the sign of q) in bytes takes four operations for 32 products, three of them on the two ports
 * that multiply. Widened, the same products are twice a multiplication and an addition: measured 2.95 G/s of
 * 32 products against 2.37 G/s, one core of a Zen 4. Weights are widened in registers, once for 4 tokens;
 * activations once for all rows, or, where tokens are many, for 128 rows, 256 columns at a time: sums then
 * rest in y. Pairs are columns 4 i, 4 i + 2 and 4 i + 1, 4 i + 3, so that a shift widens them. Rows of the
 * file are turned into strips in scratch. The bits are those of avx2_block32.c. */
#include "avx2.h"

#include <string.h>

#include "avx2_q.h"
#include "avx2_strips.h"

#define N_TOKS   4 /* of a tile */
#define N_HALVES 2 /* of 8 rows in a strip */
#define N_STRIPS 8 /* that a piece of activations is widened for */
#define N_BLOCKS 8 /* of a piece */

/* One block of a token; stores of q do not cross lines of the cache. */
struct wide32 {
    _Alignas(32) int16_t q[2][8][2]; /* [0]: columns 4 i and 4 i + 2, [1]: 4 i + 1 and 4 i + 3 */
    float d;
};
#define BLOCK_BYTES (sizeof(struct apr_strip_q8_0) + APR_HALVES_BYTES) /* of 16 rows */
struct piece {
    _Alignas(64) uint8_t strip[N_STRIPS][N_BLOCKS * BLOCK_BYTES]; /* of rows */
    struct wide32 act[N_TOKS][N_BLOCKS];
};
_Static_assert(sizeof(struct piece) <= APR_AVX2_PANEL_BYTES, "pick.c counts on it");
_Static_assert(sizeof(struct wide32) == APR_AVX2_WIDE32_BYTES, "pick.c counts on it");

APR_INLINE __m256i even_of(__m256i v)
{
    return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}

APR_INLINE __m256i odd_of(__m256i v)
{
    return _mm256_srai_epi16(v, 8);
}

static void widen_acts(const struct apr_act32 *act, size_t n_blocks, struct wide32 *to)
{
    for (size_t i = 0; i < n_blocks; i++) {
        __m256i v = apr_load(act[i].q);
        apr_store(to[i].q[0], even_of(v));
        apr_store(to[i].q[1], odd_of(v));
        to[i].d = act[i].d;
    }
}

/* The barriers keep sums in registers: without them the compiler reorders the steps and spills. */
#define IN_REGISTERS(a, b) __asm__("" : "+x"(a), "+x"(b))

/* Pairs q0, q1 of 16 rows times those of every token, onto sum. */
APR_INLINE void pairs_step(__m256i q0, __m256i q1, const struct wide32 *const *act, int odd, int i,
                           int n_toks, __m256i sum[N_TOKS][N_HALVES])
{
#pragma GCC unroll 4
    for (int t = 0; t < n_toks; t++) {
        __m256i a = apr_avx2_four(act[t]->q[odd][i]);
        sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(q0, a));
        sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(q1, a));
        IN_REGISTERS(sum[t][0], sum[t][1]);
    }
}

APR_INLINE __m256 chain(__m256 acc, __m256 d, float d_act, __m256i sum)
{
    return _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(d_act)), _mm256_cvtepi32_ps(sum), acc);
}

/* n_blocks blocks of a strip; act: n_toks rows of wide32. The chains start at zero or go on from y. */
APR_INLINE void strip_tile(const uint8_t *strip, size_t n_blocks, const uint8_t *x, size_t x_row_bytes,
                           int n_toks, bool goes_on, float *y, size_t y_stride)
{
    const struct wide32 *act[N_TOKS];
    __m256 acc[N_TOKS][N_HALVES];
#pragma GCC unroll 4
    for (int t = 0; t < n_toks; t++) {
        const float *from = y + (size_t)t * y_stride;
        act[t] = (const void *)(x + (size_t)t * x_row_bytes);
        acc[t][0] = goes_on ? _mm256_loadu_ps(from) : _mm256_setzero_ps();
        acc[t][1] = goes_on ? _mm256_loadu_ps(from + 8) : _mm256_setzero_ps();
    }
    for (size_t b = 0; b < n_blocks; b++, strip += BLOCK_BYTES) {
        const struct apr_strip_q8_0 *words = (const void *)(strip + apr_strip_off_words(strip, 1));
        const uint8_t *halves = strip + apr_strip_off_halves(strip, sizeof *words);
        if (!goes_on) apr_strip_fetch_far(strip, BLOCK_BYTES);
        __m256i sum[N_TOKS][N_HALVES];
#pragma GCC unroll 4
        for (int t = 0; t < n_toks; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m256i q0 = apr_load(words->qs[i]), q1 = apr_load(words->qs[i] + 8);
            pairs_step(even_of(q0), even_of(q1), act, 0, i, n_toks, sum);
            pairs_step(odd_of(q0), odd_of(q1), act, 1, i, n_toks, sum);
        }
        __m256 d0 = _mm256_cvtph_ps(apr_load128(halves)), d1 = _mm256_cvtph_ps(apr_load128(halves + 16));
#pragma GCC unroll 4
        for (int t = 0; t < n_toks; t++) {
            acc[t][0] = chain(acc[t][0], d0, act[t]->d, sum[t][0]);
            acc[t][1] = chain(acc[t][1], d1, act[t]->d, sum[t][1]);
            act[t]++;
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < n_toks; t++) {
        _mm256_storeu_ps(y + (size_t)t * y_stride, acc[t][0]);
        _mm256_storeu_ps(y + (size_t)t * y_stride + 8, acc[t][1]);
    }
}

#define TILE(n)                                                                                              \
    static void tile_##n(const uint8_t *strip, size_t n_blocks, const uint8_t *x, size_t x_row_bytes,        \
                         float *y, size_t y_stride)                                                          \
    {                                                                                                        \
        strip_tile(strip, n_blocks, x, x_row_bytes, n, false, y, y_stride);                                  \
    }                                                                                                        \
    static void more_##n(const uint8_t *strip, size_t n_blocks, const uint8_t *x, size_t x_row_bytes,        \
                         float *y, size_t y_stride)                                                          \
    {                                                                                                        \
        strip_tile(strip, n_blocks, x, x_row_bytes, n, true, y, y_stride);                                   \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

/* Strips as one ascending stream, for tokens whose widened activations fit in scratch. */
static void few_tokens(const struct apr_avx2_tiles *a, size_t n_toks)
{
    static const struct apr_strip_tile tiles[] = {{4, tile_4}, {3, tile_3}, {2, tile_2}, {1, tile_1}};
    const size_t row_bytes = a->n_blocks * sizeof(struct wide32);
    uint8_t *acts = a->scratch;
    for (size_t t = 0; t < n_toks; t++)
        widen_acts((const void *)(a->x + t * a->x_row_bytes), a->n_blocks, (void *)(acts + t * row_bytes));
    apr_strip_walk(tiles, a->w, a->w_row_bytes, a->n_rows, a->n_blocks, acts, row_bytes, n_toks, a->y,
                   a->y_stride);
}

/* Blocks i_block .. + n_blocks of n_strips strips, which are so many bytes apart, for all tokens. */
static void piece(const struct apr_avx2_tiles *a, const uint8_t *strips, size_t n_apart, size_t n_strips,
                  size_t i_block, size_t n_blocks, size_t n_toks, float *y)
{
    static apr_strip_tile_fn *const fns[2][N_TOKS + 1] = {{NULL, tile_1, tile_2, tile_3, tile_4},
                                                          {NULL, more_1, more_2, more_3, more_4}};
    struct piece *s = a->scratch;
    for (size_t t = 0; t < n_toks; t += N_TOKS) {
        size_t n = n_toks - t < N_TOKS ? n_toks - t : N_TOKS;
        for (size_t i = 0; i < n; i++) {
            const struct apr_act32 *act = (const void *)(a->x + (t + i) * a->x_row_bytes);
            widen_acts(act + i_block, n_blocks, s->act[i]);
        }
        for (size_t j = 0; j < n_strips; j++)
            fns[i_block > 0][n](strips + j * n_apart, n_blocks, (const uint8_t *)s->act, sizeof s->act[0],
                                y + t * a->y_stride + j * APR_STRIP_ROWS, a->y_stride);
    }
}

/* Block of 16 rows that begin at w to that of a strip. */
APR_INLINE void pack(const uint8_t *w, size_t w_row_bytes, uint8_t *to)
{
    struct apr_strip_q8_0 *words = (void *)(to + apr_strip_off_words(to, 1));
    uint8_t *halves = to + apr_strip_off_halves(to, sizeof *words);
#pragma GCC unroll 2
    for (size_t h = 0; h < N_HALVES; h++) {
        __m256i q[8];
#pragma GCC unroll 8
        for (size_t r = 0; r < 8; r++) {
            const uint8_t *block = w + (8 * h + r) * w_row_bytes;
            q[r] = quants_q8_0(block);
            memcpy(halves + 2 * (8 * h + r), block + t_q8_0.off_d, 2);
        }
        apr_avx2_transpose(q);
#pragma GCC unroll 8
        for (size_t c = 0; c < 8; c++) apr_store(words->qs[c] + 8 * h, q[c]);
    }
}

/* n_strips times 16 rows from r0 on, all tokens. */
static void pieces(const struct apr_avx2_tiles *a, size_t r0, size_t n_strips, bool is_strips, size_t n_toks)
{
    const uint8_t *w = a->w + r0 * a->w_row_bytes, *next = w + n_strips * APR_STRIP_ROWS * a->w_row_bytes;
    struct piece *s = a->scratch;
    for (size_t i = 0; i < a->n_blocks; i += N_BLOCKS) {
        size_t n_blocks = a->n_blocks - i < N_BLOCKS ? a->n_blocks - i : N_BLOCKS;
        size_t n_fetch = n_strips * n_blocks * BLOCK_BYTES;
        apr_avx2_prefetch(next, n_strips * i * BLOCK_BYTES, n_fetch);
        if (is_strips) {
            piece(a, w + i * BLOCK_BYTES, APR_STRIP_ROWS * a->w_row_bytes, n_strips, i, n_blocks, n_toks,
                  a->y + r0);
            continue;
        }
        for (size_t j = 0; j < n_strips; j++) {
            for (size_t b = 0; b < n_blocks; b++)
                pack(w + j * APR_STRIP_ROWS * a->w_row_bytes + (i + b) * t_q8_0.block_bytes, a->w_row_bytes,
                     s->strip[j] + b * BLOCK_BYTES);
        }
        piece(a, s->strip[0], sizeof s->strip[0], n_strips, i, n_blocks, n_toks, a->y + r0);
    }
}

static size_t whole_strips(const struct apr_avx2_tiles *a, bool is_strips, size_t n_toks)
{
    size_t n_strips = a->n_rows / APR_STRIP_ROWS;
    for (size_t j = 0; j < n_strips; j += N_STRIPS)
        pieces(a, j * APR_STRIP_ROWS, n_strips - j < N_STRIPS ? n_strips - j : N_STRIPS, is_strips, n_toks);
    return n_strips * APR_STRIP_ROWS;
}

void apr_avx2_panel_q8_0(const struct apr_avx2_tiles *a, size_t n_toks)
{
    size_t r = whole_strips(a, false, n_toks);
    for (size_t t = 0; t < n_toks && r < a->n_rows; t++) /* fewer than 16 rows, token by token */
        apr_avx2_fast_q8_0(a->w + r * a->w_row_bytes, a->w_row_bytes, a->n_rows - r, a->n_blocks * APR_QK,
                           a->x + t * a->x_row_bytes, a->x_row_bytes, 1, a->y + t * a->y_stride + r,
                           a->y_stride, a->scratch);
}

void apr_avx2_strip_panel_q8_0(const struct apr_avx2_tiles *a, size_t n_toks)
{
    if (n_toks <= APR_AVX2_WIDE_TOKS)
        few_tokens(a, n_toks);
    else
        (void)whole_strips(a, true, n_toks);
}

/* Q4_0 .. Q5_1 times the int8 activations of three and more tokens.
 *
 * As avx2_panel256.c with blocks of 32: 16 rows are unpacked once, 1024 columns at a time, so that a vector
 * holds 4 consecutive k of 8 rows; a tile is 16 rows x 4 tokens, float chains have one lane per row and
 * rest in scratch between panels. The bits are those of avx2_block32.c. */
#include "avx2.h"

#include <string.h>

#include "avx2_q.h"

#define N_HALVES 2   /* of 8 rows */
#define N_BLOCKS 32  /* of a panel */
#define N_TOKS   4   /* of a tile */
#define N_GROUP  256 /* tokens that share a packed panel */

/* One block of 32 columns of 8 rows. */
struct half {
    uint8_t q[8][32]; /* [step]: k = 4 * step .. 4 * step + 3 of every row */
    float d[8], m[8];
};
/* One token's sums, a lane per row. */
struct sums {
    float row[N_HALVES][8];
};
struct panel {
    struct half block[N_BLOCKS][N_HALVES];
    struct sums acc[N_GROUP];
};
_Static_assert(sizeof(struct panel) <= APR_AVX2_PANEL_BYTES, "pick.c counts on it");

/* block: of 8 rows */
APR_INLINE void pack(const struct type32 k, const uint8_t *const *block, struct half *h)
{
    __m256i q[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) q[r] = k.quants(block[r]);
    apr_avx2_transpose(q);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) apr_store(h->q[i], q[i]);
    _mm256_storeu_ps(h->d, apr_avx2_halves(block, k.off_d, 1));
    if (k.has_m) _mm256_storeu_ps(h->m, apr_avx2_halves(block, k.off_m, 1));
}

/* The barriers below keep sums in registers: without them the compiler reorders the steps and spills. */
#define IN_REGISTERS(a, b) __asm__("" : "+x"(a), "+x"(b))

/* Integer dot products of 16 rows with one block of N_TOKS tokens, summed in int16 for n_steps steps of
 * 2 * q_max * 127. */
APR_INLINE void dots(const struct half *h, const struct apr_act32 *const *act, int n_steps,
                     __m256i sum[N_TOKS][N_HALVES])
{
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 2
    for (int c = 0; c < 8; c += n_steps) {
        __m256i part[N_TOKS][N_HALVES];
#pragma GCC unroll 8
        for (int i = 0; i < n_steps; i++) {
            __m256i q0 = apr_load(h[0].q[c + i]), q1 = apr_load(h[1].q[c + i]);
#pragma GCC unroll 4
            for (int t = 0; t < N_TOKS; t++) {
                __m256i a = apr_avx2_four(act[t]->q + 4 * (c + i));
                __m256i p0 = _mm256_maddubs_epi16(q0, a), p1 = _mm256_maddubs_epi16(q1, a);
                part[t][0] = i ? _mm256_add_epi16(part[t][0], p0) : p0;
                part[t][1] = i ? _mm256_add_epi16(part[t][1], p1) : p1;
                IN_REGISTERS(part[t][0], part[t][1]);
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < N_TOKS; t++) {
            __m256i p0 = _mm256_madd_epi16(part[t][0], ones), p1 = _mm256_madd_epi16(part[t][1], ones);
            sum[t][0] = c ? _mm256_add_epi32(sum[t][0], p0) : p0;
            sum[t][1] = c ? _mm256_add_epi32(sum[t][1], p1) : p1;
        }
    }
}

/* One block of 16 rows times one block of N_TOKS tokens, onto acc. */
APR_INLINE void tile(const struct type32 k, const struct half *h, const struct apr_act32 *const *act,
                     struct sums *const *acc)
{
    __m256i sum[N_TOKS][N_HALVES];
    dots(h, act, k.q_max <= 15 ? 8 : 4, sum);
#pragma GCC unroll 8
    for (int i = 0; i < N_TOKS * N_HALVES; i++) {
        int t = i / N_HALVES, j = i % N_HALVES;
        __m256 dy = _mm256_set1_ps(act[t]->d), a = _mm256_loadu_ps(acc[t]->row[j]);
        __m256i sum_act = _mm256_set1_epi32(act[t]->sum);
        if (k.has_m) {
            __m256 m = _mm256_mul_ps(_mm256_loadu_ps(h[j].m), dy);
            a = _mm256_fmadd_ps(m, _mm256_cvtepi32_ps(sum_act), a);
        }
        if (k.offset_log2) sum[t][j] = _mm256_sub_epi32(sum[t][j], _mm256_slli_epi32(sum_act, k.offset_log2));
        a = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_loadu_ps(h[j].d), dy), _mm256_cvtepi32_ps(sum[t][j]), a);
        _mm256_storeu_ps(acc[t]->row[j], a);
    }
}
/* n_blocks blocks from i_block on of 16 rows, times n_toks tokens; next: the row behind them */
APR_INLINE void panel(const struct type32 k, const uint8_t *const *rows, const uint8_t *next, size_t i_block,
                      size_t n_blocks, const uint8_t *x, size_t x_row_bytes, size_t n_toks, struct panel *s)
{
    for (size_t b = 0; b < n_blocks; b++) {
        for (int j = 0; j < N_HALVES; j++) {
            const uint8_t *block[8];
            apr_avx2_prefetch(next, (16 * (i_block + b) + 8 * (size_t)j) * k.block_bytes, 8 * k.block_bytes);
            for (int r = 0; r < 8; r++) block[r] = rows[8 * j + r] + (i_block + b) * k.block_bytes;
            pack(k, block, &s->block[b][j]);
        }
    }
    for (size_t t = 0; t < n_toks; t += N_TOKS) {
        const struct apr_act32 *act[N_TOKS];
        struct sums *acc[N_TOKS], spare = {0};
        for (size_t i = 0; i < N_TOKS; i++) {
            bool past = t + i >= n_toks; /* then the first token serves again, for nothing */
            const void *xt = x + (past ? t : t + i) * x_row_bytes;
            act[i] = (const struct apr_act32 *)xt + i_block;
            acc[i] = past ? &spare : &s->acc[t + i];
        }
        for (size_t b = 0; b < n_blocks; b++) {
            tile(k, s->block[b], act, acc);
            for (int i = 0; i < N_TOKS; i++) act[i]++;
        }
    }
}

APR_INLINE void panels(const struct type32 k, const struct apr_avx2_tiles *a, size_t n_toks)
{
    struct panel *s = a->scratch;
    for (size_t r = 0; r < a->n_rows; r += 16) {
        const uint8_t *rows[16];
        size_t n = a->n_rows - r < 16 ? a->n_rows - r : 16;
        for (size_t j = 0; j < 16; j++) rows[j] = a->w + (r + (j < n ? j : n - 1)) * a->w_row_bytes;
        for (size_t t = 0; t < n_toks; t += N_GROUP) {
            size_t n_group = n_toks - t < N_GROUP ? n_toks - t : N_GROUP;
            memset(s->acc, 0, n_group * sizeof s->acc[0]);
            for (size_t i = 0; i < a->n_blocks; i += N_BLOCKS) {
                size_t n_blocks = a->n_blocks - i < N_BLOCKS ? a->n_blocks - i : N_BLOCKS;
                panel(k, rows, rows[0] + 16 * a->w_row_bytes, i, n_blocks, a->x + t * a->x_row_bytes,
                      a->x_row_bytes, n_group, s);
            }
            for (size_t i = 0; i < n_group; i++) {
                memcpy(a->y + (t + i) * a->y_stride + r, s->acc[i].row, n * sizeof(float));
            }
        }
    }
}

#define PANEL(lower)                                                                                         \
    void apr_avx2_panel_##lower(const struct apr_avx2_tiles *a, size_t n_toks)                               \
    {                                                                                                        \
        panels(t_##lower, a, n_toks);                                                                        \
    }

PANEL(q4_0)
PANEL(q4_1)
PANEL(q5_0)
PANEL(q5_1)

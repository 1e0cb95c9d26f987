/* Q2_K .. Q6_K times the int8 activations of three and more tokens.
 *
 * 16 rows are unpacked once, 1024 columns at a time, to a panel in which a vector holds 4 consecutive k of
 * 8 rows: one broadcast of 4 activations then serves 8 rows, and no sum across lanes is needed. Pairs are
 * summed in int16 as long as they fit (n_steps), then multiplied with the scale of their sub-block. A tile
 * is 16 rows x 4 tokens; the float chains of kern.h have one lane per row and rest in scratch between
 * panels, so the bits are those of avx2_block256.c. Strips (strips.h) are in the panel's order already. */
#include "avx2.h"

#include <string.h>

#include "avx2_kstrip.h"

#define N_HALVES 2   /* of 8 rows */
#define N_BLOCKS 4   /* of a panel */
#define N_TOKS   4   /* of a tile */
#define N_GROUP  256 /* tokens that share a packed panel */

/* One block of 256 columns of 8 rows; every array ends in one vector with a lane (pair) per row. */
struct half {
    uint8_t q[64][32];     /* [step]: k = 4 * step .. 4 * step + 3 */
    int16_t scale[16][16]; /* [sub-block]: the scale twice */
    int16_t pair[8][16];   /* [p]: scales (offset types) or mins of sub-blocks 2 p, 2 p + 1 */
    float d[8], dmin[8];
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
APR_INLINE void pack(const struct ktype k, const uint8_t *const *block, struct half *h)
{
    __m256i scale[8], pair[8];
    for (int r = 0; r < 8; r++) {
        struct scales s = k.scales(block[r]);
        scale[r] = s.by_group;
        pair[r] = k.has_min ? s.min : s.natural;
    }
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m256i q[8];
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) q[r] = k.group(block[r], g);
        apr_avx2_transpose(q);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) apr_store(h->q[8 * g + i], q[i]);
    }
    apr_avx2_transpose(pair); /* dword p of a row: sub-blocks 2 p, 2 p + 1 */
    for (int p = 0; p < 8; p++) apr_store(h->pair[p], pair[p]);
    apr_avx2_transpose(
        scale); /* dword i of a row: groups 2 i, 2 i + 1 of even sub-blocks, from 4 on of odd ones */
    for (int i = 0; i < 8; i++) {
        __m256i low = _mm256_and_si256(scale[i], _mm256_set1_epi32(0xffff)),
                high = _mm256_srli_epi32(scale[i], 16);
        int g = i % 4 * 2, odd = i / 4;
        apr_store(h->scale[2 * g + odd], _mm256_or_si256(low, _mm256_slli_epi32(low, 16)));
        apr_store(h->scale[2 * (g + 1) + odd], _mm256_or_si256(high, _mm256_slli_epi32(high, 16)));
    }
    _mm256_storeu_ps(h->d, apr_avx2_halves(block, k.off_d, 1));
    if (k.has_min) _mm256_storeu_ps(h->dmin, apr_avx2_halves(block, k.off_dmin, 1));
}

/* b: the block of a strip; rows r0 .. r0 + 7 of it */
APR_INLINE void unpack(const struct kstrip k, const uint8_t *b, size_t r0, struct half *h)
{
    const uint8_t *words = b + apr_strip_off_words(b, k.has_min ? 2 : 1);
    const uint8_t *d_dmin = b + apr_strip_off_halves(b, k.words_bytes) + 2 * r0;
    const struct bytes scales = k.scales(words, r0), mins = k.has_min ? k.mins(words, r0) : scales;
    const int n_same = 16 / k.n_subs; /* sub-blocks of 16 that have one scale */
#pragma GCC unroll 64
    for (int c = 0; c < 64; c++) apr_store(h->q[c], k.quad(words, r0, c / 8, c % 8));
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        int s = i / n_same;
        apr_store(h->scale[i], pair_of(scales.at[s / 4], s % 4, s % 4));
    }
#pragma GCC unroll 8
    for (int p = 0; p < 8; p++) {
        int low = 2 * p / n_same, high = (2 * p + 1) / n_same;
        apr_store(h->pair[p], pair_of(mins.at[low / 4], low % 4, high % 4));
    }
    _mm256_storeu_ps(h->d, _mm256_cvtph_ps(apr_load128(d_dmin)));
    if (k.has_min) _mm256_storeu_ps(h->dmin, _mm256_cvtph_ps(apr_load128(d_dmin + APR_HALVES_BYTES)));
}

/* One block of 16 rows times one block of N_TOKS tokens, onto acc. */
APR_INLINE void tile(const struct ktype k, const struct half *h, const struct apr_act256 *const *act,
                     struct sums *const *acc)
{
    /* 2 * q_max * 127 per step in int16; what is left of 32767 bounds the steps before a scale */
    const int n_steps = k.q_max <= 15 && k.is_32 ? 8 : k.q_max <= 31 ? 4 : 2;
    __m256i sum[N_TOKS][N_HALVES];
#pragma GCC unroll 8
    for (int i = 0; i < N_TOKS * N_HALVES; i++) sum[i / N_HALVES][i % N_HALVES] = _mm256_setzero_si256();
    for (int c = 0; c < 64; c += n_steps) {
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
                /* keeps the sums in registers: without it the compiler reorders the eight steps and spills */
                __asm__("" : "+x"(part[t][0]), "+x"(part[t][1]));
            }
        }
        __m256i s0 = apr_load(h[0].scale[c / 4]), s1 = apr_load(h[1].scale[c / 4]);
#pragma GCC unroll 4
        for (int t = 0; t < N_TOKS; t++) {
            sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(part[t][0], s0));
            sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(part[t][1], s1));
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N_TOKS * N_HALVES; i++) {
        int t = i / N_HALVES, j = i % N_HALVES;
        __m256i by_pair = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int p = 0; p < 8; p++) {
            by_pair = _mm256_add_epi32(
                by_pair, _mm256_madd_epi16(apr_load(h[j].pair[p]), apr_avx2_four(act[t]->sums + 2 * p)));
        }
        __m256 dy = _mm256_set1_ps(act[t]->d), a = _mm256_loadu_ps(acc[t]->row[j]);
        if (k.has_min) {
            a = _mm256_fnmadd_ps(_mm256_mul_ps(_mm256_loadu_ps(h[j].dmin), dy), _mm256_cvtepi32_ps(by_pair),
                                 a);
        } else {
            sum[t][j] = _mm256_sub_epi32(sum[t][j], _mm256_slli_epi32(by_pair, k.offset_log2));
        }
        a = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_loadu_ps(h[j].d), dy), _mm256_cvtepi32_ps(sum[t][j]), a);
        _mm256_storeu_ps(acc[t]->row[j], a);
    }
}

/* n_blocks blocks from i_block on of 16 rows, times n_toks tokens; ks: rows[0] is their strip; next: what
 * follows them in memory */
APR_INLINE void panel(const struct ktype k, const struct kstrip *ks, const uint8_t *const *rows,
                      const uint8_t *next, size_t i_block, size_t n_blocks, const uint8_t *x,
                      size_t x_row_bytes, size_t n_toks, struct panel *s)
{
    for (size_t b = 0; b < n_blocks; b++) {
        for (int j = 0; j < N_HALVES; j++) {
            const uint8_t *block[8];
            apr_avx2_prefetch(next, (16 * (i_block + b) + 8 * (size_t)j) * k.block_bytes, 8 * k.block_bytes);
            if (ks) {
                unpack(*ks, rows[0] + 16 * (i_block + b) * k.block_bytes, 8 * (size_t)j, &s->block[b][j]);
                continue;
            }
            for (int r = 0; r < 8; r++) block[r] = rows[8 * j + r] + (i_block + b) * k.block_bytes;
            pack(k, block, &s->block[b][j]);
        }
    }
    for (size_t t = 0; t < n_toks; t += N_TOKS) {
        const struct apr_act256 *act[N_TOKS];
        struct sums *acc[N_TOKS], spare = {0};
        for (size_t i = 0; i < N_TOKS; i++) {
            bool past = t + i >= n_toks; /* then the first token serves again, for nothing */
            const void *xt = x + (past ? t : t + i) * x_row_bytes;
            act[i] = (const struct apr_act256 *)xt + i_block;
            acc[i] = past ? &spare : &s->acc[t + i];
        }
        for (size_t b = 0; b < n_blocks; b++) {
            tile(k, s->block[b], act, acc);
            for (int i = 0; i < N_TOKS; i++) act[i]++;
        }
    }
}

APR_INLINE void panels(const struct ktype k, const struct kstrip *ks, const struct apr_avx2_tiles *a,
                       size_t n_toks)
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
                panel(k, ks, rows, rows[0] + 16 * a->w_row_bytes, i, n_blocks, a->x + t * a->x_row_bytes,
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
        panels(k_##lower, NULL, a, n_toks);                                                                  \
    }                                                                                                        \
    void apr_avx2_strip_panel_##lower(const struct apr_avx2_tiles *a, size_t n_toks)                         \
    {                                                                                                        \
        panels(k_##lower, &strip_##lower, a, n_toks);                                                        \
    }

PANEL(q2_k)
PANEL(q3_k)
PANEL(q4_k)
PANEL(q5_k)
PANEL(q6_k)

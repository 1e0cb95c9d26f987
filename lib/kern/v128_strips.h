/* Strips of blocks times int8 activations for the tables of 128 bits.
 *
 * A vector holds 4 consecutive columns of 4 rows, a quarter of what stands in the strip. Its bytes are
 * multiplied with one broadcast of 4 activations, so that a lane is a row: the float chain of kern.h runs in
 * registers from the first block to the last, and no sum across lanes is needed. A tile is 16 rows x 1 or 2
 * tokens, or 4 rows x more. A body: included once by a file of a table after the header of its instruction
 * set.
 *
 *     #include "v128_strips.h"
 */
#ifndef APR_KERN_V128_STRIPS_H
#define APR_KERN_V128_STRIPS_H

#include "strip_walk.h"
#include "v128_quads.h"

/* One block of 4 rows from r0 on times one block of every token, onto acc. */
V_INLINE void step32(const struct strip32 k, const uint8_t *b, size_t r0, const struct apr_act32 *const *act,
                     int n_toks, f32x4 *acc)
{
    const uint8_t *words = b + apr_strip_off_words(b, k.has_m ? 2 : 1);
    const uint8_t *d_m = b + apr_strip_off_halves(b, k.words_bytes) + 2 * r0;
    i32x4 sum[V_TOKS];
    V_UNROLL
    for (int t = 0; t < n_toks; t++) sum[t] = v_ints(0);
    V_UNROLL
    for (int c = 0; c < 8; c += k.n_steps) {
        struct v_part part[V_TOKS];
        V_UNROLL
        for (int t = 0; t < n_toks; t++) part[t] = (struct v_part){0};
        V_UNROLL
        for (int i = 0; i < k.n_steps; i++) {
            u8x16 q = k.quad(words, r0, c + i);
            V_UNROLL
            for (int t = 0; t < n_toks; t++) {
                u8x16 a = (u8x16)v_ints((int32_t)v_u32_at(act[t]->q + 4 * (c + i)));
                part[t] = v_dot(part[t], q, a, k.is_signed);
            }
        }
        V_UNROLL
        for (int t = 0; t < n_toks; t++) sum[t] += v_part_sum(part[t]);
    }
    f32x4 d = v_halves(d_m), m = k.has_m ? v_halves(d_m + APR_HALVES_BYTES) : d;
    V_UNROLL
    for (int t = 0; t < n_toks; t++) {
        i32x4 sum_act = v_ints(act[t]->sum);
        if (k.has_m) acc[t] = v_fma(m * act[t]->d, v_float(sum_act), acc[t]);
        if (k.offset_log2) sum[t] -= sum_act << k.offset_log2;
        acc[t] = v_fma(d * act[t]->d, v_float(sum[t]), acc[t]);
    }
}

/* sum over sub-blocks of v * (sum of activations) */
V_INLINE i32x4 by_sums(const struct strip256 k, const struct bytes v, const struct apr_act256 *act)
{
    i32x4 sum = v_ints(0);
    const int16_t *sums = k.n_subs == 8 ? act->sums32 : act->sums;
    V_UNROLL
    for (int p = 0; p < k.n_subs / 2; p++)
        sum = v_pair_add(sum, v_pair_of(v.at[p / 2], p % 2 * 2), sums + 2 * p);
    return sum;
}

/* Half h of a block of 4 rows, onto sum. */
V_INLINE void half_step256(const struct strip256 k, const uint8_t *words, size_t r0, int h,
                           const struct bytes scales, const struct apr_act256 *const *act, int n_toks,
                           i32x4 *sum)
{
    _Pragma("GCC unroll 32") for (int c = 0; c < 32; c += k.n_steps)
    {
        struct v_part part[V_TOKS];
        V_UNROLL
        for (int t = 0; t < n_toks; t++) part[t] = (struct v_part){0};
        V_UNROLL
        for (int i = 0; i < k.n_steps; i++) {
            u8x16 q = k.quad(words, r0, h, (c + i) / 8, (c + i) % 8);
            V_UNROLL
            for (int t = 0; t < n_toks; t++) {
                u8x16 a = (u8x16)v_ints((int32_t)v_u32_at(act[t]->q + 128 * h + 4 * (c + i)));
                part[t] = v_dot(part[t], q, a, false);
            }
        }
        const int s = c * k.n_subs / 64; /* sub-block of this half */
        struct v_scale scale = v_scale_of(scales.at[s / 4], s % 4);
        V_UNROLL
        for (int t = 0; t < n_toks; t++) sum[t] = v_part_scaled(sum[t], part[t], scale);
    }
}

V_INLINE void step256(const struct strip256 k, const uint8_t *b, size_t r0,
                      const struct apr_act256 *const *act, int n_toks, f32x4 *acc)
{
    const uint8_t *words = b + apr_strip_off_words(b, k.has_min ? 2 : 1);
    const uint8_t *d_dmin = b + apr_strip_off_halves(b, k.words_bytes) + 2 * r0;
    const struct bytes scales = k.scales(words, r0), by = k.has_min ? k.mins(words, r0) : scales;
    f32x4 d = v_halves(d_dmin), dmin = k.has_min ? v_halves(d_dmin + APR_HALVES_BYTES) : d;
    i32x4 sum[V_TOKS];
    V_UNROLL
    for (int t = 0; t < n_toks; t++) {
        sum[t] = by_sums(k, by, act[t]);
        if (k.has_min) acc[t] = v_fma(-(dmin * act[t]->d), v_float(sum[t]), acc[t]);
        sum[t] = k.has_min ? v_ints(0) : -(sum[t] << k.offset_log2);
    }
    for (int h = 0; h < 2; h++) {
        struct bytes half = {{scales.at[0], scales.at[1]}};
        if (h) half = (struct bytes){{scales.at[k.n_subs / 8], scales.at[k.n_subs / 8 + 1]}};
        half_step256(k, words, r0, h, half, act, n_toks, sum);
    }
    V_UNROLL
    for (int t = 0; t < n_toks; t++) acc[t] = v_fma(d * act[t]->d, v_float(sum[t]), acc[t]);
}

/* One strip times n_toks tokens, n_quads times 4 rows at a time. */
#define V_STRIP_TILES_OF(bits, act_type)                                                                     \
    V_INLINE void strip_tile##bits(const struct strip##bits k, size_t block_bytes, const uint8_t *strip,     \
                                   size_t n_blocks, const uint8_t *x, size_t x_row_bytes, int n_toks,        \
                                   size_t n_quads, float *y, size_t y_stride)                                \
    {                                                                                                        \
        for (size_t r0 = 0; r0 < APR_STRIP_ROWS; r0 += 4 * n_quads) {                                        \
            const struct act_type *act[V_TOKS];                                                              \
            const uint8_t *b = strip;                                                                        \
            f32x4 acc[4][V_TOKS];                                                                            \
            V_UNROLL                                                                                         \
            for (int t = 0; t < n_toks; t++) {                                                               \
                act[t] = (const void *)(x + (size_t)t * x_row_bytes);                                        \
                for (size_t q = 0; q < n_quads; q++) acc[q][t] = v_all(0);                                   \
            }                                                                                                \
            for (size_t i = 0; i < n_blocks; i++, b += APR_STRIP_ROWS * block_bytes) {                       \
                for (size_t q = 0; q < n_quads; q++) step##bits(k, b, r0 + 4 * q, act, n_toks, acc[q]);      \
                V_UNROLL                                                                                     \
                for (int t = 0; t < n_toks; t++) act[t]++;                                                   \
            }                                                                                                \
            for (size_t q = 0; q < n_quads; q++)                                                             \
                for (int t = 0; t < n_toks; t++) v_store(y + (size_t)t * y_stride + r0 + 4 * q, acc[q][t]);  \
        }                                                                                                    \
    }
V_STRIP_TILES_OF(32, apr_act32)
V_STRIP_TILES_OF(256, apr_act256)

#define V_STRIP_TILE(bits, lower, n_toks, n_quads)                                                           \
    static void lower##_##n_toks(const uint8_t *strip, size_t n_blocks, const uint8_t *x,                    \
                                 size_t x_row_bytes, float *y, size_t y_stride)                              \
    {                                                                                                        \
        strip_tile##bits(strip_##lower, sizeof(struct apr_block_##lower), strip, n_blocks, x, x_row_bytes,   \
                         n_toks, n_quads, y, y_stride);                                                      \
    }
#define V_STRIPS(bits, lower, block_elems)                                                                   \
    V_STRIP_TILE(bits, lower, V_TOKS, 1)                                                                     \
    V_STRIP_TILE(bits, lower, 2, 4)                                                                          \
    V_STRIP_TILE(bits, lower, 1, 4)                                                                          \
    void V(strips_##lower)(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,   \
                           size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)      \
    {                                                                                                        \
        static const struct apr_strip_tile tiles[] = {                                                       \
            {V_TOKS, lower##_V_TOKS}, {2, lower##_2}, {1, lower##_1}};                                       \
        (void)scratch;                                                                                       \
        apr_strip_walk(tiles, w, w_row_bytes, n_rows, n_cols / (block_elems), x, x_row_bytes, n_toks, y,     \
                       y_stride);                                                                            \
    }

V_STRIPS(32, q4_0, APR_QK)
V_STRIPS(32, q4_1, APR_QK)
V_STRIPS(32, q5_0, APR_QK)
V_STRIPS(32, q5_1, APR_QK)
V_STRIPS(32, q8_0, APR_QK)
V_STRIPS(256, q2_k, APR_QKK)
V_STRIPS(256, q3_k, APR_QKK)
V_STRIPS(256, q4_k, APR_QKK)
V_STRIPS(256, q5_k, APR_QKK)
V_STRIPS(256, q6_k, APR_QKK)

#endif

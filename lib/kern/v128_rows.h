/* Rows of blocks times int8 activations for the tables of 128 bits.
 *
 * A tile is 4 rows x 1 token or 1 row x 4 tokens, one lane a result. Inside a block a weight is unpacked to
 * bytes once and multiplied with the activations of every token of the tile; the sums are exact and added
 * across lanes at the end of the block; then the float chain of kern.h runs with one lane a result. A body:
 * included once by a file of a table after v128_unpack.h.
 *
 *     #include "v128_rows.h"
 */
#ifndef APR_KERN_V128_ROWS_H
#define APR_KERN_V128_ROWS_H

#include "v128_unpack.h"

/* The arguments of apr_matmul_fn. */
struct rows_args {
    const uint8_t *w;
    size_t w_row_bytes, n_rows, n_blocks;
    const uint8_t *x;
    size_t x_row_bytes;
    float *y;
    size_t y_stride;
};

/* d (or dmin, m) of the tile's rows as floats, a lane each result */
V_INLINE f32x4 halves_of(const uint8_t *const *block, size_t off, int n_rows)
{
    uint16_t h[4];
    V_UNROLL
    for (int l = 0; l < 4; l++) h[l] = v_u16_at(block[n_rows == 4 ? l : 0] + off);
    return v_halves(h);
}

/* One block of 32 of a row times the tokens. */
V_INLINE void row_block32(const struct type32 k, const uint8_t *block, const struct apr_act32 *const *a,
                          int n_toks, i32x4 *sum)
{
    u8x16 q[2];
    V_UNROLL
    for (int h = 0; h < 2; h++) q[h] = k.half(block, h);
    V_UNROLL
    for (int t = 0; t < n_toks; t++) {
        struct v_part p = {0}, r = {0};
        p = v_dot(p, q[0], v_bytes(a[t]->q), k.is_signed);
        /* two products of a signed type may not fit into one part */
        if (k.is_signed)
            r = v_dot(r, q[1], v_bytes(a[t]->q + 16), true);
        else
            p = v_dot(p, q[1], v_bytes(a[t]->q + 16), false);
        sum[t] = v_part_sum(p);
        if (k.is_signed) sum[t] += v_part_sum(r);
    }
}

/* The tile of rows (4 pointers, or one) and acts (one pointer, or 4). */
V_INLINE f32x4 tile32(const struct type32 k, const uint8_t *const *rows, const struct apr_act32 *const *acts,
                      size_t n_blocks, int n_rows)
{
    const int n_toks = 4 / n_rows;
    f32x4 acc = v_all(0);
    for (size_t i = 0; i < n_blocks; i++) {
        const uint8_t *block[4];
        const struct apr_act32 *const a[4] = {acts[0] + i, acts[1 % n_toks] + i, acts[2 % n_toks] + i,
                                              acts[3 % n_toks] + i};
        const f32x4 dy = {a[0]->d, a[1]->d, a[2]->d, a[3]->d};
        const i32x4 sum_act = {a[0]->sum, a[1]->sum, a[2]->sum, a[3]->sum};
        i32x4 sum[4];
        V_UNROLL
        for (int r = 0; r < n_rows; r++) {
            block[r] = rows[r] + i * k.block_bytes;
            row_block32(k, block[r], a, n_toks, sum + r);
        }
        i32x4 total = v_sums(sum);
        if (k.offset_log2) total -= sum_act << k.offset_log2;
        if (k.has_m) acc = v_fma(halves_of(block, k.off_m, n_rows) * dy, v_float(sum_act), acc);
        acc = v_fma(halves_of(block, k.off_d, n_rows) * dy, v_float(total), acc);
    }
    return acc;
}

/* One block of 256 of a row times the tokens; sum_min: by pairs of sub-blocks, to be added across lanes */
V_INLINE void row_block256(const struct type256 k, const uint8_t *block, const struct apr_act256 *const *a,
                           int n_toks, i32x4 *sum, i32x4 *sum_min)
{
    struct scales256 s;
    k.scales(block, &s);
    V_UNROLL
    for (int t = 0; t < n_toks; t++) sum[t] = v_ints(0);
    for (int h = 0; h < 2; h++) {
        V_UNROLL
        for (int c = 0; c < 8; c++) { /* 16 values: sub-block 8 h + c */
            u8x16 q = k.sixteen(block, h, c);
            struct v_scale scale = v_scale_all(s.scale[8 * h + c]);
            V_UNROLL
            for (int t = 0; t < n_toks; t++) {
                struct v_part p = {0};
                p = v_dot(p, q, v_bytes(a[t]->q + 128 * h + 16 * c), false);
                sum[t] = v_part_scaled(sum[t], p, scale);
            }
        }
    }
    const int16_t *by = k.has_min ? s.min : s.scale;
    V_UNROLL
    for (int t = 0; t < n_toks; t++) {
        i32x4 m =
            v_madd(v_shorts(by), v_shorts(a[t]->sums)) + v_madd(v_shorts(by + 8), v_shorts(a[t]->sums + 8));
        if (k.has_min)
            sum_min[t] = m;
        else
            sum[t] -= m << k.offset_log2;
    }
}

V_INLINE f32x4 tile256(const struct type256 k, const uint8_t *const *rows,
                       const struct apr_act256 *const *acts, size_t n_blocks, int n_rows)
{
    const int n_toks = 4 / n_rows;
    f32x4 acc = v_all(0);
    for (size_t i = 0; i < n_blocks; i++) {
        const uint8_t *block[4];
        const struct apr_act256 *const a[4] = {acts[0] + i, acts[1 % n_toks] + i, acts[2 % n_toks] + i,
                                               acts[3 % n_toks] + i};
        const f32x4 dy = {a[0]->d, a[1]->d, a[2]->d, a[3]->d};
        i32x4 sum[4], sum_min[4];
        for (int r = 0; r < n_rows; r++) {
            block[r] = rows[r] + i * k.block_bytes;
            row_block256(k, block[r], a, n_toks, sum + r, sum_min + r);
        }
        if (k.has_min)
            acc = v_fma(-(halves_of(block, k.off_dmin, n_rows) * dy), v_float(v_sums(sum_min)), acc);
        acc = v_fma(halves_of(block, k.off_d, n_rows) * dy, v_float(v_sums(sum)), acc);
    }
    return acc;
}

/* Four results: of rows r .. with token t, or of row r with tokens t ..; where there are fewer, the last
 * repeats. */
#define V_ROWS_TILES(bits, act)                                                                              \
    V_INLINE void rows_by_tile##bits(const struct type##bits k, const struct rows_args *a, size_t t)         \
    {                                                                                                        \
        const struct act *token = (const void *)(a->x + t * a->x_row_bytes);                                 \
        for (size_t r = 0; r < a->n_rows; r += 4) {                                                          \
            const uint8_t *rows[4];                                                                          \
            size_t n = a->n_rows - r < 4 ? a->n_rows - r : 4;                                                \
            for (size_t j = 0; j < 4; j++) rows[j] = a->w + (r + (j < n ? j : n - 1)) * a->w_row_bytes;      \
            f32x4 y = tile##bits(k, rows, &token, a->n_blocks, 4);                                           \
            memcpy(a->y + t * a->y_stride + r, &y, n * sizeof(float));                                       \
        }                                                                                                    \
    }                                                                                                        \
    V_INLINE void toks_by_tile##bits(const struct type##bits k, const struct rows_args *a, size_t t,         \
                                     size_t n)                                                               \
    {                                                                                                        \
        const struct act *tokens[4];                                                                         \
        for (size_t j = 0; j < 4; j++)                                                                       \
            tokens[j] = (const void *)(a->x + (t + (j < n ? j : n - 1)) * a->x_row_bytes);                   \
        for (size_t r = 0; r < a->n_rows; r++) {                                                             \
            const uint8_t *row = a->w + r * a->w_row_bytes;                                                  \
            f32x4 y = tile##bits(k, &row, tokens, a->n_blocks, 1);                                           \
            for (size_t j = 0; j < n; j++) a->y[(t + j) * a->y_stride + r] = y[j];                           \
        }                                                                                                    \
    }
V_ROWS_TILES(32, apr_act32)
V_ROWS_TILES(256, apr_act256)

#define V_ROWS(bits, lower, block_elems)                                                                     \
    void V(fast_##lower)(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,     \
                         size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch)        \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        struct rows_args a = {w, w_row_bytes, n_rows, n_cols / (block_elems), x, x_row_bytes, y, y_stride};  \
        size_t t = 0;                                                                                        \
        for (; n_toks - t > 1; t += n_toks - t < 4 ? n_toks - t : 4)                                         \
            toks_by_tile##bits(type_##lower, &a, t, n_toks - t < 4 ? n_toks - t : 4);                        \
        if (t < n_toks) rows_by_tile##bits(type_##lower, &a, t);                                             \
    }

V_ROWS(32, q4_0, APR_QK)
V_ROWS(32, q4_1, APR_QK)
V_ROWS(32, q5_0, APR_QK)
V_ROWS(32, q5_1, APR_QK)
V_ROWS(32, q8_0, APR_QK)
V_ROWS(256, q2_k, APR_QKK)
V_ROWS(256, q3_k, APR_QKK)
V_ROWS(256, q4_k, APR_QKK)
V_ROWS(256, q5_k, APR_QKK)
V_ROWS(256, q6_k, APR_QKK)

#endif

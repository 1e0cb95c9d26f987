/* Attention over one page of the cache for the tables of 128 bits.
 *
 * Scores: K is loaded and converted once for up to four query heads, two accumulators a head, then the tree.
 * Values: eight outputs of up to four heads per step, positions ascending. A body: included once by a file of
 * a table.
 *
 *     #include "v128_attn.h"
 */
#ifndef APR_KERN_V128_ATTN_H
#define APR_KERN_V128_ATTN_H

#include "v128_decl.h"

enum { N_HEADS_TILE = 4 };

typedef f32x4 load4_fn(const void *p, size_t i);
typedef float load1_fn(const void *p, size_t i);

V_INLINE f32x4 load4_f16(const void *p, size_t i)
{
    return v_halves((const uint16_t *)p + i);
}

V_INLINE float load1_f16(const void *p, size_t i)
{
    return apr_f16_to_f32(((const uint16_t *)p)[i]);
}

V_INLINE f32x4 load4_f32(const void *p, size_t i)
{
    return v_load((const float *)p + i);
}

V_INLINE float load1_f32(const void *p, size_t i)
{
    return ((const float *)p)[i];
}

struct page_args {
    const float *q; /* of scores */
    const void *rows;
    size_t stride_bytes, n_pos, n_dim;
    float scale;
    float *out; /* scores */
    size_t out_stride;
};

V_INLINE void scores_tile(const struct page_args *a, int n_q, load4_fn *load4, load1_fn *load1)
{
    const uint8_t *row = a->rows;
    for (size_t p = 0; p < a->n_pos; p++, row += a->stride_bytes) {
        f32x4 low[N_HEADS_TILE], high[N_HEADS_TILE];
        V_UNROLL
        for (int j = 0; j < N_HEADS_TILE; j++) low[j] = high[j] = v_all(0);
        size_t i = 0;
        for (; i + 8 <= a->n_dim; i += 8) {
            f32x4 k0 = load4(row, i), k1 = load4(row, i + 4);
            V_UNROLL
            for (int j = 0; j < n_q; j++) {
                const float *q = a->q + (size_t)j * a->n_dim + i;
                low[j] = v_fma(v_load(q), k0, low[j]);
                high[j] = v_fma(v_load(q + 4), k1, high[j]);
            }
        }
        for (int j = 0; j < n_q && i < a->n_dim; j++) { /* lanes past the end keep their bits */
            float lane[8];
            v_store(lane, low[j]);
            v_store(lane + 4, high[j]);
            for (size_t l = 0; i + l < a->n_dim; l++)
                lane[l] = fmaf(a->q[(size_t)j * a->n_dim + i + l], load1(row, i + l), lane[l]);
            low[j] = v_load(lane);
            high[j] = v_load(lane + 4);
        }
        V_UNROLL
        for (int j = 0; j < n_q; j++)
            a->out[(size_t)j * a->out_stride + p] = a->scale * v_tree(low[j], high[j]);
    }
}

struct values_args {
    const float *weights;
    size_t w_stride;
    const void *rows;
    size_t stride_bytes, n_pos, n_dim;
    float *out;
};

V_INLINE void values_tile(const struct values_args *a, int n_q, load4_fn *load4, load1_fn *load1)
{
    size_t i = 0;
    for (; i + 8 <= a->n_dim; i += 8) {
        f32x4 low[N_HEADS_TILE], high[N_HEADS_TILE];
        V_UNROLL
        for (int j = 0; j < n_q; j++) {
            low[j] = v_load(a->out + (size_t)j * a->n_dim + i);
            high[j] = v_load(a->out + (size_t)j * a->n_dim + i + 4);
        }
        const uint8_t *row = a->rows;
        for (size_t p = 0; p < a->n_pos; p++, row += a->stride_bytes) {
            f32x4 v0 = load4(row, i), v1 = load4(row, i + 4);
            V_UNROLL
            for (int j = 0; j < n_q; j++) {
                f32x4 w = v_all(a->weights[(size_t)j * a->w_stride + p]);
                low[j] = v_fma(w, v0, low[j]);
                high[j] = v_fma(w, v1, high[j]);
            }
        }
        V_UNROLL
        for (int j = 0; j < n_q; j++) {
            v_store(a->out + (size_t)j * a->n_dim + i, low[j]);
            v_store(a->out + (size_t)j * a->n_dim + i + 4, high[j]);
        }
    }
    for (; i < a->n_dim; i++) {
        for (int j = 0; j < n_q; j++) {
            float *o = a->out + (size_t)j * a->n_dim + i;
            const uint8_t *row = a->rows;
            for (size_t p = 0; p < a->n_pos; p++, row += a->stride_bytes)
                *o = fmaf(a->weights[(size_t)j * a->w_stride + p], load1(row, i), *o);
        }
    }
}

#define V_PAGES(t, elem)                                                                                     \
    static void scores_##t##_1(const struct page_args *a)                                                    \
    {                                                                                                        \
        scores_tile(a, 1, load4_##t, load1_##t);                                                             \
    }                                                                                                        \
    static void scores_##t##_4(const struct page_args *a)                                                    \
    {                                                                                                        \
        scores_tile(a, N_HEADS_TILE, load4_##t, load1_##t);                                                  \
    }                                                                                                        \
    static void values_##t##_1(const struct values_args *a)                                                  \
    {                                                                                                        \
        values_tile(a, 1, load4_##t, load1_##t);                                                             \
    }                                                                                                        \
    static void values_##t##_4(const struct values_args *a)                                                  \
    {                                                                                                        \
        values_tile(a, N_HEADS_TILE, load4_##t, load1_##t);                                                  \
    }                                                                                                        \
    void V(scores_##t)(const float *q, size_t n_q, const elem *k, size_t k_stride, size_t n_pos,             \
                       size_t n_dim, float scale, float *scores, size_t s_stride)                            \
    {                                                                                                        \
        struct page_args a = {q, k, k_stride * sizeof *k, n_pos, n_dim, scale, scores, s_stride};            \
        for (size_t j = 0, n; j < n_q; j += n) {                                                             \
            n = n_q - j < N_HEADS_TILE ? 1 : N_HEADS_TILE;                                                   \
            a.q = q + j * n_dim;                                                                             \
            a.out = scores + j * s_stride;                                                                   \
            (n == 1 ? scores_##t##_1 : scores_##t##_4)(&a);                                                  \
        }                                                                                                    \
    }                                                                                                        \
    void V(values_##t)(const float *weights, size_t w_stride, size_t n_q, const elem *v, size_t v_stride,    \
                       size_t n_pos, size_t n_dim, float *out)                                               \
    {                                                                                                        \
        struct values_args a = {weights, w_stride, v, v_stride * sizeof *v, n_pos, n_dim, out};              \
        for (size_t j = 0, n; j < n_q; j += n) {                                                             \
            n = n_q - j < N_HEADS_TILE ? 1 : N_HEADS_TILE;                                                   \
            a.weights = weights + j * w_stride;                                                              \
            a.out = out + j * n_dim;                                                                         \
            (n == 1 ? values_##t##_1 : values_##t##_4)(&a);                                                  \
        }                                                                                                    \
    }

V_PAGES(f16, uint16_t)
V_PAGES(f32, float)

#endif

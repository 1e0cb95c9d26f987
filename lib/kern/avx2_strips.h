/* What the AVX2 kernels of strips share: their tiles and the functions of the table.
 *
 * Only for the avx2_strips*.c files. A file defines tile() and k_q4_k, then
 *
 *     APR_STRIP_TYPE(q4_k, APR_QKK)
 */
#ifndef APR_KERN_AVX2_STRIPS_H
#define APR_KERN_AVX2_STRIPS_H

#include "avx2_vec.h"
#include "strip_walk.h"
#include "strips.h"

#define APR_STRIP_TILE(lower, n_toks, n_halves)                                                              \
    static void lower##_##n_toks(const uint8_t *strip, size_t n_blocks, const uint8_t *x,                    \
                                 size_t x_row_bytes, float *y, size_t y_stride)                              \
    {                                                                                                        \
        tile(k_##lower, strip, n_blocks, x, x_row_bytes, n_toks, n_halves, y, y_stride);                     \
    }
#define APR_STRIP_TYPE(lower, block_elems)                                                                   \
    APR_STRIP_TILE(lower, 1, 2)                                                                              \
    APR_STRIP_TILE(lower, 2, 2)                                                                              \
    APR_STRIP_TILE(lower, 4, 1)                                                                              \
    APR_STRIP_TILE(lower, 6, 1)                                                                              \
    void apr_avx2_strips_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,            \
                                 const void *x, size_t x_row_bytes, size_t n_toks, float *y,                 \
                                 size_t y_stride, void *scratch)                                             \
    {                                                                                                        \
        static const struct apr_strip_tile tiles[] = {                                                       \
            {6, lower##_6}, {4, lower##_4}, {2, lower##_2}, {1, lower##_1}};                                 \
        (void)scratch;                                                                                       \
        apr_strip_walk(tiles, w, w_row_bytes, n_rows, n_cols / (block_elems), x, x_row_bytes, n_toks, y,     \
                       y_stride);                                                                            \
    }

#endif

/* Rows of blocks times the int8 activations of several tokens: 16 rows at a time become a strip in scratch.
 *
 * That takes about as long as the products of 3 to 5 tokens. One and two tokens, and what is left of 16 rows,
 * are the AVX2 kernels'. */
#include "avx512.h"

#include "../quant/blocks.h"
#include "avx2.h"
#include "avx2_vec.h"

#define LEAST_TOKS 3

struct rows {
    apr_to_strips_fn *to_strips;
    apr_matmul_fn *strips;
    size_t block_elems, block_bytes;
};

/* n_rows, a multiple of 16. While rows become a strip, the next 16 are fetched, a super-block at a time. */
APR_INLINE void by_strips(const struct rows k, const uint8_t *w, size_t w_row_bytes, size_t n_rows,
                          size_t n_cols, const void *x, size_t x_row_bytes, size_t n_toks, float *y,
                          size_t y_stride, uint8_t *strip)
{
    const size_t n_bytes = n_cols / k.block_elems * k.block_bytes;
    const size_t n_piece = APR_QKK / k.block_elems * k.block_bytes;
    for (size_t r = 0; r < n_rows; r += APR_STRIP_ROWS, w += APR_STRIP_ROWS * w_row_bytes) {
        for (size_t off = 0; off < n_bytes; off += n_piece) {
            size_t n = n_bytes - off < n_piece ? n_bytes - off : n_piece;
            apr_avx2_prefetch(w + APR_STRIP_ROWS * w_row_bytes, APR_STRIP_ROWS * off, APR_STRIP_ROWS * n);
            k.to_strips(w + off, w_row_bytes, APR_STRIP_ROWS, n / k.block_bytes * k.block_elems,
                        strip + APR_STRIP_ROWS * off);
        }
        k.strips(strip, w_row_bytes, APR_STRIP_ROWS, n_cols, x, x_row_bytes, n_toks, y + r, y_stride, NULL);
    }
}

#define ROWS(lower, block_elems)                                                                             \
    void apr_avx512_fast_##lower(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols,            \
                                 const void *x, size_t x_row_bytes, size_t n_toks, float *y,                 \
                                 size_t y_stride, void *scratch)                                             \
    {                                                                                                        \
        const struct rows k = {apr_avx2_to_strips_##lower, apr_avx512_strips_##lower, block_elems,           \
                               sizeof(struct apr_block_##lower)};                                            \
        size_t n = n_toks < LEAST_TOKS ? 0 : n_rows - n_rows % APR_STRIP_ROWS;                               \
        by_strips(k, w, w_row_bytes, n, n_cols, x, x_row_bytes, n_toks, y, y_stride, scratch);               \
        if (n < n_rows)                                                                                      \
            apr_avx2_fast_##lower((const uint8_t *)w + n * w_row_bytes, w_row_bytes, n_rows - n, n_cols, x,  \
                                  x_row_bytes, n_toks, y + n, y_stride, scratch);                            \
    }

ROWS(q4_0, APR_QK)
ROWS(q4_1, APR_QK)
ROWS(q5_0, APR_QK)
ROWS(q5_1, APR_QK)
ROWS(q8_0, APR_QK)
ROWS(q2_k, APR_QKK)
ROWS(q3_k, APR_QKK)
ROWS(q4_k, APR_QKK)
ROWS(q5_k, APR_QKK)
ROWS(q6_k, APR_QKK)

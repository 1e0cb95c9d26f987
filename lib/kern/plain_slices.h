/* Weights as numbers times the f32 activations of many tokens: how a product is cut so that everything that
 * is read again is still in a cache, and the order of sums stays (8 lanes, k ascending; kern.h).
 *
 * 256 columns of 16 rows are widened to f32 (16 KiB, first cache) and meet up to 96 tokens (96 KiB of their
 * columns); 64 rows have their sums in scratch (192 KiB, second cache), unrounded, until the last column: so
 * many, because the activations of a long row are read from farther away for each time. Only for the files of
 * the vector tables, which bring the tile. Nothing is owned.
 *
 *     apr_by_slices(&tiles, slice_bf16, &(struct apr_slice_args){w, w_row_bytes, ...});
 */
#ifndef APR_KERN_PLAIN_SLICES_H
#define APR_KERN_PLAIN_SLICES_H

#include <stddef.h>
#include <stdint.h>

#define APR_SLICE_COLS  256 /* a multiple of every block of a type */
#define APR_SLICE_BLOCK 16  /* rows that are widened together */
#define APR_SLICE_ROWS  64  /* rows that have sums */
#define APR_SLICE_TOKS  96

/* scratch of a thread */
struct apr_slices {
    float wide[APR_SLICE_BLOCK][APR_SLICE_COLS];
    float acc[APR_SLICE_TOKS][APR_SLICE_ROWS][8]; /* 8 lanes a row */
};

/* n values from column k0 on of a row */
typedef void apr_slice_fn(const uint8_t *row, size_t k0, float *x, size_t n);
/* acc += w x over n_cols columns; n_cols is a multiple of 8 unless the row ends. The sums of a row are 8
 * floats from the next row's, those of a token APR_SLICE_ACC. */
#define APR_SLICE_ACC (APR_SLICE_ROWS * 8)
typedef void apr_slice_tile_fn(const float (*w)[APR_SLICE_COLS], const float *const *x, size_t n_cols,
                               float *acc);
/* y[i] = the tree of kern.h over the lanes of row i; n is a multiple of 4, there is room for so many y */
typedef void apr_slice_trees_fn(const float *acc, size_t n, float *y);
struct apr_slice_tiles {
    size_t n_rows, n_toks;        /* of the largest; n_rows divides APR_SLICE_BLOCK, n_toks <= 8 */
    apr_slice_tile_fn *const *fn; /* [n_toks]: for 1 .. n_toks tokens */
    apr_slice_trees_fn *trees;
};

/* As apr_matmul_fn. */
struct apr_slice_args {
    const uint8_t *w;
    size_t w_row_bytes, n_rows, n_cols;
    const uint8_t *x;
    size_t n_toks, x_row_bytes;
    float *y;
    size_t y_stride;
    struct apr_slices *scratch;
};
void apr_by_slices(const struct apr_slice_tiles *tiles, apr_slice_fn *slice, const struct apr_slice_args *a);

#endif

/* Weights that tiles read where they are, in rows: how rows and tokens take turns, so that both sides are
 * still in the second cache when they are read again.
 *
 * Only for the files of the vector tables, which bring the tiles. Nothing is owned.
 *
 *     apr_by_rows(&tiles, &(struct apr_row_args){w, w_row_bytes, n_rows, n_cols, x, x_row_bytes, ..});
 */
#ifndef APR_KERN_ROW_TILES_H
#define APR_KERN_ROW_TILES_H

#include <stddef.h>
#include <stdint.h>

#define APR_ROW_TILE 8 /* the most rows and tokens of a tile */

/* y: [n_toks, n_rows] of the tile; rows may repeat; next: rows to fetch meanwhile, in the order of memory, or
 * NULL */
typedef void apr_row_tile_fn(const uint8_t *const *rows, const uint8_t *next, size_t n_cols,
                             const void *const *x, float *y);
struct apr_row_tiles {
    size_t n_rows, n_toks;      /* of the largest */
    apr_row_tile_fn *const *fn; /* [n_toks]: for 1 .. n_toks tokens */
};

/* As apr_matmul_fn. */
struct apr_row_args {
    const uint8_t *w;
    size_t w_row_bytes, n_rows, n_cols;
    const uint8_t *x;
    size_t x_row_bytes, n_toks;
    float *y;
    size_t y_stride;
    void *scratch; /* apr_kern_scratch_bytes(n_cols) */
};
void apr_by_rows(const struct apr_row_tiles *tiles, const struct apr_row_args *a);

#endif

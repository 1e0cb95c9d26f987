/* The walk of row_tiles.h. */
#include "row_tiles.h"

#include <string.h>

#include "plain_slices.h" /* scratch is as large (pick.c) */

/* Of each side: with both, a second cache of half a MiB has room left. */
#define HOLD_BYTES ((size_t)192 << 10)

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* So many rows are held, whole tiles. */
static size_t held(size_t row_bytes, size_t n_tile)
{
    size_t n = HOLD_BYTES / row_bytes / n_tile * n_tile;
    return n ? n : n_tile;
}

/* Rows whose distance is a multiple of this fall into the same few places of the first cache, weights and
 * activations alike. */
#define ALIAS_BYTES 4096u
#define APART_BYTES 256u /* so far from their places copies stand */
#define COPY_TOKS   24u  /* that pay for a copy */

/* Copies a tile's rows where all tokens of it would meet at the same places. */
static void part_rows(const struct apr_row_tiles *tiles, const struct apr_row_args *a, size_t n_toks,
                      const uint8_t **rows)
{
    const size_t n = a->w_row_bytes + APART_BYTES;
    if (a->w_row_bytes % ALIAS_BYTES || a->x_row_bytes % ALIAS_BYTES || n_toks < COPY_TOKS) return;
    if (n > sizeof(struct apr_slices) / tiles->n_rows) return;
    for (size_t i = 0; i < tiles->n_rows; i++)
        rows[i] = memcpy((uint8_t *)a->scratch + i * n, rows[i], a->w_row_bytes);
}

/* A tile's rows and tokens t0 .. t1 - 1; those of the first tile fetch what follows in memory. */
static void tile_rows(const struct apr_row_tiles *tiles, const struct apr_row_args *a, size_t r, size_t t0,
                      size_t t1)
{
    float y[APR_ROW_TILE * APR_ROW_TILE];
    const uint8_t *rows[APR_ROW_TILE], *next = a->w + (r + tiles->n_rows) * a->w_row_bytes;
    size_t n = least(a->n_rows - r, tiles->n_rows);
    for (size_t i = 0; i < tiles->n_rows; i++) rows[i] = a->w + (r + least(i, n - 1)) * a->w_row_bytes;
    part_rows(tiles, a, t1 - t0, rows);
    size_t n_tiles = (t1 - t0 + tiles->n_toks - 1) / tiles->n_toks,
           n_most = (t1 - t0 + n_tiles - 1) / n_tiles;
    for (size_t t = t0; t < t1;
         t += n_most) { /* of nearly equal size: one of few tokens costs as much as more */
        size_t n_toks = least(t1 - t, n_most);
        const void *x[APR_ROW_TILE];
        for (size_t i = 0; i < n_toks; i++) x[i] = a->x + (t + i) * a->x_row_bytes;
        tiles->fn[n_toks - 1](rows, t ? NULL : next, a->n_cols, x, y);
        for (size_t i = 0; i < n_toks; i++)
            memcpy(a->y + (t + i) * a->y_stride + r, y + i * tiles->n_rows, n * sizeof *y);
    }
}

void apr_by_rows(const struct apr_row_tiles *tiles, const struct apr_row_args *a)
{
    const size_t n_rows = held(a->w_row_bytes, tiles->n_rows), n_toks = held(a->x_row_bytes, tiles->n_toks);
    for (size_t r0 = 0; r0 < a->n_rows; r0 += n_rows) {
        size_t r1 = r0 + least(a->n_rows - r0, n_rows);
        for (size_t t0 = 0; t0 < a->n_toks; t0 += n_toks) {
            size_t t1 = t0 + least(a->n_toks - t0, n_toks);
            for (size_t r = r0; r < r1; r += tiles->n_rows) tile_rows(tiles, a, r, t0, t1);
        }
    }
}

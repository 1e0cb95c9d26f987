/* The walk of plain_slices.h. */
#include "plain_slices.h"

#include <string.h>

struct part {
    size_t r0, n_rows; /* rows that have sums */
    size_t t0, n_toks;
    size_t k0, n_cols;
};

/* Rows [r, r + n_rows) of the part's columns, into the second cache: they lie a row apart, which the hardware
 * does not follow. An address past the end is harmless: a prefetch never faults. */
static void fetch(const struct apr_slice_args *a, size_t r, size_t n_rows, size_t k0, size_t n_cols)
{
    size_t n_bytes = a->w_row_bytes * n_cols / a->n_cols;
    uintptr_t at = (uintptr_t)a->w + r * a->w_row_bytes + a->w_row_bytes * k0 / a->n_cols;
    for (; n_rows; n_rows--, at += a->w_row_bytes)
        for (size_t b = 0; b < n_bytes; b += 64) __builtin_prefetch((const void *)(at + b), 0, 2);
}

/* What is widened after the block of rows at r. */
static void fetch_next(const struct apr_slice_args *a, const struct part *p, size_t r)
{
    size_t end = p->r0 + p->n_rows, k = p->k0 + p->n_cols;
    r += APR_SLICE_BLOCK;
    if (r < end)
        fetch(a, r, end - r < APR_SLICE_BLOCK ? end - r : APR_SLICE_BLOCK, p->k0, p->n_cols);
    else if (k < a->n_cols)
        fetch(a, p->r0, p->n_rows < APR_SLICE_BLOCK ? p->n_rows : APR_SLICE_BLOCK, k,
              a->n_cols - k < APR_SLICE_COLS ? a->n_cols - k : APR_SLICE_COLS);
}

/* The part's columns of all its rows and tokens, onto their sums. */
static void add_part(const struct apr_slice_tiles *tiles, apr_slice_fn *slice, const struct apr_slice_args *a,
                     const struct part *p)
{
    struct apr_slices *s = a->scratch;
    for (size_t r = 0; r < p->n_rows; r += APR_SLICE_BLOCK) {
        size_t n = p->n_rows - r < APR_SLICE_BLOCK ? p->n_rows - r : APR_SLICE_BLOCK;
        fetch_next(a, p, p->r0 + r);
        for (size_t i = 0; i < n; i++)
            slice(a->w + (p->r0 + r + i) * a->w_row_bytes, p->k0, s->wide[i], p->n_cols);
        for (; n % tiles->n_rows; n++)
            memset(s->wide[n], 0, p->n_cols * sizeof(float)); /* never read again */
        for (size_t t = 0; t < p->n_toks; t += tiles->n_toks) {
            size_t n_toks = p->n_toks - t < tiles->n_toks ? p->n_toks - t : tiles->n_toks;
            const float *x[8];
            for (size_t i = 0; i < n_toks; i++)
                x[i] = (const float *)(const void *)(a->x + (p->t0 + t + i) * a->x_row_bytes) + p->k0;
            for (size_t i = 0; i < n; i += tiles->n_rows)
                tiles->fn[n_toks - 1](&s->wide[i], x, p->n_cols, s->acc[t][r + i]);
        }
    }
}

/* The sums of a part's rows to y. */
static void finish(const struct apr_slice_tiles *tiles, const struct apr_slice_args *a, const struct part *p)
{
    float y[APR_SLICE_ROWS];
    for (size_t t = 0; t < p->n_toks; t++) {
        tiles->trees(a->scratch->acc[t][0], (p->n_rows + 3) / 4 * 4, y);
        memcpy(a->y + (p->t0 + t) * a->y_stride + p->r0, y, p->n_rows * sizeof *y);
    }
}

void apr_by_slices(const struct apr_slice_tiles *tiles, apr_slice_fn *slice, const struct apr_slice_args *a)
{
    struct part p;
    for (p.r0 = 0; p.r0 < a->n_rows; p.r0 += APR_SLICE_ROWS) {
        p.n_rows = a->n_rows - p.r0 < APR_SLICE_ROWS ? a->n_rows - p.r0 : APR_SLICE_ROWS;
        for (p.t0 = 0; p.t0 < a->n_toks; p.t0 += APR_SLICE_TOKS) {
            p.n_toks = a->n_toks - p.t0 < APR_SLICE_TOKS ? a->n_toks - p.t0 : APR_SLICE_TOKS;
            memset(a->scratch->acc, 0, p.n_toks * sizeof a->scratch->acc[0]);
            for (p.k0 = 0; p.k0 < a->n_cols; p.k0 += APR_SLICE_COLS) {
                p.n_cols = a->n_cols - p.k0 < APR_SLICE_COLS ? a->n_cols - p.k0 : APR_SLICE_COLS;
                add_part(tiles, slice, a, &p);
            }
            finish(tiles, a, &p);
        }
    }
}

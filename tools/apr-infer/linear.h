/* Matrix products of the forward pass: y = W x for a batch of tokens, rows split among threads.
 *
 * Weights are borrowed from the mapped model. A token's activations are quantized once per matrix input,
 * into the layouts that the input's weights want (apr_acts_pack); in reference mode they stay f32. Each
 * (row, token) is one chain of sums (kern.h), so the split cannot change a bit.
 *
 *     apr_acts_pack(c, &acts, wants, i_tok) for each token;
 *     apr_linear(c, &acts, (struct apr_product[]){{&w->q, q}, {&w->k, k}, {&w->v, v}}, 3);
 */
#ifndef APR_INFER_LINEAR_H
#define APR_INFER_LINEAR_H

#include "arena.h"
#include "config.h"
#include "kern/kern.h"
#include "pool.h"
#include "quant/quant.h"

struct apr_mat {
    const uint8_t *data; /* [n_rows] rows of row_bytes, in the file's own type */
    const struct apr_matmul *mm;
    enum apr_type type;
    size_t n_rows, n_cols, row_bytes;
    const float *bias; /* [n_rows] or NULL; added by the caller */
};

struct apr_strips;
struct apr_acts;
/* Sees the input of a product before it is computed; on the caller's thread. */
typedef void apr_tap_fn(void *ctx, const struct apr_mat *w, const struct apr_acts *x);

#define APR_MAX_PRODUCTS 4
/* The matrices of one product, in the order of its maps; of gated ones the gates. */
struct apr_next {
    const struct apr_mat *mats[APR_MAX_PRODUCTS];
    size_t n; /* 0: not known */
};

/* What a product needs besides its operands. */
struct apr_compute {
    const struct apr_kern *kern;
    struct apr_pool *pool;
    bool exact;
    uint8_t *scratch; /* [threads] of scratch_bytes, aligned to 64 */
    size_t scratch_bytes;
    struct apr_strips *strips; /* strips.h; NULL: rows alone */
    struct apr_next next;      /* what follows: threads that have to wait fetch its beginning */
    apr_tap_fn *tap;           /* NULL: none */
    void *tap_ctx;
};

/* The input of matrices: n_toks rows of n_cols in up to four layouts. */
struct apr_acts {
    size_t n_cols, n_toks;
    size_t n_stride;         /* columns from one row to the next; 0 = n_cols */
    float *f32;              /* [n_toks, n_cols] */
    struct apr_act32 *q32;   /* [n_toks, n_cols / 32] */
    struct apr_act256 *q256; /* [n_toks, n_cols / 256] */
    uint16_t *split;         /* [n_toks, 2, n_cols] */
};

struct apr_product {
    const struct apr_mat *w;
    float *y; /* [n_toks, w->n_rows] */
};

/* Sees rows row0 .. row0 + n of what a map gave for one token, on the thread that computed them. */
typedef void apr_rows_fn(void *ctx, size_t i_tok, size_t row0, float *y, size_t n);

/* One of many maps of a parallel region, each with an input of its own. */
struct apr_map {
    const struct apr_mat *w;
    const struct apr_acts *x;
    float *y;                   /* [x->n_toks, w->n_rows], rows y_stride apart */
    size_t y_stride;            /* 0 = w->n_rows */
    const struct apr_mat *gate; /* shape of w, or NULL; apr_linear_act alone */
    float *gate_y;              /* room like y */
    apr_rows_fn *then;          /* of y, or NULL; apr_linear_each alone */
    void *then_ctx;
    size_t i_last_unit;                    /* linear.c's own, this and what follows */
    const uint8_t *w_strips, *gate_strips; /* NULL: rows */
};

/* Room for n_rows rows in all layouts, or in f32 alone. */
APR_MUST_USE enum apr_code apr_acts_alloc(struct apr_acts *a, size_t n_rows, size_t n_cols, bool f32_alone,
                                          struct apr_arena *arena, struct apr_err *e);
/* Bit set (1 << enum apr_act) of the layout that w reads. */
unsigned apr_mat_wants(const struct apr_mat *w, bool exact);
/* Fills the other layouts of row i_tok from its f32 row. */
void apr_acts_pack(const struct apr_compute *c, const struct apr_acts *x, unsigned wants, size_t i_tok);
/* Several products of one input in one parallel region. */
void apr_linear(const struct apr_compute *c, const struct apr_acts *x, const struct apr_product *products,
                size_t n_products);
/* y = W x for each map, in one parallel region. */
void apr_linear_each(const struct apr_compute *c, struct apr_map *maps, size_t n_maps);
/* y = act(Wg x + bg) * (W x + b), or act(W x + b) where there is no gate, for each map; what belongs to a row
 * stays in one thread. y_stride is 0. */
void apr_linear_act(const struct apr_compute *c, struct apr_map *maps, size_t n_maps,
                    enum apr_activation activation);
/* Columns [i_col, i_col + n_cols) of x. In a layout of blocks i_col and n_cols are whole blocks wherever a
 * matrix of n_cols columns reads it. */
struct apr_acts apr_acts_cols(const struct apr_acts *x, size_t i_col, size_t n_cols);
/* Rows [i_row, i_row + n_rows) of x. */
struct apr_acts apr_acts_rows(const struct apr_acts *x, size_t i_row, size_t n_rows);
/* Row i_to of a becomes row i_from of b, in the layouts that wants names. n_cols are equal, both are whole.
 */
void apr_acts_copy(const struct apr_acts *a, size_t i_to, const struct apr_acts *b, size_t i_from,
                   unsigned wants);
/* y = activation(x), n values; in place too. */
void apr_activate(const struct apr_kern *kern, enum apr_activation activation, const float *x, float *y,
                  size_t n);

#endif

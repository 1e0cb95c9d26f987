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

struct apr_acts;
/* Sees the input of a product before it is computed; on the caller's thread. */
typedef void apr_tap_fn(void *ctx, const struct apr_mat *w, const struct apr_acts *x);

/* What a product needs besides its operands. */
struct apr_compute {
    const struct apr_kern *kern;
    struct apr_pool *pool;
    bool exact;
    uint8_t *scratch; /* [threads] of scratch_bytes, aligned to 64 */
    size_t scratch_bytes;
    apr_tap_fn *tap; /* NULL: none */
    void *tap_ctx;
};

/* The input of matrices: n_toks rows of n_cols in up to three layouts. */
struct apr_acts {
    size_t n_cols, n_toks;
    float *f32;              /* [n_toks, n_cols] */
    struct apr_act32 *q32;   /* [n_toks, n_cols / 32] */
    struct apr_act256 *q256; /* [n_toks, n_cols / 256] */
};

struct apr_product {
    const struct apr_mat *w;
    float *y; /* [n_toks, w->n_rows] */
};
#define APR_MAX_PRODUCTS 4

/* Bit set (1 << enum apr_act) of the layout that w reads. */
unsigned apr_mat_wants(const struct apr_mat *w, bool exact);
/* Fills the quantized layouts of row i_tok from its f32 row. */
void apr_acts_pack(const struct apr_compute *c, const struct apr_acts *x, unsigned wants, size_t i_tok);
/* Several products of one input in one parallel region. */
void apr_linear(const struct apr_compute *c, const struct apr_acts *x, const struct apr_product *products,
                size_t n_products);
/* y = silu(Wg x) * (Wu x), [n_toks, n_rows]; both products and the gate stay in one thread. up_y is room of
 * y's size. */
void apr_linear_swiglu(const struct apr_compute *c, const struct apr_acts *x, const struct apr_mat *gate,
                       const struct apr_mat *up, float *y, float *up_y);

#endif

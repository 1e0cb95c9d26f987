/* Tensors of a checked model, found by role and bound to kernels.
 *
 * Matrices stay in the mapped file in their own type; norms, biases and small tables are widened once into
 * the arena. Shapes are checked again, because every later index is computed from the configuration.
 *
 *     struct apr_bind b = {.m = model, .kern = kern, .arena = &arena};
 *     TRY(apr_bind_matrix(&b, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, n, n, &block->self.q, e));
 */
#ifndef APR_INFER_BIND_H
#define APR_INFER_BIND_H

#include "model.h"
#include "stack.h"

struct apr_bind {
    const struct apr_model *m;
    const struct apr_kern *kern;
    struct apr_arena *arena;
    size_t n_bytes; /* of matrices bound so far */
};

/* A table of rows that are looked up: an embedding. */
struct apr_rows {
    const uint8_t *data;
    size_t n_rows, n_cols, row_bytes;
    apr_to_f32_fn *to_f32;
};

/* bias_role APR_ROLE_NONE: the matrix has none. A tensor of three dimensions is [n_rows, a, b], a * b =
 * n_cols: a convolution. */
APR_MUST_USE enum apr_code apr_bind_matrix(struct apr_bind *b, enum apr_role role, enum apr_role bias_role,
                                           uint32_t i_layer, size_t n_rows, size_t n_cols,
                                           struct apr_mat *out, struct apr_err *e);
/* A stack [n_mats, n_rows, n_cols] as n_mats matrices, wherever they lie. n_used: of them that one token
 * reads, for n_bytes. */
APR_MUST_USE enum apr_code apr_bind_stack(struct apr_bind *b, enum apr_role role, uint32_t i_layer,
                                          size_t n_mats, size_t n_used, size_t n_rows, size_t n_cols,
                                          struct apr_mat **out, struct apr_err *e);
/* Rows [row0, row0 + n_rows) of m, with their part of the bias. */
struct apr_mat apr_mat_rows(const struct apr_mat *m, size_t row0, size_t n_rows);
/* The transposed matrix, copied: in m's own type where that is F16 or BF16, else in F32. No bias. */
APR_MUST_USE enum apr_code apr_bind_turned(struct apr_bind *b, const struct apr_mat *m, struct apr_mat *out,
                                           struct apr_err *e);
bool apr_bind_has(const struct apr_bind *b, enum apr_role role, uint32_t i_layer);
/* [n] as f32. */
APR_MUST_USE enum apr_code apr_bind_vector(struct apr_bind *b, enum apr_role role, uint32_t i_layer, size_t n,
                                           const float **out, struct apr_err *e);
APR_MUST_USE enum apr_code apr_bind_norm(struct apr_bind *b, enum apr_role role, enum apr_role bias_role,
                                         uint32_t i_layer, size_t n, struct apr_lnorm *out,
                                         struct apr_err *e);
APR_MUST_USE enum apr_code apr_bind_rows(struct apr_bind *b, enum apr_role role, size_t n_rows, size_t n_cols,
                                         struct apr_rows *out, struct apr_err *e);
/* Row i into x [n_cols]. */
void apr_rows_get(const struct apr_rows *r, size_t i, float *x);
/* x += row i; room: [n_cols] */
void apr_rows_add(const struct apr_rows *r, const struct apr_kern *kern, size_t i, float *room, float *x);

#endif

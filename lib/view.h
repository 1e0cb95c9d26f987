/* Tensors whose bytes are made from another tensor's, or from nothing: rows that change places, a half of a
 * matrix, one expert of a stack, a generated table. apr_model_read reads them like any other.
 *
 * A view is made unit by unit: a unit is a run of the output's bytes that one run of the source's bytes
 * determines. Units are asked for in order, so that a source may be a stream. The view and what it points to
 * live in the arena of whoever made it; the last unit made is kept in the model.
 *
 *     t.view = &(struct apr_view){.src = {q}, .make = pair_rows, .in_bytes = {n}, .out_bytes = n, ...};
 */
#ifndef APR_VIEW_H
#define APR_VIEW_H

#include "model.h"

#define APR_VIEW_MAX_UNIT ((uint64_t)128 << 20) /* bytes of one unit, in or out */

struct apr_view;
/* in[i]: one unit of src[i]; out: out_bytes. */
typedef void apr_view_fn(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out);

struct apr_view {
    const struct apr_tensor *src[2]; /* NULL: none */
    const void *bytes;               /* the whole data, made already; else NULL */
    apr_view_fn *make;               /* NULL: the source's bytes from off on */
    uint64_t off;                    /* of the first unit in src[0] */
    uint64_t in_bytes[2];            /* of one unit; units follow each other */
    uint64_t out_bytes;
    bool is_shared; /* src[0] is read by another view too, or before src[1]: in a stream it is kept whole */
    /* For make. */
    uint64_t n_rows, row_bytes, n_skip, n_elem_bytes;
    const struct apr_quant *q;
};

/* The unit made last, and what a stream delivered; frees what it holds. NULL is fine. */
struct apr_view_cache;
void apr_view_close(struct apr_view_cache *c);
/* What apr_model_read does for a tensor with a view. */
APR_MUST_USE enum apr_code apr_view_read(struct apr_model *m, const struct apr_tensor *t, uint64_t off,
                                         uint8_t *dst, size_t n, struct apr_err *e);

#endif

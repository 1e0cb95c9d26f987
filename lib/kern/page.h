/* Pages of a cache of keys and values in any of its types: one row of functions a type.
 *
 * A row holds the values of one position of one head. Plain types are read by the table's own kernels; a row
 * of blocks (32 values along the row) is widened to f32 once for all queries that read it, and then read as
 * f32, so that every sum has the order of kern.h and no result depends on the table, the batch or the
 * threads. Nothing here is owned.
 *
 * Types of blocks hold each 32 values turned by an orthonormal Walsh-Hadamard transform, its own inverse: the
 * few large channels that keys have would otherwise set the scale of their block and drown its neighbours
 * (QuaRot, Ashkboos et al. 2024). A dot product does not change when both sides are turned, and a sum of
 * values can be turned back afterwards.
 *
 *     const struct apr_page_type *t = apr_page_type_named("q8_0");
 *     t->store(kern, x, row, n_dim);
 *     t->scores(kern, &(struct apr_page){rows, row_bytes, n_pos, n_dim}, q, n_q, scale, scores, stride,
 * room);
 */
#ifndef APR_KERN_PAGE_H
#define APR_KERN_PAGE_H

#include "kern.h"

#define APR_PAGE_POS 16u /* positions of a page of the cache */

struct apr_page {
    const void *rows;
    size_t row_bytes; /* a whole number of values or blocks, n_dim values at least */
    size_t n_pos, n_dim;
};

struct apr_page_type {
    enum apr_type type;
    const char *name;  /* as --cache-type takes it: "q8_0" */
    bool is_turned;    /* apr_page_turn is due on the queries of scores, and on what values added up */
    size_t n_pos_most; /* positions of one call: room for no more is needed */
    /* x: [n_dim] to one row. A block with a NaN or an infinity is stored so that its values read as NaN. */
    void (*store)(const struct apr_kern *k, const float *x, void *row, size_t n_dim);
    /* As attn_scores_* and attn_values_* of kern.h. room: apr_page_room_floats(n_dim), private to the thread;
     * NULL will do for plain types. */
    void (*scores)(const struct apr_kern *k, const struct apr_page *p, const float *q, size_t n_q,
                   float scale, float *scores, size_t s_stride, float *room);
    void (*values)(const struct apr_kern *k, const struct apr_page *p, const float *weights, size_t w_stride,
                   size_t n_q, float *out, float *room);
};

size_t apr_page_room_floats(size_t n_dim);
/* In place, n a multiple of 32; the same bits in every build. */
void apr_page_turn(float *x, size_t n);
/* NULL where a cache cannot have the type, or the name is unknown. */
const struct apr_page_type *apr_page_type_of(enum apr_type type);
const struct apr_page_type *apr_page_type_named(const char *name);
/* i-th row, NULL past the end: for help texts and tests. */
const struct apr_page_type *apr_page_type_at(size_t i);

#endif

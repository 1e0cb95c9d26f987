/* The values of a mapped tensor as floats, from any index, whatever its type and packing.
 *
 * Borrows model and kernels. Threads may share one: it is never written to after apr_values_open.
 *
 *     struct apr_values v; TRY(apr_values_open(&v, m, t, kern, e)); apr_values_get(&v, i, n, x);
 */
#ifndef APR_VALUES_H
#define APR_VALUES_H

#include "kern/kern.h"
#include "model.h"

#define APR_VALUES_PIECE 4096u /* a good n for apr_values_get: a multiple of every block */

struct apr_values {
    const struct apr_kern *kern;
    const struct apr_quant *q;
    const struct apr_tensor *t;
    uint64_t n; /* values in all */
    uint64_t span_elems,
        n_spans; /* one span for the whole tensor, for each part, or for each row where rows end in padding */
    uint64_t span_bytes;
};

/* False for types that can only be carried: integers, unknown ids. */
bool apr_values_known(const struct apr_tensor *t, const struct apr_kern *kern);
/* Fails when the type is not known in that sense, or the size is not what type and shape need. */
APR_MUST_USE enum apr_code apr_values_open(struct apr_values *v, const struct apr_model *m,
                                           const struct apr_tensor *t, const struct apr_kern *kern,
                                           struct apr_err *e);
/* Values i to i + n, in index order; i + n <= v->n. */
void apr_values_get(const struct apr_values *v, uint64_t i, size_t n, float *x);

#endif

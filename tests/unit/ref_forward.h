/* The forward pass again, for tests: in double, token by token, without a cache, over dequantized weights.
 *
 * Written after the architecture's papers and independent of tools/apr-infer: no kernel, no page, no chunk.
 *
 *     double *logits = ref_forward(model, ids, n); // [n, n_vocab], from malloc
 */
#ifndef APR_TEST_REF_FORWARD_H
#define APR_TEST_REF_FORWARD_H

#include "model.h"

double *ref_forward(const struct apr_model *m, const int32_t *ids, size_t n);

#endif

/* A GPU plugin's description (gpu/gpu.h) computed on the CPU, for tests: in double, token by token, without a
 * cache. What the description does not say is not computed, so it shows what a plugin can know.
 *
 *     double *logits = ref_describe(&desc, ids, n, false); // [n, n_vocab], from malloc
 */
#ifndef APR_TEST_REF_DESCRIBE_H
#define APR_TEST_REF_DESCRIBE_H

#include "gpu/gpu.h"

/* is_long: what a plugin is told by seq_turn. */
double *ref_describe(const struct apr_gpu_desc *d, const int32_t *ids, uint32_t n, bool is_long);

#endif

/* What holds for a tensor's values without widening them: enough, as a rule, to know that it passes.
 *
 * A block of quants is finite when its scales are, no value is larger than its scale times the largest quant,
 * and few are zero. That is read at the rate of memory; statistics take five to ten times as long, and are
 * made only of tensors that are not sure to pass. Nothing is owned.
 *
 *     if (apr_bounds_of(t, kern, pool, &b) && apr_contract_surely(t, &b)) next tensor;
 */
#ifndef APR_CONTRACT_BOUNDS_H
#define APR_CONTRACT_BOUNDS_H

#include "contract.h"

/* false: of a type or form that has no bounds, too small, or no memory for the partial results. */
bool apr_bounds_of(const struct apr_tensor *t, const struct apr_kern *k, struct apr_pool *pool,
                   struct apr_bounds *b);

#endif

/* Selecting and sorting candidates in place, without allocation, never slower than n log n.
 *
 *     apr_order_sort_first(at, n, k, APR_BY_LOGIT);   // the first k of n, in order, at the front
 */
#ifndef APR_INFER_SAMPLER_ORDER_H
#define APR_INFER_SAMPLER_ORDER_H

#include "cands.h"

enum apr_order {
    APR_BY_LOGIT, /* larger logits first, equal ones by id */
    APR_BY_SCORE, /* smaller p first, equal ones by id */
};

/* Brings the first k to the front, in no order among themselves. */
void apr_order_select(struct apr_cand *at, size_t n, size_t k, enum apr_order by);
void apr_order_sort_first(struct apr_cand *at, size_t n, size_t k, enum apr_order by);

#endif

/* Python's operators on values: truth, equality, order, arithmetic, membership, iteration.
 *
 *     bool yes; TRY(apr_jj_truth(r, v, &yes));
 */
#ifndef APR_JINJA_OPS_H
#define APR_JINJA_OPS_H

#include "ast.h"

APR_MUST_USE enum apr_code apr_jj_truth(struct apr_jj_run *r, struct apr_jj_val v, bool *yes);
APR_MUST_USE enum apr_code apr_jj_equal(struct apr_jj_run *r, struct apr_jj_val a, struct apr_jj_val b,
                                        bool *yes);
/* *sign < 0, 0, > 0; fails where Python has no order between the types. */
APR_MUST_USE enum apr_code apr_jj_order(struct apr_jj_run *r, struct apr_jj_val a, struct apr_jj_val b,
                                        int *sign);
APR_MUST_USE enum apr_code apr_jj_compare(struct apr_jj_run *r, enum apr_jj_op op, struct apr_jj_val a,
                                          struct apr_jj_val b, bool *yes);
APR_MUST_USE enum apr_code apr_jj_contains(struct apr_jj_run *r, struct apr_jj_val box,
                                           struct apr_jj_val item, bool *yes);
APR_MUST_USE enum apr_code apr_jj_binary(struct apr_jj_run *r, enum apr_jj_op op, struct apr_jj_val a,
                                         struct apr_jj_val b, struct apr_jj_val *out);
APR_MUST_USE enum apr_code apr_jj_negate(struct apr_jj_run *r, struct apr_jj_val a, bool minus,
                                         struct apr_jj_val *out);
/* The items of anything that can be iterated, as a list to read (a generator gives what it has left). */
APR_MUST_USE enum apr_code apr_jj_items(struct apr_jj_run *r, struct apr_jj_val v,
                                        const struct apr_jj_list **out);
APR_MUST_USE enum apr_code apr_jj_length(struct apr_jj_run *r, struct apr_jj_val v, int64_t *n);

#endif

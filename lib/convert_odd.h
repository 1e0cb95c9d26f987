/* Tensors that do not stream through the pipeline of convert.c: types that are carried but not computed with,
 * types with a scale in front, and the original's padded and flat packings. One step after the other.
 *
 *     if (apr_odd_is(c, p)) TRY(apr_odd_move(l, p, e));
 */
#ifndef APR_CONVERT_ODD_H
#define APR_CONVERT_ODD_H

#include "convert_loop.h"

bool apr_odd_is(const struct apr_convert *c, const struct apr_plan_tensor *p);
/* The whole tensor, between hash begin and hash end. */
APR_MUST_USE enum apr_code apr_odd_move(struct apr_loop *l, const struct apr_plan_tensor *p,
                                        struct apr_err *e);

#endif

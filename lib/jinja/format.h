/* Python's "..." % values, as the % operator and the format filter use it, and a part of str.format.
 *
 *     TRY(apr_jj_percent(r, s, values, &out));
 */
#ifndef APR_JINJA_FORMAT_H
#define APR_JINJA_FORMAT_H

#include "run.h"

/* values: a tuple gives one value each, a dict its members by %(name)s, anything else is the only value. */
APR_MUST_USE enum apr_code apr_jj_percent(struct apr_jj_run *r, const struct apr_jj_str *s,
                                          struct apr_jj_val values, struct apr_jj_val *out);
/* "{} {0} {name}" without attributes, conversions or format specifications. */
APR_MUST_USE enum apr_code apr_jj_str_format(struct apr_jj_run *r, struct apr_jj_val self,
                                             const struct apr_jj_args *a, struct apr_jj_val *out);

#endif

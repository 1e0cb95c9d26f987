/* v.name, v[key] and v[a:b:c], as Jinja's sandbox resolves them.
 *
 *     TRY(apr_jj_get_attr(r, v, name, &out));   a missing attribute is an undefined value, not an error
 */
#ifndef APR_JINJA_ATTR_H
#define APR_JINJA_ATTR_H

#include "run.h"

APR_MUST_USE enum apr_code apr_jj_get_attr(struct apr_jj_run *r, struct apr_jj_val v,
                                           const struct apr_jj_str *name, struct apr_jj_val *out);
APR_MUST_USE enum apr_code apr_jj_get_item(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val key,
                                           struct apr_jj_val *out);
/* part[3]: begin, end, step; ABSENT where not given. */
APR_MUST_USE enum apr_code apr_jj_get_slice(struct apr_jj_run *r, struct apr_jj_val v,
                                            const struct apr_jj_val part[3], struct apr_jj_val *out);
/* "a.b.0", as map(attribute=...) and sort(attribute=...) take it. other replaces every undefined step, unless
 * it is ABSENT. */
APR_MUST_USE enum apr_code apr_jj_get_path(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val path,
                                           struct apr_jj_val other, struct apr_jj_val *out);

#endif

/* String operations that methods and filters share.
 *
 *     TRY(apr_jj_replace(r, s, old, new, -1, &out));
 */
#ifndef APR_JINJA_METHODS_H
#define APR_JINJA_METHODS_H

#include "run.h"

/* n_max < 0: all. */
APR_MUST_USE enum apr_code apr_jj_replace(struct apr_jj_run *r, const struct apr_jj_str *s,
                                          const struct apr_jj_str *old, const struct apr_jj_str *new_text,
                                          int64_t n_max, struct apr_jj_val *out);
/* sep between the texts of items; strict: items must be strings, as in str.join. */
APR_MUST_USE enum apr_code apr_jj_join(struct apr_jj_run *r, const struct apr_jj_str *sep,
                                       const struct apr_jj_list *l, bool strict, struct apr_jj_val *out);
/* s in the middle (-1 left, 0 centre, 1 right) of width code points. */
APR_MUST_USE enum apr_code apr_jj_justify(struct apr_jj_run *r, const struct apr_jj_str *s, int64_t width,
                                          int side, const struct apr_jj_str *fill, struct apr_jj_val *out);

#endif

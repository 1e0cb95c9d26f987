/* Values as text: Python's str() and repr(), and json.dumps as transformers sets it up for tojson.
 *
 *     TRY(apr_jj_put_str(&sb, v));
 */
#ifndef APR_JINJA_REPR_H
#define APR_JINJA_REPR_H

#include "run.h"

APR_MUST_USE enum apr_code apr_jj_put_str(struct apr_jj_sb *b, struct apr_jj_val v);
APR_MUST_USE enum apr_code apr_jj_put_repr(struct apr_jj_sb *b, struct apr_jj_val v);
APR_MUST_USE enum apr_code apr_jj_to_str(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val *out);
/* Python's repr of a float: the shortest digits that read back as f. Returns the length. */
size_t apr_jj_float_text(double f, char out[40]);
/* Whether any byte of v's text comes from the context. */
APR_MUST_USE enum apr_code apr_jj_any_data(struct apr_jj_run *r, struct apr_jj_val v, bool *yes);

struct apr_jj_json_style {
    bool ensure_ascii, sort_keys;
    const struct apr_jj_str *indent; /* NULL: one line */
    const struct apr_jj_str *item_sep, *key_sep;
};
/* json.dumps(v, ...), dump.c */
APR_MUST_USE enum apr_code apr_jj_put_json(struct apr_jj_sb *b, struct apr_jj_val v,
                                           const struct apr_jj_json_style *style, size_t level, bool data);

#endif

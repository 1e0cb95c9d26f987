/* A report is described once; the text and the JSON back end cannot differ.
 *
 * Every verb's report is one object. Text: "key: value" lines, nested objects indented, arrays of
 * objects as aligned tables. JSON: one compact document, "schema" first, numbers unrounded, NaN and
 * infinities as null. Keys are snake_case with units.
 *
 *     struct apr_out *o = apr_out_open(stdout, ctx->json, "apr.inspect/1");
 *     apr_out_u64(o, "n_tensors", n); apr_out_arr(o, "tensors"); ... apr_out_end(o);
 *     TRY(apr_out_close(o, e));
 */
#ifndef APR_OUT_H
#define APR_OUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

struct apr_out;

struct apr_out *apr_out_open(FILE *to, bool json, const char *schema);
void apr_out_obj(struct apr_out *o, const char *key); /* key NULL inside an array */
void apr_out_arr(struct apr_out *o, const char *key);
void apr_out_end(struct apr_out *o); /* of the innermost object or array */
void apr_out_str(struct apr_out *o, const char *key,
                 const char *v); /* NULL prints null, or nothing in text */
void apr_out_strn(struct apr_out *o, const char *key, const char *v, size_t n_bytes);
void apr_out_u64(struct apr_out *o, const char *key, uint64_t v);
void apr_out_i64(struct apr_out *o, const char *key, int64_t v);
void apr_out_f64(struct apr_out *o, const char *key, double v); /* text: 6 significant digits */
void apr_out_bool(struct apr_out *o, const char *key, bool v);
void apr_out_bytes(struct apr_out *o, const char *key,
                   uint64_t n_bytes); /* text: "4.2 MiB"; JSON: the number */
/* A line that only the text back end shows (a verdict, a hint). */
void apr_out_text(struct apr_out *o, const char *format, ...) APR_PRINTF(2, 3);
void apr_out_discard(struct apr_out *o); /* frees without writing; NULL is fine */
APR_MUST_USE enum apr_code apr_out_close(struct apr_out *o, struct apr_err *e); /* writes everything, frees */

#endif

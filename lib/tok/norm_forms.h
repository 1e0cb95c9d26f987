/* Unicode's normal forms of the text of a struct apr_norm_work.
 *
 * What is in form already is copied as it is: only the neighbourhood of a character that may change is taken
 * apart (UAX 15, 9.1: stable code points).
 *
 *     TRY(apr_norm_form(&work, false, true, out, e));   NFC of work.p
 */
#ifndef APR_TOK_NORM_FORMS_H
#define APR_TOK_NORM_FORMS_H

#include "norm.h"

APR_MUST_USE enum apr_code apr_norm_form(struct apr_norm_work *w, bool compat, bool compose,
                                         struct apr_buf *out, struct apr_err *e);
/* Bytes below which every character of a text stays as it is: nothing is to be done. */
bool apr_norm_is_plain(const uint8_t *p, size_t n, bool compat, bool compose);

#endif

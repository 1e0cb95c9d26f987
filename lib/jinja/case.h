/* Letters and lines: upper and lower case by Unicode, Python's splitlines.
 *
 *     TRY(apr_jj_case(r, s, APR_JJ_UPPER, &out));
 */
#ifndef APR_JINJA_CASE_H
#define APR_JINJA_CASE_H

#include "run.h"

enum apr_jj_casing {
    APR_JJ_UPPER,
    APR_JJ_LOWER,
    APR_JJ_SWAP,
    APR_JJ_CAPITAL, /* the first letter upper, the others lower */
    APR_JJ_TITLE,   /* str.title: every letter behind a non-letter */
    APR_JJ_WORDS    /* the title filter: every letter behind white space or one of - ( { [ < */
};

APR_MUST_USE enum apr_code apr_jj_case(struct apr_jj_run *r, const struct apr_jj_str *s,
                                       enum apr_jj_casing casing, struct apr_jj_val *out);
APR_MUST_USE enum apr_code apr_jj_split_lines(struct apr_jj_run *r, const struct apr_jj_str *s,
                                              bool keep_ends, struct apr_jj_list **out);

#endif

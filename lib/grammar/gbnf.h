/* GBNF text to rules. See grammar.h.
 *
 *     TRY(apr_gbnf_parse(&rules, text, n_bytes, file, &root, e));
 */
#ifndef APR_GRAMMAR_GBNF_H
#define APR_GRAMMAR_GBNF_H

#include "expr.h"

/* root: the rule named "root". Rules that are used but not defined have no body afterwards. */
APR_MUST_USE enum apr_code apr_gbnf_parse(struct apr_rules *r, const char *text, size_t n_bytes,
                                          const char *file, uint32_t *root, struct apr_err *e);

#endif

/* Template text to tokens: Jinja's delimiters, white space control, trim_blocks and lstrip_blocks.
 *
 * Line ends become "\n" and one final line end is dropped first, as Jinja does. The tokens and their text
 * live in the run's arena.
 *
 *     struct apr_jj_tok *toks; size_t n_toks; TRY(apr_jj_lex(r, text, n_bytes, &toks, &n_toks));
 */
#ifndef APR_JINJA_LEX_H
#define APR_JINJA_LEX_H

#include "run.h"

enum apr_jj_tok_type {
    APR_JJ_T_EOF,
    APR_JJ_T_DATA,
    APR_JJ_T_VAR_BEGIN,
    APR_JJ_T_VAR_END,
    APR_JJ_T_BLOCK_BEGIN,
    APR_JJ_T_BLOCK_END,
    APR_JJ_T_NAME,
    APR_JJ_T_CONST, /* string, integer or float in v */
    APR_JJ_T_OP     /* its text says which */
};

struct apr_jj_tok {
    enum apr_jj_tok_type type;
    uint32_t line;
    const char *p;
    size_t n;
    struct apr_jj_val v;
};

APR_MUST_USE enum apr_code apr_jj_lex(struct apr_jj_run *r, const char *text, size_t n_bytes,
                                      struct apr_jj_tok **toks, size_t *n_toks);

#endif

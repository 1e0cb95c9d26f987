/* One split pattern, run by PCRE2 with bounded effort.
 *
 * Tokenizer files write patterns for Oniguruma (Ruby syntax, Unicode classes). What PCRE2 means
 * differently is rewritten; what it cannot express is refused. A pattern that the table of known
 * tokenizers does not list runs under a budget of steps proportional to the text, so that a hostile
 * one ends in an error and not in a hang.
 *
 *     TRY(apr_regex_open(&re, pattern, trusted, file, e));
 *     TRY(apr_regex_next(re, &run, p, n, from, &start, &end, e));   start == SIZE_MAX: no match
 */
#ifndef APR_TOK_REGEX_H
#define APR_TOK_REGEX_H

#include <stdbool.h>

#include "../buf.h"

#define APR_REGEX_MAX_BYTES 4096u

struct apr_regex;

/* literal: the pattern is a plain string. */
APR_MUST_USE enum apr_code apr_regex_open(struct apr_regex **out, const char *pattern, bool literal,
                                          bool trusted, const char *file, struct apr_err *e);
void apr_regex_close(struct apr_regex *re); /* NULL is fine */

/* What one thread needs to run patterns. */
struct apr_regex_run {
    void *match;      /* owned: pcre2_match_data */
    void *context;    /* owned: pcre2_match_context */
    void *stack;      /* owned: pcre2_jit_stack, made when the machine stack does not suffice */
    uint64_t n_steps; /* left for untrusted patterns in this text */
};
APR_MUST_USE enum apr_code apr_regex_run_init(struct apr_regex_run *run, size_t n_text_bytes,
                                              struct apr_err *e);
void apr_regex_run_free(struct apr_regex_run *run);

/* First match at or after from in p[0..n), which is well-formed UTF-8. */
APR_MUST_USE enum apr_code apr_regex_next(const struct apr_regex *re, struct apr_regex_run *run,
                                          const uint8_t *p, size_t n, size_t from, size_t *start, size_t *end,
                                          struct apr_err *e);

/* Exposed for tests: the pattern in PCRE2's syntax. */
APR_MUST_USE enum apr_code apr_regex_translate(const char *pattern, struct apr_buf *out, const char *file,
                                               struct apr_err *e);

#endif

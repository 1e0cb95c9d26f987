/* Perplexity of a token sequence, in windows that begin with an empty cache.
 *
 * A window of w tokens predicts its tokens 1 .. w-1. ppl_all counts every one; ppl_second_half only those
 * whose context is at least half a window (index > w/2), as llama.cpp counts. Sums in double.
 *
 *     struct apr_ppl p; TRY(apr_ppl_run(&p, &session, ids, n, 512, e)); apr_ppl_value(&p.all)
 */
#ifndef APR_INFER_PERPLEXITY_H
#define APR_INFER_PERPLEXITY_H

#include "session.h"

struct apr_nll {
    double sum, sum_sq; /* of -ln p */
    uint64_t n;
};

struct apr_ppl {
    struct apr_nll all, second_half;
    uint64_t n_windows;
    uint64_t n_toks; /* that took part */
    size_t window;   /* as used: a shorter text is one shorter window */
    double compute_s;
};

/* Whole windows only; what is left at the end takes no part. Fewer than 2 tokens: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_ppl_run(struct apr_ppl *p, struct apr_session *s, const int32_t *ids,
                                       size_t n_ids, size_t window, struct apr_err *e);
double apr_nll_ppl(const struct apr_nll *n);    /* exp(mean) */
double apr_nll_stderr(const struct apr_nll *n); /* of the perplexity, first order; 0 for n < 2 */

#endif

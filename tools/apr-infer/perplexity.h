/* Perplexity of a token sequence, in windows that begin with an empty cache; and how far another model's
 * distributions are from these, on the same tokens.
 *
 * A window of w tokens predicts its tokens 1 .. w-1. `all` counts every one; `second_half` only those whose
 * context is at least half a window (index > w/2), as llama.cpp counts. With a stride s < w windows begin
 * every s tokens and all but the first count their last s tokens alone, so that each token is predicted once,
 * with at least w - s tokens before it; second_half is empty then. Sums in double, in token order.
 *
 * Against a reference R with the same vocabulary, of each token that `all` counts (or second_half, by
 * choice): KL(R || M) = sum over ids of p_R (ln p_R - ln p_M),   top-1: both have the same most probable id,
 *     dp = p_M(token) - p_R(token).
 *
 *     struct apr_ppl p = {.window = 512}; TRY(apr_ppl_run(&p, &session, NULL, ids, n, e));
 *     apr_nll_ppl(&p.all); ... apr_ppl_free(&p);
 */
#ifndef APR_INFER_PERPLEXITY_H
#define APR_INFER_PERPLEXITY_H

#include "buf.h"
#include "session.h"

struct apr_nll {
    double sum, sum_sq; /* of -ln p */
    uint64_t n;
};

struct apr_ppl {
    size_t window; /* wanted; afterwards as used: a shorter text is one shorter window */
    size_t stride; /* 0 = window */
    int64_t
        bos; /* stands in the place of each window's first token; -1 = the text's own token stands there */
    bool kl_of_second_half;

    struct apr_nll all, second_half;
    struct apr_nll ref_all, ref_second_half; /* the reference's own */
    uint64_t n_windows;
    uint64_t n_toks; /* computed */
    double compute_s;

    struct apr_buf kls; /* owned: doubles, one for each token compared */
    uint64_t n_same_top;
    double dp_sum, dp_sum_sq;
};

/* ref: NULL or the reference, with the same n_vocab (else APR_ELOAD). Whole windows only; what is left at the
 * end takes no part. Fewer than 2 tokens: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_ppl_run(struct apr_ppl *p, struct apr_session *s, struct apr_session *ref,
                                       const int32_t *ids, size_t n_ids, struct apr_err *e);
void apr_ppl_free(struct apr_ppl *p);
double apr_nll_ppl(const struct apr_nll *n);    /* exp(mean) */
double apr_nll_stderr(const struct apr_nll *n); /* of the perplexity, first order; 0 for n < 2 */
/* -ln softmax(logits)[id] */
double apr_nll_of(const struct apr_kern *kern, const float *logits, size_t n_vocab, int32_t id);

#endif

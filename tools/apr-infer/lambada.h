/* The last word of a passage, predicted: LAMBADA (Paperno et al. 2016), as JSON lines {"text": "..."}.
 *
 * The passage is cut at its last space; the context is read, and the rest, " word", is the target. A passage
 * is right when each token of the target is the most probable one after those before it. The perplexity is
 * exp of the mean over passages of -ln p(target), as lm-evaluation-harness counts.
 *
 *     struct apr_lambada l = {0}; TRY(apr_lambada_run(&l, &session, text, n_bytes, "file", 0, e));
 */
#ifndef APR_INFER_LAMBADA_H
#define APR_INFER_LAMBADA_H

#include "perplexity.h"

struct apr_lambada {
    struct apr_nll passages; /* -ln p of whole targets */
    uint64_t n_right, n_target_toks, n_toks;
    double compute_s;
};

/* n_most passages at most; 0 = all. A line that is no such object, or without a last word: APR_EFORMAT. */
APR_MUST_USE enum apr_code apr_lambada_run(struct apr_lambada *l, struct apr_session *s, const char *text,
                                           size_t n_bytes, const char *file, uint64_t n_most,
                                           struct apr_err *e);

#endif

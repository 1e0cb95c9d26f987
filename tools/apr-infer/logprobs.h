/* Logarithms of the model's own probabilities: of each chosen token and of the likeliest ones beside it.
 *
 * Over the whole vocabulary, before penalties, temperature and all else that shapes the choice; sums in
 * double and in order, so that they are the same bits wherever the logits are.
 *
 *     struct apr_logprobs l; apr_logprobs_init(&l, 5); TRY(apr_logprobs_add(&l, logits, n_vocab, id, e));
 *     apr_logprobs_at(&l, i_tok)[0] is the chosen one, [1] .. [n_top] the likeliest; apr_logprobs_free(&l);
 */
#ifndef APR_INFER_LOGPROBS_H
#define APR_INFER_LOGPROBS_H

#include <stdint.h>

#include "buf.h"

#define APR_MAX_LOGPROBS 20u

struct apr_logprob {
    int32_t id;
    double v;
};

struct apr_logprobs {
    struct apr_buf rows; /* owned: [n_toks, 1 + n_top] struct apr_logprob */
    size_t n_top;
    size_t n_toks;
};

/* n_top <= APR_MAX_LOGPROBS */
void apr_logprobs_init(struct apr_logprobs *l, size_t n_top);
void apr_logprobs_free(struct apr_logprobs *l);
/* id was chosen by these logits [n_vocab]. With fewer tokens than n_top the rest has id -1. */
APR_MUST_USE enum apr_code apr_logprobs_add(struct apr_logprobs *l, const float *logits, size_t n_vocab,
                                            int32_t id, struct apr_err *e);
const struct apr_logprob *apr_logprobs_at(const struct apr_logprobs *l, size_t i_tok);

#endif

/* A smaller model of the same vocabulary that guesses the next tokens.
 *
 * Greedy text gets greedy guesses. For sampled text a guess is drawn from the draft's own distribution q, by
 * the same steps as the text as far as they look at this token alone, from at most APR_DRAFT_TOP tokens; q
 * goes along with it, for judge.h. Guessing ends before a token of which q says less than p_min for the
 * likeliest one: this looks at q alone, never at what was drawn, so that nothing is bent.
 *
 *     TRY(apr_draft_open(&d, path, &engine, &target, &sample, ctx, e)); apr_draft_begin(&d, seed);
 *     TRY(apr_draft_guess(&d, ids, n, 8, 0.4, out, proposals, &n_out, e)); apr_draft_close(&d);
 */
#ifndef APR_INFER_SPECULATE_DRAFT_H
#define APR_INFER_SPECULATE_DRAFT_H

#include "../sampler/sampler.h"
#include "../session.h"

#define APR_DRAFT_TOP 64u /* candidates of a guess */

struct apr_draft {
    struct apr_session s; /* its threads are the target's */
    struct apr_sampler sampler;
    struct apr_arena arena;
    bool is_greedy;      /* guesses are the likeliest tokens */
    struct apr_ids past; /* owned: tokens that the cache was filled with */
    size_t n_sure;       /* so many of them are known to be the text's */
    float *logits;       /* [n_vocab] */
    struct apr_cand *q;  /* [APR_MAX_DRAFT, APR_DRAFT_TOP] */
    size_t n_vocab;      /* of the target */
    double cost;         /* bytes of weights, as a part of the target's */
};

/* The target is open; sample: its resolved values. Another vocabulary: APR_ELOAD naming the first token that
 * differs. */
APR_MUST_USE enum apr_code apr_draft_open(struct apr_draft *d, const char *path,
                                          const struct apr_engine_opts *engine,
                                          const struct apr_session *target,
                                          const struct apr_sample_opts *sample, const struct apr_ctx *ctx,
                                          struct apr_err *e);
void apr_draft_close(struct apr_draft *d);
/* A new text. Computes its first n tokens already, so that the first guess is quick. */
APR_MUST_USE enum apr_code apr_draft_begin(struct apr_draft *d, const int32_t *ids, size_t n,
                                           struct apr_err *e);
/* Up to n_most guesses of what follows ids[0 .. n), which continue the text of the calls before. out[i] and
 * proposals[i], whose q is valid until the next call. */
APR_MUST_USE enum apr_code apr_draft_guess(struct apr_draft *d, const int32_t *ids, size_t n, size_t n_most,
                                           double p_min, int32_t *out, struct apr_proposal *proposals,
                                           size_t *n_out, struct apr_err *e);
/* Whether two models mean the same text by the same ids. */
APR_MUST_USE enum apr_code apr_draft_check_vocab(const struct apr_vocab *target,
                                                 const struct apr_vocab *draft, const char *path,
                                                 struct apr_err *e);

#endif

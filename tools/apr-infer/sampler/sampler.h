/* Choosing the next token: a chain of small steps, by default in llama.cpp's order.
 *
 *   logit bias -> penalties -> dry -> top_n_sigma -> top_k -> typical -> tail_free -> top_p -> min_p -> eta
 *   -> epsilon -> xtc -> temperature -> draw        (--mirostat 2: penalties -> dry -> temperature ->
 * mirostat)
 *
 * A step sees the candidates that the steps before it left, with probabilities over these alone. Temperature
 * 0 is greedy: bias and grammar count, no step does. A token that the grammar refuses is chosen again among
 * those that it allows. The same logits and seed give the same token on any machine.
 *
 *     struct apr_sampler s; TRY(apr_sampler_init(&s, &opts, &site, arena, e));
 *     for each prompt token apr_sampler_accept(&s, id);
 *     TRY(apr_sampler_next(&s, logits, &id, e)); apr_sampler_accept(&s, id);
 */
#ifndef APR_INFER_SAMPLER_H
#define APR_INFER_SAMPLER_H

#include "cands.h"
#include "history.h"
#include "judge.h"
#include "limit.h"
#include "opts.h"
#include "out.h"
#include "rng.h"

#define APR_MAX_STEPS 16u

struct apr_step;
struct apr_bias {
    int32_t id;
    float v;
};

/* Where tokens come from. */
struct apr_sampler_site {
    size_t n_vocab;
    size_t n_ctx; /* the most tokens that accept can see */
    const struct apr_kern *kern;
    const struct apr_tok *tok; /* for texts in options; NULL: a text there is refused */
};

struct apr_sampler {
    struct apr_sample_opts opts;
    struct apr_sampler_site site;
    struct apr_rng rng;
    struct apr_cands c;
    struct apr_history past;
    const struct apr_step *steps[APR_MAX_STEPS];
    size_t n_steps;
    const struct apr_bias *bias;
    size_t n_bias;
    struct apr_limit *limit; /* borrowed; NULL: any token may come */
    double mu;               /* mirostat: the largest surprise that remains, in bits */
    /* Borrowed; drawn from its q for the next token, which apr_sampler_next judges then. NULL: none. */
    const struct apr_proposal *proposal;
};

APR_MUST_USE enum apr_code apr_sampler_init(struct apr_sampler *s, const struct apr_sample_opts *o,
                                            const struct apr_sampler_site *site, struct apr_arena *arena,
                                            struct apr_err *e);
/* A token of the prompt, or the one chosen, now belongs to the text. */
APR_MUST_USE enum apr_code apr_sampler_accept(struct apr_sampler *s, int32_t id, struct apr_err *e);
/* NaN or +inf among the logits, or no token left: APR_EINFER. The grammar has taken the token then. */
APR_MUST_USE enum apr_code apr_sampler_next(struct apr_sampler *s, const float *logits, int32_t *id,
                                            struct apr_err *e);
/* The candidates that survive the chain, in s->c.at[0 .. s->c.n) with their probabilities. */
APR_MUST_USE enum apr_code apr_sampler_chain(struct apr_sampler *s, const float *logits, struct apr_err *e);
/* "sampling": seed, the steps in use and their values. */
void apr_sampler_report(const struct apr_sampler *s, struct apr_out *o);

/* Classifier-free guidance: logits = other + scale * (logits - other), over n tokens. Sanchez et al., Stay on
 * topic with classifier-free guidance, 2023; there on log-probabilities, which differs by a constant. */
void apr_sampler_guide(float *logits, const float *other, double scale, size_t n);

#endif

/* Choosing the next token: a chain of small steps in llama.cpp's order.
 *
 * penalties -> top-k -> top-p -> min-p -> temperature -> draw. Temperature 0 is greedy: the first index of
 * the maximum, no penalty. Equal logits are ordered by id, so the candidates and the draw depend on the
 * logits and the seed only. Generator: xoshiro256** seeded through splitmix64, one 53-bit draw a token.
 *
 *     struct apr_sampler s; TRY(apr_sampler_init(&s, &opts, n_vocab, kern, arena, e));
 *     for each prompt token apr_sampler_accept(&s, id);
 *     id = apr_sampler_next(&s, logits); apr_sampler_accept(&s, id);
 */
#ifndef APR_INFER_SAMPLE_H
#define APR_INFER_SAMPLE_H

#include "arena.h"
#include "config.h"
#include "kern/kern.h"

struct apr_sample_opts {
    double temperature;    /* 0 = greedy */
    int64_t top_k;         /* <= 0 = all */
    double top_p;          /* >= 1 = all */
    double min_p;          /* <= 0 = all */
    double repeat_penalty; /* 1 = none */
    int64_t repeat_last_n; /* tokens that the penalty looks at; 0 = none, -1 = all */
    uint64_t seed;
};

struct apr_cand {
    float logit;
    int32_t id;
};

struct apr_sampler {
    struct apr_sample_opts opts;
    const struct apr_kern *kern;
    size_t n_vocab;
    uint64_t rng[4];
    struct apr_cand *cands; /* [n_vocab] */
    size_t n_cands;
    uint32_t *mark; /* [n_vocab] round in which a token was penalised last */
    uint32_t round;
    int32_t *recent; /* ring of the last n_recent_max tokens */
    size_t n_recent_max, n_seen;
};

/* Greedy; the neutral value everywhere else. */
void apr_sample_defaults(struct apr_sample_opts *o);
/* Takes the values that the model's own generation_config gives; do_sample false gives greedy. */
void apr_sample_from_model(struct apr_sample_opts *o, const struct apr_generation *g);
/* Refuses values outside their range: APR_EUSAGE naming the option. */
APR_MUST_USE enum apr_code apr_sample_check(const struct apr_sample_opts *o, struct apr_err *e);
/* n_ctx: the most tokens that accept can see (for repeat_last_n -1). */
APR_MUST_USE enum apr_code apr_sampler_init(struct apr_sampler *s, const struct apr_sample_opts *o,
                                            size_t n_vocab, size_t n_ctx, const struct apr_kern *kern,
                                            struct apr_arena *arena, struct apr_err *e);
void apr_sampler_accept(struct apr_sampler *s, int32_t id);
/* Candidates that survive the chain, in s->cands[0 .. s->n_cands), tempered. Changes logits (penalties). */
void apr_sampler_chain(struct apr_sampler *s, float *logits);
/* Probabilities of the candidates, summing to 1: p has room for s->n_cands. */
void apr_sampler_probs(const struct apr_sampler *s, double *p);
int32_t apr_sampler_next(struct apr_sampler *s, float *logits);

#endif

/* Speculative decoding: several tokens are proposed, one step of the model verifies them all.
 *
 * The text never depends on it. The token at every position is chosen by the sampler from the model's own
 * logits there, position after position; a proposal only decides whether these logits are there already. So
 * penalties, grammars, mirostat and stop strings see what they always see. A step of n tokens gives the same
 * bits as n steps of one (forward.h), hence:
 *   lookup, and any greedy text: the same tokens as without, for any seed;
 *   a draft with sampling: tokens are accepted by rejection sampling (sampler/judge.h), so their distribution
 *   is the same; the same seed and options give the same text again, for lengths do not follow the clock
 * then.
 *
 *     apr_spec_begin(&s, ids, n) after the prompt has run; for every token chosen:
 *     TRY(apr_spec_next(&s, id, n_room, &model, &logits, e)); sampler.proposal = apr_spec_proposal(&s); ...
 *     apr_spec_end(&s, &model) takes back what was not verified.
 */
#ifndef APR_INFER_SPECULATE_SPEC_H
#define APR_INFER_SPECULATE_SPEC_H

#include "../sampler/judge.h"
#include "ngrams.h"
#include "opts.h"
#include "out.h"
#include "pace.h"
#include "tok/tok.h"

struct apr_draft;

/* Who computes. */
struct apr_spec_model {
    /* Appends n tokens to the sequence; logits: [n, n_vocab] after each. */
    enum apr_code (*run)(void *ctx, const int32_t *ids, size_t n, float *logits, struct apr_err *e);
    /* The last n tokens are not the text's. */
    void (*take_back)(void *ctx, size_t n);
    void *ctx;
};

struct apr_spec_stats {
    size_t n_steps;             /* of the model, after the prompt */
    size_t n_plain;             /* of these, with nothing proposed */
    size_t n_proposed;          /* tokens in steps */
    size_t n_accepted;          /* of these; what replaced a rejected one does not count */
    size_t n_lookups, n_drafts; /* proposals by their source */
    double draft_s, verify_s;
};

struct apr_spec {
    struct apr_spec_opts opts;
    struct apr_draft *draft; /* borrowed; NULL: none */
    struct apr_arena *arena; /* borrowed */
    struct apr_ngrams lookup;
    struct apr_pace pace;
    struct apr_spec_stats stats;
    struct apr_ids past; /* owned: the text, prompt included */
    size_t n_vocab;
    size_t kind;                    /* of the proposal in this step: pace.h */
    size_t n_toks;                  /* of the step: the last token of the text, then proposals */
    size_t i_row;                   /* logits after which the text stands */
    int32_t ids[APR_MAX_DRAFT + 1]; /* [n_toks] */
    struct apr_proposal proposals[APR_MAX_DRAFT]; /* of ids[1 ..] */
    float *logits;                                /* [n_max + 1, n_vocab] */
};

/* opts: resolved. draft, opened for the same model: NULL = none; is_sampled: it draws its guesses. */
APR_MUST_USE enum apr_code apr_spec_open(struct apr_spec *s, const struct apr_spec_opts *opts,
                                         struct apr_draft *draft, size_t n_vocab, struct apr_arena *arena,
                                         struct apr_err *e);
void apr_spec_close(struct apr_spec *s);
/* A new text begins with these tokens. What was learned of costs and odds stays. */
APR_MUST_USE enum apr_code apr_spec_begin(struct apr_spec *s, const int32_t *ids, size_t n,
                                          struct apr_err *e);
/* id, chosen from the last logits, belongs to the text. Whether the logits after it are there already. */
APR_MUST_USE enum apr_code apr_spec_take(struct apr_spec *s, int32_t id, bool *is_there, struct apr_err *e);
/* They are not: the tokens of the next step, s->ids[0 .. s->n_toks), at most n_most. Before it the last
 * *n_back tokens of the step before are to be taken back. */
APR_MUST_USE enum apr_code apr_spec_plan(struct apr_spec *s, size_t n_most, size_t *n_back,
                                         struct apr_err *e);
/* It has run: s->logits has its rows, and it took so many seconds. */
void apr_spec_ran(struct apr_spec *s, double seconds);
/* The logits after the text. */
const float *apr_spec_logits(const struct apr_spec *s);
/* How many tokens of the last step are not the text's yet. */
size_t apr_spec_n_open(const struct apr_spec *s);
/* What was proposed for the next token by chance, for the sampler to judge; else NULL. */
const struct apr_proposal *apr_spec_proposal(const struct apr_spec *s);
/* The three above for one sequence. */
APR_MUST_USE enum apr_code apr_spec_next(struct apr_spec *s, int32_t id, size_t n_most,
                                         const struct apr_spec_model *m, const float **logits,
                                         struct apr_err *e);
/* The text ends here. Returns how many tokens of the last step are not its. */
size_t apr_spec_end(struct apr_spec *s);
/* "speculation": what was proposed, accepted, and the time it took. */
void apr_spec_report(const struct apr_spec *s, struct apr_out *o);

#endif

/* A grammar over the tokens of a model: what the sampler may choose.
 *
 * A token that was chosen freely is tried first; only where the grammar refuses it all others are asked, and
 * the choice is made again among those that may come. Special tokens never match; an end token may come where
 * the grammar accepts the text so far.
 *
 *     TRY(apr_limit_open(&l, grammar, tok, vocab, n_vocab, generation, arena, e)); sampler.limit = &l;
 *     l.n_left = tokens that may still come; ... apr_limit_close(&l);
 */
#ifndef APR_INFER_SAMPLER_LIMIT_H
#define APR_INFER_SAMPLER_LIMIT_H

#include "config.h"
#include "grammar/matcher.h"

struct apr_limit {
    struct apr_trie *trie;             /* owned; NULL: another's */
    struct apr_matcher *matcher;       /* owned */
    const struct apr_generation *ends; /* borrowed: eos_ids */
    size_t n_vocab;
    size_t n_left;  /* tokens that may still come, the next one included; SIZE_MAX: any number */
    uint64_t *bits; /* [(n_vocab + 63) / 64] */
    size_t n_masks; /* steps at which the first choice was refused */
};

APR_MUST_USE enum apr_code apr_limit_open(struct apr_limit *l, const struct apr_grammar *g,
                                          const struct apr_tok *tok, const struct apr_vocab *v,
                                          size_t n_vocab, const struct apr_generation *ends,
                                          struct apr_arena *arena, struct apr_err *e);
/* The same for many texts of one model; trie outlives them. */
APR_MUST_USE enum apr_code apr_limit_open_shared(struct apr_limit *l, const struct apr_grammar *g,
                                                 const struct apr_trie *trie, size_t n_vocab,
                                                 const struct apr_generation *ends, struct apr_arena *arena,
                                                 struct apr_err *e);
void apr_limit_close(struct apr_limit *l);
bool apr_limit_allows(struct apr_limit *l, int32_t id);
/* Which tokens may come, a bit each in l->bits. None may: APR_EINFER. */
APR_MUST_USE enum apr_code apr_limit_ask(struct apr_limit *l, struct apr_err *e);
bool apr_limit_bit(const struct apr_limit *l, int32_t id); /* of the tokens last asked for */
/* Every logit of a token that may not come becomes -inf. None may: APR_EINFER. */
APR_MUST_USE enum apr_code apr_limit_mask(struct apr_limit *l, float *logits, struct apr_err *e);
/* id was chosen. */
APR_MUST_USE enum apr_code apr_limit_take(struct apr_limit *l, int32_t id, struct apr_err *e);

#endif

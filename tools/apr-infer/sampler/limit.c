/* Between sampler and grammar. */
#include "limit.h"

#include <math.h>

enum apr_code apr_limit_open_shared(struct apr_limit *l, const struct apr_grammar *g,
                                    const struct apr_trie *trie, size_t n_vocab,
                                    const struct apr_generation *ends, struct apr_arena *arena,
                                    struct apr_err *e)
{
    *l = (struct apr_limit){.ends = ends, .n_vocab = n_vocab, .n_left = SIZE_MAX};
    TRY(apr_arena_try(arena, &l->bits, (n_vocab + 63) / 64, sizeof *l->bits, "token mask", e));
    return apr_matcher_open(&l->matcher, g, trie, e);
}

enum apr_code apr_limit_open(struct apr_limit *l, const struct apr_grammar *g, const struct apr_tok *tok,
                             const struct apr_vocab *v, size_t n_vocab, const struct apr_generation *ends,
                             struct apr_arena *arena, struct apr_err *e)
{
    struct apr_trie *trie;
    *l = (struct apr_limit){0};
    TRY(apr_trie_of_vocab(&trie, tok, v, n_vocab, e));
    enum apr_code code = apr_limit_open_shared(l, g, trie, n_vocab, ends, arena, e);
    if (code == APR_OK)
        l->trie = trie;
    else
        apr_trie_free(trie);
    return code;
}

void apr_limit_close(struct apr_limit *l)
{
    apr_matcher_close(l->matcher);
    apr_trie_free(l->trie);
    *l = (struct apr_limit){0};
}

static bool is_end(const struct apr_limit *l, int32_t id)
{
    for (uint32_t i = 0; i < l->ends->n_eos; i++)
        if (l->ends->eos_ids[i] == id) return true;
    return false;
}

bool apr_limit_allows(struct apr_limit *l, int32_t id)
{
    return is_end(l, id) ? apr_matcher_accepts(l->matcher) : apr_matcher_allows(l->matcher, id, l->n_left);
}

enum apr_code apr_limit_ask(struct apr_limit *l, struct apr_err *e)
{
    size_t n = apr_matcher_mask(l->matcher, l->n_left, l->bits);
    bool accepts = apr_matcher_accepts(l->matcher);
    for (uint32_t i = 0; i < l->ends->n_eos; i++) {
        uint64_t id = (uint64_t)l->ends->eos_ids[i];
        if (id >= l->n_vocab) continue;
        l->bits[id / 64] &= ~(UINT64_C(1) << (id % 64));
        if (accepts) l->bits[id / 64] |= UINT64_C(1) << (id % 64);
        n += accepts;
    }
    return n ? APR_OK : apr_fail(e, APR_EINFER, "no token of the vocabulary continues the grammar");
}

bool apr_limit_bit(const struct apr_limit *l, int32_t id)
{
    return l->bits[(size_t)id / 64] >> ((size_t)id % 64) & 1;
}

enum apr_code apr_limit_mask(struct apr_limit *l, float *logits, struct apr_err *e)
{
    TRY(apr_limit_ask(l, e));
    l->n_masks++;
    for (size_t i = 0; i < l->n_vocab; i++)
        if (!(l->bits[i / 64] >> (i % 64) & 1)) logits[i] = -INFINITY;
    return APR_OK;
}

enum apr_code apr_limit_take(struct apr_limit *l, int32_t id, struct apr_err *e)
{
    return is_end(l, id) ? APR_OK : apr_matcher_take(l->matcher, id, e);
}

/* The loop that steps the model for one answer. */
#include "generate.h"

#define N_AHEAD                                                                                              \
    8u /* tokens that a device chooses in one go: text still flows, and no token waits for the host */

/* What one run of the loop carries along. */
struct loop {
    struct apr_session *s;
    struct apr_reply *r;
    const struct apr_guide *guide; /* or NULL */
    struct apr_cache other_cache;  /* of the guide's sequence */
    float *logits, *other;         /* [n_vocab] */
    int32_t ahead[N_AHEAD];        /* chosen by the device; [i_ahead, n_ahead) are not yet taken */
    size_t i_ahead, n_ahead;
};

/* The logits of the last token into l->logits; with a guide both sequences have run. */
static enum apr_code next_logits(struct loop *l, const int32_t *ids, size_t n_ids, const int32_t *other,
                                 size_t n_other, struct apr_err *e)
{
    struct apr_session *s = l->s;
    TRY(apr_forward_prompt(&s->fwd, &s->cache, ids, n_ids, e));
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, l->logits, e));
    if (!l->guide) return APR_OK;
    TRY(apr_forward_prompt(&s->fwd, &l->other_cache, other, n_other, e));
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, l->other, e));
    apr_sampler_guide(l->logits, l->other, l->guide->scale, s->model->config.n_vocab);
    return APR_OK;
}

/* Positions that both sequences have left. */
static size_t n_room(const struct loop *l)
{
    size_t n_pos = l->s->cache.n_pos;
    if (l->guide && l->other_cache.n_pos > n_pos) n_pos = l->other_cache.n_pos;
    return l->s->n_ctx - n_pos;
}

/* A device can go on alone where the largest logit is the choice. */
static bool goes_alone(const struct loop *l)
{
    return l->s->fwd.offload && !l->s->fwd.c.exact && !l->guide &&
           apr_sampler_is_plain_greedy(l->r->site.sampler);
}

static enum apr_code run_ahead(struct loop *l, int32_t id, struct apr_err *e)
{
    struct apr_session *s = l->s;
    size_t n = l->r->opts.n_max - l->r->ids.n, n_free = s->n_ctx - s->cache.n_pos, n_stop = 0;
    int32_t stop[APR_MAX_EOS];
    if (n > n_free) n = n_free;
    if (n > N_AHEAD) n = N_AHEAD;
    for (uint32_t i = 0; i < s->model->generation.n_eos && !l->r->opts.ignore_eos; i++)
        stop[n_stop++] = (int32_t)s->model->generation.eos_ids[i];
    l->i_ahead = 0;
    return apr_offload_greedy(s->fwd.offload, &s->cache, id, n, stop, n_stop, l->ahead, &l->n_ahead, e);
}

static enum apr_code decode_loop(struct loop *l, struct apr_err *e)
{
    struct apr_session *s = l->s;
    while (!l->r->is_over) {
        int32_t id;
        if (l->i_ahead < l->n_ahead) {
            id = l->ahead[l->i_ahead++];
            TRY(apr_reply_take(l->r, id, e));
        } else {
            TRY(apr_reply_next(l->r, l->logits, n_room(l), &id, e));
        }
        if (l->r->is_over || l->i_ahead < l->n_ahead) continue;
        if (!n_room(l)) {
            apr_note("the context of %zu positions is full", s->n_ctx);
            break;
        }
        TRY(goes_alone(l) ? run_ahead(l, id, e) : next_logits(l, &id, 1, &id, 1, e));
    }
    apr_cache_truncate(&s->cache, s->cache.n_pos - (l->n_ahead - l->i_ahead));
    return apr_reply_end(l->r, e);
}

static enum apr_code run_loop(struct loop *l, const int32_t *ids, size_t n_ids, struct apr_arena *arena,
                              struct apr_err *e)
{
    struct apr_session *s = l->s;
    const struct apr_ids *guide = l->guide ? &l->guide->ids : NULL;
    TRY(apr_session_fits(s, n_ids, 1, e));
    TRY(apr_arena_try(arena, &l->logits, s->model->config.n_vocab, sizeof *l->logits, "logits", e));
    if (guide) {
        TRY(apr_session_fits(s, guide->n, 1, e));
        TRY(apr_arena_try(arena, &l->other, s->model->config.n_vocab, sizeof *l->other, "logits", e));
        TRY(apr_cache_init(&l->other_cache, &s->model->config, s->cache.types, s->n_ctx, e));
    }
    TRY(apr_reply_prompt(l->r, ids, n_ids, e));
    apr_cache_truncate(&s->cache, 0);
    TRY(next_logits(l, ids, n_ids, guide ? guide->at : NULL, guide ? guide->n : 0, e));
    return decode_loop(l, e);
}

enum apr_code apr_generate(struct apr_session *s, struct apr_reply *r, const int32_t *ids, size_t n_ids,
                           const struct apr_guide *guide, struct apr_err *e)
{
    struct loop l = {.s = s, .r = r, .guide = guide};
    struct apr_arena arena;
    apr_arena_init(&arena);
    apr_arena_init(&l.other_cache.arena);
    enum apr_code code = run_loop(&l, ids, n_ids, &arena, e);
    apr_cache_free(&l.other_cache);
    apr_arena_free(&arena);
    return code;
}

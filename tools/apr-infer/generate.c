/* The loop that steps the model for one answer. */
#include "generate.h"

#include "sampler/device.h"

/* What one run of the loop carries along. */
struct loop {
    struct apr_session *s;
    struct apr_reply *r;
    const struct apr_ways *ways;
    const struct apr_guide *guide; /* of ways, or NULL */
    struct apr_spec *spec;         /* of ways, or NULL */
    struct apr_cache other_cache;  /* of the guide's sequence */
    float *logits, *other;         /* [n_vocab]; other has as many rows as spec */
    const float *at;               /* logits after the text, wherever they are */
    enum apr_sampler_place place;  /* who chooses behind the first token */
    struct apr_gpu_chain chain;    /* how, where a device does */
    int32_t ahead[APR_N_AHEAD];    /* chosen by the device; [i_ahead, n_ahead) are not yet taken */
    size_t i_ahead, n_ahead;
};

/* The logits of the last token into l->at; with a guide both sequences have run. */
static enum apr_code next_logits(struct loop *l, const int32_t *ids, size_t n_ids, const int32_t *other,
                                 size_t n_other, struct apr_err *e)
{
    struct apr_session *s = l->s;
    TRY(apr_forward_prompt(&s->fwd, &s->cache, ids, n_ids, e));
    l->at = l->guide ? NULL : apr_forward_kept(&s->fwd, s->fwd.n_toks - 1);
    if (l->at) return apr_forward_check(&s->fwd, s->fwd.n_toks - 1, 0, l->at, e);
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, l->logits, e));
    l->at = l->logits;
    if (!l->guide) return APR_OK;
    TRY(apr_forward_prompt(&s->fwd, &l->other_cache, other, n_other, e));
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, l->other, e));
    apr_sampler_guide(l->logits, l->other, l->guide->scale, s->model->config.n_vocab);
    return APR_OK;
}

/* Positions that both sequences have left behind the text. */
static size_t n_room(const struct loop *l)
{
    size_t n_pos = l->s->cache.n_pos;
    if (l->guide && l->other_cache.n_pos > n_pos) n_pos = l->other_cache.n_pos;
    return l->s->n_ctx - n_pos + (l->spec ? apr_spec_n_open(l->spec) : 0);
}

/* The same for whoever plans the text: with shifts it never ends. */
static size_t n_room_ahead(const struct loop *l)
{
    return l->ways->shift.is_on ? SIZE_MAX - 1 : n_room(l);
}

/* No position is left for the next token; a sequence that is full shifts. */
static enum apr_code make_room(struct loop *l, struct apr_err *e)
{
    struct apr_session *s = l->s;
    const size_t n_keep = l->ways->shift.n_keep;
    if (s->cache.n_pos == s->n_ctx) TRY(apr_shift_cache(&s->fwd, &s->cache, n_keep, e));
    if (!l->guide || l->other_cache.n_pos < s->n_ctx) return APR_OK;
    const size_t n_prompt = l->guide->ids.n;
    return apr_shift_cache(&s->fwd, &l->other_cache, n_keep < n_prompt ? n_keep : n_prompt, e);
}

/* A few tokens and the logits after each, for spec. */
static enum apr_code run_rows(void *ctx, const int32_t *ids, size_t n, float *logits, struct apr_err *e)
{
    struct loop *l = ctx;
    struct apr_session *s = l->s;
    size_t n_vocab = s->model->config.n_vocab;
    TRY(apr_forward_rows(&s->fwd, &s->cache, ids, n, logits, e));
    if (!l->guide) return APR_OK;
    TRY(apr_forward_rows(&s->fwd, &l->other_cache, ids, n, l->other, e));
    for (size_t i = 0; i < n; i++)
        apr_sampler_guide(logits + i * n_vocab, l->other + i * n_vocab, l->guide->scale, n_vocab);
    return APR_OK;
}

static void take_back(void *ctx, size_t n)
{
    struct loop *l = ctx;
    apr_cache_truncate(&l->s->cache, l->s->cache.n_pos - n);
    if (l->guide) apr_cache_truncate(&l->other_cache, l->other_cache.n_pos - n);
}

static bool turns_alike(const struct apr_rope_table *r, size_t n_pos, size_t n)
{
    return apr_rope_is_stable(r, n_pos + n) &&
           apr_rope_is_long(r, n_pos + 1) == apr_rope_is_long(r, n_pos + n);
}

/* How many of n tokens at n_pos .. one step may take. Where the rotation depends on the length of the
 * sequence they would get another one together than one by one. */
static size_t n_alike(const struct apr_forward *f, size_t n_pos, size_t n)
{
    while (n > 1 && !(turns_alike(&f->rope, n_pos, n) && turns_alike(&f->rope_local, n_pos, n))) n--;
    return n;
}

/* As next_logits after one token, which a step that was wider may have computed already. */
static enum apr_code next_speculated(struct loop *l, int32_t id, struct apr_err *e)
{
    const struct apr_forward *f = &l->s->fwd;
    const struct apr_spec_model m = {run_rows, take_back, l};
    size_t n_open = apr_spec_n_open(l->spec), n_free = n_room(l), n = apr_reply_n_left(l->r, n_room_ahead(l));
    if (n > n_free) n = n_free;
    if (n > APR_MAX_DRAFT + 1) n = APR_MAX_DRAFT + 1;
    n = n_alike(f, l->s->cache.n_pos - n_open, n);
    if (l->guide) n = n_alike(f, l->other_cache.n_pos - n_open, n);
    return apr_spec_next(l->spec, id, n, &m, &l->at, e);
}

/* A device can go on alone where it can choose as the sampler does. */
static enum apr_sampler_place place_of(const struct loop *l, struct apr_gpu_chain *chain)
{
    if (!l->s->fwd.offload || l->s->fwd.c.exact || l->guide || l->spec) return APR_CHOSEN_HERE;
    return apr_sampler_device(l->r->site.sampler, chain);
}

static enum apr_code run_ahead(struct loop *l, int32_t id, struct apr_err *e)
{
    struct apr_session *s = l->s;
    size_t n = l->r->opts.n_max - l->r->ids.n, n_free = s->n_ctx - s->cache.n_pos, n_stop = 0;
    int32_t stop[APR_MAX_EOS];
    uint64_t bits[APR_N_AHEAD];
    const struct apr_offload_draws draws = {&l->chain, bits};
    if (n > n_free) n = n_free;
    if (n > APR_N_AHEAD) n = APR_N_AHEAD;
    for (uint32_t i = 0; i < s->model->generation.n_eos && !l->r->opts.ignore_eos; i++)
        stop[n_stop++] = (int32_t)s->model->generation.eos_ids[i];
    l->i_ahead = 0;
    apr_sampler_bits(l->r->site.sampler, bits, n);
    return apr_offload_ahead(s->fwd.offload, &s->cache, id, n, stop, n_stop,
                             l->place == APR_CHOSEN_BY_CHAIN ? &draws : NULL, l->ahead, &l->n_ahead, e);
}

/* The tokens after id. */
static enum apr_code go_on(struct loop *l, int32_t id, struct apr_err *e)
{
    if (l->spec) return next_speculated(l, id, e);
    return l->place != APR_CHOSEN_HERE ? run_ahead(l, id, e) : next_logits(l, &id, 1, &id, 1, e);
}

/* Behind the first token, so that it does not wait for the disk. The clock of the others stands still. */
static enum apr_code save_prompt(struct loop *l, struct apr_err *e)
{
    const struct apr_prompt_cache *p = l->ways->saved;
    if (!p || p->all || l->r->ids.n != 1) return APR_OK;
    int64_t ns_start = apr_now_ns();
    enum apr_code code = apr_prompt_cache_save(p, &l->s->cache, e);
    l->r->ns_first += apr_now_ns() - ns_start;
    return code;
}

static enum apr_code decode_loop(struct loop *l, struct apr_err *e)
{
    struct apr_session *s = l->s;
    while (!l->r->is_over) {
        int32_t id;
        if (l->i_ahead < l->n_ahead) {
            id = l->ahead[l->i_ahead++];
            apr_sampler_was_chosen(l->r->site.sampler);
            TRY(apr_reply_take(l->r, id, e));
        } else {
            l->r->site.sampler->proposal = l->spec ? apr_spec_proposal(l->spec) : NULL;
            TRY(apr_reply_next(l->r, l->at, n_room_ahead(l), &id, e));
        }
        TRY(save_prompt(l, e));
        if (l->r->is_over || l->i_ahead < l->n_ahead) continue;
        if (!n_room(l) && !l->ways->shift.is_on) {
            apr_note("the context of %zu positions is full", s->n_ctx);
            break;
        }
        if (!n_room(l)) TRY(make_room(l, e));
        TRY(go_on(l, id, e));
    }
    if (l->spec) take_back(l, apr_spec_end(l->spec));
    apr_cache_truncate(&s->cache, s->cache.n_pos - (l->n_ahead - l->i_ahead));
    if (l->ways->saved && l->ways->saved->all) TRY(apr_prompt_cache_save(l->ways->saved, &s->cache, e));
    return apr_reply_end(l->r, e);
}

/* The logits after the prompt, of which what the file of ways->saved has is not computed again. */
static enum apr_code run_prompt(struct loop *l, const int32_t *ids, size_t n_ids, struct apr_err *e)
{
    struct apr_session *s = l->s;
    struct apr_prompt_cache *p = l->ways->saved;
    const struct apr_ids *guide = l->guide ? &l->guide->ids : NULL;
    apr_cache_truncate(&s->cache, 0);
    if (p) {
        TRY(apr_prompt_cache_restore(p, &s->cache, ids, n_ids, e));
        l->r->n_reused = p->n_reused;
        apr_note("%s: %zu of %zu prompt tokens reused", p->path, p->n_reused, n_ids);
    }
    size_t i = l->r->n_reused;
    return next_logits(l, ids + i, n_ids - i, guide ? guide->at : NULL, guide ? guide->n : 0, e);
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
        size_t n_rows = l->spec ? l->spec->pace.n_max + 1 : 1;
        TRY(apr_arena_try(arena, &l->other, n_rows * s->model->config.n_vocab, sizeof *l->other, "logits",
                          e));
        apr_blocks_allow(&s->blocks, s->n_ctx);
        TRY(apr_cache_init(&l->other_cache, &s->blocks, s->n_ctx, e));
    }
    l->place = place_of(l, &l->chain);
    TRY(apr_reply_prompt(l->r, ids, n_ids, e));
    if (l->spec) TRY(apr_spec_begin(l->spec, ids, n_ids, e));
    TRY(run_prompt(l, ids, n_ids, e));
    return decode_loop(l, e);
}

enum apr_code apr_generate(struct apr_session *s, struct apr_reply *r, const int32_t *ids, size_t n_ids,
                           const struct apr_ways *ways, struct apr_err *e)
{
    struct loop l = {.s = s, .r = r, .ways = ways, .guide = ways->guide, .spec = ways->spec};
    struct apr_arena arena;
    apr_arena_init(&arena);
    enum apr_code code = run_loop(&l, ids, n_ids, &arena, e);
    apr_cache_free(&l.other_cache);
    apr_arena_free(&arena);
    return code;
}

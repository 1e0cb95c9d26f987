/* Steps of a crew on the forward pass. */
#include "crew_engine.h"

#include "ckd.h"
#include "room.h"

#define KEPT_PART 16 /* of the free memory, for beginnings of prompts that nobody uses now */

static enum apr_code open_cache(void *ctx, struct apr_cache *cache, const int32_t *ids, size_t n,
                                struct apr_err *e)
{
    struct apr_crew_engine *ce = ctx;
    TRY(apr_cache_init(cache, &ce->s->blocks, ce->s->n_ctx, e));
    return ce->engine.keep ? apr_prefixes_begin(&ce->prefixes, cache, ids, n, e) : APR_OK;
}

/* What the pool holds beside the needs of those who run is bounded, so that a long batch does not fill the
 * memory. */
static enum apr_code keep_prompt(void *ctx, struct apr_cache *cache, size_t n_need, struct apr_err *e)
{
    struct apr_crew_engine *ce = ctx;
    const struct apr_blocks *b = &ce->s->blocks;
    size_t n_most = (n_need + ce->n_kept) / APR_PAGE_POS + ce->n_seats;
    TRY(apr_prefixes_add(&ce->prefixes, cache, e));
    if (ce->saved) TRY(apr_prompt_cache_save(ce->saved, cache, e));
    ce->saved = NULL;
    for (enum apr_cache_group g = 0; g < APR_CACHE_GROUPS; g++)
        while (b->groups[g].n_used > n_most && b->reclaim(b->reclaim_ctx, g)) continue;
    return APR_OK;
}

static void close_cache(void *ctx, struct apr_cache *cache)
{
    (void)ctx;
    apr_cache_free(cache);
}

static enum apr_code step(void *ctx, struct apr_turn *turns, size_t n_turns, struct apr_err *e)
{
    struct apr_crew_engine *ce = ctx;
    struct apr_forward *f = &ce->s->fwd;
    size_t i_row = 0, n_rows = 0, n_vocab = ce->engine.n_vocab;
    for (size_t i = 0; i < n_turns; i++) {
        const struct apr_turn *t = &turns[i];
        ce->parts[i] = (struct apr_part){.cache = t->cache, .ids = t->ids, .n = t->n, .n_later = t->n_later};
        i_row += t->n;
        if (t->wants_logits) ce->rows[n_rows++] = i_row - 1;
    }
    TRY(apr_forward_step(f, ce->parts, n_turns, e));
    if (!n_rows) return APR_OK;
    const bool is_kept = f->offload; /* not copied once more */
    if (!is_kept) TRY(apr_forward_logits_of(f, ce->rows, n_rows, ce->logits, e));
    for (size_t i = 0, k = 0; i < n_turns; i++) {
        struct apr_turn *t = &turns[i];
        if (!t->wants_logits) continue;
        t->logits = is_kept ? apr_forward_kept(f, ce->rows[k]) : ce->logits + k * n_vocab;
        t->code = apr_forward_check(f, ce->rows[k], k, t->logits, &t->err);
        k++;
    }
    return APR_OK;
}

/* On a device. Where that cannot, it is not asked again. */
static enum apr_code go_on(void *ctx, const struct apr_turn *turns, size_t n_turns, size_t n, int32_t *out,
                           size_t *n_out, struct apr_err *e)
{
    struct apr_crew_engine *ce = ctx;
    for (size_t i = 0; i < n_turns; i++) {
        ce->parts[i] = (struct apr_part){.cache = turns[i].cache, .ids = turns[i].ids, .n = 1};
        ce->draws[i] = (struct apr_offload_draws){turns[i].chain, turns[i].bits};
    }
    enum apr_code code =
        apr_offload_ahead_rows(ce->s->fwd.offload, ce->parts, ce->draws, n_turns, n, out, n_out, e);
    if (code == APR_EUNAVAIL) ce->engine.go_on = NULL;
    return code;
}

/* Positions that so much memory holds: blocks are made as sequences grow, so no more is taken than is used.
 */
static size_t positions_in(const struct apr_session *s, uint64_t n_bytes)
{
    uint64_t n_pos_bytes = apr_cache_bytes(&s->cache, APR_PAGE_POS) / APR_PAGE_POS;
    uint64_t n = n_bytes && n_pos_bytes ? n_bytes / n_pos_bytes : SIZE_MAX;
    return n < SIZE_MAX ? (size_t)n : SIZE_MAX;
}

static size_t positions_of(const struct apr_session *s, size_t n_seats)
{
    size_t n_all, n_fit = positions_in(s, apr_memory_available() / 2);
    if (s->fwd.offload || ckd_mul(&n_all, n_seats, s->n_ctx)) return s->n_ctx;
    size_t n = n_fit < n_all ? n_fit : n_all;
    return n > s->n_ctx ? n : s->n_ctx;
}

enum apr_code apr_crew_engine_open(struct apr_crew_engine *ce, struct apr_session *s, size_t n_seats,
                                   struct apr_err *e)
{
    size_t n_positions = positions_of(s, n_seats);
    size_t n_kept = positions_in(s, apr_memory_available() / KEPT_PART);
    *ce = (struct apr_crew_engine){.s = s, .n_seats = n_seats};
    ce->n_kept = n_kept < s->n_ctx ? n_kept : s->n_ctx;
    if (!s->fwd.offload) apr_prefixes_init(&ce->prefixes, &s->fwd, &s->blocks);
    apr_arena_init(&ce->arena);
    TRY(apr_arena_try(&ce->arena, &ce->parts, n_seats, sizeof *ce->parts, "sequences", e));
    TRY(apr_arena_try(&ce->arena, &ce->draws, n_seats, sizeof *ce->draws, "sequences", e));
    TRY(apr_arena_try(&ce->arena, &ce->rows, n_seats, sizeof *ce->rows, "sequences", e));
    if (!s->fwd.offload)
        TRY(apr_arena_try(&ce->arena, &ce->logits, n_seats, s->model->config.n_vocab * sizeof *ce->logits,
                          "logits", e));
    apr_blocks_allow(&s->blocks, n_positions + n_seats * APR_PAGE_POS); /* each sequence takes whole blocks */
    ce->engine = (struct apr_engine){
        .ctx = ce,
        .n_batch = s->fwd.n_batch,
        .n_vocab = s->model->config.n_vocab,
        .n_ctx = s->n_ctx,
        .n_positions = n_positions,
        .pool = s->pool,
        .open = open_cache,
        .close = close_cache,
        .keep = s->fwd.offload ? NULL : keep_prompt,
        .step = step,
        .go_on = s->fwd.offload && !s->fwd.c.exact ? go_on : NULL,
        .n_ahead = APR_N_AHEAD,
        .recovers = s->fwd.offload != NULL,
    };
    return APR_OK;
}

enum apr_code apr_crew_engine_recall(struct apr_crew_engine *ce, struct apr_prompt_cache *p,
                                     struct apr_err *e)
{
    struct apr_session *s = ce->s;
    struct apr_cache cache = {0};
    if (!p->src) return ce->saved = p, APR_OK;
    enum apr_code code = apr_cache_init(&cache, &s->blocks, s->n_ctx, e);
    if (code == APR_OK) code = apr_prompt_cache_restore_all(p, &cache, s->model->config.n_vocab, e);
    if (code == APR_OK && cache.n_pos) code = apr_prefixes_add(&ce->prefixes, &cache, e);
    apr_cache_free(&cache);
    return code;
}

void apr_crew_engine_close(struct apr_crew_engine *ce)
{
    apr_prefixes_free(&ce->prefixes);
    apr_arena_free(&ce->arena);
    *ce = (struct apr_crew_engine){0};
}

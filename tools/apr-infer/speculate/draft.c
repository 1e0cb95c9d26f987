/* The draft's own sequence, sampler and cache. */
#include "draft.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pace.h"

#define SEED_TURN 0x9e3779b97f4a7c15u /* the draft's chance is not the text's */

static bool is_padding(const struct apr_vocab *v, uint32_t id)
{
    return v->types && v->types[id] == APR_TOK_UNUSED;
}

/* Where both have a token it is the same one; where only one has it, it is padding of the embedding. */
static bool same_token(const struct apr_vocab *a, const struct apr_vocab *b, uint32_t id)
{
    if (id >= a->n_toks || id >= b->n_toks) return is_padding(id < a->n_toks ? a : b, id);
    if (is_padding(a, id) && is_padding(b, id)) return true;
    return a->toks[id].n_bytes == b->toks[id].n_bytes &&
           !memcmp(a->toks[id].p, b->toks[id].p, a->toks[id].n_bytes);
}

static struct apr_str text_of(const struct apr_vocab *v, uint32_t id)
{
    static const char none[] = "(no token)";
    return id < v->n_toks ? v->toks[id] : (struct apr_str){none, sizeof none - 1};
}

enum apr_code apr_draft_check_vocab(const struct apr_vocab *target, const struct apr_vocab *draft,
                                    const char *path, struct apr_err *e)
{
    uint32_t n = target->n_toks > draft->n_toks ? target->n_toks : draft->n_toks;
    if (target->kind == APR_VOCAB_NONE || draft->kind == APR_VOCAB_NONE)
        return apr_fail(e, APR_ELOAD,
                        "--draft %s: both models need a tokenizer, to see that theirs is the same", path);
    if (target->kind != draft->kind)
        return apr_fail(e, APR_ELOAD, "--draft %s: its tokenizer is of another kind than the model's", path);
    for (uint32_t id = 0; id < n; id++) {
        if (same_token(target, draft, id)) continue;
        struct apr_str want = text_of(target, id), got = text_of(draft, id);
        return apr_fail(e, APR_ELOAD,
                        "--draft %s: token %" PRIu32
                        " is \"%.*s\", expected \"%.*s\" as in the model: not the "
                        "same vocabulary",
                        path, id, got.n_bytes < 40 ? (int)got.n_bytes : 40, got.p,
                        want.n_bytes < 40 ? (int)want.n_bytes : 40, want.p);
    }
    return APR_OK;
}

/* The chain without the steps that look back at the text or roll dice of their own; sampling from more than
 * APR_DRAFT_TOP tokens would only add guesses that are never right. */
static void choose_steps(const struct apr_sample_opts *sample, struct apr_sample_opts *o)
{
    apr_sample_defaults(o);
    o->temperature = sample->temperature > 0 ? sample->temperature : 1;
    o->logit_bias = sample->logit_bias;
    o->seed = sample->seed ^ SEED_TURN;
    o->top_k = APR_DRAFT_TOP;
    if (sample->temperature <= 0) return;
    if (sample->top_k > 0 && sample->top_k < o->top_k) o->top_k = sample->top_k;
    o->top_p = sample->top_p;
    o->min_p = sample->min_p;
    o->typical_p = sample->typical_p;
}

static enum apr_code open_sampler(struct apr_draft *d, const struct apr_sample_opts *sample,
                                  struct apr_err *e)
{
    const struct apr_session *s = &d->s;
    size_t n_vocab = s->model->config.n_vocab;
    const struct apr_sampler_site site = {n_vocab, s->n_ctx, s->kern, s->tok};
    struct apr_sample_opts o;
    choose_steps(sample, &o);
    d->is_greedy = sample->temperature <= 0;
    TRY(apr_sampler_init(&d->sampler, &o, &site, &d->arena, e));
    TRY(apr_arena_try(&d->arena, &d->logits, n_vocab, sizeof *d->logits, "logits of the draft", e));
    return apr_arena_try(&d->arena, &d->q, (size_t)APR_MAX_DRAFT * APR_DRAFT_TOP, sizeof *d->q,
                         "guesses of the draft", e);
}

/* Its tokens must be the target's too: an id beyond the target's rows could not be verified. */
static enum apr_code check(const struct apr_draft *d, const char *path, const struct apr_session *target,
                           struct apr_err *e)
{
    const struct apr_model *m = d->s.model;
    TRY(apr_draft_check_vocab(&target->model->vocab, &m->vocab, path, e));
    if (d->s.n_ctx < target->n_ctx)
        apr_note("--draft %s: it has %zu positions, the model %zu; beyond these it is not asked", path,
                 d->s.n_ctx, target->n_ctx);
    return APR_OK;
}

enum apr_code apr_draft_open(struct apr_draft *d, const char *path, const struct apr_engine_opts *engine,
                             const struct apr_session *target, const struct apr_sample_opts *sample,
                             const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_engine_opts o = *engine;
    struct apr_session none = {0};
    *d = (struct apr_draft){.s = none};
    apr_arena_init(&d->arena);
    o.runs = APR_RUNS_TEXT;
    o.pool = target->pool;
    o.pre = NULL;
    o.n_ctx = 0;
    o.cache = (struct apr_cache_opts){0};
    TRY(apr_session_open(&d->s, path, &o, ctx, e));
    d->n_vocab = target->model->config.n_vocab;
    d->cost = (double)d->s.model->header.n_data_bytes / (double)target->model->header.n_data_bytes;
    enum apr_code code = check(d, path, target, e);
    if (code == APR_OK) code = open_sampler(d, sample, e);
    if (code != APR_OK) apr_draft_close(d);
    return code;
}

void apr_draft_close(struct apr_draft *d)
{
    if (d->s.model) apr_session_close(&d->s);
    apr_ids_free(&d->past);
    apr_arena_free(&d->arena);
}

/* The cache keeps what is the text's; ids[0 .. n) is the text, of which at least one token is left to run. */
static void keep_common(struct apr_draft *d, const int32_t *ids, size_t n)
{
    size_t i = d->n_sure < d->past.n ? d->n_sure : d->past.n;
    while (i < d->past.n && i + 1 < n && d->past.at[i] == ids[i]) i++;
    if (i >= n) i = n - 1;
    d->past.n = i;
    d->n_sure = i;
    apr_cache_truncate(&d->s.cache, i);
}

static enum apr_code feed(struct apr_draft *d, const int32_t *ids, size_t n, struct apr_err *e)
{
    TRY(apr_forward_prompt(&d->s.fwd, &d->s.cache, ids, n, e));
    return apr_ids_push_all(&d->past, ids, n, e);
}

enum apr_code apr_draft_begin(struct apr_draft *d, const int32_t *ids, size_t n, struct apr_err *e)
{
    apr_rng_seed(&d->sampler.rng, d->sampler.opts.seed);
    d->past.n = d->n_sure = 0;
    apr_cache_truncate(&d->s.cache, 0);
    if (n > d->s.n_ctx) return APR_OK;
    TRY(feed(d, ids, n, e));
    d->n_sure = n;
    return APR_OK;
}

static int by_id(const void *a_, const void *b_)
{
    const struct apr_cand *a = a_, *b = b_;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* One guess from the logits; none where the draft is not sure enough. */
static enum apr_code guess(struct apr_draft *d, double p_min, struct apr_cand *q, struct apr_proposal *x,
                           bool *is_sure, struct apr_err *e)
{
    struct apr_cands *c = &d->sampler.c;
    size_t n_vocab = d->s.model->config.n_vocab;
    for (size_t i = d->n_vocab; i < n_vocab; i++) d->logits[i] = -INFINITY; /* rows that the target lacks */
    apr_rng_step(&d->sampler.rng);
    TRY(apr_sampler_chain(&d->sampler, d->logits, e));
    apr_cands_first(c, APR_DRAFT_TOP);
    apr_cands_probs(c);
    *is_sure = c->at[0].p >= p_min;
    *x = (struct apr_proposal){.id = c->at[0].id};
    if (d->is_greedy || !*is_sure) return APR_OK;
    size_t n = c->n, at = 0;
    double u = apr_rng_uniform(&d->sampler.rng, APR_RNG_DRAW), run = c->at[0].p;
    while (at + 1 < n && u >= run) run += c->at[++at].p;
    x->id = c->at[at].id;
    for (size_t i = 0; i < n; i++)
        if (c->at[i].p > 0) q[x->n_q++] = c->at[i];
    qsort(q, x->n_q, sizeof *q, by_id);
    x->q = q;
    return APR_OK;
}

static bool is_end(const struct apr_draft *d, int32_t id)
{
    const struct apr_generation *g = &d->s.model->generation;
    for (uint32_t i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] == id) return true;
    return false;
}

enum apr_code apr_draft_guess(struct apr_draft *d, const int32_t *ids, size_t n, size_t n_most, double p_min,
                              int32_t *out, struct apr_proposal *proposals, size_t *n_out, struct apr_err *e)
{
    bool is_sure;
    *n_out = 0;
    if (!n || n > d->s.n_ctx) return APR_OK;
    if (n_most > d->s.n_ctx - n + 1) n_most = d->s.n_ctx - n + 1;
    if (n_most > APR_MAX_DRAFT) n_most = APR_MAX_DRAFT;
    keep_common(d, ids, n);
    TRY(feed(d, ids + d->past.n, n - d->past.n, e));
    d->n_sure = n;
    while (*n_out < n_most) {
        size_t i = *n_out;
        TRY(apr_forward_logits(&d->s.fwd, d->s.fwd.n_toks - 1, 1, d->logits, e));
        TRY(guess(d, p_min, d->q + i * APR_DRAFT_TOP, &proposals[i], &is_sure, e));
        if (!is_sure) break;
        out[i] = proposals[i].id;
        ++*n_out;
        if (*n_out == n_most || is_end(d, out[i])) break;
        TRY(feed(d, &out[i], 1, e));
    }
    return APR_OK;
}

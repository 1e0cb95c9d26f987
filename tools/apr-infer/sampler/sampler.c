/* Running the chain. */
#include "sampler.h"

#include <math.h>
#include <string.h>

#include "bias.h"
#include "step.h"

static const char *breaker_texts[] = {"\n", ":", "\"", "*"}; /* as the author of DRY chose them */
static const struct apr_strs default_breakers = {breaker_texts, 4};

static size_t window(int64_t last_n, size_t n_ctx)
{
    return last_n < 0 || (uint64_t)last_n > n_ctx ? n_ctx : (size_t)last_n;
}

/* How many tokens the steps in use look back at. */
static size_t history_toks(const struct apr_sampler *s)
{
    size_t n = 0, n_ctx = s->site.n_ctx;
    for (size_t i = 0; i < s->n_steps; i++) {
        int64_t last_n = s->steps[i] == &apr_step_penalties ? s->opts.repeat_last_n
                         : s->steps[i] == &apr_step_dry     ? s->opts.dry_last_n
                                                            : 0;
        if (window(last_n, n_ctx) > n) n = window(last_n, n_ctx);
    }
    return n;
}

enum apr_code apr_sampler_init(struct apr_sampler *s, const struct apr_sample_opts *o,
                               const struct apr_sampler_site *site, struct apr_arena *arena,
                               struct apr_err *e)
{
    *s = (struct apr_sampler){.opts = *o, .site = *site, .mu = 2 * o->mirostat_tau};
    apr_rng_seed(&s->rng, o->seed);
    TRY(apr_bias_parse(&o->logit_bias, site->tok, site->n_vocab, arena, &s->bias, &s->n_bias, e));
    TRY(apr_cands_init(&s->c, site->n_vocab, site->kern, arena, e));
    if (o->temperature <= 0) return APR_OK;
    TRY(apr_steps_of(o, s->steps, &s->n_steps, e));
    const struct apr_strs *breakers = o->dry_breakers.n ? &s->opts.dry_breakers : &default_breakers;
    bool dry = false;
    for (size_t i = 0; i < s->n_steps; i++) dry |= s->steps[i] == &apr_step_dry;
    return apr_history_init(&s->past, history_toks(s), site->n_vocab, dry ? site->tok : NULL, breakers, arena,
                            e);
}

enum apr_code apr_sampler_accept(struct apr_sampler *s, int32_t id, struct apr_err *e)
{
    return apr_history_add(&s->past, id, e);
}

/* The logits of this token with what stands outside the chain. */
static enum apr_code begin(struct apr_sampler *s, const float *logits, bool masked, struct apr_err *e)
{
    size_t i_max;
    apr_cands_begin(&s->c, logits);
    for (size_t i = 0; i < s->n_bias; i++) s->c.logits[s->bias[i].id] += s->bias[i].v;
    if (masked) TRY(apr_limit_mask(s->limit, s->c.logits, e));
    float max = s->site.kern->max(s->c.logits, s->site.n_vocab, &i_max);
    if (isnan(max)) return apr_fail(e, APR_EINFER, "a logit is NaN");
    if (max > FLT_MAX) return apr_fail(e, APR_EINFER, "logit %zu is infinite", i_max);
    if (max < -FLT_MAX) return apr_fail(e, APR_EINFER, "no token is left to choose from");
    return APR_OK;
}

static void run_steps(struct apr_sampler *s)
{
    for (size_t i = 0; i < s->n_steps; i++) s->steps[i]->apply(s);
}

static void run_chain(struct apr_sampler *s)
{
    run_steps(s);
    apr_cands_probs(&s->c);
}

static size_t draw(const struct apr_sampler *s, enum apr_rng_use use)
{
    const struct apr_cands *c = &s->c;
    double sum = 0, run = 0;
    size_t last = 0;
    for (size_t i = 0; i < c->n; i++) sum += c->at[i].p;
    double u = apr_rng_uniform(&s->rng, use) * sum;
    for (size_t i = 0; i < c->n; i++) {
        if (c->at[i].p <= 0) continue;
        last = i;
        run += c->at[i].p;
        if (u < run) break;
    }
    return last;
}

enum apr_code apr_sampler_chain(struct apr_sampler *s, const float *logits, struct apr_err *e)
{
    TRY(begin(s, logits, false, e));
    run_chain(s);
    return APR_OK;
}

/* *p: the probability among the candidates that the chain left. */
static enum apr_code choose(struct apr_sampler *s, const float *logits, bool masked, int32_t *id, double *p,
                            struct apr_err *e)
{
    TRY(begin(s, logits, masked, e));
    if (s->opts.temperature <= 0) {
        size_t i_max;
        s->site.kern->max(s->c.logits, s->site.n_vocab, &i_max);
        *id = (int32_t)i_max;
        *p = 1;
        return APR_OK;
    }
    const enum apr_rng_use use = masked ? APR_RNG_REDRAW : APR_RNG_DRAW;
    run_steps(s);
    if (apr_cands_draw_all(&s->c, apr_rng_uniform(&s->rng, use), id, p)) return APR_OK;
    apr_cands_probs(&s->c);
    const struct apr_cand *c = &s->c.at[draw(s, use)];
    *id = c->id;
    *p = c->p;
    return APR_OK;
}

/* As choose, and again where the grammar refuses what was chosen. */
static enum apr_code choose_allowed(struct apr_sampler *s, const float *logits, int32_t *id, double *p,
                                    struct apr_err *e)
{
    TRY(choose(s, logits, false, id, p, e));
    if (!s->limit || apr_limit_allows(s->limit, *id)) return APR_OK;
    return choose(s, logits, true, id, p, e);
}

/* Where a token drawn freely would break the grammar, the next one comes from the chain over those that may
 * come; else from the free chain, given that it is allowed. Which of the two does not depend on what was
 * proposed, so the token is judged against the one that it is. Returns whether the free chain counts; those
 * of its candidates that may not come have weight 0 then, which keeps the others' probabilities. */
static enum apr_code choose_branch(struct apr_sampler *s, bool *is_free, struct apr_err *e)
{
    double sum = 0, allowed = 0;
    TRY(apr_limit_ask(s->limit, e));
    for (size_t i = 0; i < s->c.n; i++) {
        struct apr_cand *c = &s->c.at[i];
        sum += c->p;
        if (apr_limit_bit(s->limit, c->id))
            allowed += c->p;
        else
            c->p = 0;
    }
    *is_free = apr_rng_uniform(&s->rng, APR_RNG_BRANCH) * sum < allowed;
    return APR_OK;
}

/* The next token given a proposal: distributed as choose_allowed's. */
static enum apr_code judge(struct apr_sampler *s, const float *logits, int32_t *id, double *p,
                           struct apr_err *e)
{
    bool is_free = true;
    TRY(begin(s, logits, false, e));
    run_chain(s);
    if (s->limit) TRY(choose_branch(s, &is_free, e));
    if (!is_free) {
        TRY(begin(s, logits, true, e));
        run_chain(s);
    }
    const struct apr_cand *c =
        &s->c.at[apr_judge(s->c.at, s->c.n, s->proposal, apr_rng_uniform(&s->rng, APR_RNG_ACCEPT),
                           apr_rng_uniform(&s->rng, APR_RNG_DRAW))];
    *id = c->id;
    *p = c->p;
    return APR_OK;
}

enum apr_code apr_sampler_next(struct apr_sampler *s, const float *logits, int32_t *id, struct apr_err *e)
{
    double p;
    bool is_judged = s->proposal && s->proposal->q && s->opts.temperature > 0;
    apr_rng_step(&s->rng);
    TRY(is_judged ? judge(s, logits, id, &p, e) : choose_allowed(s, logits, id, &p, e));
    if (s->limit) TRY(apr_limit_take(s->limit, *id, e));
    for (size_t i = 0; i < s->n_steps; i++)
        if (s->steps[i]->drawn) s->steps[i]->drawn(s, p);
    return APR_OK;
}

static void report_step(const struct apr_sampler *s, const char *step, struct apr_out *o)
{
    size_t n;
    const struct apr_sample_param *p = apr_sample_params(&n);
    apr_out_obj(o, NULL);
    apr_out_str(o, "step", step);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(p[i].step, step) != 0) continue;
        double v = apr_sample_get(&s->opts, &p[i]);
        if (p[i].is_int)
            apr_out_i64(o, p[i].field, (int64_t)v);
        else
            apr_out_f64(o, p[i].field, v);
    }
    apr_out_end(o);
}

void apr_sampler_report(const struct apr_sampler *s, struct apr_out *o)
{
    apr_out_obj(o, "sampling");
    apr_out_bool(o, "greedy", s->opts.temperature <= 0);
    apr_out_u64(o, "seed", s->opts.seed);
    apr_out_arr(o, "chain");
    for (size_t i = 0; i < s->n_steps; i++) report_step(s, s->steps[i]->name, o);
    apr_out_end(o);
    apr_out_arr(o, "logit_bias");
    for (size_t i = 0; i < s->n_bias; i++) {
        apr_out_obj(o, NULL);
        apr_out_i64(o, "id", s->bias[i].id);
        apr_out_f64(o, "bias", (double)s->bias[i].v);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_end(o);
}

void apr_sampler_guide(float *logits, const float *other, double scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        logits[i] = (float)((double)other[i] + scale * ((double)logits[i] - (double)other[i]));
}

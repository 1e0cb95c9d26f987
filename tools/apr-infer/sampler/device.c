/* The steps that a device has, and the numbers that it wants of each. */
#include "device.h"

#include <math.h>
#include <string.h>

#include "step.h"

#define LEAST_T 0x1p-64 /* of a temperature before top_k: no logit becomes infinite by it */

struct device_step {
    const struct apr_step *step;
    enum apr_gpu_pick_kind kind;
    bool sorts, unsorts; /* the candidates that it leaves are in order of their logits, or are not */
    bool needs_order;
    void (*values)(const struct apr_sample_opts *o, double v[3]);
};

static void of_top_p(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->top_p;
}
static void of_min_p(const struct apr_sample_opts *o, double v[3])
{
    v[0] = log(o->min_p);
}
static void of_typical(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->typical_p;
}
static void of_tail_free(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->tail_free;
}
static void of_top_n_sigma(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->top_n_sigma;
}
static void of_eta(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->eta_cutoff;
}
static void of_epsilon(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->epsilon_cutoff;
}
static void of_xtc(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->xtc_probability;
    v[1] = o->xtc_threshold;
}
static void of_temperature(const struct apr_sample_opts *o, double v[3])
{
    v[0] = o->temperature;
    v[1] = o->dynatemp_range;
    v[2] = o->dynatemp_exponent;
}

static const struct device_step device_steps[] = {
    {&apr_step_top_p, APR_GPU_PICK_TOP_P, true, false, false, of_top_p},
    {&apr_step_min_p, APR_GPU_PICK_MIN_P, false, false, false, of_min_p},
    {&apr_step_typical, APR_GPU_PICK_TYPICAL, false, true, false, of_typical},
    {&apr_step_tail_free, APR_GPU_PICK_TAIL_FREE, true, false, false, of_tail_free},
    {&apr_step_top_n_sigma, APR_GPU_PICK_TOP_N_SIGMA, false, false, false, of_top_n_sigma},
    {&apr_step_eta, APR_GPU_PICK_ETA, false, false, false, of_eta},
    {&apr_step_epsilon, APR_GPU_PICK_EPSILON, false, false, false, of_epsilon},
    {&apr_step_xtc, APR_GPU_PICK_XTC, false, false, true, of_xtc},
    {&apr_step_temperature, APR_GPU_PICK_TEMPERATURE, false, false, false, of_temperature},
};

static const struct device_step *find(const struct apr_step *step)
{
    for (size_t i = 0; i < sizeof device_steps / sizeof *device_steps; i++)
        if (device_steps[i].step == step) return &device_steps[i];
    return NULL;
}

/* Before top_k: nothing, or one temperature for all, which may be the whole chain. */
static bool begins_well(const struct apr_sampler *s, size_t *i, struct apr_gpu_chain *c)
{
    const struct apr_sample_opts *o = &s->opts;
    *i = 0;
    c->t_before = 1;
    if (s->n_steps && s->steps[0] == &apr_step_temperature) {
        if (o->dynatemp_range > 0 || o->temperature < LEAST_T) return false;
        c->t_before = (float)o->temperature;
        ++*i;
    }
    if (*i == s->n_steps) return s->site.n_vocab >= APR_CANDS_MANY && s->site.n_vocab <= APR_CANDS_MOST;
    if (s->steps[*i] != &apr_step_top_k) return false;
    ++*i;
    c->top_k = (uint32_t)o->top_k;
    return o->top_k <= APR_GPU_TOP_K;
}

static bool chain_of(const struct apr_sampler *s, struct apr_gpu_chain *c)
{
    bool in_order = true;
    size_t i;
    memset(c, 0, sizeof *c); /* padding, too: the same chain is the same bytes */
    if (!begins_well(s, &i, c)) return false;
    for (; i < s->n_steps; i++) {
        const struct device_step *d = find(s->steps[i]);
        if (!d || c->n_picks == APR_GPU_PICKS || (d->needs_order && !in_order)) return false;
        struct apr_gpu_pick *p = &c->picks[c->n_picks++];
        p->kind = d->kind;
        if (d->kind == APR_GPU_PICK_TEMPERATURE && s->opts.dynatemp_range > 0)
            p->kind = APR_GPU_PICK_DYNATEMP;
        d->values(&s->opts, p->v);
        in_order = (in_order && !d->unsorts) || d->sorts;
    }
    return true;
}

enum apr_sampler_place apr_sampler_device(const struct apr_sampler *s, struct apr_gpu_chain *chain)
{
    if (s->n_bias || s->limit) return APR_CHOSEN_HERE;
    if (s->opts.temperature <= 0) return APR_CHOSEN_GREEDILY;
    return chain_of(s, chain) ? APR_CHOSEN_BY_CHAIN : APR_CHOSEN_HERE;
}

void apr_sampler_bits(const struct apr_sampler *s, uint64_t *bits, size_t n)
{
    struct apr_rng r = s->rng;
    for (size_t i = 0; i < n; i++) {
        apr_rng_step(&r);
        bits[i] = r.bits;
    }
}

void apr_sampler_was_chosen(struct apr_sampler *s)
{
    apr_rng_step(&s->rng);
}

/* xtc (exclude top choices): with probability P, of the tokens with p >= threshold only the least likely one
 * stays, where there are two or more of them. P. E. Weidmann, 2024 (text-generation-webui, pull request
 * 6335). */
#include "step.h"

static bool is_active(const struct apr_sample_opts *o)
{
    return o->xtc_probability > 0 && o->xtc_threshold <= 0.5; /* above, no two tokens can reach it */
}

static void apply(struct apr_sampler *s)
{
    struct apr_cands *c = &s->c;
    if (apr_rng_uniform(&s->rng, APR_RNG_XTC) >= s->opts.xtc_probability) return;
    apr_cands_probs(c);
    apr_cands_sort(c, 1);
    size_t n_top = 0;
    for (size_t k = 64; n_top < c->n; k *= 8) { /* at most 1 / threshold tokens reach it */
        apr_cands_sort(c, k);
        while (n_top < c->n && n_top < k && c->at[n_top].p >= s->opts.xtc_threshold) n_top++;
        if (n_top < k) break;
    }
    if (n_top < 2) return;
    size_t n_sorted = c->n_sorted;
    for (size_t i = n_top - 1; i < c->n; i++) c->at[i - (n_top - 1)] = c->at[i];
    apr_cands_cut(c, c->n - (n_top - 1));
    c->n_sorted = n_sorted - (n_top - 1);
    c->has_where = false;
}

const struct apr_step apr_step_xtc = {
    .name = "xtc", .needs = "--xtc-probability", .active = is_active, .apply = apply};

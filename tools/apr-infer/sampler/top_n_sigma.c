/* top_n_sigma: logits within N standard deviations (of all logits) below the largest. Tang et al.,
 * Top-n-sigma: Not All Logits Are You Need, 2024. */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->top_n_sigma > 0;
}

static inline double logit(const struct apr_cands *c, size_t i)
{
    return (double)(c->is_list ? c->at[i].logit : c->logits[i]);
}

static void apply(struct apr_sampler *s)
{
    struct apr_cands *c = &s->c;
    size_t n_all = apr_cands_n(c), n = 0;
    double max = (double)apr_cands_max(c), sum = 0, sum_sq = 0;
    for (size_t i = 0; i < n_all; i++) {
        double below = logit(c, i) - max; /* relative to the largest, so that squares do not cancel */
        if (isinf(below)) continue;
        n++;
        sum += below;
        sum_sq += below * below;
    }
    double mean = sum / (double)n, variance = fmax(0, sum_sq / (double)n - mean * mean);
    apr_cands_at_least(c, max - s->opts.top_n_sigma * sqrt(variance));
}

const struct apr_step apr_step_top_n_sigma = {
    .name = "top_n_sigma", .needs = "--top-n-sigma", .active = is_active, .apply = apply};

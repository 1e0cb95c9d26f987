/* eta: tokens with p >= min(E, sqrt(E) * exp(-H)), H the entropy in nats; the likeliest in any case. Hewitt
 * et al., Truncation Sampling as Language Model Desmoothing, 2022. */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->eta_cutoff > 0;
}

static void apply(struct apr_sampler *s)
{
    double eps = s->opts.eta_cutoff;
    apr_cands_probs(&s->c);
    apr_cands_likely(&s->c, fmin(eps, sqrt(eps) * exp(-apr_cands_entropy(&s->c))));
}

const struct apr_step apr_step_eta = {
    .name = "eta", .needs = "--eta-cutoff", .active = is_active, .apply = apply};

/* epsilon: tokens with p >= E; the likeliest in any case. Hewitt et al., Truncation Sampling as Language
 * Model Desmoothing, 2022. */
#include "step.h"

static bool is_active(const struct apr_sample_opts *o)
{
    return o->epsilon_cutoff > 0;
}

static void apply(struct apr_sampler *s)
{
    apr_cands_probs(&s->c);
    apr_cands_likely(&s->c, s->opts.epsilon_cutoff);
}

const struct apr_step apr_step_epsilon = {
    .name = "epsilon", .needs = "--epsilon-cutoff", .active = is_active, .apply = apply};

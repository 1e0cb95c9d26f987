/* min_p: tokens with p >= P * p_max. Nguyen et al., Turning Up the Heat: Min-p Sampling for Creative and
 * Coherent LLM Outputs, 2024. On logits that is logit >= max + ln P. */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->min_p > 0;
}

static void apply(struct apr_sampler *s)
{
    apr_cands_at_least(&s->c, (double)apr_cands_max(&s->c) + log(s->opts.min_p));
}

const struct apr_step apr_step_min_p = {
    .name = "min_p", .needs = "--min-p", .active = is_active, .apply = apply};

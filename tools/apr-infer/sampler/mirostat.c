/* mirostat: version 2. Tokens more surprising than mu bits are dropped (the likeliest stays); after the draw
 * mu moves so that the surprise of the text settles at tau: mu -= eta * (surprise - tau), from mu = 2 tau.
 * Basu et al., Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity, 2021. */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->mirostat_tau >= 0;
}

static void apply(struct apr_sampler *s)
{
    apr_cands_probs(&s->c);
    apr_cands_likely(&s->c, exp2(-s->mu)); /* -log2 p <= mu */
}

static void drawn(struct apr_sampler *s, double p)
{
    s->mu -= s->opts.mirostat_eta * (-log2(p) - s->opts.mirostat_tau);
}

const struct apr_step apr_step_mirostat = {.name = "mirostat",
                                           .needs = "--mirostat 2",
                                           .not_in_default = true,
                                           .is_last = true,
                                           .active = is_active,
                                           .apply = apply,
                                           .drawn = drawn};

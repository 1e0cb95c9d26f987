/* top_k: the K likeliest tokens. Fan et al., Hierarchical Neural Story Generation, 2018. */
#include "step.h"

static bool is_active(const struct apr_sample_opts *o)
{
    return o->top_k > 0;
}

static void apply(struct apr_sampler *s)
{
    apr_cands_first(&s->c, (size_t)s->opts.top_k);
}

const struct apr_step apr_step_top_k = {
    .name = "top_k", .needs = "--top-k", .active = is_active, .apply = apply};

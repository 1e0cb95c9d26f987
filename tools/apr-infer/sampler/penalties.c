/* penalties: against repeated tokens of a window, once for each distinct one.
 *
 * Repetition: logit / R where positive, else logit * R (Keskar et al., CTRL, 2019). Then presence + frequency
 * * count is subtracted (as OpenAI's interface defines them). */
#include "step.h"

static bool is_active(const struct apr_sample_opts *o)
{
    return o->repeat_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0;
}

static void apply(struct apr_sampler *s)
{
    const struct apr_sample_opts *o = &s->opts;
    size_t n = apr_history_counts(&s->past, o->repeat_last_n < 0 ? SIZE_MAX : (size_t)o->repeat_last_n);
    float repeat = (float)o->repeat_penalty;
    for (size_t i = 0; i < n; i++) {
        int32_t id = s->past.ids[i];
        float *logit = apr_cands_logit(&s->c, id);
        if (!logit) continue;
        *logit = *logit > 0 ? *logit / repeat : *logit * repeat;
        *logit -= (float)(o->presence_penalty + o->frequency_penalty * s->past.counts[id]);
    }
    if (n) apr_cands_changed(&s->c);
}

const struct apr_step apr_step_penalties = {
    .name = "penalties", .needs = "--repeat-penalty", .active = is_active, .apply = apply};

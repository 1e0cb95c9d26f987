/* temperature: logits / T. With a range R, T follows the entropy of the candidates: with H in nats and n
 * candidates, T = lo + (hi - lo) * (H / ln n)^E, lo = max(0, T - R), hi = T + R. The latter is the entropy
 * sampling of koboldcpp and llama.cpp; after Zhang et al., EDT: Improving Large Language Models' Generation
 * by Entropy-based Dynamic Temperature Sampling, 2024. */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->temperature != 1 || o->dynatemp_range > 0;
}

static void apply(struct apr_sampler *s)
{
    struct apr_cands *c = &s->c;
    double t = s->opts.temperature, range = s->opts.dynatemp_range;
    if (range > 0) {
        apr_cands_probs(c);
        if (c->n < 2) return;
        double lo = fmax(0, t - range), h = apr_cands_entropy(c) / log((double)c->n);
        t = lo + (t + range - lo) * pow(fmin(fmax(h, 0), 1), s->opts.dynatemp_exponent);
    }
    apr_cands_temper(c, t);
}

const struct apr_step apr_step_temperature = {.name = "temperature",
                                              .aliases = "temp temp_ext",
                                              .needs = "--dynatemp-range",
                                              .active = is_active,
                                              .apply = apply};

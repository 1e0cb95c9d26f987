/* typical: tokens whose surprise -ln p is nearest to the entropy H, until their probability exceeds P.
 * Meister et al., Locally Typical Sampling, 2023. */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->typical_p < 1;
}

static void apply(struct apr_sampler *s)
{
    struct apr_cands *c = &s->c;
    apr_cands_probs(c);
    double h = apr_cands_entropy(c), max = (double)apr_cands_max(c), z = 0, sum = 0;
    for (size_t i = 0; i < c->n; i++) z += exp((double)c->at[i].logit - max);
    double log_z = log(fmax(z, 1)); /* the likeliest alone gives 1 */
    for (size_t i = 0; i < c->n; i++)
        c->at[i].p = fabs(log_z + max - (double)c->at[i].logit - h); /* |-ln p - H| */
    for (size_t i = 0, k = 64; i < c->n; k *= 8) {
        apr_cands_sort_scores(c, k);
        for (; i < c->n && i < k; i++) {
            sum += exp((double)c->at[i].logit - max) / z;
            if (sum <= s->opts.typical_p) continue;
            apr_cands_cut(c, i + 1);
            return;
        }
    }
}

const struct apr_step apr_step_typical = {.name = "typical",
                                          .aliases = "typ_p typical_p",
                                          .needs = "--typical-p",
                                          .active = is_active,
                                          .apply = apply};

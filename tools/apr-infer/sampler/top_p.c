/* top_p: the smallest prefix of the sorted tokens whose probability reaches P; at least one. Holtzman et al.,
 * The Curious Case of Neural Text Degeneration, 2020. */
#include "step.h"

static bool is_active(const struct apr_sample_opts *o)
{
    return o->top_p < 1;
}

/* Sorts only as far as needed: 64, 512, 4096 ... tokens, of those that can be in the prefix. All that are
 * less likely than (1 - P) / n together have less than 1 - P, so the prefix ends before them. */
static void apply(struct apr_sampler *s)
{
    struct apr_cands *c = &s->c;
    double p = s->opts.top_p, sum = 0;
    apr_cands_probs(c);
    struct apr_cand *at = c->at;
    size_t n = c->n, n_may = c->n, i = 0;
    if (!c->n_sorted) {
        n_may = 0;
        for (size_t j = 0; j < n; j++) {
            struct apr_cand t = at[j];
            if (t.p * (double)n < (1 - p) * 0.999) continue; /* room for the rounding of p */
            at[j] = at[n_may];
            at[n_may++] = t;
        }
    }
    c->n = n_may;
    c->has_where = false;
    for (size_t k = 64; i < c->n; k *= 8) {
        apr_cands_sort(c, k);
        for (; i < c->n && i < k; i++) {
            sum += at[i].p;
            if (sum < p) continue;
            apr_cands_cut(c, i + 1);
            return;
        }
    }
    apr_cands_cut(c, c->n);
}

const struct apr_step apr_step_top_p = {
    .name = "top_p", .needs = "--top-p", .active = is_active, .apply = apply};

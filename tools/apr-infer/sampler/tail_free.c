/* tail_free: cuts where the sorted probabilities have become flat. Phoenix and Egan, Tail Free Sampling,
 * 2019.
 *
 * d2[i] = |p[i] - 2 p[i+1] + p[i+2]| over the sorted probabilities, normalised to sum 1 (uniform where all
 * are 0); with i the first place at which their running sum exceeds Z, tokens 0 .. i - 1 remain, at least
 * one. Fewer than 3 tokens stay as they are. Needs every token that reaches it in order: put top_k before it.
 */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->tail_free < 1;
}

static double second(const struct apr_cand *at, size_t i)
{
    return fabs((at[i].p - at[i + 1].p) - (at[i + 1].p - at[i + 2].p));
}

static void apply(struct apr_sampler *s)
{
    struct apr_cands *c = &s->c;
    apr_cands_probs(c);
    if (c->n < 3) return;
    apr_cands_sort(c, c->n);
    double sum = 0, run = 0;
    size_t n_second = c->n - 2;
    for (size_t i = 0; i < n_second; i++) sum += second(c->at, i);
    for (size_t i = 0; i < n_second; i++) {
        run += sum > 1e-6 ? second(c->at, i) / sum : 1 / (double)n_second;
        if (run <= s->opts.tail_free || i == 0) continue;
        apr_cands_cut(c, i);
        return;
    }
}

const struct apr_step apr_step_tail_free = {
    .name = "tail_free", .aliases = "tfs tfs_z", .needs = "--tail-free", .active = is_active, .apply = apply};

/* dry (don't repeat yourself): against tokens that would continue a repetition. P. E. Weidmann, 2024
 * (text-generation-webui, pull request 5677).
 *
 * For an earlier place in the text where the last n tokens also stood (n as long as possible, not across a
 * sequence breaker), the token that followed there loses M * B^(n - L), when n >= L; of several places the
 * longest counts. All n come from one pass: the Z function of the text read backwards (Gusfield, Algorithms
 * on Strings, Trees and Sequences, 1997, 1.4). */
#include "step.h"

#include <math.h>

static bool is_active(const struct apr_sample_opts *o)
{
    return o->dry_multiplier > 0;
}

/* z[i]: length of the longest common beginning of t and t + i, for 0 < i < n. */
static void z_function(const int32_t *t, size_t n, uint32_t *z)
{
    size_t left = 0, right = 0; /* the match that reaches farthest */
    for (size_t i = 1; i < n; i++) {
        size_t k = 0;
        if (i < right) k = z[i - left] < right - i ? z[i - left] : right - i;
        while (i + k < n && t[k] == t[i + k]) k++;
        z[i] = (uint32_t)k;
        if (i + k > right) {
            left = i;
            right = i + k;
        }
    }
}

/* The longest repetition that each token would continue, in counts[ids[i]]; returns the number of ids. */
static size_t repetitions(struct apr_history *h, size_t n, size_t least)
{
    size_t n_unbroken = apr_history_unbroken(h), n_ids = 0;
    n = apr_history_back(h, n);
    z_function(h->back, n, h->lengths);
    apr_history_round(h);
    for (size_t i = 1; i < n; i++) {
        size_t n_same = h->lengths[i] < n_unbroken ? h->lengths[i] : n_unbroken;
        if (n_same < least) continue;
        int32_t id = h->back[i - 1];
        if (!apr_history_touched(h, id)) h->ids[n_ids++] = id;
        if (n_same > h->counts[id]) h->counts[id] = (uint32_t)n_same;
    }
    return n_ids;
}

static void apply(struct apr_sampler *s)
{
    const struct apr_sample_opts *o = &s->opts;
    struct apr_history *h = &s->past;
    size_t least = (size_t)o->dry_allowed_length;
    size_t n = repetitions(h, o->dry_last_n < 0 ? SIZE_MAX : (size_t)o->dry_last_n, least);
    for (size_t i = 0; i < n; i++) {
        float *logit = apr_cands_logit(&s->c, h->ids[i]);
        double over = (double)h->counts[h->ids[i]] - (double)least;
        if (logit) *logit -= (float)fmin(o->dry_multiplier * pow(o->dry_base, over), 1e30);
    }
    if (n) apr_cands_changed(&s->c);
}

const struct apr_step apr_step_dry = {
    .name = "dry", .needs = "--dry-multiplier", .active = is_active, .apply = apply};

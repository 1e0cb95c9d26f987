/* Costs, odds, and the best length. */
#include "pace.h"

#define SLOPE_FIRST  0.05 /* of a step's cost for each further token, before any was measured */
#define SLOPE_FIXED  0.10
#define WIDTH_FIRST  4.0 /* SLOPE_FIRST counts as one observation of so many further tokens */
#define FADE         0.97
#define FADE_ODDS    0.95 /* towards the odds counted beforehand, for each outcome */
#define FADE_IDLE    0.99 /* the same, for each proposal that was not tried */
#define LEAST_WEIGHT 1e-3 /* means stay defined, however long ago they were measured */

/* Counted beforehand: so many tokens, of which so many were right. Of edited code (tests/data/lookup, 4000
 * tokens), lookups by a match of 1 token are right in 36 %, of 2 in 50 %, of more in 90 to 99 %. */
#define PRIOR_N 2.0
static const double prior_first[] = {0.75, 0.36, 0.5}; /* [kind] */
#define PRIOR_LONG 0.9                                 /* kinds beyond */
#define PRIOR_NEXT 0.9

static double prior_of(size_t kind)
{
    return kind < sizeof prior_first / sizeof *prior_first ? prior_first[kind] : PRIOR_LONG;
}

void apr_pace_init(struct apr_pace *p, size_t n_min, size_t n_max)
{
    *p = (struct apr_pace){.n_min = n_min, .n_max = n_max < APR_MAX_DRAFT ? n_max : APR_MAX_DRAFT};
    for (size_t i = 0; i < APR_PACE_N_KINDS; i++)
        p->odds[i] = (struct apr_odds){PRIOR_N, PRIOR_N * prior_of(i), PRIOR_N, PRIOR_N * PRIOR_NEXT};
}

void apr_pace_fix(struct apr_pace *p, double draft_cost)
{
    p->is_fixed = true;
    p->draft_time = draft_cost;
    p->draft_weight = 1;
}

size_t apr_pace_lookup_kind(size_t n_match)
{
    return n_match < APR_PACE_N_KINDS - 1 ? n_match : APR_PACE_N_KINDS - 1;
}

/* Seconds that each further token adds to a step of one, t1: least squares through (0, t1). */
static double slope(const struct apr_pace *p, double t1)
{
    double xx = WIDTH_FIRST * WIDTH_FIRST, xy = xx * SLOPE_FIRST * t1;
    for (size_t w = 2; w <= p->n_max + 1; w++) {
        double x = (double)(w - 1);
        if (p->weight[w] <= 0) continue;
        xx += p->weight[w] * x * x;
        xy += x * (p->time[w] - p->weight[w] * t1);
    }
    return xy > 0 ? xy / xx : 0;
}

double apr_pace_cost(const struct apr_pace *p, size_t n_toks)
{
    double x = (double)(n_toks - 1);
    if (p->is_fixed) return 1 + SLOPE_FIXED * x;
    if (p->weight[1] <= 0) return 0;
    double t1 = p->time[1] / p->weight[1];
    if (n_toks == 1) return t1;
    double line = t1 + slope(p, t1) * x;
    return (line + p->time[n_toks]) / (1 + p->weight[n_toks]);
}

static void drift(double *n, double *n_ok, double prior, double keep)
{
    *n = keep * *n + (1 - keep) * PRIOR_N;
    *n_ok = keep * *n_ok + (1 - keep) * PRIOR_N * prior;
}

size_t apr_pace_length(struct apr_pace *p, size_t kind, size_t n_there)
{
    size_t n_most = n_there < p->n_max ? n_there : p->n_max, best_n = 0;
    size_t n_least = p->n_min < n_most ? p->n_min : n_most;
    struct apr_odds *o = &p->odds[kind];
    double chance = o->n_first_ok / o->n_first, next = o->n_next_ok / o->n_next, gain = 1, best = 0;
    double draft = kind == APR_PACE_DRAFT && p->draft_weight > 0 ? p->draft_time / p->draft_weight : 0;
    if (!p->is_fixed && p->weight[1] <= 0) return n_least;
    for (size_t n = 0; n <= n_most; n++) {
        double rate = gain / (apr_pace_cost(p, n + 1) + (double)n * draft);
        if (n >= n_least && rate > best) {
            best = rate;
            best_n = n;
        }
        gain += chance;
        chance *= next;
    }
    if (!best_n && n_most) { /* one that looked bad is tried again some day */
        drift(&o->n_first, &o->n_first_ok, prior_of(kind), FADE_IDLE);
        drift(&o->n_next, &o->n_next_ok, PRIOR_NEXT, FADE_IDLE);
    }
    return best_n;
}

static void observe(double *time, double *weight, double seconds)
{
    *time += seconds;
    *weight += 1;
}

static void fade(double *time, double *weight)
{
    if (*weight < LEAST_WEIGHT) return;
    *time *= FADE;
    *weight *= FADE;
}

void apr_pace_stepped(struct apr_pace *p, size_t n_toks, double seconds)
{
    if (p->is_fixed || !n_toks || n_toks > p->n_max + 1) return;
    for (size_t w = 1; w <= p->n_max + 1; w++) fade(&p->time[w], &p->weight[w]);
    observe(&p->time[n_toks], &p->weight[n_toks], seconds);
}

void apr_pace_drafted(struct apr_pace *p, size_t n_toks, double seconds)
{
    if (p->is_fixed || !n_toks) return;
    fade(&p->draft_time, &p->draft_weight);
    observe(&p->draft_time, &p->draft_weight, seconds / (double)n_toks);
}

void apr_pace_judged(struct apr_pace *p, size_t kind, size_t n_accepted, bool rejected)
{
    struct apr_odds *o = &p->odds[kind];
    size_t n_judged = n_accepted + rejected;
    if (!n_judged) return;
    drift(&o->n_first, &o->n_first_ok, prior_of(kind), FADE_ODDS);
    o->n_first += 1;
    o->n_first_ok += n_accepted > 0;
    if (!n_accepted || n_judged < 2) return;
    drift(&o->n_next, &o->n_next_ok, PRIOR_NEXT, FADE_ODDS);
    o->n_next += (double)(n_judged - 1);
    o->n_next_ok += (double)(n_accepted - 1);
}
